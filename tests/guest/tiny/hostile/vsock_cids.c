/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Packets from and to CIDs that are not the guest's and the host's (5.10.6): they are dropped, and
 * no answer goes anywhere.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint64_t cids[] = {
		0, 1, 2, 4, 0xffffffff, UINT64_C(1) << 32 | 3, UINT64_C(1) << 32 | 2, UINT64_MAX
	};
	struct packet packet;

	vsock_start();
	for (unsigned i = 0; i < sizeof(cids) / sizeof(cids[0]); i++) {
		packet = vsock_packet(1, 2, OP_REQUEST);
		packet.src_cid = cids[i];
		vsock_send(&packet, 0);
		if (cids[i] != CID_HOST) {
			packet = vsock_packet(1, 2, OP_RW);
			packet.dst_cid = cids[i];
			vsock_send(&packet, 0);
		}
	}
	expect_nothing(&queues[VSOCK][RX]);
	expect_serves(VSOCK);
	return 0;
}
