/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Buffers that overlap: all of a chain the same bytes, the rings themselves, the request's own
 * header (nothing forbids it): the device serves or breaks, and works after a reset.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *rng = &queues[RNG][0], *disk = &queues[DISK][0];

	/* Random bytes over the device's own descriptors and indexes. */
	device_start(RNG);
	queue_buffer(rng, gpa_of(rng), sizeof(rng->desc) + sizeof(rng->avail), DESC_WRITE);
	wait_ticks(TICKS_SHORT);
	/* A header, the data and the status in one place; then the data over all of the rings. */
	device_start(DISK);
	blk_header.type = BLK_IN;
	blk_header.sector = 0;
	queue_desc(disk, 0, gpa_of(&blk_header), 16, DESC_NEXT, 1);
	queue_desc(disk, 1, gpa_of(&blk_header), 512, DESC_NEXT | DESC_WRITE, 2);
	queue_desc(disk, 2, gpa_of(&blk_header), 1, DESC_WRITE, 0);
	queue_offer(disk, 0);
	queue_kick(disk);
	queue_wait(disk);
	device_start(DISK);
	blk_submit(BLK_IN, 0, disk, 512);
	wait_ticks(TICKS_SHORT);
	expect_works(DISK);
	expect_works(RNG);
	return 0;
}
