/* SPDX-License-Identifier: Apache-2.0 */

/* IDT and local APIC of the tiny guests that take interrupts. */

#include "tests/guest/tiny/guest.h"

#define CODE_SELECTOR	0x10
#define GATE_INTERRUPT	0x8e00
#define STUB_BYTES	32
#define APIC_ENABLED	(1u << 11)
#define APIC_X2APIC	(1u << 10)
#define SPURIOUS_ENABLE 0x1ff

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

extern const uint8_t interrupt_stubs[];
volatile uint32_t interrupt_count[VECTORS];
static struct gate idt[VECTOR_FIRST + VECTORS];

void interrupts_init(void)
{
	struct table_register idtr = { sizeof(idt) - 1, (uint64_t)(uintptr_t)idt };

	for (unsigned i = 0; i < VECTORS; i++) {
		uint64_t stub = (uint64_t)(uintptr_t)(interrupt_stubs + i * STUB_BYTES);
		struct gate *gate = &idt[VECTOR_FIRST + i];

		gate->offset_low = (uint16_t)stub;
		gate->selector = CODE_SELECTOR;
		gate->type = GATE_INTERRUPT;
		gate->offset_middle = (uint16_t)(stub >> 16);
		gate->offset_high = (uint32_t)(stub >> 32);
	}
	__asm__ volatile("lidt %0" : : "m"(idtr));
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_ENABLED | APIC_X2APIC);
	wrmsr(MSR_X2APIC_SPIV, SPURIOUS_ENABLE);
}
