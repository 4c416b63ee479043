/* SPDX-License-Identifier: Apache-2.0 */

/* Page tables on device registers. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	__asm__ volatile("mov %0, %%cr3" : : "r"((uint64_t)DEVICE_BASE(RNG)) : "memory");
	return 0;
}
