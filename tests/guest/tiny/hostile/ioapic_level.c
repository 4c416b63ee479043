/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A pin switched between level and edge, masked and unmasked with an edge outstanding, ends of
 * interrupts that never were: each interrupt arrives once.
 */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	uint32_t seen;

	interrupts_init();
	for (unsigned i = 0; i < 20; i++) {
		wrmsr(MSR_X2APIC_EOI, 0);
		ioapic_write(PIN_LOW, VECTOR | LEVEL);
		ioapic_write(PIN_LOW, VECTOR | LEVEL | MASKED);
		ioapic_write(PIN_LOW, VECTOR | MASKED);
	}
	expect_works(RNG);
	EXPECT(interrupt_count[0] == 0);
	seen = interrupt_count[0];
	ioapic_write(PIN_LOW, VECTOR | LEVEL);
	halt_until(VECTOR, seen);
	for (unsigned i = 0; i < 20; i++) {
		ioapic_write(PIN_LOW, VECTOR | (i % 2 ? LEVEL : 0) | MASKED);
		ioapic_write(PIN_LOW, VECTOR | (i % 2 ? LEVEL : 0));
	}
	__asm__ volatile("sti; nop; nop; cli" : : : "memory");
	EXPECT(interrupt_count[0] == seen + 1);
	expect_interrupt();
	return 0;
}
