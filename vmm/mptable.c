/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The MP tables (Intel MultiProcessor Specification 1.4): how a kernel without ACPI finds the CPUs,
 * the IOAPIC and which pin an ISA interrupt arrives at. Built in a buffer, then written once.
 */

#include "vmm/boot.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

#define LOCAL_APIC_BASE	   0xfee00000u
#define LOCAL_APIC_VERSION 0x14u
#define IOAPIC_VERSION	   0x11u
#define ISA_INTERRUPTS	   16u

#define ENTRY_PROCESSOR	      0u
#define ENTRY_BUS	      1u
#define ENTRY_IOAPIC	      2u
#define ENTRY_INTERRUPT	      3u
#define ENTRY_LOCAL_INTERRUPT 4u

#define CPU_ENABLED 1u
#define CPU_BOOT    2u

#define INTERRUPT_INT	 0u
#define INTERRUPT_NMI	 1u
#define INTERRUPT_EXTINT 3u

#define POINTER_BYTES 16u

static uint8_t checksum(const uint8_t *data, size_t size)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < size; i++) {
		sum = (uint8_t)(sum + data[i]);
	}
	return (uint8_t)-sum;
}

static void write_text(struct base_writer *w, const char *text, size_t size)
{
	for (size_t i = 0, length = strlen(text); i < size; i++) {
		base_writer_u8(w, (uint8_t)(i < length ? text[i] : ' '));
	}
}

static void write_interrupt(struct base_writer *w, uint8_t entry, uint8_t type, uint8_t irq,
			    uint8_t apic_id, uint8_t pin)
{
	base_writer_u8(w, entry);
	base_writer_u8(w, type);
	base_writer_u16(w, 0); /* polarity and trigger: as the bus has it, high and edge */
	base_writer_u8(w, 0);  /* bus 0 */
	base_writer_u8(w, irq);
	base_writer_u8(w, apic_id);
	base_writer_u8(w, pin);
}

static unsigned write_entries(struct base_writer *w, unsigned n_vcpus)
{
	uint8_t ioapic_id = (uint8_t)n_vcpus;

	for (unsigned i = 0; i < n_vcpus; i++) {
		base_writer_u8(w, ENTRY_PROCESSOR);
		base_writer_u8(w, (uint8_t)i);
		base_writer_u8(w, LOCAL_APIC_VERSION);
		base_writer_u8(w, CPU_ENABLED | (i == 0 ? CPU_BOOT : 0));
		base_writer_u32(w, 0x600); /* signature: nobody looks, CPUID has it */
		base_writer_u32(w, 0x201); /* features: FPU, APIC */
		base_writer_u64(w, 0);
	}
	base_writer_u8(w, ENTRY_BUS);
	base_writer_u8(w, 0);
	write_text(w, "ISA", 6);
	base_writer_u8(w, ENTRY_IOAPIC);
	base_writer_u8(w, ioapic_id);
	base_writer_u8(w, IOAPIC_VERSION);
	base_writer_u8(w, 1);
	base_writer_u32(w, VMM_IOAPIC_BASE);
	for (unsigned irq = 0; irq < ISA_INTERRUPTS; irq++) {
		write_interrupt(w, ENTRY_INTERRUPT, INTERRUPT_INT, (uint8_t)irq, ioapic_id,
				(uint8_t)irq);
	}
	write_interrupt(w, ENTRY_LOCAL_INTERRUPT, INTERRUPT_EXTINT, 0, 0, 0);
	write_interrupt(w, ENTRY_LOCAL_INTERRUPT, INTERRUPT_NMI, 0, 0xff, 1);
	return n_vcpus + 2 + ISA_INTERRUPTS + 2;
}

static void write_pointer(struct base_writer *w, uint32_t table_gpa)
{
	base_writer_bytes(w, "_MP_", 4);
	base_writer_u32(w, table_gpa);
	base_writer_u8(w, POINTER_BYTES / 16);
	base_writer_u8(w, 4); /* revision 1.4 */
	base_writer_u8(w, 0); /* checksum */
	base_writer_u32(w, 0);
	base_writer_u8(w, 0);
}

static void write_header(struct base_writer *w)
{
	base_writer_bytes(w, "PCMP", 4);
	base_writer_u16(w, 0); /* length */
	base_writer_u8(w, 4);
	base_writer_u8(w, 0); /* checksum */
	write_text(w, "WARMBOX", 8);
	write_text(w, "MICROVM", 12);
	base_writer_u32(w, 0); /* no OEM table */
	base_writer_u16(w, 0);
	base_writer_u16(w, 0); /* entries */
	base_writer_u32(w, LOCAL_APIC_BASE);
	base_writer_u32(w, 0); /* no extended table */
}

int vmm_mptable_write(const struct vmm_memory *memory, unsigned n_vcpus)
{
	_cleanup_writer_ struct base_writer w = {};
	unsigned n_entries;
	uint8_t *table;
	size_t length;

	write_pointer(&w, VMM_BOOT_MPTABLE + POINTER_BYTES);
	write_header(&w);
	n_entries = write_entries(&w, n_vcpus);
	if (base_writer_result(&w) < 0) {
		return base_writer_result(&w);
	}
	if (w.size > VMM_BOOT_MPTABLE_BYTES) {
		return -EFAULT;
	}
	w.data[10] = checksum(w.data, POINTER_BYTES);
	table = w.data + POINTER_BYTES;
	length = w.size - POINTER_BYTES;
	base_store_u16(table + 4, (uint16_t)length);
	base_store_u16(table + 34, (uint16_t)n_entries);
	table[7] = checksum(table, length);
	return vmm_memory_write(memory, VMM_BOOT_MPTABLE, w.data, w.size);
}
