/* SPDX-License-Identifier: Apache-2.0 */

/* Instructions fetched from device registers, which nobody can emulate. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	__asm__ volatile("jmp *%0" : : "r"((uint64_t)DEVICE_BASE(RNG)));
	return 0;
}
