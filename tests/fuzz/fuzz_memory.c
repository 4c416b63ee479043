/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The reader of memory files: header, chunk table, working set, and the decoding of every chunk and
 * the checking of every block that is accepted. An input is a whole file; how much memory it should
 * hold is taken from its own header, since the manifest would say the same.
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

/* Every page is inside the memory and was not there before. */
static void check_pages(const struct snapshot_table *table, uint64_t memory_bytes)
{
	for (uint32_t i = 0; i < table->ws_pages; i++) {
		if (table->ws[i] >= memory_bytes / SNAPSHOT_PAGE_BYTES) {
			abort();
		}
		for (uint32_t before = 0; before < i; before++) {
			if (table->ws[before] == table->ws[i]) {
				abort();
			}
		}
	}
}

/* A refusal names the file. */
static void check_refusal(const struct base_error *error)
{
	if (strncmp(error->text, "memory: ", 8) != 0) {
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t out[SNAPSHOT_CHUNK_BYTES];
	_cleanup_(snapshot_table_deinit) struct snapshot_table table = {};
	struct base_error error = { 0 };
	uint64_t memory_bytes = 0, data_offset = 0;

	if (size >= MEMORY_BYTES_OFFSET + 8) {
		memory_bytes = base_load_u64(data + MEMORY_BYTES_OFFSET);
	}
	if (snapshot_table_decode_header(data, size, memory_bytes, size, &data_offset, &error) <
	    0) {
		check_refusal(&error);
		return 0;
	}
	if (data_offset == 0 || data_offset > size) {
		abort();
	}
	if (snapshot_table_decode(data, data_offset, memory_bytes, size, &table, &error) < 0) {
		check_refusal(&error);
		return 0;
	}

	uint64_t n_chunks = snapshot_format_chunk_count(memory_bytes);
	uint64_t ws_bytes = table.ws_pages * SNAPSHOT_PAGE_BYTES;

	check_pages(&table, memory_bytes);
	check_tiling(table.chunks, n_chunks, data_offset + ws_bytes, size);
	for (uint64_t b = 0; b < snapshot_format_ws_blocks(table.ws_pages); b++) {
		snapshot_table_check_block(
			&table, b,
			data + data_offset + b * SNAPSHOT_WS_BLOCK_PAGES * SNAPSHOT_PAGE_BYTES,
			&error);
	}
	for (uint64_t n = 0; n < n_chunks; n++) {
		snapshot_table_decode_chunk(&table.chunks[n], n,
					    snapshot_format_chunk_covers(memory_bytes, n),
					    data + table.chunks[n].offset, out, &error);
	}
	return 0;
}
