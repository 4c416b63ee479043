/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sectors beyond the end, sums that overflow, lengths that are no sectors, and none at all
 * (5.2.6.2).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const struct {
		uint64_t sector;
		uint32_t length;
	} cases[] = {
		{ DISK_SECTORS, 512 },
		{ DISK_SECTORS - 1, 1024 },
		{ UINT64_MAX, 512 },
		{ UINT64_MAX / 512, 512 },
		{ UINT64_MAX / 512 + 1, 512 },
		{ UINT64_C(1) << 55, 512 },
		{ UINT64_C(1) << 63, 1024 },
		{ UINT64_MAX - 1, 1024 },
		{ 0, 511 },
		{ 0, 513 },
		{ 0, 1 },
	};

	device_start(DISK);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		EXPECT(blk_request(BLK_IN, cases[i].sector, scratch, cases[i].length) == BLK_IOERR);
		EXPECT(blk_request(BLK_OUT, cases[i].sector, scratch, cases[i].length) ==
		       BLK_IOERR);
	}
	EXPECT(blk_request(BLK_IN, DISK_SECTORS - 1, scratch, 512) == BLK_OK);
	EXPECT(blk_request(BLK_IN, 0, 0, 0) == BLK_IOERR);
	expect_serves(DISK);
	return 0;
}
