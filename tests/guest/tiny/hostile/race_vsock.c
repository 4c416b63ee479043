/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A second CPU that rewrites a packet's header while the device reads it: length, ports, operation,
 * CIDs.
 */

#include "tests/guest/tiny/hostile/race.h"

static void disturb(uint32_t round)
{
	volatile struct packet *packet = (volatile struct packet *)scratch;

	packet->length = round % 3 ? 16 : 0xffffffff - round;
	packet->op = (uint16_t)(round % 9);
	packet->length = round % 2 ? 4096 : 0;
	packet->src_cid = round % 11 ? CID_GUEST : round;
	packet->src_port = round % 4 ? AGENT_PORT : round;
}

uint32_t guest_main(void)
{
	struct queue *tx = &queues[VSOCK][TX];
	struct packet request;

	vsock_start();
	request = vsock_accept();
	*(struct packet *)scratch = vsock_packet(AGENT_PORT, request.src_port, OP_RW);
	race_start();
	for (unsigned i = 0; i < 300; i++) {
		queue_buffer(tx, gpa_of(scratch), PACKET_BYTES + 16, 0);
		queue_wait(tx);
		while (queues[VSOCK][RX].used.index != queues[VSOCK][RX].seen) {
			vsock_receive();
		}
	}
	race_end();
	expect_works(VSOCK);
	wait_for_go();
	return 0;
}
