/* SPDX-License-Identifier: Apache-2.0 */

/* The manifest's encoding: every value comes back, every rule refuses one step past it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "snapshot/digest.h"
#include "snapshot/manifest.h"
#include "tests/unit/snapshot/fixture.h"

#include <errno.h>
#include <msgpack.h>
#include <string.h>

#define DIGEST "0123456789abcdef0123456789abcdef"

static struct snapshot_manifest complete(void)
{
	struct snapshot_manifest m = fixture_manifest("python-3.11_x");

	strcpy(m.id, "ffffffffffffffff0000000000000000");
	m.created_realtime_ns = UINT64_C(1700000000000000000);
	m.memory_bytes = MIB(64) + KIB(4);
	m.n_disks = 2;
	for (uint32_t i = 0; i < m.n_disks; i++) {
		strcpy(m.disks[i].digest, DIGEST);
		m.disks[i].size_bytes = MIB(200) + i;
		m.disks[i].read_only = true;
	}
	m.state_bytes = 20000;
	strcpy(m.state_digest, DIGEST);
	strcpy(m.chunk_table_digest, DIGEST);
	m.stored_chunks = 1000;
	m.zero_chunks = 25;
	m.ws_pages = 300;
	m.memory_file_bytes = MIB(20);
	return m;
}

static int encode(const struct snapshot_manifest *manifest, struct base_writer *writer,
		  struct base_error *error)
{
	return snapshot_manifest_encode(manifest, writer, error);
}

static void test_round_trip(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct snapshot_manifest in = complete(), out;
	struct base_error error = { 0 };

	assert_int_equal(encode(&in, &writer, &error), 0);
	memset(&out, 0xff, sizeof(out));
	if (snapshot_manifest_decode(writer.data, writer.size, &out, &error) < 0) {
		fail_msg("%s", error.text);
	}
	assert_memory_equal(&in, &out, sizeof(in));
}

/* At every limit, and without the things that may be absent. */
static void test_limits_accepted(void **state)
{
	_cleanup_writer_ struct base_writer largest = { 0 }, smallest = { 0 };
	struct snapshot_manifest in = complete(), out;

	memset(in.template_name, 'x', SNAPSHOT_NAME_MAX);
	memset(in.cmdline, 'c', SNAPSHOT_CMDLINE_MAX);
	in.created_realtime_ns = INT64_MAX;
	in.host_kind = UINT32_MAX;
	in.host_fingerprint = UINT64_MAX;
	in.memory_bytes = SNAPSHOT_MEMORY_MAX_BYTES;
	in.n_vcpus = SNAPSHOT_VCPUS_MAX;
	in.guest_cid = UINT32_MAX - 1;
	in.n_disks = SNAPSHOT_DISKS_MAX;
	for (uint32_t i = 0; i < in.n_disks; i++) {
		strcpy(in.disks[i].digest, DIGEST);
		in.disks[i].size_bytes = SNAPSHOT_DISK_MAX_BYTES;
		in.disks[i].read_only = true;
	}
	in.state_bytes = SNAPSHOT_STATE_MAX_BYTES;
	in.stored_chunks = snapshot_format_chunk_count(in.memory_bytes);
	in.zero_chunks = 0;
	in.ws_pages = SNAPSHOT_WS_PAGES_MAX;
	in.memory_file_bytes = in.memory_bytes +
			       snapshot_format_data_offset(in.stored_chunks, in.ws_pages) +
			       in.ws_pages * SNAPSHOT_PAGE_BYTES;
	assert_int_equal(encode(&in, &largest, NULL), 0);
	assert_true(largest.size <= SNAPSHOT_MANIFEST_MAX_BYTES);
	assert_int_equal(snapshot_manifest_decode(largest.data, largest.size, &out, NULL), 0);
	assert_memory_equal(&in, &out, sizeof(in));

	in = complete();
	strcpy(in.template_name, "0");
	in.created_realtime_ns = 1;
	in.memory_bytes = SNAPSHOT_PAGE_BYTES;
	in.n_vcpus = 1;
	in.guest_cid = SNAPSHOT_CID_MIN;
	in.kernel_digest[0] = in.cmdline[0] = '\0';
	memset(in.disks, 0, sizeof(in.disks));
	in.n_disks = 0;
	in.has_resident = false;
	in.state_bytes = 1;
	in.stored_chunks = 0;
	in.zero_chunks = 1;
	in.ws_pages = 0;
	in.memory_file_bytes = snapshot_format_data_offset(1, 0);
	memset(in.kernel_digest, 0, sizeof(in.kernel_digest));
	memset(in.cmdline, 0, sizeof(in.cmdline));
	memset(in.template_name, 0, sizeof(in.template_name));
	in.template_name[0] = '0';
	assert_int_equal(encode(&in, &smallest, NULL), 0);
	assert_int_equal(snapshot_manifest_decode(smallest.data, smallest.size, &out, NULL), 0);
	assert_memory_equal(&in, &out, sizeof(in));
}

#define REFUSED(key, statement)                                                                   \
	do {                                                                                      \
		_cleanup_writer_ struct base_writer writer_ = { 0 };                              \
		struct snapshot_manifest m = complete();                                          \
		struct base_error error_ = { 0 };                                                 \
		statement;                                                                        \
		assert_int_equal(encode(&m, &writer_, &error_), -EBADMSG);                        \
		if (strncmp(error_.text, "manifest: " key ": ", sizeof("manifest: " key)) != 0) { \
			fail_msg("%s is refused with: %s", key, error_.text);                     \
		}                                                                                 \
		assert_int_equal(writer_.size, 0);                                                \
	} while (0)

static void test_rules(void **state)
{
	REFUSED("id", m.id[0] = 'F');
	REFUSED("id", m.id[31] = '\0');
	REFUSED("parent", strcpy(m.parent, DIGEST));
	REFUSED("template", m.template_name[0] = '\0');
	REFUSED("template", strcpy(m.template_name, "../x"));
	REFUSED("created_ns", m.created_realtime_ns = 0);
	REFUSED("created_ns", m.created_realtime_ns = UINT64_C(1) << 63);
	REFUSED("memory_bytes", m.memory_bytes = 0);
	REFUSED("memory_bytes", m.memory_bytes += 1);
	REFUSED("memory_bytes", m.memory_bytes = SNAPSHOT_MEMORY_MAX_BYTES + KIB(4));
	REFUSED("memory_bytes", m.memory_bytes = UINT64_MAX & ~(SNAPSHOT_PAGE_BYTES - 1));
	REFUSED("vcpus", m.n_vcpus = 0);
	REFUSED("vcpus", m.n_vcpus = SNAPSHOT_VCPUS_MAX + 1);
	REFUSED("cid", m.guest_cid = SNAPSHOT_CID_MIN - 1);
	REFUSED("cid", m.guest_cid = UINT32_MAX);
	REFUSED("kernel", m.kernel_digest[3] = 'g');
	REFUSED("kernel", m.kernel_digest[31] = '\0');
	REFUSED("cmdline", m.cmdline[4] = '\n');
	REFUSED("cmdline", m.cmdline[4] = 0x7f);
	REFUSED("cmdline", m.cmdline[4] = 0x1b);
	REFUSED("disks", m.n_disks = SNAPSHOT_DISKS_MAX + 1);
	REFUSED("disks: digest", m.disks[1].digest[0] = '/');
	REFUSED("disks: size_bytes", m.disks[1].size_bytes = 0);
	REFUSED("disks: size_bytes", m.disks[1].size_bytes = SNAPSHOT_DISK_MAX_BYTES + 1);
	REFUSED("disks: read_only", m.disks[0].read_only = false);
	REFUSED("state_bytes", m.state_bytes = 0);
	REFUSED("state_bytes", m.state_bytes = SNAPSHOT_STATE_MAX_BYTES + 1);
	REFUSED("state_digest", m.state_digest[0] = '\0');
	REFUSED("chunk_table_digest", m.chunk_table_digest[0] = '\0');
	REFUSED("stored_chunks", m.stored_chunks++);
	REFUSED("stored_chunks", m.zero_chunks = UINT64_MAX);
	REFUSED("stored_chunks", (m.stored_chunks = 1026, m.zero_chunks = UINT64_MAX));
	REFUSED("working_set_pages", m.ws_pages = (m.memory_bytes / KIB(4)) / 2 + 1);
	REFUSED("working_set_pages", m.ws_pages = UINT64_MAX);
	/* 28 KiB in front of the data, then at least the working set. */
	REFUSED("memory_file_bytes", m.memory_file_bytes = KIB(28) + 300 * KIB(4) - 1);
	REFUSED("memory_file_bytes",
		m.memory_file_bytes = KIB(28) + 300 * KIB(4) + m.memory_bytes + 1);
}

/* Decodes a file that is in order but for the bytes changed in it. */
static void refuse_file(const uint8_t *data, size_t size, const char *field)
{
	struct snapshot_manifest out;
	struct base_error error = { 0 };
	char expected[64];

	snprintf(expected, sizeof(expected), "manifest: %s: ", field);
	assert_int_equal(snapshot_manifest_decode(data, size, &out, &error), -EBADMSG);
	if (strncmp(error.text, expected, strlen(expected)) != 0) {
		fail_msg("%s is refused with: %s", field, error.text);
	}
}

static void test_header(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct snapshot_manifest in = complete();

	assert_int_equal(encode(&in, &writer, NULL), 0);

	const struct {
		size_t offset;
		const char *field;
	} flips[] = {
		{ 0, "magic" },
		{ 7, "magic" },
		{ 8, "version" },
		{ 11, "version" },
		{ 12, "length" },
		{ 15, "length" },
		{ 16, "digest" },
		{ 40, "digest" },
		{ writer.size - 17, "digest" },
		{ writer.size - 16, "digest" },
		{ writer.size - 1, "digest" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(flips); i++) {
		writer.data[flips[i].offset] ^= 0x10;
		refuse_file(writer.data, writer.size, flips[i].field);
		writer.data[flips[i].offset] ^= 0x10;
	}
	for (size_t size = 0; size < writer.size; size++) {
		refuse_file(writer.data, size, size < 32 ? "header" : "length");
	}
	base_writer_u8(&writer, 0);
	refuse_file(writer.data, writer.size, "length");
}

/* --- maps that nobody here would write --- */

struct map {
	msgpack_sbuffer buffer;
	msgpack_packer packer;
};

static void map_begin(struct map *map, size_t n)
{
	msgpack_sbuffer_init(&map->buffer);
	msgpack_packer_init(&map->packer, &map->buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&map->packer, n);
}

static void refuse_map(struct map *map, const char *text)
{
	struct snapshot_manifest out;
	struct base_error error = { 0 };

	assert_int_equal(
		snapshot_manifest_decode_map(map->buffer.data, map->buffer.size, &out, &error),
		-EBADMSG);
	if (!strstr(error.text, text)) {
		fail_msg("expected '%s', got '%s'", text, error.text);
	}
	msgpack_sbuffer_destroy(&map->buffer);
}

static void pack_text(struct map *map, const char *text)
{
	msgpack_pack_str_with_body(&map->packer, text, strlen(text));
}

static void test_maps(void **state)
{
	struct map map;

	map_begin(&map, 0);
	refuse_map(&map, "manifest: id: missing");

	map_begin(&map, 1);
	pack_text(&map, "colour\x1b[31m");
	msgpack_pack_int(&map.packer, 1);
	refuse_map(&map, "manifest: colour?[31m: unknown key");

	map_begin(&map, 2);
	for (int i = 0; i < 2; i++) {
		pack_text(&map, "vcpus");
		msgpack_pack_int(&map.packer, 1);
	}
	refuse_map(&map, "manifest: vcpus: given twice");

	map_begin(&map, 1);
	msgpack_pack_int(&map.packer, 1);
	msgpack_pack_int(&map.packer, 1);
	refuse_map(&map, "manifest: map: has a key that is no string");

	map_begin(&map, 1);
	pack_text(&map, "id");
	msgpack_pack_int(&map.packer, 1);
	refuse_map(&map, "manifest: id: not a string");

	map_begin(&map, 1);
	pack_text(&map, "id");
	pack_text(&map, DIGEST "0");
	refuse_map(&map, "manifest: id: too long");

	map_begin(&map, 1);
	pack_text(&map, "id");
	msgpack_pack_str_with_body(&map.packer, "a\0b", 3);
	refuse_map(&map, "manifest: id: has a NUL byte");

	map_begin(&map, 1);
	pack_text(&map, "vcpus");
	msgpack_pack_uint64(&map.packer, UINT64_C(1) << 32);
	refuse_map(&map, "manifest: vcpus: not an unsigned 32-bit integer");

	map_begin(&map, 1);
	pack_text(&map, "memory_bytes");
	pack_text(&map, "1");
	refuse_map(&map, "manifest: memory_bytes: not an unsigned integer");

	map_begin(&map, 1);
	pack_text(&map, "resident");
	msgpack_pack_int(&map.packer, 1);
	refuse_map(&map, "manifest: resident: not a boolean");

	map_begin(&map, 1);
	pack_text(&map, "disks");
	msgpack_pack_int(&map.packer, 1);
	refuse_map(&map, "manifest: disks: not an array");

	map_begin(&map, 1);
	pack_text(&map, "disks");
	msgpack_pack_array(&map.packer, SNAPSHOT_DISKS_MAX + 1);
	for (int i = 0; i <= SNAPSHOT_DISKS_MAX; i++) {
		msgpack_pack_map(&map.packer, 0);
	}
	refuse_map(&map, "manifest: disks: too many");

	map_begin(&map, 1);
	pack_text(&map, "disks");
	msgpack_pack_array(&map.packer, 1);
	msgpack_pack_int(&map.packer, 1);
	refuse_map(&map, "manifest: disks: map: not a map");

	map_begin(&map, 1);
	pack_text(&map, "disks");
	msgpack_pack_array(&map.packer, 1);
	msgpack_pack_map(&map.packer, 0);
	refuse_map(&map, "manifest: disks: digest: missing");
}

/* Types and counts that must not reach a decoder that allocates what it is told. */
static void test_items(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *text;
	} maps[] = {
		{ "", 0, "cut off" },
		{ "\x01", 1, "map: not a map" },
		{ "\xc0", 1, "a type that no manifest has" },		      /* nil */
		{ "\xff", 1, "a type that no manifest has" },		      /* -1 */
		{ "\xcb\0\0\0\0\0\0\0\0", 9, "a type that no manifest has" }, /* double */
		{ "\xc4\x01x", 3, "a type that no manifest has" },	      /* binary */
		{ "\xdf\xff\xff\xff\xff", 5, "a type that no manifest has" }, /* map of 2^32-1 */
		{ "\xdd\xff\xff\xff\xff", 5, "a type that no manifest has" },
		{ "\xdb\xff\xff\xff\xff", 5, "a type that no manifest has" },
		{ "\xde\xff\xff", 3, "cut off" },
		{ "\xde\xff", 2, "cut off" },
		{ "\xda\xff\xff", 3, "cut off" },
		{ "\xda\xff", 2, "cut off" },
		{ "\xd9", 1, "cut off" },
		{ "\xcf\0\0\0", 4, "cut off" },
		{ "\x80\x80", 2, "bytes after its end" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		struct snapshot_manifest out;
		struct base_error error = { 0 };

		assert_int_equal(
			snapshot_manifest_decode_map(maps[i].bytes, maps[i].size, &out, &error),
			-EBADMSG);
		if (!strstr(error.text, maps[i].text)) {
			fail_msg("map %zu: expected '%s', got '%s'", i, maps[i].text, error.text);
		}
	}
}

static void test_nesting_and_many_items(void **state)
{
	uint8_t bytes[1024];
	struct snapshot_manifest out;
	struct base_error error = { 0 };

	/* An array in an array in an array... */
	memset(bytes, 0x91, 100);
	bytes[100] = 0x90;
	assert_int_equal(snapshot_manifest_decode_map(bytes, 101, &out, &error), -EBADMSG);
	assert_non_null(strstr(error.text, "manifest: map: "));

	/* A map of 500 small integers. */
	memset(bytes, 0x01, sizeof(bytes));
	memcpy(bytes, "\xde\x01\xf4", 3);
	assert_int_equal(snapshot_manifest_decode_map(bytes, 1003, &out, &error), -EBADMSG);
	assert_non_null(strstr(error.text, "too many items"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_limits_accepted),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_maps),
		cmocka_unit_test(test_items),
		cmocka_unit_test(test_nesting_and_many_items),
	};

	return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
