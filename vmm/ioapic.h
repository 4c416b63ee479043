/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A small IOAPIC (Intel 82093AA) in user space: 24 pins, edge-triggered only.
 *
 * The guest reaches it through MMIO exits; an interrupt goes to KVM's local APICs as a message
 * (KVM_SIGNAL_MSI). Everything runs under the device lock.
 */

#include "base/bytes.h"
#include "base/error.h"

#define VMM_IOAPIC_BASE	 0xfec00000u
#define VMM_IOAPIC_BYTES 0x1000u
#define VMM_IOAPIC_PINS	 24u

struct vmm_ioapic {
	int vm_fd; /* borrowed */
	uint8_t id;
	uint8_t select;
	uint32_t pending; /* edges that came while their pin was masked; one bit a pin */
	uint64_t redirect[VMM_IOAPIC_PINS];
};

void vmm_ioapic_init(struct vmm_ioapic *ioapic, int vm_fd);

/* An edge on pin irq: a message to the local APICs, or remembered until the pin is unmasked. */
void vmm_ioapic_raise(struct vmm_ioapic *ioapic, unsigned irq);

uint32_t vmm_ioapic_read(const struct vmm_ioapic *ioapic, uint32_t offset);
void vmm_ioapic_write(struct vmm_ioapic *ioapic, uint32_t offset, uint32_t value);

void vmm_ioapic_save(const struct vmm_ioapic *ioapic, struct base_writer *writer);
/* Validates everything; nothing changes on failure. 0 or -EBADMSG with the field in error. */
int vmm_ioapic_load(struct vmm_ioapic *ioapic, struct base_reader *reader,
		    struct base_error *error);
