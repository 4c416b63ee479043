/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Requests without a header, with half of one, without a status byte, and the header cut into
 * bytes, which is allowed (5.2.6).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[DISK][0];

	for (unsigned i = 0; i < 4; i++) {
		device_start(DISK);
		blk_header.type = BLK_IN;
		blk_header.sector = 0;
		blk_status = BLK_NONE;
		queue_desc(queue, 0, gpa_of(&blk_header), i == 0 ? 15 : 16, i < 2 ? DESC_NEXT : 0,
			   1);
		queue_desc(queue, 1, gpa_of(scratch), 512, i == 1 ? 0 : DESC_WRITE, 0);
		/* A short header; no status; no more than a header; no header. */
		queue_offer(queue, i == 3);
		queue_kick(queue);
		expect_needs_reset(DISK);
		EXPECT(blk_status == BLK_NONE);
	}
	device_start(DISK);
	for (uint16_t i = 0; i < 5; i++) {
		queue_desc(queue, i, gpa_of(&blk_header) + (i == 0 ? 0 : 12 + i - 1),
			   i == 0 ? 12 : 1, DESC_NEXT, (uint16_t)(i + 1));
	}
	queue_desc(queue, 5, gpa_of(scratch), 512, DESC_NEXT | DESC_WRITE, 6);
	queue_desc(queue, 6, gpa_of(&blk_status), 1, DESC_WRITE, 0);
	queue_offer(queue, 0);
	queue_kick(queue);
	EXPECT(queue_wait(queue) == 513);
	EXPECT(blk_status == BLK_OK);
	return 0;
}
