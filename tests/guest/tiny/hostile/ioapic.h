/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The IOAPIC, and the entropy device's pin of it. */

#include "tests/guest/tiny/hostile/driver.h"

#define IOAPIC	       0xfec00000u
#define PIN_LOW	       (0x10u + 2 * DEVICE_IRQ(RNG))
#define PIN_HIGH       (PIN_LOW + 1)
#define MASKED	       (1u << 16)
#define LEVEL	       (1u << 15)
#define REMOTE	       (1u << 14) /* remote IRR, read-only */
#define PENDING	       (1u << 12) /* delivery status, read-only */
#define DELIVERY(mode) ((uint32_t)(mode) << 8)
#define VECTOR	       0x40u

static inline void ioapic_write(uint32_t index, uint32_t value)
{
	AT(32, IOAPIC) = index;
	AT(32, IOAPIC + 16) = value;
}

static inline uint32_t ioapic_read(uint32_t index)
{
	AT(32, IOAPIC) = index;
	return AT(32, IOAPIC + 16);
}

/* One interrupt of the entropy device arrives. */
static inline void expect_interrupt(void)
{
	uint32_t seen = interrupt_count[VECTOR - VECTOR_FIRST];

	ioapic_write(PIN_HIGH, 0);
	ioapic_write(PIN_LOW, VECTOR);
	expect_works(RNG);
	halt_until(VECTOR, seen);
}
