/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Starts the second CPU by INIT and SIPI. It goes from real mode to long mode on the boot page
 * tables, says "second" and then counts. The first waits until it counts, says "ready", waits for
 * "go", and ends with 0 when the other still counts.
 */

#include "tests/guest/tiny/guest.h"

#define TRAMPOLINE_GPA 0x10000
#define ICR_INIT       0x4500u
#define ICR_SIPI       0x4600u
#define ICR_DEST_SHIFT 32
#define SETTLE_TICKS   UINT64_C(30000000)
#define PATIENCE_TICKS UINT64_C(20000000000)

extern const uint8_t trampoline[], trampoline_end[];
volatile uint64_t counter;
uint8_t second_stack[4096] __attribute__((aligned(16)));
void second_main(void);

__asm__(".section .rodata\n"
	"trampoline:\n"
	".code16\n"
	"	cli\n"
	"	mov %cs, %ax\n"
	"	mov %ax, %ds\n"
	"	lgdtl gdtr - trampoline\n"
	"	mov %cr4, %eax\n"
	"	or $0x20, %eax\n"
	"	mov %eax, %cr4\n"
	"	mov $0x9000, %eax\n"
	"	mov %eax, %cr3\n"
	"	mov $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	or $0x100, %eax\n"
	"	wrmsr\n"
	"	mov %cr0, %eax\n"
	"	or $0x80000001, %eax\n"
	"	mov %eax, %cr0\n"
	"	ljmpl $0x10, $0x10000 + long_mode - trampoline\n"
	".code64\n"
	"long_mode:\n"
	"	mov $0x18, %eax\n"
	"	mov %eax, %ds\n"
	"	mov %eax, %es\n"
	"	mov %eax, %ss\n"
	"	mov $second_stack + 4096, %rsp\n"
	"	mov $second_main, %rax\n"
	"	jmp *%rax\n"
	".balign 8\n"
	"gdtr:	.word 31\n"
	"	.long 0x500\n"
	"trampoline_end:\n"
	".text\n");

void second_main(void)
{
	print("second\n");
	for (;;) {
		counter++;
	}
}

static void wait_ticks(uint64_t ticks)
{
	uint64_t end = rdtsc() + ticks;

	while (rdtsc() < end) {
	}
}

/* 1 when the other CPU counts within the patience. */
static int counts(void)
{
	uint64_t end = rdtsc() + PATIENCE_TICKS;
	uint64_t before = counter;

	while (rdtsc() < end) {
		if (counter != before) {
			return 1;
		}
	}
	return 0;
}

uint32_t guest_main(void)
{
	for (const uint8_t *p = trampoline; p < trampoline_end; p++) {
		*(volatile uint8_t *)(TRAMPOLINE_GPA + (p - trampoline)) = *p;
	}
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 3u << 10);
	wrmsr(MSR_X2APIC_SPIV, 0x1ff);
	wrmsr(MSR_X2APIC_ICR, UINT64_C(1) << ICR_DEST_SHIFT | ICR_INIT);
	wait_ticks(SETTLE_TICKS);
	wrmsr(MSR_X2APIC_ICR, UINT64_C(1) << ICR_DEST_SHIFT | ICR_SIPI | TRAMPOLINE_GPA >> 12);
	if (!counts()) {
		return 1;
	}
	print("ready\n");
	wait_for_go();
	if (!counts()) {
		return 2;
	}
	print("both run\n");
	return 0;
}
