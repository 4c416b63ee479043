/* SPDX-License-Identifier: Apache-2.0 */

/*
 * An interrupt of a device delivered as INIT: the CPU starts where firmware would be and there is
 * none.
 */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	interrupts_init();
	print("going\n");
	ioapic_write(PIN_HIGH, 0);
	ioapic_write(PIN_LOW, DELIVERY(5) | VECTOR);
	expect_works(RNG);
	wait_ticks(TICKS_SHORT * 10);
	return 0;
}
