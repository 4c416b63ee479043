/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Requests for megabytes of random numbers, for none, and in a buffer that is not the device's to
 * write (5.4.6).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[RNG][0];

	device_start(RNG);
	for (unsigned i = 0; i < 20; i++) {
		uint32_t length;

		queue_buffer(queue, 0x300000, 0x100000, DESC_WRITE);
		length = queue_wait(queue);
		EXPECT(length > 0 && length <= 4096);
	}
	queue_buffer(queue, gpa_of(scratch), 4096, 0);
	EXPECT(queue_wait(queue) == 0);
	for (unsigned i = 0; i < RING_SIZE; i++) {
		queue_desc(queue, i, 0x300000, 0x100000, DESC_WRITE | (i < 7 ? DESC_NEXT : 0),
			   (uint16_t)(i + 1));
	}
	queue_offer(queue, 0);
	queue_kick(queue);
	EXPECT(queue_wait(queue) <= 4096);
	EXPECT(AT(32, 0x300000 + 8192) == 0);
	expect_serves(RNG);
	return 0;
}
