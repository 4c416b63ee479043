/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Writes, discards and zeroes to a disk that is read-only (5.2.6.2), also after a driver that did
 * not take VIRTIO_BLK_F_RO.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct blk_range *range = (struct blk_range *)(scratch + 4096);

	device_start(DISK);
	range->sector = 0;
	range->sectors = 8;
	range->flags = 0;
	for (uint64_t sector = 0; sector < 4; sector++) {
		EXPECT(blk_request(BLK_OUT, sector, scratch, 512) == BLK_IOERR);
	}
	EXPECT(blk_request(BLK_DISCARD, 0, range, sizeof(*range)) == BLK_UNSUPP);
	EXPECT(blk_request(BLK_ZEROES, 0, range, sizeof(*range)) == BLK_UNSUPP);
	EXPECT(blk_request(BLK_FLUSH, 0, 0, 0) == BLK_OK);
	EXPECT(blk_request(BLK_OUT, DISK_SECTORS, scratch, 512) == BLK_IOERR);
	expect_serves(DISK);
	return 0;
}
