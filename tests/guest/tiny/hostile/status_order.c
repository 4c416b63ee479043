/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Status bits out of order, taken back, or nobody's (2.1.1): a bit counts after the one before it,
 * and only a reset takes it back. A driver that gives up (FAILED) is served no more.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	*reg(RNG, REG_STATUS) = 0;
	*reg(RNG, REG_STATUS) = S_DRIVER_OK;
	EXPECT(*reg(RNG, REG_STATUS) == 0);
	*reg(RNG, REG_STATUS) = S_DRIVER | S_FEATURES_OK | S_DRIVER_OK;
	EXPECT(*reg(RNG, REG_STATUS) == 0);
	*reg(RNG, REG_STATUS) = S_ACKNOWLEDGE | S_FEATURES_OK;
	EXPECT(*reg(RNG, REG_STATUS) == S_ACKNOWLEDGE);
	*reg(RNG, REG_STATUS) = 0xffffff30 | S_ACKNOWLEDGE | S_DRIVER;
	EXPECT(*reg(RNG, REG_STATUS) == (S_ACKNOWLEDGE | S_DRIVER));
	*reg(RNG, REG_STATUS) = S_NEEDS_RESET;
	EXPECT(*reg(RNG, REG_STATUS) == (S_ACKNOWLEDGE | S_DRIVER));

	device_start(RNG);
	*reg(RNG, REG_STATUS) = S_ACKNOWLEDGE;
	expect_serves(RNG);
	*reg(RNG, REG_STATUS) = S_RUNNING | S_FAILED;
	queue_buffer(&queues[RNG][0], gpa_of(scratch), 16, DESC_WRITE);
	expect_nothing(&queues[RNG][0]);
	EXPECT(*reg(RNG, REG_STATUS) == (S_RUNNING | S_FAILED));
	expect_works(RNG);
	return 0;
}
