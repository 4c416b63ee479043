/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Descriptor table, available ring and used ring in one place: the device reads what it has
 * written, and is cured by a reset.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	uint64_t at = gpa_of(scratch);

	for (unsigned offset = 0; offset < 64; offset += 16) {
		device_negotiate(RNG);
		queue_registers(RNG, 0, RING_SIZE, at, at + offset, at);
		*reg(RNG, REG_QUEUE_READY) = 1;
		*reg(RNG, REG_STATUS) = S_RUNNING;
		for (unsigned i = 0; i < 64; i++) {
			((struct desc *)scratch)[i % 8].gpa = at + i;
			((struct desc *)scratch)[i % 8].length = 16;
			((struct desc *)scratch)[i % 8].flags = (uint16_t)(i % 4);
			((struct desc *)scratch)[i % 8].next = (uint16_t)(i % 8);
			*reg(RNG, REG_QUEUE_NOTIFY) = 0;
		}
	}
	expect_works(RNG);
	return 0;
}
