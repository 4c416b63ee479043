/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Pages of the balloon's own rings put into the balloon, with the request that says so still under
 * way: what the device reads there then is zero.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[BALLOON][0];
	volatile uint32_t *list = (uint32_t *)scratch;

	for (unsigned i = 0; i < 20; i++) {
		device_start(BALLOON);
		/* Rings of their own page, which nothing else lies in. */
		queue->number = 0;
		device_negotiate(BALLOON);
		queue_registers(BALLOON, 0, RING_SIZE, 0x300000, 0x300100, 0x300200);
		*reg(BALLOON, REG_QUEUE_READY) = 1;
		*reg(BALLOON, REG_STATUS) = S_RUNNING;
		for (unsigned n = 0; n < 1 + i % 2; n++) {
			((struct desc *)0x300000)[n].gpa = gpa_of(list);
			((struct desc *)0x300000)[n].length = 4;
			((struct desc *)0x300000)[n].flags = 0;
			AT(16, 0x300104 + 2 * n) = (uint16_t)n;
		}
		list[0] = 0x300;
		AT(16, 0x300102) = (uint16_t)(1 + i % 2);
		*reg(BALLOON, REG_QUEUE_NOTIFY) = 0;
		wait_ticks(TICKS_SHORT / 4);
		*reg(BALLOON, REG_QUEUE_NOTIFY) = 0;
	}
	expect_works(BALLOON);
	expect_works(RNG);
	return 0;
}
