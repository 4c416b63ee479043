/* SPDX-License-Identifier: Apache-2.0 */

/* The reset ports with values that do not reset, then as the low byte of 32 bits. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	outb(0x64, 0);
	outb(0x64, 0xff);
	outb(0xcf9, 0x02);
	outw(0xcf9, 0xff00);
	outb(0x92, 1);
	expect_works(RNG);
	outl(0xcf9, 0xaaaaaa06);
	wait_ticks(TICKS_SHORT * 100);
	return 0;
}
