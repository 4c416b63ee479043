/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Hypercalls that there are none of. Where instructions are interpreted the first may not come
 * back: the VM can be ended all the same.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	print("going\n");
	for (uint64_t i = 0; i < 64; i++) {
		uint64_t number = i < 32 ? i : UINT64_MAX - i;

		__asm__ volatile("vmcall"
				 : "+a"(number)
				 : "b"(UINT64_MAX), "c"(UINT64_MAX), "d"(UINT64_MAX),
				   "S"(UINT64_MAX)
				 : "memory");
	}
	return 0;
}
