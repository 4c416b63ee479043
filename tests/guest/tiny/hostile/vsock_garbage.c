/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A guest that answers its identity with something else. What the host reads are the bytes that the
 * guest sent, and no others: whether they are an acknowledgement is for the manager to compare.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct packet request, packet;

	vsock_start();
	request = vsock_accept();
	packet = vsock_packet(AGENT_PORT, request.src_port, OP_RW);
	packet.length = 400;
	for (unsigned i = 0; i < packet.length; i++) {
		packet.data[i] = (uint8_t)('a' + i % 26);
	}
	*(struct packet *)scratch = packet;
	queue_buffer(&queues[VSOCK][TX], gpa_of(scratch), PACKET_BYTES + packet.length, 0);
	queue_wait(&queues[VSOCK][TX]);
	wait_for_go();
	return 0;
}
