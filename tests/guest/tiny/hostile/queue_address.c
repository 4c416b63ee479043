/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Rings that are not aligned, outside of memory, across its end or that of the address space, in
 * the MMIO hole, on device registers (2.7, 4.2.2.2).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	const uint64_t good = gpa_of(scratch);
	static const uint64_t bad[] = {
		MEMORY_BYTES,
		MEMORY_BYTES - 4,
		0xd0000000,
		0xfec00000,
		0xfee00000,
		0xfffffff0,
		UINT64_C(0x100000000),
		UINT64_C(0x8000000000000000),
		UINT64_MAX - 15,
		UINT64_MAX - 3,
	};

	for (unsigned i = 0; i < 3 * sizeof(bad) / sizeof(bad[0]) + 3; i++) {
		uint64_t at[3] = { good, good + 4096, good + 8192 };

		if (i < 3) {
			at[i] += 1; /* aligned to 16, 2 and 4 bytes they must be */
		} else {
			at[i % 3] = bad[i / 3 - 1];
		}
		device_negotiate(RNG);
		queue_registers(RNG, 0, RING_SIZE, at[0], at[1], at[2]);
		*reg(RNG, REG_QUEUE_READY) = 1;
		EXPECT(*reg(RNG, REG_QUEUE_READY) == 0);
		EXPECT(*reg(RNG, REG_STATUS) & S_NEEDS_RESET);
	}
	expect_works(RNG);
	return 0;
}
