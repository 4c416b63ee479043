/* SPDX-License-Identifier: Apache-2.0 */

/* The IOAPIC in every width, unaligned, between its registers and across its end. */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	uint32_t version = ioapic_read(1);

	interrupts_init();
	for (uintptr_t at = IOAPIC + 1; at < IOAPIC + 64; at += 3) {
		if (at != IOAPIC + 16) {
			AT(8, at) = 0xff;
			AT(16, at) = 0xffff;
			AT(32, at) = 0xffffffff;
			AT(64, at) = UINT64_MAX;
			(void)AT(8, at);
			(void)AT(16, at);
			(void)AT(64, at);
		}
	}
	for (uintptr_t at = IOAPIC + 0xff8; at < IOAPIC + 0x1004; at++) {
		AT(64, at) = 0;
		(void)AT(32, at);
		(void)AT(64, at);
	}
	EXPECT(ioapic_read(1) == version);
	expect_interrupt();
	return 0;
}
