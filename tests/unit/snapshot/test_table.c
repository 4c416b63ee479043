/* SPDX-License-Identifier: Apache-2.0 */

/* Header and chunk table of the memory file: every field, one step past what it may be. */

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
#define DATA_OFFSET  KIB(4)

/* zero, raw, LZ4 of 100 bytes, zero, raw of one page */
static const struct snapshot_chunk chunks[] = {
	{ 0, 0, SNAPSHOT_CHUNK_ZERO, 0 },
	{ DATA_OFFSET, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_RAW, 7 },
	{ DATA_OFFSET + SNAPSHOT_CHUNK_BYTES, 100, SNAPSHOT_CHUNK_LZ4, 8 },
	{ 0, 0, SNAPSHOT_CHUNK_ZERO, 0 },
	{ DATA_OFFSET + SNAPSHOT_CHUNK_BYTES + 100, KIB(4), SNAPSHOT_CHUNK_RAW, 9 },
};
#define FILE_BYTES (DATA_OFFSET + SNAPSHOT_CHUNK_BYTES + 100 + KIB(4))

static struct base_writer encoded(void)
{
	struct base_writer writer = { 0 };

	assert_int_equal(snapshot_table_encode(chunks, MEMORY_BYTES, FILE_BYTES, &writer), 0);
	assert_int_equal(writer.size, DATA_OFFSET);
	return writer;
}

static int decode(const struct base_writer *writer, uint64_t memory_bytes, uint64_t file_bytes,
		  struct base_error *error)
{
	struct snapshot_chunk *decoded = NULL;
	uint64_t stored = 0;
	int r = snapshot_table_decode(writer->data, writer->size, memory_bytes, file_bytes,
				      &decoded, &stored, error);

	if (r == 0) {
		assert_int_equal(stored, 3);
		assert_memory_equal(decoded, chunks, sizeof(chunks));
	} else {
		assert_null(decoded);
	}
	free(decoded);
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
		{ 0, 8, "magic" },	  { 8, 4, "version" },
		{ 12, 4, "chunk bytes" }, { 16, 8, "memory bytes" },
		{ 24, 8, "chunk count" }, { 32, 8, "data offset" },
		{ 40, 8, "data bytes" },  { 48, 8, "working set bytes" },
		{ 56, 8, "reserved" },
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
		/* In the table, a byte early, a byte late, past the end, around the corner. */
		{ 1, 0, 0, "chunk 1 offset" },
		{ 1, 0, DATA_OFFSET - 1, "chunk 1 offset" },
		{ 1, 0, DATA_OFFSET + 1, "chunk 1 offset" },
		{ 2, 0, DATA_OFFSET, "chunk 2 offset" },
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
	size_t table_end =
		SNAPSHOT_MEMORY_HEADER_BYTES + ARRAY_SIZE(chunks) * SNAPSHOT_TABLE_ENTRY_BYTES;

	for (size_t i = table_end; i < DATA_OFFSET; i += 77) {
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
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_header),
		cmocka_unit_test(test_entries),	     cmocka_unit_test(test_padding_and_size),
		cmocka_unit_test(test_decode_chunk),
	};

	return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
