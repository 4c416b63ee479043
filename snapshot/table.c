/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Header and chunk table of the memory file.
 *
 * Stored chunks stand in the order of the table and without gaps, so one running offset checks at
 * once that every chunk is inside the file, that none overlap and that no byte of the data is left
 * over. Every failure is -EBADMSG and names the field. No state, any thread.
 */

#include "snapshot/table.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <string.h>
#include <xxhash.h>

int snapshot_table_encode(const struct snapshot_chunk *chunks, uint64_t memory_bytes,
			  uint64_t file_bytes, struct base_writer *writer)
{
	static const uint8_t zeros[SNAPSHOT_DATA_ALIGN];
	uint64_t n_chunks = snapshot_format_chunk_count(memory_bytes);
	uint64_t data_offset = snapshot_format_data_offset(n_chunks);
	uint64_t table_end = SNAPSHOT_MEMORY_HEADER_BYTES + n_chunks * SNAPSHOT_TABLE_ENTRY_BYTES;

	base_writer_bytes(writer, SNAPSHOT_MEMORY_MAGIC, SNAPSHOT_MAGIC_BYTES);
	base_writer_u32(writer, SNAPSHOT_FORMAT_VERSION);
	base_writer_u32(writer, SNAPSHOT_CHUNK_BYTES);
	base_writer_u64(writer, memory_bytes);
	base_writer_u64(writer, n_chunks);
	base_writer_u64(writer, data_offset);
	base_writer_u64(writer, file_bytes - data_offset);
	base_writer_u64(writer, 0); /* working set */
	base_writer_u64(writer, 0); /* reserved */

	for (uint64_t n = 0; n < n_chunks; n++) {
		base_writer_u64(writer, chunks[n].offset);
		base_writer_u32(writer, chunks[n].length);
		base_writer_u32(writer, chunks[n].encoding); /* and three bytes reserved */
		base_writer_u64(writer, chunks[n].checksum);
	}
	base_writer_bytes(writer, zeros, data_offset - table_end);
	return base_writer_result(writer);
}

static int bad(struct base_error *error, const char *field, uint64_t value, uint64_t expected)
{
	return base_error_set(error, -EBADMSG, "memory: %s: %" PRIu64 " instead of %" PRIu64, field,
			      value, expected);
}

static int decode_header(struct base_reader *reader, uint64_t memory_bytes, uint64_t file_bytes,
			 struct base_error *error)
{
	uint64_t n_chunks = snapshot_format_chunk_count(memory_bytes);
	uint64_t data_offset = snapshot_format_data_offset(n_chunks);
	const void *magic = base_reader_bytes(reader, SNAPSHOT_MAGIC_BYTES);

	if (!magic || memcmp(magic, SNAPSHOT_MEMORY_MAGIC, SNAPSHOT_MAGIC_BYTES) != 0) {
		return base_error_set(error, -EBADMSG, "memory: magic: not snapshot memory");
	}

	const struct {
		const char *name;
		size_t bytes;
		uint64_t expected;
	} fields[] = {
		{ "version", 4, SNAPSHOT_FORMAT_VERSION },
		{ "chunk bytes", 4, SNAPSHOT_CHUNK_BYTES },
		{ "memory bytes", 8, memory_bytes },
		{ "chunk count", 8, n_chunks },
		{ "data offset", 8, data_offset },
		{ "data bytes", 8, file_bytes - data_offset },
		{ "working set bytes", 8, 0 },
		{ "reserved", 8, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		uint64_t value =
			fields[i].bytes == 4 ? base_reader_u32(reader) : base_reader_u64(reader);

		if (value != fields[i].expected) {
			return bad(error, fields[i].name, value, fields[i].expected);
		}
	}
	return 0;
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

int snapshot_table_decode(const void *data, size_t size, uint64_t memory_bytes, uint64_t file_bytes,
			  struct snapshot_chunk **ret_chunks, uint64_t *ret_stored,
			  struct base_error *error)
{
	struct base_reader reader = base_reader_init(data, size);
	uint64_t n_chunks, data_offset, data_end, stored = 0;

	if (!snapshot_format_memory_bytes_valid(memory_bytes)) {
		return base_error_set(error, -EBADMSG, "memory: memory bytes: out of range");
	}
	n_chunks = snapshot_format_chunk_count(memory_bytes);
	data_offset = snapshot_format_data_offset(n_chunks);
	if (size != data_offset || file_bytes < data_offset) {
		return base_error_set(error, -EBADMSG, "memory: chunk table: the file is cut off");
	}

	int r = decode_header(&reader, memory_bytes, file_bytes, error);

	if (r < 0) {
		return r;
	}

	_cleanup_free_ struct snapshot_chunk *chunks = calloc(n_chunks, sizeof(*chunks));

	if (!chunks) {
		return base_error_set_errno(error, -ENOMEM, "memory: chunk table");
	}
	data_end = data_offset;
	for (uint64_t n = 0; n < n_chunks; n++) {
		const char *field =
			decode_entry(&reader, snapshot_format_chunk_covers(memory_bytes, n),
				     file_bytes, &data_end, &chunks[n]);

		if (field) {
			return base_error_set(error, -EBADMSG,
					      "memory: chunk %" PRIu64 " %s: not valid", n, field);
		}
		stored += chunks[n].encoding != SNAPSHOT_CHUNK_ZERO;
	}
	while (base_reader_left(&reader) > 0) {
		if (base_reader_u8(&reader) != 0) {
			return base_error_set(error, -EBADMSG, "memory: padding: not zero");
		}
	}
	if (data_end != file_bytes) {
		return bad(error, "data bytes", file_bytes - data_offset, data_end - data_offset);
	}
	*ret_chunks = TAKE_PTR(chunks);
	*ret_stored = stored;
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
