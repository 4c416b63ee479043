/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Requests for connections without end, taken back and made again. What the host is bothered with
 * is bounded.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	unsigned refused = 0;
	struct packet packet;

	vsock_start();
	for (uint32_t i = 0; i < 100; i++) {
		packet = vsock_packet(2000 + i % 90, 53, OP_REQUEST);
		vsock_send(&packet, 0);
		if (i % 2) {
			packet.op = OP_RST;
			vsock_send(&packet, 0);
		}
		wait_ticks(10000);
		while (queues[VSOCK][RX].used.index != queues[VSOCK][RX].seen) {
			vsock_expect(OP_RST);
			refused++;
		}
	}
	EXPECT(refused == 100 - 64);
	print("asked\n");
	wait_for_go();
	expect_works(VSOCK);
	return 0;
}
