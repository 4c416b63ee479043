/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Registers in widths other than 32 bits and unaligned (4.2.2.2): reads give 0, writes do nothing.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	device_start(RNG);
	for (uint32_t offset = 0; offset < REG_CONFIG; offset += 4) {
		uintptr_t at = DEVICE_BASE(RNG) + offset;

		EXPECT(AT(8, at) == 0);
		EXPECT(AT(16, at) == 0);
		EXPECT(AT(64, at) == 0);
		EXPECT(AT(32, at + 2) == 0);
		if (offset != REG_QUEUE_NOTIFY) {
			AT(8, at) = 0;
			AT(16, at) = 0;
			AT(64, at) = 0;
			AT(32, at + 1) = 0;
		}
	}
	EXPECT(*reg(RNG, REG_STATUS) == S_RUNNING);
	expect_serves(RNG);
	return 0;
}
