/* SPDX-License-Identifier: Apache-2.0 */

/* Faults without an IDT: a triple fault. */

#include "tests/guest/tiny/guest.h"

uint32_t guest_main(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} idtr = { 0, 0 };

	print("about to crash\n");
	__asm__ volatile("lidt %0; ud2" : : "m"(idtr));
	return 1;
}
