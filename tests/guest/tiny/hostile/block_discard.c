/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ranges to discard or to fill with zeros: beyond the end, of no sectors, of too many, two at once,
 * half of one, unknown flags (5.2.6.2).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const struct {
		uint64_t sector;
		uint32_t sectors, flags, length;
		uint8_t discard, zeroes;
	} cases[] = {
		{ DISK_SECTORS, 1, 0, 16, BLK_IOERR, BLK_IOERR },
		{ DISK_SECTORS - 1, 2, 0, 16, BLK_IOERR, BLK_IOERR },
		{ UINT64_MAX, 1, 0, 16, BLK_IOERR, BLK_IOERR },
		{ UINT64_MAX / 512 + 1, 1, 0, 16, BLK_IOERR, BLK_IOERR },
		{ 0, 0, 0, 16, BLK_IOERR, BLK_IOERR },
		{ 0, 0xffffffff, 0, 16, BLK_IOERR, BLK_IOERR },
		{ 0, 0x400001, 0, 16, BLK_IOERR, BLK_IOERR },
		{ 0, 1, 2, 16, BLK_UNSUPP, BLK_UNSUPP },
		{ 0, 1, 0xffffffff, 16, BLK_UNSUPP, BLK_UNSUPP },
		{ 1000, 1, 1, 16, BLK_UNSUPP, BLK_OK },
		{ 0, 1, 0, 15, BLK_IOERR, BLK_IOERR },
		{ 0, 1, 0, 32, BLK_IOERR, BLK_IOERR },
		{ 0, 1, 0, 0, BLK_IOERR, BLK_IOERR },
		{ 1000, 8, 0, 16, BLK_OK, BLK_OK },
	};
	struct blk_range *range = (struct blk_range *)(scratch + 4096);

	device_start(DISK);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		range->sector = cases[i].sector;
		range->sectors = cases[i].sectors;
		range->flags = cases[i].flags;
		EXPECT(blk_request(BLK_DISCARD, 0, range, cases[i].length) == cases[i].discard);
		EXPECT(blk_request(BLK_ZEROES, 0, range, cases[i].length) == cases[i].zeroes);
	}
	EXPECT(blk_request(BLK_IN, 1000, scratch, 512) == BLK_OK);
	EXPECT(*(volatile uint32_t *)scratch == 0);
	expect_serves(DISK);
	return 0;
}
