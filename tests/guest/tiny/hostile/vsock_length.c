/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Packets whose header tells of more bytes than came with it, of billions, headers cut short,
 * packets of no header at all. The class of CVE-2019-18960: bytes behind the buffer are sent to the
 * host. Here such packets are dropped, and the connection carries what comes after.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint32_t lengths[] = {
		1, 9, 65536, 65537, 0x7fffffff, 0xffffffd4, 0xffffffff
	};
	struct packet request, packet;

	vsock_start();
	request = vsock_accept();
	packet = vsock_packet(AGENT_PORT, request.src_port, OP_RW);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		packet.length = lengths[i];
		vsock_send(&packet, i == 1 ? 8 : 0);
	}
	packet.length = 0;
	for (uint32_t length = 1; length < PACKET_BYTES; length++) {
		queue_buffer(&queues[VSOCK][TX], gpa_of(scratch), length, 0);
		queue_wait(&queues[VSOCK][TX]);
	}
	queue_buffer(&queues[VSOCK][TX], gpa_of(scratch), 512, DESC_WRITE);
	queue_wait(&queues[VSOCK][TX]);

	/* The last bytes of memory, and not one more. */
	*(struct packet *)(MEMORY_BYTES - 512) = packet;
	((struct packet *)(MEMORY_BYTES - 512))->length = 512 - PACKET_BYTES + 1;
	queue_buffer(&queues[VSOCK][TX], MEMORY_BYTES - 512, 512, 0);
	queue_wait(&queues[VSOCK][TX]);

	packet.length = 4;
	packet.data[0] = 'd';
	packet.data[1] = 'o';
	packet.data[2] = 'n';
	packet.data[3] = 'e';
	*(struct packet *)scratch = packet;
	queue_buffer(&queues[VSOCK][TX], gpa_of(scratch), PACKET_BYTES + 4, 0);
	queue_wait(&queues[VSOCK][TX]);
	wait_for_go();
	return 0;
}
