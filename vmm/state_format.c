/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The framing of the state file: header and sections with their checksums. What is in the sections
 * is the business of state.c, state_vcpu.c and the devices. Works on buffers; any thread.
 */

#include "vmm/state_format.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

static const char magic[8] = { 'W', 'B', 'X', 'S', 'T', 'A', 'T', 'E' };

#define HEADER_CHECKED_BYTES (VMM_STATE_HEADER_BYTES - 8)
#define CHECKSUM_BYTES	     8u

const char *vmm_section_name(enum vmm_section_id id)
{
	switch (id) {
	case VMM_SECTION_VCPU:
		return "vCPU";
	case VMM_SECTION_CLOCK:
		return "clock";
	case VMM_SECTION_IOAPIC:
		return "IOAPIC";
	case VMM_SECTION_SERIAL:
		return "serial port";
	case VMM_SECTION_DEVICE:
		return "virtio device";
	}
	return "unknown";
}

void vmm_state_begin(struct base_writer *writer)
{
	static const uint8_t zeros[VMM_STATE_HEADER_BYTES];

	base_writer_bytes(writer, zeros, sizeof(zeros));
}

size_t vmm_section_begin(struct base_writer *writer, enum vmm_section_id id, uint32_t index)
{
	size_t position = writer->size;

	base_writer_u32(writer, id);
	base_writer_u32(writer, VMM_STATE_VERSION);
	base_writer_u32(writer, index);
	base_writer_u32(writer, 0);
	return position;
}

void vmm_section_end(struct base_writer *writer, size_t position)
{
	size_t length;

	if (writer->result < 0) {
		return;
	}
	length = writer->size - position - VMM_SECTION_HEAD_BYTES;
	base_writer_patch_u32(writer, position + 12, (uint32_t)length);
	base_writer_u64(writer,
			XXH64(writer->data + position, VMM_SECTION_HEAD_BYTES + length, position));
}

int vmm_state_finish(struct base_writer *writer, const struct vmm_state_header *header)
{
	uint8_t *p = writer->data;

	if (writer->result < 0) {
		return writer->result;
	}
	memcpy(p, magic, sizeof(magic));
	base_store_u32(p + 8, VMM_STATE_VERSION);
	base_store_u32(p + 12, header->n_sections);
	base_store_u64(p + 16, writer->size);
	base_store_u32(p + 24, header->kind);
	base_store_u32(p + 28, header->config.n_vcpus);
	base_store_u64(p + 32, header->fingerprint);
	base_store_u64(p + 40, header->config.memory_bytes);
	base_store_u32(p + 48, header->config.cid);
	base_store_u32(p + 52, header->config.n_disks);
	base_store_u32(p + 56, header->config.read_only_disks);
	base_store_u32(p + 60, 0);
	base_store_u64(p + 64, XXH64(p, HEADER_CHECKED_BYTES, VMM_STATE_CHECKSUM_SEED));
	return 0;
}

int vmm_state_read_header(struct base_reader *reader, struct vmm_state_header *ret_header,
			  struct base_error *error)
{
	const uint8_t *p = base_reader_bytes(reader, VMM_STATE_HEADER_BYTES);
	struct vmm_state_header header;

	if (!p) {
		return base_error_set(error, -EBADMSG, "state: header is cut off");
	}
	if (memcmp(p, magic, sizeof(magic)) != 0) {
		return base_error_set(error, -EBADMSG, "state: not a state file (magic)");
	}
	if (base_load_u64(p + 64) != XXH64(p, HEADER_CHECKED_BYTES, VMM_STATE_CHECKSUM_SEED)) {
		return base_error_set(error, -EBADMSG, "state: header: wrong checksum");
	}
	if (base_load_u32(p + 8) != VMM_STATE_VERSION) {
		return base_error_set(error, -EBADMSG,
				      "state: header: version %u, this program knows %d",
				      base_load_u32(p + 8), VMM_STATE_VERSION);
	}
	if (base_load_u64(p + 16) != reader->size || base_load_u32(p + 60) != 0) {
		return base_error_set(error, -EBADMSG, "state: header: length %llu, file has %zu",
				      (unsigned long long)base_load_u64(p + 16), reader->size);
	}
	header = (struct vmm_state_header){
		.n_sections = base_load_u32(p + 12),
		.kind = (enum vmm_host_kind)base_load_u32(p + 24),
		.fingerprint = base_load_u64(p + 32),
		.config = {
			.memory_bytes = base_load_u64(p + 40),
			.n_vcpus = base_load_u32(p + 28),
			.n_disks = base_load_u32(p + 52),
			.read_only_disks = base_load_u32(p + 56),
			.cid = base_load_u32(p + 48),
		},
	};
	*ret_header = header;
	return 0;
}

int vmm_section_read(struct base_reader *reader, enum vmm_section_id id, uint32_t index,
		     struct base_reader *ret_payload, struct base_error *error)
{
	const char *name = vmm_section_name(id);
	size_t position = reader->position;
	const uint8_t *head = base_reader_bytes(reader, VMM_SECTION_HEAD_BYTES);
	const uint8_t *payload;
	uint32_t length;

	if (!head) {
		return base_error_set(error, -EBADMSG, "state: %s %u: section is cut off", name,
				      index);
	}
	length = base_load_u32(head + 12);
	payload = length <= VMM_SECTION_BYTES_MAX
			  ? base_reader_bytes(reader, length + CHECKSUM_BYTES)
			  : NULL;
	if (!payload) {
		return base_error_set(error, -EBADMSG, "state: %s %u: length %u is out of range",
				      name, index, length);
	}
	if (base_load_u64(payload + length) !=
	    XXH64(head, VMM_SECTION_HEAD_BYTES + length, position)) {
		return base_error_set(error, -EBADMSG, "state: %s %u: wrong checksum", name, index);
	}
	if (base_load_u32(head) != id || base_load_u32(head + 8) != index) {
		return base_error_set(error, -EBADMSG,
				      "state: %s %u: another section (id %u, index %u) is there",
				      name, index, base_load_u32(head), base_load_u32(head + 8));
	}
	if (base_load_u32(head + 4) != VMM_STATE_VERSION) {
		return base_error_set(error, -EBADMSG,
				      "state: %s %u: version %u, this program knows %d", name,
				      index, base_load_u32(head + 4), VMM_STATE_VERSION);
	}
	*ret_payload = base_reader_init(payload, length);
	return 0;
}
