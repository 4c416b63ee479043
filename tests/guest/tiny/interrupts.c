/* SPDX-License-Identifier: Apache-2.0 */

/* IDT and local APIC of the tiny guests that take interrupts or exceptions. */

#include "tests/guest/tiny/guest.h"

#define CODE_SELECTOR	0x10
#define GATE_INTERRUPT	0x8e00
#define STUB_BYTES	32
#define APIC_ENABLED	(1u << 11)
#define APIC_X2APIC	(1u << 10)
#define SPURIOUS_ENABLE 0x1ff
#define EXCEPTIONS	32
#define VECTOR_NMI	2

struct gate {
	uint16_t offset_low;
	uint16_t selector;
	uint16_t type;
	uint16_t offset_middle;
	uint32_t offset_high;
	uint32_t reserved;
};

struct __attribute__((packed)) table_register {
	uint16_t limit;
	uint64_t base;
};

extern const uint8_t interrupt_stubs[], exception_stub[], nmi_stub[];
volatile uint32_t interrupt_count[VECTORS];
volatile uint32_t nmi_count;
static void no_resume(void);
void (*exception_resume)(void) = no_resume;
uint64_t exception_stack;
uint32_t raises_outcome;
static struct gate idt[VECTOR_FIRST + VECTORS];

/* A guest that expects an exception goes on at exception_resume with the stack that it noted: no
 * matter which exception it was, and whether it came with an error code. */
__asm__(".balign 16\n"
	"exception_stub:\n"
	"	mov exception_stack(%rip), %rsp\n"
	"	jmp *exception_resume(%rip)\n"
	".balign 16\n"
	"nmi_stub:\n"
	"	incl nmi_count(%rip)\n"
	"	iretq\n");

static uint8_t last_stack[1024] __attribute__((aligned(16)));

static void no_resume(void)
{
	print("unexpected exception\n");
	outb(PORT_EXIT, 99);
	for (;;) {
		__asm__ volatile("hlt");
	}
}

static void set_gate(unsigned vector, const uint8_t *entry)
{
	uint64_t address = (uint64_t)(uintptr_t)entry;

	idt[vector].offset_low = (uint16_t)address;
	idt[vector].selector = CODE_SELECTOR;
	idt[vector].type = GATE_INTERRUPT;
	idt[vector].offset_middle = (uint16_t)(address >> 16);
	idt[vector].offset_high = (uint32_t)(address >> 32);
}

void exceptions_init(void)
{
	struct table_register idtr = { sizeof(idt) - 1, (uint64_t)(uintptr_t)idt };

	exception_stack = (uint64_t)(uintptr_t)(last_stack + sizeof(last_stack));
	for (unsigned i = 0; i < EXCEPTIONS; i++) {
		set_gate(i, exception_stub);
	}
	set_gate(VECTOR_NMI, nmi_stub);
	__asm__ volatile("lidt %0" : : "m"(idtr));
}

void interrupts_init(void)
{
	struct table_register idtr = { sizeof(idt) - 1, (uint64_t)(uintptr_t)idt };

	for (unsigned i = 0; i < VECTORS; i++) {
		set_gate(VECTOR_FIRST + i, interrupt_stubs + i * STUB_BYTES);
	}
	__asm__ volatile("lidt %0" : : "m"(idtr));
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_ENABLED | APIC_X2APIC);
	wrmsr(MSR_X2APIC_SPIV, SPURIOUS_ENABLE);
}
