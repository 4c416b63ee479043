/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A guest that takes the stream which the host attaches, and answers nothing, not even the request.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	vsock_start();
	vsock_expect(OP_REQUEST);
	print("asked\n");
	wait_for_go();
	return 0;
}
