/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A request of the guest for the very pair of ports that the host's connection has: the old one
 * ends, the new one is asked for.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct packet request;

	vsock_start();
	request = vsock_accept();
	for (unsigned i = 0; i < 10; i++) {
		vsock_reply(&request, OP_REQUEST, 0);
	}
	print("asked\n");
	wait_for_go();
	vsock_reply(&request, OP_RST, 0);
	expect_serves(VSOCK);
	return 0;
}
