/* SPDX-License-Identifier: Apache-2.0 */

/* Heads of chains, and links in them, that are outside of the descriptor table (2.7.5, 2.7.6). */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint16_t numbers[] = { RING_SIZE, RING_SIZE + 1, 0x8000, 0xffff };

	for (unsigned i = 0; i < 2 * sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct queue *queue = &queues[RNG][0];

		device_start(RNG);
		queue_desc(queue, 0, gpa_of(scratch), 16, DESC_WRITE | DESC_NEXT, numbers[i / 2]);
		queue_offer(queue, i % 2 ? numbers[i / 2] : 0);
		queue_kick(queue);
		expect_needs_reset(RNG);
		EXPECT(queue->used.index == 0);
	}
	expect_works(RNG);
	return 0;
}
