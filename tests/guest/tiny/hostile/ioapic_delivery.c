/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Delivery modes that no device has: lowest priority, NMI, external interrupts, and the reserved
 * ones. An NMI arrives as one.
 */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	static const uint8_t modes[] = { 1, 3, 4, 6, 7 };

	interrupts_init();
	exceptions_init();
	for (unsigned i = 0; i < sizeof(modes); i++) {
		ioapic_write(PIN_HIGH, 0);
		ioapic_write(PIN_LOW, DELIVERY(modes[i]) | (VECTOR + 1));
		expect_works(RNG);
	}
	EXPECT(nmi_count == 1);
	expect_interrupt();
	return 0;
}
