/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Addresses that are neither memory nor a device, in every width, and accesses that straddle
 * memory's end, device pages and the IOAPIC: ones are read, nothing is written.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t edges[] = {
		0xbfffffff,	    0xc0000000,	      DEVICE_BASE(0) - 3, DEVICE_BASE(DEVICES) - 3,
		DEVICE_BASE(8) - 1, DEVICE_BASE(100), 0xfebffffd,	  0xfec01000,
		0xfed00000,	    0xfffffff0,
	};

	for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		AT(8, edges[i]) = 0;
		AT(16, edges[i]) = 0;
		AT(32, edges[i]) = 0;
		AT(64, edges[i]) = 0;
		(void)AT(16, edges[i]);
		(void)AT(32, edges[i]);
		(void)AT(64, edges[i]);
	}
	AT(8, MEMORY_BYTES - 1) = 0x5a;
	EXPECT(AT(16, MEMORY_BYTES - 1) == 0xff5a);
	EXPECT(AT(32, DEVICE_BASE(DEVICES)) == 0xffffffff);
	EXPECT(AT(64, 0xc0000000) == UINT64_MAX);
	for (unsigned device = 0; device < DEVICES; device++) {
		expect_works(device);
	}
	return 0;
}
