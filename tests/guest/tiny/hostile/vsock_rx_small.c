/* SPDX-License-Identifier: Apache-2.0 */

/* Receive buffers that hold a header and nothing, or not even that (5.10.6.4.2). */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t lengths[] = { 1, 43, 44 };
	struct packet packet = vsock_packet(1, 2, OP_RW);

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		device_start(VSOCK);
		queue_buffer(&queues[VSOCK][RX], gpa_of(scratch), lengths[i], DESC_WRITE);
		vsock_send(&packet, 0);
		expect_needs_reset(VSOCK);
	}
	/* One that is not the device's to write. */
	device_start(VSOCK);
	queue_buffer(&queues[VSOCK][RX], gpa_of(scratch), 4096, 0);
	vsock_send(&packet, 0);
	expect_needs_reset(VSOCK);
	/* A byte at a time is slow and fine. */
	device_start(VSOCK);
	queue_buffer(&queues[VSOCK][RX], gpa_of(scratch), 45, DESC_WRITE);
	vsock_send(&packet, 0);
	EXPECT(queue_wait(&queues[VSOCK][RX]) == PACKET_BYTES);
	expect_works(VSOCK);
	return 0;
}
