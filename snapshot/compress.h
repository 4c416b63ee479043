/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Guest memory to a memory file, on several threads. */

#include "snapshot/format.h"

struct snapshot_compress_result {
	struct snapshot_chunk *chunks; /* owned by the caller */
	uint64_t file_bytes;
	uint64_t stored_chunks;
};

/* Writes the stored chunks to file_fd, from file_offset; what stands in front of them is left to
 * the caller. The other parameters are those of snapshot_writer_memory(); memory_bytes must be
 * valid. Blocks. */
int snapshot_compress(int memory_fd, uint64_t memory_bytes, int file_fd, uint64_t file_offset,
		      unsigned n_threads,
		      void (*progress)(void *userdata, uint64_t done_bytes, uint64_t total_bytes),
		      void *userdata, struct snapshot_compress_result *ret_result,
		      struct base_error *error);
