/* SPDX-License-Identifier: Apache-2.0 */

/* Interrupt descriptors on device registers, and an exception. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} hole = { 0xfff, DEVICE_BASE(RNG) };

	__asm__ volatile("lidt %0; ud2" : : "m"(hole));
	return 0;
}
