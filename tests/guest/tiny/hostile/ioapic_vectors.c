/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Vectors that the local APIC refuses (below 16), destinations that are nobody, logical ones:
 * nothing arrives, the VM goes on.
 */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	interrupts_init();
	for (uint32_t vector = 0; vector < 16; vector++) {
		ioapic_write(PIN_HIGH, 0);
		ioapic_write(PIN_LOW, vector);
		expect_works(RNG);
	}
	for (uint32_t destination = 1; destination < 256; destination += 50) {
		ioapic_write(PIN_HIGH, destination << 24);
		ioapic_write(PIN_LOW, VECTOR + 1);
		expect_works(RNG);
		ioapic_write(PIN_LOW, 1u << 11 | (VECTOR + 1));
		expect_works(RNG);
	}
	expect_interrupt();
	return 0;
}
