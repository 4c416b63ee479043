/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operations and types of socket that there are none of (5.10.6): for a connection they are its
 * end, for none a reset.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint16_t ops[] = { 0, 8, 9, 0x100, 0xffff };
	static const uint16_t types[] = { 0, 2, 3, 0xffff };
	struct packet request, packet;

	vsock_start();
	request = vsock_accept();
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		packet = vsock_packet(77, 88, ops[i]);
		vsock_send(&packet, 0);
		packet = vsock_expect(OP_RST);
		EXPECT(packet.dst_port == 77 && packet.src_port == 88);
	}
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		packet = vsock_packet(AGENT_PORT, request.src_port, OP_RW);
		packet.type = types[i];
		vsock_send(&packet, 0);
		vsock_expect(OP_RST);
	}
	/* Those were of other connections: this one ends now. */
	vsock_reply(&request, 99, 0);
	vsock_expect(OP_RST);
	vsock_reply(&request, OP_RW, 0);
	vsock_expect(OP_RST);
	wait_for_go();
	expect_serves(VSOCK);
	return 0;
}
