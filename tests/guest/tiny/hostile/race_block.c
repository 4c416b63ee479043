/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A second CPU that rewrites a disk request's header and range between good and bad while the
 * device reads them: each is copied once. What was not asked for is not written.
 */

#include "tests/guest/tiny/hostile/race.h"

/* Sectors from 1024 on, or beyond the end. */
static void disturb(uint32_t round)
{
	struct blk_range *range = (struct blk_range *)scratch;

	blk_header.sector = round % 3 ? 1024 : UINT64_MAX - round;
	range->sectors = round % 5 ? 8 : 0xffffffff;
	range->flags = round % 7 ? 0 : 0xffffffff;
	range->sector = round % 2 ? 1024 : DISK_SECTORS;
}

uint32_t guest_main(void)
{
	device_start(DISK);
	race_start();
	for (unsigned i = 0; i < 200; i++) {
		uint8_t status =
			blk_request(i % 2 ? BLK_ZEROES : BLK_OUT, 1024, scratch, i % 2 ? 16 : 512);

		EXPECT(status == BLK_OK || status == BLK_IOERR || status == BLK_UNSUPP);
	}
	race_end();
	expect_works(DISK);
	return 0;
}
