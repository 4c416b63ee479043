/* SPDX-License-Identifier: Apache-2.0 */

/* A chain of more than 2^32 bytes (2.7.5.2), made of a gigabyte that is named over and over. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[RNG][0];

	device_start(RNG);
	for (unsigned i = 0; i < RING_SIZE; i++) {
		queue_desc(queue, i, 0, 1u << 30, DESC_WRITE | (i + 1 < RING_SIZE ? DESC_NEXT : 0),
			   (uint16_t)(i + 1));
	}
	queue_offer(queue, 0);
	queue_kick(queue);
	expect_needs_reset(RNG);
	EXPECT(queue->used.index == 0);
	expect_works(RNG);
	return 0;
}
