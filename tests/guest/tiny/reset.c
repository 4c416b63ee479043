/* SPDX-License-Identifier: Apache-2.0 */

/* Resets the machine: through the keyboard controller, or through port 0xcf9 when the mailbox
 * parameter is not 0. */

#include "tests/guest/tiny/guest.h"

uint32_t guest_main(void)
{
	if (mailbox->parameter) {
		__asm__ volatile("outb %b0, %w1" : : "a"(0x06), "d"(0xcf9));
	} else {
		outb(0x64, 0xfe);
	}
	for (;;) {
	}
}
