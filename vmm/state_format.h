/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The state file, version 1. Everything is little-endian; nothing is a dumped struct.
 *
 *    header       offset  size
 *                      0     8  magic "WBXSTATE"
 *                      8     4  version
 *                     12     4  number of sections
 *                     16     8  length of the file
 *                     24     4  enum vmm_host_kind
 *                     28     4  vCPUs
 *                     32     8  CPU fingerprint (vmm_host_fingerprint)
 *                     40     8  memory bytes
 *                     48     4  guest CID
 *                     52     4  disks
 *                     56     4  read-only disks, one bit each
 *                     60     4  0
 *                     64     8  XXH64 (seed 0) of bytes 0..63
 *    sections, back to back, in this order: each vCPU, clock, IOAPIC, serial port, each virtio
 * device 0     4  id 4     4  version 8     4  index (of the vCPU or the device; else 0) 12     4
 * payload length 16     n  payload 16+n     8  XXH64 of bytes 0..16+n-1, seed: position of the
 * section in the file
 *
 * So every byte is under a checksum, and a section cannot move. Which sections there are follows
 * from the header: a file with others, more or fewer is refused.
 */

#include "base/bytes.h"
#include "base/error.h"
#include "vmm/vm.h"

#define VMM_STATE_VERSION	1
#define VMM_STATE_HEADER_BYTES	72u
#define VMM_SECTION_HEAD_BYTES	16u
#define VMM_SECTION_BYTES_MAX	MIB(1)
#define VMM_STATE_CHECKSUM_SEED 0

enum vmm_section_id {
	VMM_SECTION_VCPU = 1,
	VMM_SECTION_CLOCK = 2,
	VMM_SECTION_IOAPIC = 3,
	VMM_SECTION_SERIAL = 4,
	VMM_SECTION_DEVICE = 5,
};

/* "vCPU", "clock", … */
const char *vmm_section_name(enum vmm_section_id id);

struct vmm_state_header {
	uint32_t n_sections;
	enum vmm_host_kind kind;
	uint64_t fingerprint;
	struct vmm_config config; /* but for `shared` */
};

/* Starts a file: room for the header, which vmm_state_finish() fills in. */
void vmm_state_begin(struct base_writer *writer);
/* Starts a section and ends it; returns the position that end wants. */
size_t vmm_section_begin(struct base_writer *writer, enum vmm_section_id id, uint32_t index);
void vmm_section_end(struct base_writer *writer, size_t position);
/* 0 or -ENOMEM. */
int vmm_state_finish(struct base_writer *writer, const struct vmm_state_header *header);

/* Checks the header; the reader stands at the first section then. -EBADMSG. */
int vmm_state_read_header(struct base_reader *reader, struct vmm_state_header *ret_header,
			  struct base_error *error);
/* Takes the next section, which must be this one: a reader of its payload. -EBADMSG. */
int vmm_section_read(struct base_reader *reader, enum vmm_section_id id, uint32_t index,
		     struct base_reader *ret_payload, struct base_error *error);
