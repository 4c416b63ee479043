/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ports that there are none of, in every width, across the end of them all, and as strings: ones
 * are read, nothing is written.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint16_t ports[] = { 0x20,	 0x40,	0x43,  0x60,  0x70,   0x80,   0xa0,  0xcf8,
					  0xcfc, 0x3f0, 0x402, 0x510, 0xb000, 0xfffc, 0xffff };

	for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		uint8_t *to = scratch;
		uint64_t count = 100;

		outb(ports[i], 0xff);
		outw(ports[i], 0xffff);
		outl(ports[i], 0xffffffff);
		EXPECT(inb(ports[i]) == 0xff);
		EXPECT(inl(ports[i]) == 0xffffffff);
		scratch[99] = 0;
		__asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(ports[i]) : "memory");
		EXPECT(((volatile uint8_t *)scratch)[99] == 0xff);
	}
	expect_works(RNG);
	return 0;
}
