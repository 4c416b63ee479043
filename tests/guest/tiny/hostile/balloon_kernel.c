/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The page tables in use put into the balloon: the guest loses itself, and nobody else anything.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	volatile uint32_t *list = (uint32_t *)scratch;

	device_start(BALLOON);
	for (uint32_t i = 0; i < 8; i++) {
		list[i] = 9 + i;
	}
	queue_buffer(&queues[BALLOON][0], gpa_of(list), 32, 0);
	wait_ticks(TICKS_SHORT);
	__asm__ volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory");
	return 0;
}
