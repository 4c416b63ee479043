/* SPDX-License-Identifier: Apache-2.0 */

/* The way of a second CPU from INIT and SIPI to long mode, on the boot page tables. */

#include "tests/guest/tiny/second.h"

#define TRAMPOLINE_GPA 0x10000
#define ICR_INIT       0x4500u
#define ICR_SIPI       0x4600u
#define ICR_DEST_SHIFT 32
#define SETTLE_TICKS   UINT64_C(30000000)

extern const uint8_t trampoline[], trampoline_end[];
uint8_t second_stack[4096] __attribute__((aligned(16)));

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

void second_start(void)
{
	uint64_t settled;

	for (const uint8_t *p = trampoline; p < trampoline_end; p++) {
		*(volatile uint8_t *)(TRAMPOLINE_GPA + (p - trampoline)) = *p;
	}
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 3u << 10);
	wrmsr(MSR_X2APIC_SPIV, 0x1ff);
	wrmsr(MSR_X2APIC_ICR, UINT64_C(1) << ICR_DEST_SHIFT | ICR_INIT);
	settled = rdtsc() + SETTLE_TICKS;
	while (rdtsc() < settled) {
	}
	wrmsr(MSR_X2APIC_ICR, UINT64_C(1) << ICR_DEST_SHIFT | ICR_SIPI | TRAMPOLINE_GPA >> 12);
}
