/* SPDX-License-Identifier: Apache-2.0 */

/* A reset with buffers outstanding (2.4.2): the device does not touch them any more. */

#include "tests/guest/tiny/hostile/driver.h"

uint32_t guest_main(void)
{
	static const uint8_t number[] = { 0, RX, 2, 0 };
	struct packet packet = vsock_packet(1, 2, OP_RW);

	for (unsigned device = 0; device < DEVICES; device++) {
		struct queue *queue = &queues[device][number[device]];

		device_start(device);
		queue_desc(queue, 0, gpa_of(scratch), 4096, DESC_WRITE, 0);
		queue_offer(queue, 0);
		*reg(device, REG_STATUS) = 0;
		for (unsigned i = 0; i < 4096; i += 64) {
			scratch[i] = 0x77;
		}
		queue_kick(queue);
		if (device == VSOCK) {
			/* Something for the guest, in a device that is set up without that queue.
			 */
			device_negotiate(VSOCK);
			queue_set_up(VSOCK, TX);
			*reg(VSOCK, REG_STATUS) = S_RUNNING;
			vsock_send(&packet, 0);
		}
		expect_nothing(queue);
		for (unsigned i = 0; i < 4096; i += 64) {
			EXPECT(((volatile uint8_t *)scratch)[i] == 0x77);
		}
		expect_works(device);
	}
	return 0;
}
