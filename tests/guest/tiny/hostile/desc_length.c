/* SPDX-License-Identifier: Apache-2.0 */

/* Buffers of no bytes, of more than there is memory, and across its end (2.7.5). */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const struct {
		uint64_t gpa;
		uint32_t length;
	} cases[] = {
		{ 0x200000, 0 },	 { 0x200000, 0xffffffff },
		{ 0, MEMORY_BYTES + 1 }, { MEMORY_BYTES - 15, 16 },
		{ MEMORY_BYTES, 1 },	 { UINT64_MAX, 1 },
		{ UINT64_MAX - 7, 16 },	 { UINT64_MAX - 0xfffffffe, 0xffffffff },
	};
	struct queue *queue = &queues[RNG][0];

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		device_start(RNG);
		queue_buffer(queue, cases[i].gpa, cases[i].length, DESC_WRITE);
		expect_needs_reset(RNG);
		EXPECT(queue->used.index == 0);
	}
	/* The last bytes of memory are fine. */
	device_start(RNG);
	queue_buffer(queue, MEMORY_BYTES - 16, 16, DESC_WRITE);
	EXPECT(queue_wait(queue) == 16);
	return 0;
}
