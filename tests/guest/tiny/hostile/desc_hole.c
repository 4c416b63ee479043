/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Buffers in the MMIO hole, on device registers, on the interrupt controllers, above 4 GiB (2.7.5).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint64_t holes[] = {
		0xc0000000,
		DEVICE_BASE(RNG),
		DEVICE_BASE(DISK) + REG_CONFIG,
		0xfec00000,
		0xfee00000,
		0xfffbd000,
		UINT64_C(0x100000000),
		UINT64_C(0x100000000) + 0x200000,
		UINT64_C(1) << 52,
		UINT64_C(1) << 63,
	};

	for (unsigned i = 0; i < sizeof(holes) / sizeof(holes[0]); i++) {
		for (unsigned device = 0; device < DEVICES; device++) {
			unsigned number = device == VSOCK ? TX : 0;
			uint16_t flags = device == RNG ? DESC_WRITE : 0;

			device_start(device);
			queue_buffer(&queues[device][number], holes[i], 64, flags);
			expect_needs_reset(device);
		}
	}
	expect_works(BALLOON);
	expect_works(DISK);
	return 0;
}
