/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Features that were not offered, VIRTIO_F_VERSION_1 left out, selectors that select nothing,
 * features changed after FEATURES_OK (2.2, 3.1.1): FEATURES_OK does not stay, or the change does
 * nothing.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	/* Low and high half of what the driver would have. */
	static const uint32_t refused[][2] = {
		{ 0, 0 }, { 1, 0 },	     { 0xffffffff, 1 }, { 1, 1 },
		{ 0, 3 }, { 0, 0xffffffff }, { 1u << 28, 1 },
	};

	*reg(RNG, REG_DEVICE_FEATURES_SELECT) = 2;
	EXPECT(*reg(RNG, REG_DEVICE_FEATURES) == 0);
	*reg(RNG, REG_DEVICE_FEATURES_SELECT) = 0xffffffff;
	EXPECT(*reg(RNG, REG_DEVICE_FEATURES) == 0);
	for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		*reg(RNG, REG_STATUS) = 0;
		*reg(RNG, REG_STATUS) = S_ACKNOWLEDGE | S_DRIVER;
		for (uint32_t half = 0; half < 2; half++) {
			*reg(RNG, REG_DRIVER_FEATURES_SELECT) = half;
			*reg(RNG, REG_DRIVER_FEATURES) = refused[i][half];
		}
		/* All that is beyond the two halves is nowhere. */
		*reg(RNG, REG_DRIVER_FEATURES_SELECT) = 3;
		*reg(RNG, REG_DRIVER_FEATURES) = 1;
		*reg(RNG, REG_STATUS) = S_RUNNING;
		EXPECT(*reg(RNG, REG_STATUS) == (S_ACKNOWLEDGE | S_DRIVER));
	}
	device_start(RNG);
	*reg(RNG, REG_DRIVER_FEATURES_SELECT) = 0;
	*reg(RNG, REG_DRIVER_FEATURES) = 0xffffffff;
	expect_serves(RNG);
	expect_works(RNG);
	return 0;
}
