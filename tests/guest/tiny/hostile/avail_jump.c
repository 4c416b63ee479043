/* SPDX-License-Identifier: Apache-2.0 */

/*
 * An available index that runs ahead by more than the queue has entries, or goes back (2.7.13.3).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint16_t jumps[] = { RING_SIZE + 1, 0x7fff, 0x8000, 0xffff };

	for (unsigned i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
		expect_works(RNG);
		queues[RNG][0].avail.index += jumps[i];
		queue_kick(&queues[RNG][0]);
		expect_needs_reset(RNG);
	}
	expect_works(RNG);
	return 0;
}
