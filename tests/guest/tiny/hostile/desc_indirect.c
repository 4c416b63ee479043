/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Indirect descriptors, which are not offered (2.7.5.3.1): at the head, in the middle, nested,
 * chained, empty; and flags that mean nothing.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const struct {
		uint16_t first, second;
	} cases[] = {
		{ DESC_INDIRECT, 0 },
		{ DESC_INDIRECT | DESC_WRITE, 0 },
		{ DESC_INDIRECT | DESC_NEXT, DESC_WRITE },
		{ DESC_WRITE | DESC_NEXT, DESC_INDIRECT },
		{ DESC_WRITE | DESC_NEXT, DESC_INDIRECT | DESC_WRITE },
		{ DESC_WRITE | 8, 0 },
		{ DESC_WRITE | 0x8000, 0 },
	};
	struct desc *table = (struct desc *)scratch;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct queue *queue = &queues[RNG][0];

		device_start(RNG);
		/* The table holds a buffer, and names itself as another table. */
		table[0].gpa = gpa_of(scratch) + 4096;
		table[0].length = 16;
		table[0].flags = DESC_WRITE | DESC_NEXT;
		table[0].next = 1;
		table[1].gpa = gpa_of(scratch);
		table[1].length = 32;
		table[1].flags = DESC_INDIRECT;
		queue_desc(queue, 0, gpa_of(scratch), 32, cases[i].first, 1);
		queue_desc(queue, 1, gpa_of(scratch), 32, cases[i].second, 0);
		queue_offer(queue, 0);
		queue_kick(queue);
		expect_needs_reset(RNG);
		EXPECT(queue->used.index == 0);
	}
	expect_works(RNG);
	return 0;
}
