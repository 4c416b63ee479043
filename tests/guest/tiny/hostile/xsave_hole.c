/* SPDX-License-Identifier: Apache-2.0 */

/*
 * XSAVE to device registers: on some hosts the VMM executes it, and what is no memory is not for it
 * to write.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	__asm__ volatile("mov %%cr4, %%rax; or $0x40000, %%rax; mov %%rax, %%cr4" : : : "rax");
	__asm__ volatile("xsave (%0)"
			 :
			 : "r"((uint64_t)DEVICE_BASE(RNG)), "a"(3), "d"(0)
			 : "memory");
	return 0;
}
