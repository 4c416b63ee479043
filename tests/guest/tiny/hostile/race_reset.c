/* SPDX-License-Identifier: Apache-2.0 */

/* One CPU that hands requests to the disk and another that resets it. */

#include "tests/guest/tiny/hostile/race.h"

static void disturb(uint32_t round)
{
	wait_ticks(round % 16 * 40000);
	*reg(DISK, REG_STATUS) = 0;
}

uint32_t guest_main(void)
{
	device_start(DISK);
	race_start();
	for (unsigned i = 0; i < 150; i++) {
		blk_submit(i % 2 ? BLK_FLUSH : BLK_IN, 0, i % 2 ? 0 : (void *)0x300000,
			   i % 2 ? 0 : 0x40000);
		if (*reg(DISK, REG_STATUS) != S_RUNNING) {
			*reg(DISK, REG_STATUS) = 0;
			*reg(DISK, REG_STATUS) = S_ACKNOWLEDGE | S_DRIVER;
			*reg(DISK, REG_DRIVER_FEATURES_SELECT) = 1;
			*reg(DISK, REG_DRIVER_FEATURES) = 1;
			*reg(DISK, REG_STATUS) = S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK;
			queues[DISK][0].avail.index = 0;
			queue_registers(DISK, 0, RING_SIZE, gpa_of(queues[DISK][0].desc),
					gpa_of(&queues[DISK][0].avail),
					gpa_of(&queues[DISK][0].used));
			*reg(DISK, REG_QUEUE_READY) = 1;
			*reg(DISK, REG_STATUS) = S_RUNNING;
		}
	}
	race_end();
	expect_works(DISK);
	return 0;
}
