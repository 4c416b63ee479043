/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The IOAPIC of vmm/ioapic.h.
 *
 * A raised pin becomes one KVM_SIGNAL_MSI built from its redirection entry. Level triggering is not
 * offered: the trigger bit reads as written but makes no difference, and the kernel sets up what
 * the MP table says, which is edge. KVM refusing a message (a vector below 16, say) is the guest's
 * own doing and is dropped, as hardware drops it. Runs under the device lock, on whichever thread
 * holds it.
 */

#include "vmm/ioapic.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <sys/ioctl.h>

#define REG_SELECT 0x00u
#define REG_WINDOW 0x10u

#define INDEX_ID	  0x00u
#define INDEX_VERSION	  0x01u
#define INDEX_ARBITRATION 0x02u
#define INDEX_REDIRECT	  0x10u

#define VERSION 0x11u

#define ENTRY_VECTOR	      0xffu
#define ENTRY_DELIVERY_SHIFT  8
#define ENTRY_LOGICAL	      (UINT64_C(1) << 11)
#define ENTRY_MASKED	      (UINT64_C(1) << 16)
#define ENTRY_DEST_SHIFT      56
#define ENTRY_READ_ONLY	      (UINT64_C(1) << 12 | UINT64_C(1) << 14)
#define ENTRY_DEFINED	      (UINT64_C(0xff) << ENTRY_DEST_SHIFT | 0x1ffff)
#define MSI_ADDRESS	      0xfee00000u
#define MSI_ADDRESS_LOGICAL   (1u << 2)
#define DELIVERY_LOWEST	      1u
#define MSI_ADDRESS_REDIRECT  (1u << 3)
#define MSI_DATA_DELIVERY_LOG 8

static bool index_to_pin(uint8_t select, unsigned *ret_pin)
{
	if (select < INDEX_REDIRECT || select >= INDEX_REDIRECT + 2 * VMM_IOAPIC_PINS) {
		return false;
	}
	*ret_pin = (select - INDEX_REDIRECT) / 2;
	return true;
}

void vmm_ioapic_init(struct vmm_ioapic *ioapic, int vm_fd)
{
	*ioapic = (struct vmm_ioapic){ .vm_fd = vm_fd };
	for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
		ioapic->redirect[pin] = ENTRY_MASKED;
	}
}

static void deliver(struct vmm_ioapic *ioapic, uint64_t entry)
{
	uint32_t delivery = (uint32_t)(entry >> ENTRY_DELIVERY_SHIFT) & 7;
	struct kvm_msi msi = {
		.address_lo = MSI_ADDRESS | (uint32_t)(entry >> ENTRY_DEST_SHIFT) << 12,
		.data = (uint32_t)(entry & ENTRY_VECTOR) | delivery << MSI_DATA_DELIVERY_LOG,
	};

	if (entry & ENTRY_LOGICAL) {
		msi.address_lo |= MSI_ADDRESS_LOGICAL;
	}
	if (delivery == DELIVERY_LOWEST) {
		msi.address_lo |= MSI_ADDRESS_REDIRECT;
	}
	(void)ioctl(ioapic->vm_fd, KVM_SIGNAL_MSI, &msi);
}

void vmm_ioapic_raise(struct vmm_ioapic *ioapic, unsigned irq)
{
	if (irq >= VMM_IOAPIC_PINS) {
		return;
	}
	if (ioapic->redirect[irq] & ENTRY_MASKED) {
		ioapic->pending |= 1u << irq;
		return;
	}
	ioapic->pending &= ~(1u << irq);
	deliver(ioapic, ioapic->redirect[irq]);
}

uint32_t vmm_ioapic_read(const struct vmm_ioapic *ioapic, uint32_t offset)
{
	unsigned pin;

	if (offset == REG_SELECT) {
		return ioapic->select;
	}
	if (offset != REG_WINDOW) {
		return 0;
	}
	switch (ioapic->select) {
	case INDEX_ID:
	case INDEX_ARBITRATION:
		return (uint32_t)ioapic->id << 24;
	case INDEX_VERSION:
		return VERSION | (VMM_IOAPIC_PINS - 1) << 16;
	default:
		break;
	}
	if (!index_to_pin(ioapic->select, &pin)) {
		return 0;
	}
	return (uint32_t)(ioapic->redirect[pin] >> (ioapic->select & 1 ? 32 : 0));
}

static void write_redirect(struct vmm_ioapic *ioapic, unsigned pin, bool high, uint32_t value)
{
	uint64_t entry = ioapic->redirect[pin];

	if (high) {
		entry = (entry & 0xffffffff) | (uint64_t)value << 32;
	} else {
		entry = (entry & ~UINT64_C(0xffffffff)) | value;
	}
	ioapic->redirect[pin] = entry & ENTRY_DEFINED & ~ENTRY_READ_ONLY;
	if (!(ioapic->redirect[pin] & ENTRY_MASKED) && (ioapic->pending & 1u << pin)) {
		vmm_ioapic_raise(ioapic, pin);
	}
}

void vmm_ioapic_write(struct vmm_ioapic *ioapic, uint32_t offset, uint32_t value)
{
	unsigned pin;

	if (offset == REG_SELECT) {
		ioapic->select = (uint8_t)value;
	} else if (offset == REG_WINDOW) {
		if (ioapic->select == INDEX_ID) {
			ioapic->id = (uint8_t)(value >> 24) & 0xf;
		} else if (index_to_pin(ioapic->select, &pin)) {
			write_redirect(ioapic, pin, ioapic->select & 1, value);
		}
	}
}

void vmm_ioapic_save(const struct vmm_ioapic *ioapic, struct base_writer *writer)
{
	base_writer_u8(writer, ioapic->id);
	base_writer_u8(writer, ioapic->select);
	base_writer_u32(writer, ioapic->pending);
	for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
		base_writer_u64(writer, ioapic->redirect[pin]);
	}
}

int vmm_ioapic_load(struct vmm_ioapic *ioapic, struct base_reader *reader, struct base_error *error)
{
	struct vmm_ioapic loaded = { .vm_fd = ioapic->vm_fd };

	loaded.id = base_reader_u8(reader);
	loaded.select = base_reader_u8(reader);
	loaded.pending = base_reader_u32(reader);
	for (unsigned pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
		loaded.redirect[pin] = base_reader_u64(reader);
		if (loaded.redirect[pin] & ~(ENTRY_DEFINED & ~ENTRY_READ_ONLY)) {
			return base_error_set(error, -EBADMSG,
					      "IOAPIC: entry %u has undefined bits", pin);
		}
	}
	if (base_reader_finish(reader) < 0) {
		return base_error_set(error, -EBADMSG, "IOAPIC: wrong length");
	}
	if (loaded.id > 0xf || loaded.pending >> VMM_IOAPIC_PINS) {
		return base_error_set(error, -EBADMSG, "IOAPIC: id or pending pins out of range");
	}
	*ioapic = loaded;
	return 0;
}
