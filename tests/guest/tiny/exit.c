/* SPDX-License-Identifier: Apache-2.0 */

/* Says hello and ends the VM with code 42. */

#include "tests/guest/tiny/guest.h"

uint32_t guest_main(void)
{
	print("hello\n");
	return 42;
}
