/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A status byte in the middle of the request's own data, its header, its descriptors, the used
 * ring: the guest harms itself and nobody else.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[DISK][0];
	const uint64_t places[] = {
		gpa_of(scratch) + 100,	  gpa_of(&blk_header),	     gpa_of(&queue->desc[2]) + 8,
		gpa_of(&queue->used) + 2, gpa_of(&queue->avail) + 2, MEMORY_BYTES - 1,
	};

	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		device_start(DISK);
		blk_header.type = i % 2 ? BLK_IN : BLK_GET_ID;
		blk_header.sector = 3;
		queue_desc(queue, 0, gpa_of(&blk_header), 16, DESC_NEXT, 1);
		queue_desc(queue, 1, gpa_of(scratch), 512, DESC_NEXT | DESC_WRITE, 2);
		queue_desc(queue, 2, places[i], 1, DESC_WRITE, 0);
		queue_offer(queue, 0);
		queue_kick(queue);
		wait_ticks(TICKS_SHORT);
	}
	expect_works(DISK);
	return 0;
}
