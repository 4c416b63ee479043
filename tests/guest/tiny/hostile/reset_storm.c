/* SPDX-License-Identifier: Apache-2.0 */

/* Every device set up and reset a hundred times over, in every stage. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (unsigned i = 0; i < 100; i++) {
		for (unsigned device = 0; device < DEVICES; device++) {
			if (i % 4 == 0) {
				device_negotiate(device);
				*reg(device, REG_STATUS) = 0;
				*reg(device, REG_STATUS) = 0;
			} else if (i % 4 == 1) {
				device_negotiate(device);
				queue_set_up(device, 0);
				*reg(device, REG_STATUS) = 0;
			} else {
				device_start(device);
				queue_buffer(&queues[device][0], gpa_of(scratch), 64, DESC_WRITE);
			}
		}
	}
	for (unsigned device = 0; device < DEVICES; device++) {
		expect_works(device);
	}
	return 0;
}
