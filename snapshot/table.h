/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What stands in front of the data of a memory file: struct to bytes and back. No file is touched
 * here. */

#include "base/bytes.h"
#include "snapshot/format.h"

struct snapshot_table {
	struct snapshot_chunk *chunks; /* owned; n as the format derives from the memory */
	uint64_t stored_chunks;
	uint32_t *ws;		/* owned; page numbers of the working set; NULL without one */
	uint64_t *ws_checksums; /* owned; one for each block */
	uint32_t ws_pages;
};

/* Takes a table of zeros. */
void snapshot_table_deinit(struct snapshot_table *table);

/* Appends everything in front of the data. The table must be valid. 0 or -ENOMEM. */
int snapshot_table_encode(const struct snapshot_table *table, uint64_t memory_bytes,
			  uint64_t file_bytes, struct base_writer *writer);

/*
 * Reads the header of a file of file_bytes that holds memory_bytes of guest memory, and tells how
 * much stands in front of the data: more than 0, and not more than file_bytes. 0, or -EBADMSG with
 * "memory: <field>: why".
 */
int snapshot_table_decode_header(const void *data, size_t size, uint64_t memory_bytes,
				 uint64_t file_bytes, uint64_t *ret_data_offset,
				 struct base_error *error);

/*
 * Reads everything in front of the data; data must be exactly that many bytes. On success the
 * chunks of *ret_table (owned by the caller) lie inside the file, behind the working set, in order
 * and without gaps, and the page numbers inside the memory, none twice. 0, -EBADMSG with
 * "memory: <field>: why", or -ENOMEM.
 */
int snapshot_table_decode(const void *data, size_t size, uint64_t memory_bytes, uint64_t file_bytes,
			  struct snapshot_table *ret_table, struct base_error *error);

/* Decodes the stored bytes of a valid chunk n that covers `covers` bytes to out, and compares the
 * checksum. 0 or -EBADMSG. A zero chunk fills out with zeros. */
int snapshot_table_decode_chunk(const struct snapshot_chunk *chunk, uint64_t n, uint32_t covers,
				const void *stored, void *out, struct base_error *error);

/* Compares the checksum of a block of the working set. 0 or -EBADMSG. */
int snapshot_table_check_block(const struct snapshot_table *table, uint64_t block, const void *data,
			       struct base_error *error);
