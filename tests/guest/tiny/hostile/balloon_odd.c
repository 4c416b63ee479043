/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Lists that end in the middle of a page number, are empty, turned around, repeated; pages taken
 * back that were never given (5.5.6).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *inflate = &queues[BALLOON][0], *deflate = &queues[BALLOON][1];
	volatile uint32_t *list = (uint32_t *)scratch;

	device_start(BALLOON);
	for (unsigned i = 0; i < 1024; i++) {
		list[i] = 0x300 + (i % 3 ? 1023 - i : i) % 64;
	}
	for (uint32_t length = 1; length < 40; length += 3) {
		queue_buffer(inflate, gpa_of(list), length, 0);
		queue_wait(inflate);
		queue_buffer(inflate, gpa_of(list), length, DESC_WRITE);
		queue_wait(inflate);
		queue_buffer(deflate, gpa_of(list) + 1, length, 0);
		queue_wait(deflate);
	}
	AT(32, 0x300000) = 1;
	queue_buffer(inflate, gpa_of(list), 4096, 0);
	queue_wait(inflate);
	EXPECT(AT(32, 0x300000) == 0);
	/* More than one request is looked at. */
	queue_buffer(inflate, gpa_of(scratch), SCRATCH_BYTES, 0);
	wait_ticks(TICKS_SHORT);
	expect_works(BALLOON);
	return 0;
}
