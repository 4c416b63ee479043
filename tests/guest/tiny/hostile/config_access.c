/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The configuration space, read and written in every width at every offset, across its end and that
 * of the device's page (2.5, 4.2.2): nothing in it changes, nothing beside it shows.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (unsigned device = 0; device < DEVICES; device++) {
		uintptr_t config = DEVICE_BASE(device) + REG_CONFIG;
		uint8_t before[72];
		uint32_t generation = *reg(device, REG_CONFIG_GENERATION);

		for (unsigned i = 0; i < sizeof(before); i++) {
			before[i] = AT(8, config + i);
		}
		for (unsigned i = 0; i < sizeof(before) + 8; i++) {
			AT(8, config + i) = 0x5a;
			AT(16, config + i) = 0x5a5a;
			AT(32, config + i) = 0x5a5a5a5a;
			AT(64, config + i) = UINT64_C(0x5a5a5a5a5a5a5a5a);
			(void)AT(16, config + i);
			(void)AT(32, config + i);
			(void)AT(64, config + i);
		}
		for (unsigned i = 0; i < sizeof(before); i++) {
			EXPECT(AT(8, config + i) == before[i]);
		}
		EXPECT(before[sizeof(before) - 1] == 0);
		for (uintptr_t end = DEVICE_BASE(device) + 0x1000, at = end - 9; at < end; at++) {
			AT(64, at) = UINT64_MAX;
			EXPECT(AT(8, at) == 0);
			(void)AT(16, at);
			(void)AT(32, at);
			(void)AT(64, at);
		}
		EXPECT(*reg(device, REG_CONFIG_GENERATION) == generation);
		expect_works(device);
	}
	return 0;
}
