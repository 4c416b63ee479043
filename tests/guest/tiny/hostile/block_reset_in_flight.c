/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A reset while the disk works on flushes and writes of zeros, which it does in the background. The
 * class of CVE-2026-45782: their completions find memory that the guest has put to another use.
 * Here the reset waits for them, and what they would have written stays away.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[DISK][0];
	struct blk_header *headers = (struct blk_header *)scratch;
	struct blk_range *range = (struct blk_range *)(scratch + 1024);
	volatile uint8_t *status = scratch + 2048;

	range->sector = 1024;
	range->sectors = 1024;
	for (unsigned round = 0; round < 40; round++) {
		device_start(DISK);
		/* Two descriptors are the range and the status of all; six headers. */
		queue_desc(queue, 6, gpa_of(range), sizeof(*range), DESC_NEXT, 7);
		queue_desc(queue, 7, gpa_of(status), 1, DESC_WRITE, 0);
		for (unsigned i = 0; i < 6; i++) {
			headers[i].type = i % 2 ? BLK_ZEROES : BLK_FLUSH;
			queue_desc(queue, i, gpa_of(&headers[i]), 16, DESC_NEXT, i % 2 ? 6 : 7);
			queue_offer(queue, (uint16_t)i);
		}
		queue_kick(queue);
		/* At another moment each time, the first of them at once. */
		wait_ticks(round * UINT64_C(30000));
		*reg(DISK, REG_STATUS) = 0;
		*status = 0x77;
		queue->used.index = 0x7777;
		wait_ticks(UINT64_C(2000000));
		EXPECT(*status == 0x77);
		EXPECT(queue->used.index == 0x7777);
	}
	expect_works(DISK);
	return 0;
}
