/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Packets that each deserve a reset, from a guest that has no buffers for them: a bounded number is
 * kept.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct packet packet = vsock_packet(1, 2, OP_RW);
	unsigned resets = 0;

	device_start(VSOCK);
	for (unsigned i = 0; i < 400; i++) {
		vsock_send(&packet, 0);
	}
	/* The driver of this file gives buffers at the start only, so by hand. */
	for (unsigned i = 0; i < 33; i++) {
		struct queue *rx = &queues[VSOCK][RX];

		for (uint16_t n = 0; n < RING_SIZE; n++) {
			queue_desc(rx, n, gpa_of(scratch) + 512 * n, 512, DESC_WRITE, 0);
			queue_offer(rx, n);
		}
		queue_kick(rx);
		for (unsigned n = 0; n < RING_SIZE && resets < 256; n++) {
			queue_wait(rx);
			resets++;
		}
	}
	expect_nothing(&queues[VSOCK][RX]);
	EXPECT(resets == 256);
	expect_works(VSOCK);
	return 0;
}
