/* SPDX-License-Identifier: Apache-2.0 */

/* A guest that refuses the stream which the host attaches. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct packet request;

	vsock_start();
	request = vsock_expect(OP_REQUEST);
	vsock_reply(&request, OP_RST, 0);
	wait_for_go();
	expect_serves(VSOCK);
	return 0;
}
