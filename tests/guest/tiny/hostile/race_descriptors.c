/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A second CPU that rewrites descriptors while the device reads them: each is copied once, and what
 * was checked is what is used.
 */

#include "tests/guest/tiny/hostile/race.h"

static void disturb(uint32_t round)
{
	static const uint64_t addresses[] = { 0x300000, 0xd0000000, UINT64_MAX - 7,
					      MEMORY_BYTES - 4 };
	struct desc *desc = &queues[RNG][0].desc[round % RING_SIZE];

	desc->gpa = addresses[round / 8 % 4];
	desc->length = round % 5 ? 64 : 0xffffffff;
	desc->flags = (uint16_t)(round % 7);
	desc->next = (uint16_t)(round % 9);
	desc->gpa = 0x300000;
}

uint32_t guest_main(void)
{
	struct queue *queue = &queues[RNG][0];

	device_start(RNG);
	race_start();
	for (unsigned i = 0; i < 400; i++) {
		queue_offer(queue, (uint16_t)(i % RING_SIZE));
		queue_kick(queue);
		if (*reg(RNG, REG_STATUS) & S_NEEDS_RESET || i % 8 == 7) {
			device_start(RNG);
		}
	}
	race_end();
	expect_works(RNG);
	return 0;
}
