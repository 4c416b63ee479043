/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The reader of memory files: header, chunk table, and the decoding of every chunk that is
 * accepted. An input is a whole file; how much memory it should hold is taken from its own header,
 * since the manifest would say the same.
 */

#include "base/bytes.h"
#include "snapshot/table.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES_OFFSET 16

/* The chunks tile the data, whatever the input was. */
static void check_tiling(const struct snapshot_chunk *chunks, uint64_t n_chunks, uint64_t from,
			 uint64_t to)
{
	for (uint64_t n = 0; n < n_chunks; n++) {
		if (chunks[n].encoding == SNAPSHOT_CHUNK_ZERO) {
			continue;
		}
		if (chunks[n].offset != from) {
			abort();
		}
		from += chunks[n].length;
	}
	if (from != to) {
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t out[SNAPSHOT_CHUNK_BYTES];
	_cleanup_free_ struct snapshot_chunk *chunks = NULL;
	struct base_error error = { 0 };
	uint64_t stored = 0;

	if (size < SNAPSHOT_MEMORY_HEADER_BYTES) {
		return 0;
	}

	uint64_t memory_bytes = base_load_u64(data + MEMORY_BYTES_OFFSET);
	uint64_t n_chunks = 0, data_offset = SNAPSHOT_DATA_ALIGN;

	if (snapshot_format_memory_bytes_valid(memory_bytes)) {
		n_chunks = snapshot_format_chunk_count(memory_bytes);
		data_offset = snapshot_format_data_offset(n_chunks);
	}
	if (snapshot_table_decode(data, (size_t)MIN(data_offset, (uint64_t)size), memory_bytes,
				  size, &chunks, &stored, &error) < 0) {
		if (strncmp(error.text, "memory: ", 8) != 0) {
			abort(); /* a refusal names the file */
		}
		return 0;
	}
	check_tiling(chunks, n_chunks, data_offset, size);
	for (uint64_t n = 0; n < n_chunks; n++) {
		snapshot_table_decode_chunk(&chunks[n], n,
					    snapshot_format_chunk_covers(memory_bytes, n),
					    data + chunks[n].offset, out, &error);
	}
	return 0;
}
