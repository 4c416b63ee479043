/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What stands in front of the data of a memory file.
 *
 * The data is the working set, then the stored chunks in the order of the table, without gaps; so
 * one running offset checks at once that every chunk is inside the file, that none overlap and that
 * no byte of the data is left over. Every failure is -EBADMSG and names the field. No state, any
 * thread.
 */

#include "snapshot/table.h"

#include "snapshot/working_set.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <string.h>
#include <xxhash.h>

void snapshot_table_deinit(struct snapshot_table *table)
{
	free(table->chunks);
	free(table->ws);
	free(table->ws_checksums);
	*table = (struct snapshot_table){};
}

int snapshot_table_encode(const struct snapshot_table *table, uint64_t memory_bytes,
			  uint64_t file_bytes, struct base_writer *writer)
{
	static const uint8_t zeros[SNAPSHOT_DATA_ALIGN];
	uint64_t n_chunks = snapshot_format_chunk_count(memory_bytes);
	uint64_t data_offset = snapshot_format_data_offset(n_chunks, table->ws_pages);

	base_writer_bytes(writer, SNAPSHOT_MEMORY_MAGIC, SNAPSHOT_MAGIC_BYTES);
	base_writer_u32(writer, SNAPSHOT_FORMAT_VERSION);
	base_writer_u32(writer, SNAPSHOT_CHUNK_BYTES);
	base_writer_u64(writer, memory_bytes);
	base_writer_u64(writer, n_chunks);
	base_writer_u64(writer, table->ws_pages);
	base_writer_u64(writer, data_offset);
	base_writer_u64(writer, file_bytes - data_offset);
	base_writer_u64(writer, 0); /* reserved */

	for (uint64_t n = 0; n < n_chunks; n++) {
		base_writer_u64(writer, table->chunks[n].offset);
		base_writer_u32(writer, table->chunks[n].length);
		/* and three bytes reserved */
		base_writer_u32(writer, table->chunks[n].encoding);
		base_writer_u64(writer, table->chunks[n].checksum);
	}
	for (uint32_t i = 0; i < table->ws_pages; i++) {
		base_writer_u32(writer, table->ws[i]);
	}
	for (uint64_t b = 0; b < snapshot_format_ws_blocks(table->ws_pages); b++) {
		base_writer_u64(writer, table->ws_checksums[b]);
	}
	base_writer_bytes(writer, zeros,
			  data_offset - snapshot_format_table_end(n_chunks, table->ws_pages));
	return base_writer_result(writer);
}

static int bad(struct base_error *error, const char *field, uint64_t value, uint64_t expected)
{
	return base_error_set(error, -EBADMSG, "memory: %s: %" PRIu64 " instead of %" PRIu64, field,
			      value, expected);
}

/* The next number has to be the one that is expected. */
static int expect(struct base_reader *reader, unsigned bytes, const char *field, uint64_t expected,
		  struct base_error *error)
{
	uint64_t value = bytes == 4 ? base_reader_u32(reader) : base_reader_u64(reader);

	return value != expected ? bad(error, field, value, expected) : 0;
}

static int decode_header(struct base_reader *reader, uint64_t memory_bytes, uint64_t file_bytes,
			 uint32_t *ret_ws_pages, uint64_t *ret_data_offset,
			 struct base_error *error)
{
	const void *magic = base_reader_bytes(reader, SNAPSHOT_MAGIC_BYTES);
	uint64_t n_chunks, ws_pages, data_offset;
	int r;

	if (!snapshot_format_memory_bytes_valid(memory_bytes)) {
		return base_error_set(error, -EBADMSG, "memory: memory bytes: out of range");
	}
	if (!magic || memcmp(magic, SNAPSHOT_MEMORY_MAGIC, SNAPSHOT_MAGIC_BYTES) != 0) {
		return base_error_set(error, -EBADMSG, "memory: magic: not snapshot memory");
	}
	n_chunks = snapshot_format_chunk_count(memory_bytes);
	r = expect(reader, 4, "version", SNAPSHOT_FORMAT_VERSION, error);
	r = r ?: expect(reader, 4, "chunk bytes", SNAPSHOT_CHUNK_BYTES, error);
	r = r ?: expect(reader, 8, "memory bytes", memory_bytes, error);
	r = r ?: expect(reader, 8, "chunk count", n_chunks, error);
	if (r < 0) {
		return r;
	}
	ws_pages = base_reader_u64(reader);
	if (ws_pages > snapshot_format_ws_max(memory_bytes)) {
		return base_error_set(error, -EBADMSG,
				      "memory: working set pages: %" PRIu64 ", but %" PRIu64
				      " at most",
				      ws_pages, snapshot_format_ws_max(memory_bytes));
	}
	data_offset = snapshot_format_data_offset(n_chunks, ws_pages);
	r = expect(reader, 8, "data offset", data_offset, error);
	if (r < 0) {
		return r;
	}
	if (file_bytes < data_offset + ws_pages * SNAPSHOT_PAGE_BYTES) {
		return base_error_set(error, -EBADMSG, "memory: size: the file is cut off");
	}
	r = expect(reader, 8, "data bytes", file_bytes - data_offset, error);
	r = r ?: expect(reader, 8, "reserved", 0, error);
	*ret_ws_pages = (uint32_t)ws_pages;
	*ret_data_offset = data_offset;
	return r;
}

/* NULL, or the field that does not hold. *data_end moves over a stored chunk. */
static const char *decode_entry(struct base_reader *reader, uint32_t covers, uint64_t file_bytes,
				uint64_t *data_end, struct snapshot_chunk *ret_chunk)
{
	uint64_t offset = base_reader_u64(reader);
	uint32_t length = base_reader_u32(reader);
	uint32_t encoding = base_reader_u32(reader);
	uint64_t checksum = base_reader_u64(reader);
	bool zero = encoding == SNAPSHOT_CHUNK_ZERO;

	switch (encoding) {
	case SNAPSHOT_CHUNK_ZERO:
		if (checksum != 0) {
			return "checksum";
		}
		if (length != 0) {
			return "length";
		}
		break;
	case SNAPSHOT_CHUNK_RAW:
		if (length != covers) {
			return "length";
		}
		break;
	case SNAPSHOT_CHUNK_LZ4:
		if (length == 0 || length >= covers) {
			return "length";
		}
		break;
	default:
		return (encoding & 0xff) > SNAPSHOT_CHUNK_LZ4 ? "encoding" : "reserved";
	}
	if (offset != (zero ? 0 : *data_end) || length > file_bytes - *data_end) {
		return "offset";
	}
	*data_end += length;
	*ret_chunk = (struct snapshot_chunk){
		.offset = offset,
		.length = length,
		.encoding = (uint8_t)encoding,
		.checksum = checksum,
	};
	return NULL;
}

static int decode_chunks(struct base_reader *reader, uint64_t memory_bytes, uint64_t file_bytes,
			 uint64_t data_end, struct snapshot_table *table, struct base_error *error)
{
	uint64_t n_chunks = snapshot_format_chunk_count(memory_bytes);

	table->chunks = calloc(n_chunks, sizeof(*table->chunks));
	if (!table->chunks) {
		return base_error_set_errno(error, -ENOMEM, "memory: chunk table");
	}
	for (uint64_t n = 0; n < n_chunks; n++) {
		struct snapshot_chunk *chunk = &table->chunks[n];
		const char *field =
			decode_entry(reader, snapshot_format_chunk_covers(memory_bytes, n),
				     file_bytes, &data_end, chunk);

		if (field) {
			return base_error_set(error, -EBADMSG,
					      "memory: chunk %" PRIu64 " %s: not valid", n, field);
		}
		table->stored_chunks += chunk->encoding != SNAPSHOT_CHUNK_ZERO;
	}
	if (data_end != file_bytes) {
		return base_error_set(error, -EBADMSG,
				      "memory: data bytes: the last chunk ends at %" PRIu64
				      ", the file at %" PRIu64,
				      data_end, file_bytes);
	}
	return 0;
}

static int decode_ws(struct base_reader *reader, uint64_t memory_bytes,
		     struct snapshot_table *table, struct base_error *error)
{
	uint64_t n_blocks = snapshot_format_ws_blocks(table->ws_pages), valid = 0;
	int r;

	if (table->ws_pages == 0) {
		return 0;
	}
	table->ws = calloc(table->ws_pages, sizeof(*table->ws));
	table->ws_checksums = calloc(n_blocks, sizeof(*table->ws_checksums));
	if (!table->ws || !table->ws_checksums) {
		return base_error_set_errno(error, -ENOMEM, "memory: working set");
	}
	for (uint32_t i = 0; i < table->ws_pages; i++) {
		table->ws[i] = base_reader_u32(reader);
	}
	for (uint64_t b = 0; b < n_blocks; b++) {
		table->ws_checksums[b] = base_reader_u64(reader);
	}
	r = snapshot_ws_count_valid(table->ws, table->ws_pages, memory_bytes, &valid);
	if (r < 0) {
		return base_error_set_errno(error, r, "memory: working set");
	}
	if (valid < table->ws_pages) {
		return base_error_set(error, -EBADMSG,
				      "memory: working set page %" PRIu64
				      ": outside of the memory, or there twice",
				      valid);
	}
	return 0;
}

int snapshot_table_decode_header(const void *data, size_t size, uint64_t memory_bytes,
				 uint64_t file_bytes, uint64_t *ret_data_offset,
				 struct base_error *error)
{
	struct base_reader reader = base_reader_init(data, size);
	uint32_t ws_pages;

	if (size < SNAPSHOT_MEMORY_HEADER_BYTES) {
		return base_error_set(error, -EBADMSG, "memory: size: the file is cut off");
	}
	return decode_header(&reader, memory_bytes, file_bytes, &ws_pages, ret_data_offset, error);
}

int snapshot_table_decode(const void *data, size_t size, uint64_t memory_bytes, uint64_t file_bytes,
			  struct snapshot_table *ret_table, struct base_error *error)
{
	_cleanup_(snapshot_table_deinit) struct snapshot_table table = {};
	struct base_reader reader = base_reader_init(data, size);
	uint64_t data_offset = 0;
	int r;

	if (size < SNAPSHOT_MEMORY_HEADER_BYTES) {
		return base_error_set(error, -EBADMSG, "memory: size: the file is cut off");
	}
	r = decode_header(&reader, memory_bytes, file_bytes, &table.ws_pages, &data_offset, error);
	if (r < 0) {
		return r;
	}
	if (size != data_offset) {
		return base_error_set(error, -EBADMSG, "memory: size: the file is cut off");
	}
	r = decode_chunks(&reader, memory_bytes, file_bytes,
			  data_offset + table.ws_pages * SNAPSHOT_PAGE_BYTES, &table, error);
	r = r ?: decode_ws(&reader, memory_bytes, &table, error);
	if (r < 0) {
		return r;
	}
	while (base_reader_left(&reader) > 0) {
		if (base_reader_u8(&reader) != 0) {
			return base_error_set(error, -EBADMSG, "memory: padding: not zero");
		}
	}
	*ret_table = table;
	table = (struct snapshot_table){};
	return 0;
}

int snapshot_table_decode_chunk(const struct snapshot_chunk *chunk, uint64_t n, uint32_t covers,
				const void *stored, void *out, struct base_error *error)
{
	switch ((enum snapshot_encoding)chunk->encoding) {
	case SNAPSHOT_CHUNK_ZERO:
		memset(out, 0, covers);
		return 0;
	case SNAPSHOT_CHUNK_RAW:
		memcpy(out, stored, covers);
		break;
	case SNAPSHOT_CHUNK_LZ4:
		if (LZ4_decompress_safe(stored, out, (int)chunk->length, (int)covers) !=
		    (int)covers) {
			return base_error_set(error, -EBADMSG,
					      "memory: chunk %" PRIu64 " data: not LZ4 of its size",
					      n);
		}
		break;
	}
	/* Over what was written, so that it holds for what the guest will see. */
	if (XXH3_64bits(out, covers) != chunk->checksum) {
		return base_error_set(error, -EBADMSG,
				      "memory: chunk %" PRIu64 " data: checksum does not match", n);
	}
	return 0;
}

int snapshot_table_check_block(const struct snapshot_table *table, uint64_t block, const void *data,
			       struct base_error *error)
{
	size_t size = snapshot_format_ws_block_pages(table->ws_pages, block) * SNAPSHOT_PAGE_BYTES;

	if (XXH3_64bits(data, size) != table->ws_checksums[block]) {
		return base_error_set(
			error, -EBADMSG,
			"memory: working set block %" PRIu64 ": checksum does not match", block);
	}
	return 0;
}
