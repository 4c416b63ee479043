/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every page of memory written, the boot tables, its own code and the rings included, with what is
 * there already.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	device_start(RNG);
	for (uintptr_t page = 0; page < MEMORY_BYTES; page += 4096) {
		uint32_t before;

		/* What a pass over memory finds in the ballooned and in the used pages alike. */
		before = AT(32, page + 8);
		AT(32, page + 8) = before;
	}
	expect_serves(RNG);
	for (unsigned device = 0; device < DEVICES; device++) {
		expect_works(device);
	}
	return 0;
}
