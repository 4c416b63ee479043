/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Pages that are put into the balloon and are no memory: the MMIO hole, the local APIC, the end of
 * memory, the end of numbers (5.5.6).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t pages[] = { 0xc0000,  0xd0000,   0xfec00, 0xfee00, MEMORY_BYTES >> 12,
					  0x100000, 0xffffffff };
	volatile uint32_t *list = (uint32_t *)scratch;

	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		device_start(BALLOON);
		/* Behind one that is fine, and as the end of a run of neighbours. */
		list[0] = i % 2 ? pages[i] - 1 : 0x300;
		list[1] = pages[i];
		queue_buffer(&queues[BALLOON][0], gpa_of(list), 8, 0);
		expect_needs_reset(BALLOON);
	}
	expect_works(BALLOON);
	return 0;
}
