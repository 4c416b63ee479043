/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Header and chunk table of the memory file: struct to bytes and back. No file is touched here. */

#include "base/bytes.h"
#include "snapshot/format.h"

/* Appends everything in front of the data. The chunks (n as the format derives from memory_bytes)
 * must be valid. 0 or -ENOMEM. */
int snapshot_table_encode(const struct snapshot_chunk *chunks, uint64_t memory_bytes,
			  uint64_t file_bytes, struct base_writer *writer);

/*
 * Reads everything in front of the data of a file of file_bytes that holds memory_bytes of guest
 * memory; data must be exactly that many bytes: snapshot_format_data_offset(). On success the
 * chunks (owned by the caller, at least one) lie inside the file, in order and without gaps, and
 * *ret_stored of them are stored. 0, -EBADMSG with "memory: <field>: why", or -ENOMEM.
 */
int snapshot_table_decode(const void *data, size_t size, uint64_t memory_bytes, uint64_t file_bytes,
			  struct snapshot_chunk **ret_chunks, uint64_t *ret_stored,
			  struct base_error *error);

/* Decodes the stored bytes of a valid chunk n that covers `covers` bytes to out, and compares the
 * checksum. 0 or -EBADMSG. A zero chunk fills out with zeros. */
int snapshot_table_decode_chunk(const struct snapshot_chunk *chunk, uint64_t n, uint32_t covers,
				const void *stored, void *out, struct base_error *error);
