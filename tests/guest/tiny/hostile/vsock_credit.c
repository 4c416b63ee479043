/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Credit that is a lie: more taken than was sent, none at all, everything there is, a count that
 * runs backwards. What the device sends stays within the buffers it was given.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const struct {
		uint32_t buffer, forwarded;
	} lies[] = {
		{ 0, 0 },	    { 0xffffffff, 0 }, { 65536, 0xffffffff },
		{ 65536, 1000000 }, { 1, 0x80000000 }, { 0, 0xffffffff },
	};
	struct packet request, packet;
	uint32_t received = 0;

	vsock_start();
	request = vsock_accept();
	packet = vsock_packet(AGENT_PORT, request.src_port, OP_CREDIT_UPDATE);
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		packet.buffer_bytes = lies[i].buffer;
		packet.forwarded = lies[i].forwarded;
		vsock_send(&packet, 0);
		wait_ticks(TICKS_SHORT / 4);
	}
	/* The truth, as far as it goes; 8,000 bytes are to come. */
	while (received < 8000) {
		if (queues[VSOCK][RX].used.index != queues[VSOCK][RX].seen) {
			struct packet data = vsock_receive();

			EXPECT(data.op == OP_RW || data.op == OP_CREDIT_REQUEST);
			received += data.length;
		}
		packet.buffer_bytes = 0xffffffff;
		packet.forwarded = received;
		vsock_send(&packet, 0);
	}
	EXPECT(received == 8000);
	wait_for_go();
	return 0;
}
