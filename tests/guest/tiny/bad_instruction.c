/* SPDX-License-Identifier: Apache-2.0 */

/* Executes what kvm-pvm's emulator does not know: fwait, which is stepped over, then popcnt, which
 * ends the VM with its bytes in the text. On other hosts both work and the VM ends with 0. */

#include "tests/guest/tiny/guest.h"

uint32_t guest_main(void)
{
	uint64_t value = 0;

	__asm__ volatile("clts; fwait");
	print("after fwait\n");
	__asm__ volatile("popcnt %1, %0" : "=r"(value) : "r"(value));
	print("after popcnt\n");
	return 0;
}
