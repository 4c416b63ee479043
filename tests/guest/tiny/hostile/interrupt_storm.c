/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Interrupts as fast as they can be had, of the serial port and of a device, taken and ignored,
 * masked and not.
 */

#include "tests/guest/tiny/hostile/ioapic.h"

uint32_t guest_main(void)
{
	uint32_t serial = 0x10 + 2 * 4;

	interrupts_init();
	ioapic_write(serial, VECTOR + 1);
	ioapic_write(PIN_LOW, VECTOR + 2);
	device_start(RNG);
	__asm__ volatile("sti");
	for (unsigned i = 0; i < 500; i++) {
		outb(PORT_SERIAL + 1, 0);
		outb(PORT_SERIAL + 1, 2);
		if (i == 250) {
			__asm__ volatile("cli");
		}
		if (i % 10 == 0) {
			queue_buffer(&queues[RNG][0], gpa_of(scratch), 1, DESC_WRITE);
		}
	}
	outb(PORT_SERIAL + 1, 0);
	EXPECT(interrupt_count[1] > 100);
	ioapic_write(serial, MASKED);
	__asm__ volatile("cli");
	expect_interrupt();
	return 0;
}
