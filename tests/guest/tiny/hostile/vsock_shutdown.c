/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Shutdowns that say nothing, say it twice, with bits that mean nothing; data after the end of
 * sending (5.10.6.6.1).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct packet request;

	vsock_start();
	request = vsock_accept();
	vsock_reply(&request, OP_SHUTDOWN, 0);
	vsock_reply(&request, OP_SHUTDOWN, 0xfffffffc);
	expect_nothing(&queues[VSOCK][RX]);
	vsock_reply(&request, OP_SHUTDOWN, 2);
	vsock_reply(&request, OP_SHUTDOWN, 2);
	expect_nothing(&queues[VSOCK][RX]);
	vsock_reply(&request, OP_RW, 0); /* of no bytes, but it said that there are none */
	vsock_expect(OP_RST);
	vsock_reply(&request, OP_SHUTDOWN, 3);
	vsock_expect(OP_RST);
	wait_for_go();
	expect_serves(VSOCK);
	return 0;
}
