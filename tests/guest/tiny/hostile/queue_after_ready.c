/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The registers of a queue written after it was made ready, and after DRIVER_OK (4.2.2.2). The
 * class of CVE-2026-5747: a device that takes the new addresses or size on then works on rings that
 * nobody checked. Here they change nothing.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (unsigned device = 0; device < DEVICES; device++) {
		device_negotiate(device);
		queue_set_up(device, 0);
		for (unsigned number = 0; number < 4; number++) {
			queue_registers(device, number, 0x10000, UINT64_MAX, UINT64_MAX,
					UINT64_MAX);
		}
		expect_works(device);
		for (unsigned number = 0; number < 4; number++) {
			uint32_t was_ready;

			queue_registers(device, number, 0x80000000, 0xfee00000, MEMORY_BYTES - 2,
					UINT64_MAX - 63);
			was_ready = *reg(device, REG_QUEUE_READY);
			*reg(device, REG_QUEUE_READY) = 0;
			EXPECT(*reg(device, REG_QUEUE_READY) == was_ready);
			*reg(device, REG_QUEUE_READY) = 1;
			EXPECT(*reg(device, REG_QUEUE_READY) == was_ready);
			*reg(device, REG_QUEUE_READY) = 2;
			*reg(device, REG_QUEUE_NOTIFY) = number;
		}
		/* The vsock device's receive buffers are where they were, too. */
		expect_serves(device);
	}
	return 0;
}
