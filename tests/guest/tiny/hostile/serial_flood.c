/* SPDX-License-Identifier: Apache-2.0 */

/* Thirty kilobytes to the serial port in strings of pages. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (unsigned i = 0; i < 8; i++) {
		const uint8_t *from = scratch;
		uint64_t count = 4000;

		__asm__ volatile("rep outsb"
				 : "+S"(from), "+c"(count)
				 : "d"(PORT_SERIAL)
				 : "memory");
	}
	expect_works(RNG);
	return 0;
}
