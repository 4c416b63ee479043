/* SPDX-License-Identifier: Apache-2.0 */

/*
 * More sent than the host's credit allows, to a host that reads nothing (5.10.6.3): the connection
 * ends, the device works.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *tx = &queues[VSOCK][TX];
	struct packet request;

	vsock_start();
	request = vsock_accept();
	*(struct packet *)scratch = vsock_packet(AGENT_PORT, request.src_port, OP_RW);
	((struct packet *)scratch)->length = 60000;
	/* The host's socket takes some of it, the device's buffer 64 KiB, and then that is that. */
	for (unsigned i = 0; i < 20; i++) {
		queue_buffer(tx, gpa_of(scratch), PACKET_BYTES + 60000, 0);
		queue_wait(tx);
	}
	for (;;) {
		struct packet packet = vsock_receive();

		if (packet.op == OP_RST) {
			break;
		}
		EXPECT(packet.op == OP_CREDIT_UPDATE);
	}
	EXPECT(*reg(VSOCK, REG_STATUS) == S_RUNNING);
	wait_for_go();
	expect_works(VSOCK);
	return 0;
}
