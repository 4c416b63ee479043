/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every index of the IOAPIC, written with ones and zeros: entries beyond the 24 pins do not exist,
 * identification and read-only bits stay.
 */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	uint32_t version = ioapic_read(1);

	interrupts_init();
	for (uint32_t value = 0; value < 2; value++) {
		for (uint32_t index = 0; index < 256; index++) {
			ioapic_write(index, value ? 0 : 0xffffffff);
			if (index >= 0x10 + 48) {
				EXPECT(ioapic_read(index) == 0);
			}
		}
		EXPECT(ioapic_read(1) == version);
	}
	ioapic_write(PIN_LOW, MASKED | REMOTE | PENDING | 0xfffe0000);
	EXPECT(ioapic_read(PIN_LOW) == MASKED);
	/* The select register is a byte. */
	ioapic_write(0xffffff01, 0xffffffff);
	EXPECT(ioapic_read(0x100 | 1) == version);
	for (uint32_t pin = 0; pin < 24; pin++) {
		ioapic_write(0x10 + 2 * pin, MASKED);
	}
	expect_interrupt();
	return 0;
}
