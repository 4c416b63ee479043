/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takes an interrupt of the serial port through the IOAPIC, one that came while its pin was masked,
 * and a self-IPI. Ends with 0.
 */

#include "tests/guest/tiny/guest.h"

#define IOAPIC	      ((volatile uint32_t *)0xfec00000)
#define VECTOR_SERIAL 0x40
#define VECTOR_SELF   0x41
#define SERIAL_IRQ    4
#define SERIAL_IER    (PORT_SERIAL + 1)
#define SERIAL_IIR    (PORT_SERIAL + 2)
#define IER_TRANSMIT  2
#define ENTRY_MASKED  (1u << 16)
#define IIR_TRANSMIT  2
#define IIR_ID_MASK   0x0f

static void ioapic_write(uint32_t index, uint32_t value)
{
	IOAPIC[0] = index;
	IOAPIC[4] = value;
}

static uint32_t ioapic_read(uint32_t index)
{
	IOAPIC[0] = index;
	return IOAPIC[4];
}

uint32_t guest_main(void)
{
	uint32_t low = 0x10 + 2 * SERIAL_IRQ;

	interrupts_init();
	if ((ioapic_read(1) >> 16 & 0xff) != 23) {
		return 1;
	}
	ioapic_write(low + 1, 0);
	ioapic_write(low, VECTOR_SERIAL);
	outb(SERIAL_IER, IER_TRANSMIT);
	halt_until(VECTOR_SERIAL, 0);
	if ((inb(SERIAL_IIR) & IIR_ID_MASK) != IIR_TRANSMIT) {
		return 2;
	}

	/* An edge while the pin is masked comes when it is unmasked. */
	ioapic_write(low, VECTOR_SERIAL | ENTRY_MASKED);
	outb(PORT_SERIAL, '.');
	if (interrupt_count[VECTOR_SERIAL - VECTOR_FIRST] != 1) {
		return 3;
	}
	ioapic_write(low, VECTOR_SERIAL);
	halt_until(VECTOR_SERIAL, 1);

	wrmsr(MSR_X2APIC_SELF, VECTOR_SELF);
	halt_until(VECTOR_SELF, 0);
	print("interrupts ok\n");
	return 0;
}
