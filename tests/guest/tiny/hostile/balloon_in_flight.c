/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Pages put into the balloon that the disk is about to fill: the data arrives or not, the guest's
 * own either way.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	volatile uint32_t *list = (uint32_t *)scratch;

	device_start(BALLOON);
	device_start(DISK);
	for (uint32_t i = 0; i < 64; i++) {
		list[i] = 0x300 + i;
	}
	for (unsigned round = 0; round < 20; round++) {
		blk_submit(BLK_IN, 0, (void *)0x300000, 64 * 4096);
		queue_buffer(&queues[BALLOON][0], gpa_of(list), 256, 0);
		queue_wait(&queues[DISK][0]);
		queue_wait(&queues[BALLOON][0]);
		EXPECT(blk_status == BLK_OK);
	}
	expect_works(DISK);
	expect_works(BALLOON);
	return 0;
}
