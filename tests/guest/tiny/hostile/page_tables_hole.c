/* SPDX-License-Identifier: Apache-2.0 */

/* Page tables on device registers, and above all memory. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	__asm__ volatile("mov %0, %%cr3" : : "r"((uint64_t)DEVICE_BASE(RNG)) : "memory");
	__asm__ volatile("mov %0, %%cr3" : : "r"(UINT64_C(1) << 40) : "memory");
	return 0;
}
