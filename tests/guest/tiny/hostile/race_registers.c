/* SPDX-License-Identifier: Apache-2.0 */

/* Two CPUs that set up and reset the same device at once, each as if it were alone. */

#include "tests/guest/tiny/hostile/race.h"

static void disturb(uint32_t round)
{
	static const uint8_t steps[] = { 0, 1, 3, 11, 15, 15, 0xff };
	unsigned device = round % 2 ? RNG : DISK;
	const struct queue *queue = &queues[device][0];

	*reg(device, REG_STATUS) = steps[round % sizeof(steps)];
	*reg(device, REG_DRIVER_FEATURES_SELECT) = 1;
	*reg(device, REG_DRIVER_FEATURES) = 1;
	queue_registers(device, round % 3, round % 13, gpa_of(queue->desc), gpa_of(&queue->avail),
			gpa_of(&queue->used) + round % 5);
	*reg(device, REG_QUEUE_READY) = round % 4;
	*reg(device, REG_QUEUE_NOTIFY) = 0;
	*reg(device, REG_INTERRUPT_ACK) = round;
}

uint32_t guest_main(void)
{
	race_start();
	for (unsigned i = 0; i < 100; i++) {
		disturb(i * 3);
	}
	race_end();
	expect_works(RNG);
	expect_works(DISK);
	return 0;
}
