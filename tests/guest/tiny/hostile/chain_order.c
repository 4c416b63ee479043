/* SPDX-License-Identifier: Apache-2.0 */

/* A buffer for the device to read behind one to write (2.7.4.2). */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (unsigned device = 0; device < DEVICES; device++) {
		struct queue *queue = &queues[device][0];

		device_start(device);
		queue_desc(queue, 0, gpa_of(scratch), 64, DESC_WRITE | DESC_NEXT, 1);
		queue_desc(queue, 1, gpa_of(scratch), 64, DESC_NEXT, 2);
		queue_desc(queue, 2, gpa_of(scratch), 64, DESC_WRITE, 0);
		queue_offer(queue, 0);
		queue_kick(queue);
		if (device == VSOCK) {
			/* Receive buffers are looked at when there is a packet. */
			struct packet packet = vsock_packet(1, 2, OP_RW);

			vsock_send(&packet, 0);
		}
		expect_needs_reset(device);
	}
	expect_works(DISK);
	return 0;
}
