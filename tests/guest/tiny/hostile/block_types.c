/* SPDX-License-Identifier: Apache-2.0 */

/* Requests of types that there are none of, and of features that were not negotiated (5.2.6). */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t types[] = { 2,  3,  5,  6,  7,	      9,	 10,
					  12, 14, 15, 16, 0x80000000, 0xffffffff };

	device_start(DISK);
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		EXPECT(blk_request(types[i], 0, scratch, 512) == BLK_UNSUPP);
		EXPECT(blk_request(types[i], 0, 0, 0) == BLK_UNSUPP);
	}
	EXPECT(blk_request(BLK_GET_ID, 0, scratch, 19) == BLK_IOERR);
	EXPECT(blk_request(BLK_GET_ID, UINT64_MAX, scratch, 4096) == BLK_OK);
	expect_serves(DISK);
	return 0;
}
