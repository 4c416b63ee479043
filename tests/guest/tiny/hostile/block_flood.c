/* SPDX-License-Identifier: Apache-2.0 */

/* A queue that is full of requests over the same memory and the same sectors, again and again. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[DISK][0];
	struct blk_header *headers = (struct blk_header *)scratch;
	volatile uint8_t *status = scratch + 4096;

	device_start(DISK);
	for (unsigned i = 0; i < 6; i++) {
		headers[i].sector = 64;
		queue_desc(queue, i, gpa_of(&headers[i]), 16, DESC_NEXT, 6);
	}
	/* All read megabytes to the same place, from where nothing is run. */
	queue_desc(queue, 6, 0x300000, 0x80000, DESC_WRITE | DESC_NEXT, 7);
	queue_desc(queue, 7, gpa_of(status), 1, DESC_WRITE, 0);
	for (unsigned round = 0; round < 25; round++) {
		*status = BLK_NONE;
		for (uint16_t i = 0; i < 6; i++) {
			queue_offer(queue, i);
			queue_kick(queue);
		}
		for (unsigned i = 0; i < 6; i++) {
			EXPECT(queue_wait(queue) == 0x80001);
		}
		EXPECT(*status == BLK_OK);
	}
	EXPECT(*(volatile uint32_t *)0x300000 == 64);
	expect_serves(DISK);
	return 0;
}
