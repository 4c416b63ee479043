/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A reset while the disk reads megabytes. The class of CVE-2026-45782: the data and the status
 * arrive when the guest has put the memory to another use. Here the reset waits for them, and after
 * it nothing is written any more. The host gives this guest a disk without a cache.
 */

#include "tests/guest/tiny/hostile/driver.h"

#define BUFFER	     0x300000u
#define BUFFER_BYTES 0xf0000u
#define REQUESTS     6
#define ROUNDS	     40

uint32_t guest_main(void)
{
	struct queue *queue = &queues[DISK][0];
	struct blk_header *headers = (struct blk_header *)scratch;
	volatile uint8_t *status = scratch + 2048;

	for (unsigned round = 0; round < ROUNDS; round++) {
		device_start(DISK);
		/* Two descriptors are data and status of all. */
		queue_desc(queue, 6, BUFFER, BUFFER_BYTES, DESC_WRITE | DESC_NEXT, 7);
		queue_desc(queue, 7, gpa_of(status), 1, DESC_WRITE, 0);
		for (unsigned i = 0; i < REQUESTS; i++) {
			headers[i].type = BLK_IN;
			headers[i].sector = i;
			queue_desc(queue, i, gpa_of(&headers[i]), 16, DESC_NEXT, 6);
			queue_offer(queue, (uint16_t)i);
		}
		queue_kick(queue);
		/* At another moment each time, the first of them at once. */
		wait_ticks(round * UINT64_C(30000));
		*reg(DISK, REG_STATUS) = 0;
		*status = 0x77;
		queue->used.index = 0x7777;
		for (uint32_t at = 0; at < BUFFER_BYTES; at += 0x8000) {
			AT(32, BUFFER + at) = 0x77777777;
		}
		wait_ticks(UINT64_C(5000000));
		EXPECT(*status == 0x77);
		EXPECT(queue->used.index == 0x7777);
		for (uint32_t at = 0; at < BUFFER_BYTES; at += 0x8000) {
			EXPECT(AT(32, BUFFER + at) == 0x77777777);
		}
	}
	expect_works(DISK);
	return 0;
}
