/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The serial port in every width, across its end, with the divisor latched, in loopback, with all
 * bits of every register set.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (uint16_t offset = 0; offset < 9; offset++) {
		if (offset != 0) {
			outb(PORT_SERIAL + offset, 0xff);
		}
		outw(PORT_SERIAL + offset, 0xffff);
		outl(PORT_SERIAL + offset, 0xffffffff);
		(void)inb(PORT_SERIAL + offset);
		EXPECT(inl(PORT_SERIAL + offset) == 0xffffffff);
	}
	/* In loopback: more is sent than is taken. */
	outb(PORT_SERIAL + 3, 0);
	for (unsigned i = 0; i < 100; i++) {
		outb(PORT_SERIAL, (uint8_t)i);
	}
	EXPECT(inb(PORT_SERIAL + 5) & 1);
	EXPECT(inb(PORT_SERIAL) == 99);
	EXPECT(!(inb(PORT_SERIAL + 5) & 1));
	outb(PORT_SERIAL + 4, 0);
	outb(PORT_SERIAL + 1, 0);
	print("sane again\n");
	return 0;
}
