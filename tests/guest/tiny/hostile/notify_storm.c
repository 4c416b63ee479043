/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Thousands of notifications: of queues that do not exist, are not ready or are empty, of devices
 * that nobody has set up, in every width (4.2.2.2).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (unsigned device = 0; device < DEVICES; device++) {
		*reg(device, REG_STATUS) = 0;
		for (unsigned i = 0; i < 200; i++) {
			*reg(device, REG_QUEUE_NOTIFY) = i % 8;
		}
		if (device == VSOCK) {
			vsock_start();
		} else {
			device_start(device);
		}
		for (unsigned i = 0; i < 500; i++) {
			*reg(device, REG_QUEUE_NOTIFY) = i % 8;
			*reg(device, REG_QUEUE_NOTIFY) = i << 16;
			if (i % 8 == 0) {
				AT(8, DEVICE_BASE(device) + REG_QUEUE_NOTIFY) = 0;
				AT(16, DEVICE_BASE(device) + REG_QUEUE_NOTIFY) = 0;
				AT(64, DEVICE_BASE(device) + REG_QUEUE_NOTIFY) = 0;
				*reg(device, REG_QUEUE_NOTIFY) = 0xffffffff;
			}
		}
		expect_serves(device);
	}
	return 0;
}
