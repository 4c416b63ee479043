/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Acknowledging interrupts that are not there, with bits that mean nothing, and not acknowledging
 * at all (4.2.2.2).
 */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	interrupts_init();
	expect_interrupt();
	EXPECT(*reg(RNG, REG_INTERRUPT_STATUS) == 1);
	*reg(RNG, REG_INTERRUPT_ACK) = 0xfffffffe;
	EXPECT(*reg(RNG, REG_INTERRUPT_STATUS) == 1);
	*reg(RNG, REG_INTERRUPT_STATUS) = 0;
	EXPECT(*reg(RNG, REG_INTERRUPT_STATUS) == 1);
	for (unsigned i = 0; i < 50; i++) {
		expect_serves(RNG);
	}
	*reg(RNG, REG_INTERRUPT_ACK) = 0xffffffff;
	EXPECT(*reg(RNG, REG_INTERRUPT_STATUS) == 0);
	*reg(RNG, REG_INTERRUPT_ACK) = 0xffffffff;
	expect_interrupt();
	EXPECT(*reg(VSOCK, REG_INTERRUPT_STATUS) == 0);
	return 0;
}
