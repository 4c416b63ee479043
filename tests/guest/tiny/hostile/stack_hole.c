/* SPDX-License-Identifier: Apache-2.0 */

/* A stack on device registers, then a return from there. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	__asm__ volatile("mov %0, %%rsp; push %%rax; ret"
			 :
			 : "r"((uint64_t)DEVICE_BASE(RNG) + 0xf00));
	return 0;
}
