/* SPDX-License-Identifier: Apache-2.0 */

/* What stands in front of the data of a memory file: every field, one step past what it may be. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "snapshot/table.h"

#include <errno.h>
#include <lz4.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define MEMORY_BYTES (4 * SNAPSHOT_CHUNK_BYTES + KIB(4))
#define N_CHUNKS     5
#define N_PAGES	     65
#define DATA_OFFSET  KIB(4)

/* Two blocks; the first and the last page of the memory are in it. */
static const uint32_t ws[] = { 64, 0, 17, 18, 16, 31, 32, 33, 20, 21, 22, 23, 24, 25, 26, 27, 19 };
static const uint64_t ws_checksums[] = { 0x1122334455667788, 0 };
#define WS_PAGES    ARRAY_SIZE(ws)
#define CHUNKS_FROM (DATA_OFFSET + WS_PAGES * KIB(4))

/* zero, raw, LZ4 of 100 bytes, zero, raw of one page */
static const struct snapshot_chunk chunks[N_CHUNKS] = {
	{ 0, 0, SNAPSHOT_CHUNK_ZERO, 0 },
	{ CHUNKS_FROM, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_RAW, 7 },
	{ CHUNKS_FROM + SNAPSHOT_CHUNK_BYTES, 100, SNAPSHOT_CHUNK_LZ4, 8 },
	{ 0, 0, SNAPSHOT_CHUNK_ZERO, 0 },
	{ CHUNKS_FROM + SNAPSHOT_CHUNK_BYTES + 100, KIB(4), SNAPSHOT_CHUNK_RAW, 9 },
};
#define FILE_BYTES (CHUNKS_FROM + SNAPSHOT_CHUNK_BYTES + 100 + KIB(4))

/* Encoding only reads what it is given. */
static const struct snapshot_table table = {
	.chunks = (struct snapshot_chunk *)chunks,
	.stored_chunks = 3,
	.ws = (uint32_t *)ws,
	.ws_checksums = (uint64_t *)ws_checksums,
	.ws_pages = WS_PAGES,
};

#define WS_AT	     (SNAPSHOT_MEMORY_HEADER_BYTES + N_CHUNKS * SNAPSHOT_TABLE_ENTRY_BYTES)
#define CHECKSUMS_AT (WS_AT + WS_PAGES * 4)
#define TABLE_END    (CHECKSUMS_AT + ARRAY_SIZE(ws_checksums) * 8)

static struct base_writer encoded(void)
{
	struct base_writer writer = { 0 };

	assert_int_equal(snapshot_table_encode(&table, MEMORY_BYTES, FILE_BYTES, &writer), 0);
	assert_int_equal(writer.size, DATA_OFFSET);
	return writer;
}

static int decode(const struct base_writer *writer, uint64_t memory_bytes, uint64_t file_bytes,
		  struct base_error *error)
{
	struct snapshot_table decoded = {};
	uint64_t data_offset = 0;
	int r = snapshot_table_decode(writer->data, writer->size, memory_bytes, file_bytes,
				      &decoded, error);

	if (r == 0) {
		assert_int_equal(decoded.stored_chunks, 3);
		assert_memory_equal(decoded.chunks, chunks, sizeof(chunks));
		assert_int_equal(decoded.ws_pages, WS_PAGES);
		assert_memory_equal(decoded.ws, ws, sizeof(ws));
		assert_memory_equal(decoded.ws_checksums, ws_checksums, sizeof(ws_checksums));
		assert_int_equal(snapshot_table_decode_header(writer->data, writer->size,
							      memory_bytes, file_bytes,
							      &data_offset, NULL),
				 0);
		assert_int_equal(data_offset, DATA_OFFSET);
	} else {
		assert_null(decoded.chunks);
		assert_null(decoded.ws);
		assert_null(decoded.ws_checksums);
	}
	snapshot_table_deinit(&decoded);
	return r;
}

static void test_round_trip(void **state)
{
	_cleanup_writer_ struct base_writer writer = encoded();

	assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES, NULL), 0);
}

static void refuse(const struct base_writer *writer, const char *field)
{
	struct base_error error = { 0 };
	char expected[64];

	snprintf(expected, sizeof(expected), "memory: %s: ", field);
	assert_int_equal(decode(writer, MEMORY_BYTES, FILE_BYTES, &error), -EBADMSG);
	if (strncmp(error.text, expected, strlen(expected)) != 0) {
		fail_msg("%s is refused with: %s", field, error.text);
	}
}

static void test_header(void **state)
{
	_cleanup_writer_ struct base_writer writer = encoded();
	static const struct {
		size_t offset, size;
		const char *field;
	} fields[] = {
		{ 0, 8, "magic" },	   { 8, 4, "version" },	     { 12, 4, "chunk bytes" },
		{ 16, 8, "memory bytes" }, { 24, 8, "chunk count" }, { 40, 8, "data offset" },
		{ 48, 8, "data bytes" },   { 56, 8, "reserved" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		for (size_t bit = 0; bit < fields[i].size * 8; bit++) {
			uint8_t *byte = &writer.data[fields[i].offset + bit / 8];

			*byte ^= (uint8_t)(1 << bit % 8);
			refuse(&writer, fields[i].field);
			*byte ^= (uint8_t)(1 << bit % 8);
		}
	}
}

/* How many pages the working set has decides where everything behind it stands. */
static void test_working_set_size(void **state)
{
	_cleanup_writer_ struct base_writer writer = encoded();

	for (uint64_t n = 0; n < N_PAGES / 2; n++) {
		base_store_u64(writer.data + 32, n);
		assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES, NULL),
				 n == WS_PAGES ? 0 : -EBADMSG);
	}
	base_store_u64(writer.data + 32, N_PAGES / 2 + 1);
	refuse(&writer, "working set pages");
	base_store_u64(writer.data + 32, UINT64_MAX);
	refuse(&writer, "working set pages");
	base_store_u64(writer.data + 32, UINT64_C(1) << 32 | WS_PAGES);
	refuse(&writer, "working set pages");
}

/* At the limit and one past it: half of the memory, and the number of pages. */
static void test_working_set_limits(void **state)
{
	static const struct {
		uint64_t memory_bytes, max;
	} limits[] = {
		{ KIB(4), 0 },
		{ KIB(8), 1 },
		{ KIB(12), 1 },
		{ MIB(512) - KIB(8), SNAPSHOT_WS_PAGES_MAX - 1 },
		{ MIB(512), SNAPSHOT_WS_PAGES_MAX },
		{ SNAPSHOT_MEMORY_MAX_BYTES, SNAPSHOT_WS_PAGES_MAX },
	};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		uint64_t n_chunks = snapshot_format_chunk_count(limits[i].memory_bytes);
		uint8_t header[SNAPSHOT_MEMORY_HEADER_BYTES] = SNAPSHOT_MEMORY_MAGIC;
		uint64_t offset = snapshot_format_data_offset(n_chunks, limits[i].max);
		uint64_t file_bytes = offset + limits[i].max * SNAPSHOT_PAGE_BYTES, found = 0;

		base_store_u32(header + 8, SNAPSHOT_FORMAT_VERSION);
		base_store_u32(header + 12, SNAPSHOT_CHUNK_BYTES);
		base_store_u64(header + 16, limits[i].memory_bytes);
		base_store_u64(header + 24, n_chunks);
		base_store_u64(header + 32, limits[i].max);
		base_store_u64(header + 40, offset);
		base_store_u64(header + 48, file_bytes - offset);
		assert_int_equal(snapshot_table_decode_header(header, sizeof(header),
							      limits[i].memory_bytes, file_bytes,
							      &found, NULL),
				 0);
		assert_int_equal(found, offset);
		assert_int_equal(snapshot_table_decode_header(header, sizeof(header) - 1,
							      limits[i].memory_bytes, file_bytes,
							      &found, NULL),
				 -EBADMSG);
		/* The pages do not fit into the file. */
		if (limits[i].max > 0) {
			base_store_u64(header + 48, file_bytes - 1 - offset);
			assert_int_equal(snapshot_table_decode_header(header, sizeof(header),
								      limits[i].memory_bytes,
								      file_bytes - 1, &found, NULL),
					 -EBADMSG);
		}
		base_store_u64(header + 32, limits[i].max + 1);
		offset = snapshot_format_data_offset(n_chunks, limits[i].max + 1);
		file_bytes = offset + (limits[i].max + 1) * SNAPSHOT_PAGE_BYTES;
		base_store_u64(header + 40, offset);
		base_store_u64(header + 48, file_bytes - offset);
		assert_int_equal(snapshot_table_decode_header(header, sizeof(header),
							      limits[i].memory_bytes, file_bytes,
							      &found, NULL),
				 -EBADMSG);
	}
}

static void test_working_set_pages(void **state)
{
	_cleanup_writer_ struct base_writer writer = encoded();
	static const uint32_t wrong[] = { N_PAGES, UINT32_MAX, 64 /* the first one again */ };

	for (size_t i = 1; i < WS_PAGES; i++) {
		for (size_t w = 0; w < ARRAY_SIZE(wrong); w++) {
			char field[32];

			snprintf(field, sizeof(field), "working set page %zu", i);
			base_store_u32(writer.data + WS_AT + i * 4, wrong[w]);
			refuse(&writer, field);
		}
		base_store_u32(writer.data + WS_AT + i * 4, ws[i]);
	}
	assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES, NULL), 0);
}

static void test_check_block(void **state)
{
	static uint8_t pages[WS_PAGES * KIB(4)];
	uint64_t checksums[2];
	struct snapshot_table checked = table;
	struct base_error error = { 0 };

	for (size_t i = 0; i < sizeof(pages); i++) {
		pages[i] = (uint8_t)(i / 99);
	}
	checksums[0] = XXH3_64bits(pages, SNAPSHOT_WS_BLOCK_PAGES * KIB(4));
	checksums[1] = XXH3_64bits(pages + SNAPSHOT_WS_BLOCK_PAGES * KIB(4), KIB(4));
	checked.ws_checksums = checksums;
	for (uint64_t b = 0; b < 2; b++) {
		uint8_t *block = pages + b * SNAPSHOT_WS_BLOCK_PAGES * KIB(4);

		assert_int_equal(snapshot_table_check_block(&checked, b, block, &error), 0);
		block[4095] ^= 1;
		assert_int_equal(snapshot_table_check_block(&checked, b, block, &error), -EBADMSG);
		block[4095] ^= 1;
	}
	assert_string_equal(error.text, "memory: working set block 1: checksum does not match");
}

static void test_entries(void **state)
{
	static const struct {
		unsigned chunk;
		size_t offset;
		uint64_t value; /* of eight bytes there */
		const char *field;
	} changes[] = {
		/* A zero chunk has nothing. */
		{ 0, 0, DATA_OFFSET, "chunk 0 offset" },
		{ 0, 8, 1, "chunk 0 length" },
		{ 0, 16, 1, "chunk 0 checksum" },
		/* In the table, a byte early, a byte late, in the working set, past the end, around
		   the corner. */
		{ 1, 0, 0, "chunk 1 offset" },
		{ 1, 0, CHUNKS_FROM - 1, "chunk 1 offset" },
		{ 1, 0, CHUNKS_FROM + 1, "chunk 1 offset" },
		{ 1, 0, DATA_OFFSET, "chunk 1 offset" },
		{ 2, 0, CHUNKS_FROM, "chunk 2 offset" },
		{ 1, 0, FILE_BYTES, "chunk 1 offset" },
		{ 1, 0, UINT64_MAX, "chunk 1 offset" },
		/* Raw is what it covers; LZ4 is less, and something. Encoding at bit 32. */
		{ 1, 8, (SNAPSHOT_CHUNK_BYTES - 1) | UINT64_C(1) << 32, "chunk 1 length" },
		{ 1, 8, (SNAPSHOT_CHUNK_BYTES + 1) | UINT64_C(1) << 32, "chunk 1 length" },
		{ 4, 8, SNAPSHOT_CHUNK_BYTES | UINT64_C(1) << 32, "chunk 4 length" },
		{ 2, 8, 0 | UINT64_C(2) << 32, "chunk 2 length" },
		{ 2, 8, SNAPSHOT_CHUNK_BYTES | UINT64_C(2) << 32, "chunk 2 length" },
		{ 2, 8, UINT32_MAX | UINT64_C(2) << 32, "chunk 2 length" },
		{ 4, 8, KIB(4) | UINT64_C(2) << 32, "chunk 4 length" },
		/* The next one does not follow. */
		{ 2, 8, 99 | UINT64_C(2) << 32, "chunk 4 offset" },
		{ 2, 8, 101 | UINT64_C(2) << 32, "chunk 4 offset" },
		/* Encodings and reserved bytes. */
		{ 1, 8, SNAPSHOT_CHUNK_BYTES | UINT64_C(3) << 32, "chunk 1 encoding" },
		{ 1, 8, SNAPSHOT_CHUNK_BYTES | UINT64_C(0x101) << 32, "chunk 1 reserved" },
		{ 1, 8, SNAPSHOT_CHUNK_BYTES | UINT64_C(0x1000001) << 32, "chunk 1 reserved" },
		{ 0, 8, UINT64_C(0x80000000) << 32, "chunk 0 reserved" },
		/* A stored chunk declared zero leaves a gap. */
		{ 2, 8, 0, "chunk 2 checksum" },
		/* Fewer bytes at the end than the file has. */
		{ 4, 8, 50 | UINT64_C(2) << 32, "data bytes" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		_cleanup_writer_ struct base_writer writer = encoded();
		size_t entry = SNAPSHOT_MEMORY_HEADER_BYTES +
			       changes[i].chunk * SNAPSHOT_TABLE_ENTRY_BYTES;

		base_store_u64(writer.data + entry + changes[i].offset, changes[i].value);
		refuse(&writer, changes[i].field);
	}
}

static void test_padding_and_size(void **state)
{
	_cleanup_writer_ struct base_writer writer = encoded();

	for (size_t i = TABLE_END; i < DATA_OFFSET; i += 77) {
		writer.data[i] = 1;
		refuse(&writer, "padding");
		writer.data[i] = 0;
	}
	writer.data[DATA_OFFSET - 1] = 0x80;
	refuse(&writer, "padding");
	writer.data[DATA_OFFSET - 1] = 0;
	assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES, NULL), 0);

	assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES - 1, NULL), -EBADMSG);
	assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES + 1, NULL), -EBADMSG);
	assert_int_equal(decode(&writer, MEMORY_BYTES, DATA_OFFSET - 1, NULL), -EBADMSG);
	assert_int_equal(decode(&writer, MEMORY_BYTES, 0, NULL), -EBADMSG);
	assert_int_equal(decode(&writer, MEMORY_BYTES - KIB(4), FILE_BYTES, NULL), -EBADMSG);
	assert_int_equal(decode(&writer, 0, FILE_BYTES, NULL), -EBADMSG);
	assert_int_equal(decode(&writer, UINT64_MAX, FILE_BYTES, NULL), -EBADMSG);
	writer.size--;
	assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES, NULL), -EBADMSG);
	writer.size = 0;
	assert_int_equal(decode(&writer, MEMORY_BYTES, FILE_BYTES, NULL), -EBADMSG);
}

static void test_decode_chunk(void **state)
{
	uint8_t in[KIB(4)], stored[KIB(4)], out[KIB(4)];
	struct base_error error = { 0 };

	for (size_t i = 0; i < sizeof(in); i++) {
		in[i] = (uint8_t)(i / 100);
	}

	struct snapshot_chunk chunk = {
		.length = (uint32_t)LZ4_compress_default((char *)in, (char *)stored, sizeof(in),
							 sizeof(stored)),
		.encoding = SNAPSHOT_CHUNK_LZ4,
		.checksum = XXH3_64bits(in, sizeof(in)),
	};

	assert_true(chunk.length > 0);
	assert_int_equal(snapshot_table_decode_chunk(&chunk, 5, sizeof(in), stored, out, &error),
			 0);
	assert_memory_equal(in, out, sizeof(in));

	/* Decodes to fewer, to more; to something else; not at all. */
	assert_int_equal(
		snapshot_table_decode_chunk(&chunk, 5, sizeof(in) - 1, stored, out, &error),
		-EBADMSG);
	assert_string_equal(error.text, "memory: chunk 5 data: not LZ4 of its size");
	chunk.length--;
	assert_int_equal(snapshot_table_decode_chunk(&chunk, 5, sizeof(in), stored, out, &error),
			 -EBADMSG);
	chunk.length++;
	chunk.checksum ^= 1;
	assert_int_equal(snapshot_table_decode_chunk(&chunk, 5, sizeof(in), stored, out, &error),
			 -EBADMSG);
	assert_string_equal(error.text, "memory: chunk 5 data: checksum does not match");

	/* Raw, damaged raw, zero. */
	chunk = (struct snapshot_chunk){ .length = sizeof(in),
					 .encoding = SNAPSHOT_CHUNK_RAW,
					 .checksum = XXH3_64bits(in, sizeof(in)) };
	assert_int_equal(snapshot_table_decode_chunk(&chunk, 6, sizeof(in), in, out, &error), 0);
	assert_memory_equal(in, out, sizeof(in));
	in[100] ^= 1;
	assert_int_equal(snapshot_table_decode_chunk(&chunk, 6, sizeof(in), in, out, &error),
			 -EBADMSG);
	chunk = (struct snapshot_chunk){ .encoding = SNAPSHOT_CHUNK_ZERO };
	assert_int_equal(snapshot_table_decode_chunk(&chunk, 7, sizeof(in), NULL, out, &error), 0);
	memset(in, 0, sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	  cmocka_unit_test(test_header),
		cmocka_unit_test(test_working_set_size),  cmocka_unit_test(test_working_set_limits),
		cmocka_unit_test(test_working_set_pages), cmocka_unit_test(test_check_block),
		cmocka_unit_test(test_entries),		  cmocka_unit_test(test_padding_and_size),
		cmocka_unit_test(test_decode_chunk),
	};

	return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
