/* SPDX-License-Identifier: Apache-2.0 */

/* A memory file on its own: a descriptor, a size and a digest are all that a reader has. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "tests/unit/snapshot/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_BYTES (MIB(1) + KIB(260))

/* The memory file of a template made for it, open, and the manifest. */
static int publish(struct fixture *fixture, int memory, struct snapshot_manifest *ret_manifest)
{
	*ret_manifest = fixture_publish(fixture, "subject", memory, MEMORY_BYTES);

	int fd = open(fixture_path(fixture, ret_manifest->id, "memory"), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void test_open_and_decode(void **state)
{
	_cleanup_(snapshot_memory_freep) struct snapshot_memory *memory = NULL;
	struct snapshot_manifest manifest;
	_cleanup_fd_ int guest = fixture_memory(MEMORY_BYTES, 7);
	int fd = publish(*state, guest, &manifest);
	static uint8_t stored[SNAPSHOT_CHUNK_BYTES], decoded[SNAPSHOT_CHUNK_BYTES],
		expected[SNAPSHOT_CHUNK_BYTES];
	struct base_error error = { 0 };

	if (snapshot_memory_open(fd, MEMORY_BYTES, manifest.chunk_table_digest, &memory, &error) <
	    0) {
		fail_msg("%s", error.text);
	}
	close(fd); /* the object has its own */
	assert_int_equal(snapshot_memory_bytes(memory), MEMORY_BYTES);
	assert_int_equal(snapshot_memory_stored_chunks(memory), manifest.stored_chunks);
	assert_int_equal(snapshot_memory_chunk_count(memory),
			 manifest.stored_chunks + manifest.zero_chunks);

	for (uint64_t n = 0; n < snapshot_memory_chunk_count(memory); n++) {
		const struct snapshot_chunk *chunk = snapshot_memory_chunk(memory, n);
		uint64_t offset = n * SNAPSHOT_CHUNK_BYTES;
		size_t covers = (size_t)MIN(SNAPSHOT_CHUNK_BYTES, MEMORY_BYTES - offset);

		assert_int_equal(base_fd_pread_full(snapshot_memory_fd(memory), stored,
						    chunk->length, (off_t)chunk->offset),
				 0);
		assert_int_equal(snapshot_memory_decode(memory, n, stored, decoded, NULL), 0);
		assert_int_equal(base_fd_pread_full(guest, expected, covers, (off_t)offset), 0);
		assert_memory_equal(decoded, expected, covers);
	}
}

static void refuse(int fd, uint64_t memory_bytes, const char *digest, int expected,
		   const char *start)
{
	struct snapshot_memory *memory = NULL;
	struct base_error error = { 0 };

	assert_int_equal(snapshot_memory_open(fd, memory_bytes, digest, &memory, &error), expected);
	assert_null(memory);
	if (strncmp(error.text, start, strlen(start)) != 0) {
		fail_msg("refused with: %s", error.text);
	}
}

static void test_refusals(void **state)
{
	struct snapshot_manifest manifest;
	_cleanup_fd_ int guest = fixture_memory(MEMORY_BYTES, 7);
	_cleanup_fd_ int fd = publish(*state, guest, &manifest);
	_cleanup_fd_ int empty = fixture_file(*state, "");
	char wrong[SNAPSHOT_DIGEST_LENGTH + 1];

	memcpy(wrong, manifest.chunk_table_digest, sizeof(wrong));
	wrong[0] = wrong[0] == '0' ? '1' : '0';
	refuse(fd, MEMORY_BYTES, wrong, -EBADMSG, "memory: chunk table: digest: ");
	refuse(fd, MEMORY_BYTES, "", -EBADMSG, "memory: chunk table: digest: ");
	refuse(fd, MEMORY_BYTES + KIB(4), manifest.chunk_table_digest, -EBADMSG,
	       "memory: memory bytes: ");
	refuse(fd, 0, manifest.chunk_table_digest, -EBADMSG, "memory: memory bytes: ");
	refuse(fd, 1, manifest.chunk_table_digest, -EBADMSG, "memory: memory bytes: ");
	refuse(fd, UINT64_MAX, manifest.chunk_table_digest, -EBADMSG, "memory: memory bytes: ");
	refuse(fd, SNAPSHOT_MEMORY_MAX_BYTES, manifest.chunk_table_digest, -EBADMSG,
	       "memory: memory bytes: ");
	refuse(fd, SNAPSHOT_MEMORY_MAX_BYTES + KIB(4), manifest.chunk_table_digest, -EBADMSG,
	       "memory: memory bytes: ");
	refuse(empty, MEMORY_BYTES, manifest.chunk_table_digest, -EBADMSG, "memory: size: ");
	refuse(-1, MEMORY_BYTES, manifest.chunk_table_digest, -EBADF, "memory: ");
}

/* A page that is not all zero and one that is, from a memory made for it. */
static int make_pages(uint64_t memory_bytes, unsigned zero_every)
{
	uint8_t page[SNAPSHOT_PAGE_BYTES] = { 0 };
	int fd = -1;

	assert_int_equal(base_fd_memfd("test-memory", memory_bytes, &fd), 0);
	for (uint64_t n = 0; n < memory_bytes / SNAPSHOT_PAGE_BYTES; n++) {
		if (n % zero_every != 0) {
			page[n % sizeof(page)] = (uint8_t)(n | 1);
			assert_int_equal(base_fd_pwrite_full(fd, page, sizeof(page),
							     (off_t)(n * sizeof(page))),
					 0);
		}
	}
	return fd;
}

static int publish_ws(struct fixture *fixture, int memory, uint64_t memory_bytes,
		      const uint32_t *pages, size_t n, struct snapshot **ret_snapshot,
		      struct base_error *error)
{
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest = fixture_manifest("subject");
	int r = snapshot_writer_new(fixture->store, &writer, error);

	assert_int_equal(r, 0);
	assert_int_equal(base_fd_write_full(snapshot_writer_state_fd(writer), "state", 5), 0);
	assert_int_equal(snapshot_writer_working_set(writer, pages, n, error), 0);
	r = snapshot_writer_memory(writer, memory, memory_bytes, 0, NULL, NULL, error);
	r = r ?: snapshot_writer_publish(writer, &manifest, error);
	r = r ?: snapshot_verify(fixture->store, "subject", error);
	return r ?: snapshot_open(fixture->store, "subject", ret_snapshot, error);
}

/* What is read back is what was given, in its order, without the zero pages. */
static void test_working_set(void **state)
{
	enum { MEMORY = MIB(1), PAGES = MEMORY / KIB(4) };
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	_cleanup_fd_ int guest = make_pages(MEMORY, 5);
	static uint8_t block[SNAPSHOT_WS_BLOCK_PAGES * SNAPSHOT_PAGE_BYTES];
	uint32_t pages[PAGES / 2], expected[PAGES / 2];
	uint64_t n = 0;

	for (uint32_t i = 0; i < PAGES / 2; i++) {
		pages[i] = (i * 77) % PAGES; /* no common divisor: none twice */
		if (pages[i] % 5 != 0) {
			expected[n++] = pages[i];
		}
	}
	assert_int_equal(publish_ws(*state, guest, MEMORY, pages, PAGES / 2, &snapshot, NULL), 0);

	const struct snapshot_memory *memory = snapshot_memory(snapshot);

	assert_int_equal(snapshot_manifest(snapshot)->ws_pages, n);
	assert_int_equal(snapshot_memory_ws_pages(memory), n);
	assert_memory_equal(snapshot_memory_ws(memory), expected, n * sizeof(expected[0]));
	assert_int_equal(snapshot_memory_ws_offset(memory) % SNAPSHOT_PAGE_BYTES, 0);
	for (uint64_t i = 0; i < n; i += SNAPSHOT_WS_BLOCK_PAGES) {
		uint64_t in_block = MIN(n - i, (uint64_t)SNAPSHOT_WS_BLOCK_PAGES);

		assert_int_equal(base_fd_pread_full(snapshot_memory_fd(memory), block,
						    in_block * SNAPSHOT_PAGE_BYTES,
						    (off_t)(snapshot_memory_ws_offset(memory) +
							    i * SNAPSHOT_PAGE_BYTES)),
				 0);
		assert_int_equal(
			snapshot_memory_ws_check(memory, i / SNAPSHOT_WS_BLOCK_PAGES, block, NULL),
			0);
		for (uint64_t p = 0; p < in_block; p++) {
			uint8_t page[SNAPSHOT_PAGE_BYTES];

			assert_int_equal(
				base_fd_pread_full(guest, page, sizeof(page),
						   (off_t)(expected[i + p] * sizeof(page))),
				0);
			assert_memory_equal(block + p * SNAPSHOT_PAGE_BYTES, page, sizeof(page));
		}
	}
}

/* More pages than may be: the first ones count. */
static void test_working_set_limit(void **state)
{
	enum { PAGES = 32 };
	_cleanup_fd_ int guest = make_pages(PAGES * KIB(4), 4);
	uint32_t pages[PAGES];

	for (uint32_t i = 0; i < PAGES; i++) {
		pages[i] = PAGES - 1 - i;
	}
	/* A quarter is zero, so 15, 16 and 24 pages are left, of which 16 can be stored. */
	for (size_t given = 20; given <= PAGES; given++) {
		struct snapshot *snapshot = NULL;
		uint64_t left = given - given / 4;

		assert_int_equal(
			publish_ws(*state, guest, PAGES * KIB(4), pages, given, &snapshot, NULL),
			0);
		assert_int_equal(snapshot_memory_ws_pages(snapshot_memory(snapshot)),
				 MIN(left, (uint64_t)PAGES / 2));
		assert_int_equal(snapshot_memory_ws(snapshot_memory(snapshot))[0], PAGES - 1);
		snapshot_free(snapshot);
	}
}

static void test_working_set_refused(void **state)
{
	static const uint32_t lists[][2] = { { 0, 32 }, { UINT32_MAX, 1 }, { 7, 7 } };
	_cleanup_fd_ int guest = make_pages(KIB(128), 4);
	struct base_error error = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		struct snapshot *snapshot = NULL;

		assert_int_equal(
			publish_ws(*state, guest, KIB(128), lists[i], 2, &snapshot, &error),
			-EINVAL);
		assert_non_null(strstr(error.text, "working set"));
		assert_int_equal(fixture_count(*state, "snapshots"), 0);
	}

	/* Nothing but zero pages is no working set; nor is none at all. */
	for (size_t n = 0; n < 2; n++) {
		struct snapshot *snapshot = NULL;

		assert_int_equal(publish_ws(*state, guest, KIB(128), lists[0], n, &snapshot, NULL),
				 0);
		assert_int_equal(snapshot_memory_ws_pages(snapshot_memory(snapshot)), 0);
		snapshot_free(snapshot);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_open_and_decode, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_refusals, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_working_set, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_working_set_limit, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_working_set_refused, fixture_setup,
						fixture_teardown),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
