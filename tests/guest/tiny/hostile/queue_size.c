/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Queue sizes that are none: 0, no power of two, more than the device has, more than 16 bits (2.7).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t sizes[] = { 0,	  3,	   7,	    65,		128,
					  0x8000, 0x10000, 0x10008, 0x80000000, 0xffffffff };
	const struct queue *queue = &queues[RNG][0];

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		device_negotiate(RNG);
		queue_registers(RNG, 0, sizes[i], gpa_of(queue->desc), gpa_of(&queue->avail),
				gpa_of(&queue->used));
		*reg(RNG, REG_QUEUE_READY) = 1;
		EXPECT(*reg(RNG, REG_QUEUE_READY) == 0);
		EXPECT(*reg(RNG, REG_STATUS) & S_NEEDS_RESET);
		*reg(RNG, REG_STATUS) = S_RUNNING;
		*reg(RNG, REG_QUEUE_NOTIFY) = 0;
	}
	expect_works(RNG);
	return 0;
}
