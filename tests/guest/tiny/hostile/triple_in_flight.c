/* SPDX-License-Identifier: Apache-2.0 */

/* A triple fault with requests under way in every device. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	for (unsigned device = 0; device < DEVICES; device++) {
		expect_works(device);
	}
	for (unsigned i = 0; i < 3; i++) {
		struct packet packet = vsock_packet(i, 53, OP_REQUEST);

		vsock_send(&packet, 0);
	}
	blk_submit(BLK_FLUSH, 0, 0, 0);
	queue_buffer(&queues[RNG][0], gpa_of(scratch), 4096, DESC_WRITE);
	queue_buffer(&queues[BALLOON][2], gpa_of(scratch), 65536, DESC_WRITE);
	{
		static const struct __attribute__((packed)) {
			uint16_t limit;
			uint64_t base;
		} none = { 0, 0 };

		__asm__ volatile("lidt %0; ud2" : : "m"(none));
	}
	return 0;
}
