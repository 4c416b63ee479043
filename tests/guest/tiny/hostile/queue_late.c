/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Queues that are made ready before FEATURES_OK or after DRIVER_OK, and a device that is started
 * without any (3.1.1): the queue stays as it is, and what is offered in it is not looked at.
 */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	struct queue *queue = &queues[RNG][0];

	*reg(RNG, REG_STATUS) = 0;
	queue_registers(RNG, 0, RING_SIZE, gpa_of(queue->desc), gpa_of(&queue->avail),
			gpa_of(&queue->used));
	*reg(RNG, REG_QUEUE_READY) = 1;
	EXPECT(*reg(RNG, REG_QUEUE_READY) == 0);

	device_negotiate(RNG);
	*reg(RNG, REG_STATUS) = S_RUNNING;
	queue_registers(RNG, 0, RING_SIZE, gpa_of(queue->desc), gpa_of(&queue->avail),
			gpa_of(&queue->used));
	*reg(RNG, REG_QUEUE_READY) = 1;
	EXPECT(*reg(RNG, REG_QUEUE_READY) == 0);
	queue->device = RNG;
	queue_buffer(queue, gpa_of(scratch), 16, DESC_WRITE);
	expect_nothing(queue);
	EXPECT(*reg(RNG, REG_STATUS) == S_RUNNING);
	expect_works(RNG);
	return 0;
}
