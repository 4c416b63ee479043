/* SPDX-License-Identifier: Apache-2.0 */

/* Little-endian bytes: values, bounds, the sticky failure. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

static const uint8_t sample[] = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
				  0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00 };

static void test_load_store(void **state)
{
	uint8_t bytes[10] = { 0 };

	assert_int_equal(base_load_u16(sample + 1), 0x3322);
	assert_int_equal(base_load_u32(sample + 1), 0x55443322);
	assert_true(base_load_u64(sample + 7) == UINT64_C(0xffeeddccbbaa9988));
	assert_true(base_load_u64(sample) == UINT64_C(0x8877665544332211));
	base_store_u16(bytes + 1, 0xfffe);
	assert_memory_equal(bytes, "\0\xfe\xff\0", 4);
	base_store_u32(bytes + 1, 0x80000001);
	assert_memory_equal(bytes, "\0\x01\0\0\x80\0", 6);
	base_store_u64(bytes + 1, UINT64_C(0x8877665544332211));
	assert_memory_equal(bytes + 1, sample, 8);
	assert_int_equal(bytes[0] | bytes[9], 0);
}

static void test_reader_values(void **state)
{
	struct base_reader reader = base_reader_init(sample, sizeof(sample));
	uint8_t copy[1];

	assert_int_equal(base_reader_u8(&reader), 0x11);
	assert_int_equal(base_reader_u16(&reader), 0x3322);
	assert_int_equal(base_reader_u32(&reader), 0x77665544);
	assert_int_equal(base_reader_left(&reader), 9);
	assert_int_equal(base_reader_finish(&reader), -EBADMSG); /* something is left */
	assert_true(base_reader_u64(&reader) == UINT64_C(0xffeeddccbbaa9988));
	base_reader_copy(&reader, copy, 1);
	assert_int_equal(copy[0], 0);
	assert_int_equal(base_reader_left(&reader), 0);
	assert_int_equal(base_reader_finish(&reader), 0);
	assert_non_null(base_reader_bytes(&reader, 0));
	assert_int_equal(base_reader_finish(&reader), 0);
}

static void test_reader_past_the_end(void **state)
{
	for (size_t size = 0; size < 8; size++) {
		struct base_reader reader = base_reader_init(sample, size);
		uint8_t copy[8];

		assert_true(base_reader_u64(&reader) == 0);
		assert_int_equal(reader.result, -EBADMSG);
		/* Inert from here on, even for what would fit. */
		assert_int_equal(base_reader_u8(&reader), 0);
		assert_int_equal(base_reader_u16(&reader), 0);
		assert_int_equal(base_reader_u32(&reader), 0);
		assert_null(base_reader_bytes(&reader, 0));
		memset(copy, 0xff, sizeof(copy));
		base_reader_copy(&reader, copy, sizeof(copy));
		assert_memory_equal(copy, "\0\0\0\0\0\0\0\0", 8);
		assert_int_equal(base_reader_finish(&reader), -EBADMSG);
	}

	struct base_reader reader = base_reader_init(sample, sizeof(sample));

	base_reader_u8(&reader);
	assert_null(base_reader_bytes(&reader, SIZE_MAX));
	assert_int_equal(base_reader_finish(&reader), -EBADMSG);

	struct base_reader empty = base_reader_init(NULL, 0);

	assert_int_equal(base_reader_finish(&empty), 0);
}

static void test_writer(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };

	base_writer_u8(&writer, 0x11);
	base_writer_u16(&writer, 0x3322);
	base_writer_u32(&writer, 0);
	base_writer_u64(&writer, UINT64_C(0xffeeddccbbaa9988));
	base_writer_bytes(&writer, "", 1);
	base_writer_bytes(&writer, NULL, 0);
	base_writer_patch_u32(&writer, 3, 0x77665544);
	assert_int_equal(base_writer_result(&writer), 0);
	assert_int_equal(writer.size, sizeof(sample));
	assert_memory_equal(writer.data, sample, sizeof(sample));
}

static void test_writer_grows(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	uint8_t block[1000];

	memset(block, 0x5a, sizeof(block));
	for (uint32_t i = 0; i < 1000; i++) {
		base_writer_u32(&writer, i);
		base_writer_bytes(&writer, block, i);
	}
	assert_int_equal(base_writer_result(&writer), 0);

	struct base_reader reader = base_reader_init(writer.data, writer.size);

	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(base_reader_u32(&reader), i);

		const void *bytes = base_reader_bytes(&reader, i);

		assert_non_null(bytes);
		assert_int_equal(memcmp(bytes, block, i), 0);
	}
	assert_int_equal(base_reader_finish(&reader), 0);
}

static void test_writer_without_memory(void **state)
{
	/* A writer that has failed stays as it is. */
	_cleanup_writer_ struct base_writer writer = { 0 };

	base_writer_u32(&writer, 1);
	writer.result = -ENOMEM;
	base_writer_u8(&writer, 1);
	base_writer_u16(&writer, 1);
	base_writer_u32(&writer, 1);
	base_writer_u64(&writer, 1);
	base_writer_bytes(&writer, "x", 1);
	base_writer_patch_u32(&writer, 1000, 1);
	assert_int_equal(base_writer_result(&writer), -ENOMEM);
	assert_int_equal(writer.size, 4);
	assert_int_equal(base_load_u32(writer.data), 1);

	base_writer_deinit(&writer);
	assert_null(writer.data);
	base_writer_deinit(&writer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load_store),
		cmocka_unit_test(test_reader_values),
		cmocka_unit_test(test_reader_past_the_end),
		cmocka_unit_test(test_writer),
		cmocka_unit_test(test_writer_grows),
		cmocka_unit_test(test_writer_without_memory),
	};

	return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
