/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Packets that the state of a connection forbids: data, credit and shutdown before the answer, an
 * answer to an answer (5.10.6.6).
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint16_t early[] = { OP_RW, OP_SHUTDOWN, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST };
	struct packet request;

	vsock_start();
	request = vsock_expect(OP_REQUEST);
	for (unsigned i = 0; i < sizeof(early) / sizeof(early[0]); i++) {
		vsock_reply(&request, early[i], 3);
		vsock_expect(OP_RST); /* the first ends it, the others find nothing */
	}
	vsock_reply(&request, OP_RESPONSE, 0);
	vsock_expect(OP_RST);
	wait_for_go();
	expect_serves(VSOCK);
	return 0;
}
