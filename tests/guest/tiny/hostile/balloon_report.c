/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Free pages reported that are no whole pages, overlap each other, are the rings themselves, or are
 * not the device's to write (5.5.6.7).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[BALLOON][2];
	uint64_t page = gpa_of(scratch);

	for (unsigned i = 0; i < 4096; i += 64) {
		scratch[i] = 0x77;
		scratch[8192 + i] = 0x77;
	}
	device_start(BALLOON);
	queue_buffer(queue, page + 1, 4095, DESC_WRITE);
	queue_wait(queue);
	queue_buffer(queue, page, 4095, DESC_WRITE);
	queue_wait(queue);
	queue_buffer(queue, page + 2048, 4096, DESC_WRITE);
	queue_wait(queue);
	queue_buffer(queue, page, 4096, 0);
	queue_wait(queue);
	EXPECT(((volatile uint8_t *)scratch)[0] == 0x77);
	for (uint16_t i = 0; i < RING_SIZE; i++) {
		queue_desc(queue, i, page + 8192u - 1, 4097u + i,
			   DESC_WRITE | (i < 7 ? DESC_NEXT : 0), (uint16_t)(i + 1));
	}
	queue_offer(queue, 0);
	queue_kick(queue);
	queue_wait(queue);
	EXPECT(((volatile uint8_t *)scratch)[8192] == 0);
	/* The pages that hold the rings, in which the device then reads zeros. */
	queue_buffer(queue, gpa_of(queues) & ~UINT64_C(4095), 8192, DESC_WRITE);
	wait_ticks(TICKS_SHORT);
	queue_kick(queue);
	expect_works(BALLOON);
	return 0;
}
