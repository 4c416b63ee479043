/* SPDX-License-Identifier: Apache-2.0 */

/* An interrupt of a device delivered as SMI, which no firmware is there for. */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	interrupts_init();
	print("going\n");
	ioapic_write(PIN_HIGH, 0);
	ioapic_write(PIN_LOW, DELIVERY(2));
	expect_works(RNG);
	wait_ticks(TICKS_SHORT);
	return 0;
}
