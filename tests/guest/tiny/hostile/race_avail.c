/* SPDX-License-Identifier: Apache-2.0 */

/* A second CPU that rewrites the available index and ring while the device reads them. */

#include "tests/guest/tiny/hostile/race.h"

static void disturb(uint32_t round)
{
	struct queue *queue = &queues[RNG][0];

	queue->avail.ring[round % RING_SIZE] = (uint16_t)(round % 11);
	queue->avail.index = (uint16_t)(queue->used.index + round % 12);
	queue->avail.flags = (uint16_t)round;
}

uint32_t guest_main(void)
{
	device_start(RNG);
	for (unsigned i = 0; i < RING_SIZE; i++) {
		queue_desc(&queues[RNG][0], i, 0x300000, 64, DESC_WRITE, 0);
	}
	race_start();
	for (unsigned i = 0; i < 400; i++) {
		queue_kick(&queues[RNG][0]);
		if (*reg(RNG, REG_STATUS) & S_NEEDS_RESET) {
			device_start(RNG);
		}
	}
	race_end();
	expect_works(RNG);
	return 0;
}
