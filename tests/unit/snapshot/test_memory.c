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
	/* A table larger than the file is not even allocated. */
	refuse(fd, SNAPSHOT_MEMORY_MAX_BYTES, manifest.chunk_table_digest, -EBADMSG,
	       "memory: size: ");
	refuse(fd, SNAPSHOT_MEMORY_MAX_BYTES + KIB(4), manifest.chunk_table_digest, -EBADMSG,
	       "memory: memory bytes: ");
	refuse(empty, MEMORY_BYTES, manifest.chunk_table_digest, -EBADMSG, "memory: size: ");
	refuse(-1, MEMORY_BYTES, manifest.chunk_table_digest, -EBADF, "memory: ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_open_and_decode, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_refusals, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
