/* SPDX-License-Identifier: Apache-2.0 */

/* Chains that bite their tail, of one, two, three and all descriptors (2.7.5.2). */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const unsigned lengths[] = { 1, 2, 3, RING_SIZE };

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		for (unsigned device = 0; device < DEVICES; device++) {
			unsigned number = device == VSOCK ? TX : 0;
			struct queue *queue = &queues[device][number];

			device_start(device);
			for (unsigned n = 0; n < lengths[i]; n++) {
				queue_desc(queue, n, gpa_of(scratch), 64, DESC_NEXT,
					   (uint16_t)((n + 1) % lengths[i]));
			}
			queue_offer(queue, 0);
			queue_kick(queue);
			expect_needs_reset(device);
		}
	}
	expect_works(DISK);
	return 0;
}
