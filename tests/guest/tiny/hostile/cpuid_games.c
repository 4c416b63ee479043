/* SPDX-License-Identifier: Apache-2.0 */

/*
 * CPUID with every leaf and subleaf around the ranges that there are: answers, and always the same.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t first[] = { 0,	      0x40000000, 0x40000100,
					  0x80000000, 0xc0000000, 0xffffffe0 };

	for (unsigned i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
		for (uint32_t n = 0; n < 32 * 3; n++) {
			uint32_t sums[2];

			for (unsigned twice = 0; twice < 2; twice++) {
				uint32_t a = first[i] + n / 3, b,
					 c = n % 3 == 2 ? 0xffffffff : n % 3, d;

				__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
				sums[twice] = a + c + d;
			}
			EXPECT(sums[0] == sums[1]);
		}
	}
	expect_works(RNG);
	return 0;
}
