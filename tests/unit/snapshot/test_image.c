/* SPDX-License-Identifier: Apache-2.0 */

/* Writing memory and loading it again: round trips, seals, holes. */

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
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct snapshot *must_open(struct fixture *fixture, const char *name)
{
	struct snapshot *snapshot = NULL;
	struct base_error error = { 0 };

	if (snapshot_open(fixture->store, name, &snapshot, &error) < 0) {
		fail_msg("%s", error.text);
	}
	return snapshot;
}

static int must_fill(const struct snapshot *snapshot, struct base_message *ret_complete)
{
	struct base_error error = { 0 };
	int fd = -1;

	if (fixture_fill(snapshot, &fd, ret_complete, &error) < 0) {
		fail_msg("%s", error.text);
	}
	return fd;
}

static void round_trip(struct fixture *fixture, int memory, uint64_t memory_bytes)
{
	struct snapshot_manifest written =
		fixture_publish(fixture, "template", memory, memory_bytes);
	struct snapshot *snapshot = must_open(fixture, "template");
	struct base_message complete;
	struct stat st;

	assert_memory_equal(snapshot_manifest(snapshot), &written, sizeof(written));

	int image = must_fill(snapshot, &complete);

	assert_int_equal(fstat(image, &st), 0);
	assert_int_equal(st.st_size, memory_bytes);
	assert_int_equal(fixture_compare(memory, image, memory_bytes), 0);
	/* The last chunk may be shorter. */
	assert_true(complete.arg[2] <= written.stored_chunks * SNAPSHOT_CHUNK_BYTES);
	assert_true(complete.arg[2] + SNAPSHOT_CHUNK_BYTES >
		    written.stored_chunks * SNAPSHOT_CHUNK_BYTES);
	close(image);
	assert_int_equal(snapshot_verify(fixture->store, "template", NULL), 0);
	snapshot_free(snapshot);
}

static void test_sizes(void **state)
{
	/* One page; a chunk and its neighbours; batches and jobs and their neighbours. */
	const uint64_t sizes[] = {
		KIB(4), KIB(60),	 KIB(64),	   KIB(68), MIB(1) - KIB(4),
		MIB(1), MIB(1) + KIB(4), MIB(5) + KIB(36), MIB(24),
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int memory = fixture_memory(sizes[i], i + 1);

		round_trip(*state, memory, sizes[i]);
		close(memory);
	}
}

static void test_last_chunk_short(void **state)
{
	uint64_t size = MIB(1) + KIB(20);
	const char text[] = "the last bytes of the guest's memory";
	int memory = fixture_memory(size, 9);

	assert_int_equal(
		base_fd_pwrite_full(memory, text, sizeof(text), (off_t)(size - sizeof(text))), 0);
	round_trip(*state, memory, size);
	close(memory);
}

static void test_all_zero(void **state)
{
	int memory = -1;

	assert_int_equal(base_fd_memfd("zero", MIB(3), &memory), 0);
	round_trip(*state, memory, MIB(3));

	struct snapshot *snapshot = must_open(*state, "template");
	struct base_message complete;
	int image = must_fill(snapshot, &complete);
	struct stat st;

	assert_int_equal(snapshot_manifest(snapshot)->stored_chunks, 0);
	assert_int_equal(complete.arg[4], 0); /* bytes read */
	assert_int_equal(fstat(image, &st), 0);
	assert_int_equal(st.st_blocks, 0);
	close(image);
	snapshot_free(snapshot);
	close(memory);
}

static void test_all_random(void **state)
{
	uint64_t seed = 77, size = MIB(4) + KIB(4);
	uint8_t *data = malloc(size);
	int memory = -1;

	assert_non_null(data);
	for (uint64_t i = 0; i < size; i++) {
		data[i] = (uint8_t)fixture_random(&seed);
	}
	assert_int_equal(base_fd_memfd("random", size, &memory), 0);
	assert_int_equal(base_fd_pwrite_full(memory, data, size, 0), 0);
	free(data);
	round_trip(*state, memory, size);

	/* Nothing gets smaller, so everything is raw. */
	struct snapshot *snapshot = must_open(*state, "template");

	for (uint64_t n = 0; n < snapshot_memory_chunk_count(snapshot_memory(snapshot)); n++) {
		assert_int_equal(snapshot_memory_chunk(snapshot_memory(snapshot), n)->encoding,
				 SNAPSHOT_CHUNK_RAW);
	}
	snapshot_free(snapshot);
	close(memory);
}

static void test_file_does_not_depend_on_threads(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MIB(9), 5);
	char first[SNAPSHOT_DIGEST_LENGTH + 1] = "";

	for (unsigned n_threads = 1; n_threads <= 5; n_threads += 2) {
		struct snapshot_writer *writer = NULL;
		struct snapshot_manifest manifest = fixture_manifest("threads");

		assert_int_equal(snapshot_writer_new(fixture->store, &writer, NULL), 0);
		assert_int_equal(base_fd_write_full(snapshot_writer_state_fd(writer), "s", 1), 0);
		assert_int_equal(
			snapshot_writer_memory(writer, memory, MIB(9), n_threads, NULL, NULL, NULL),
			0);
		assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), 0);
		if (first[0]) {
			assert_string_equal(first, manifest.chunk_table_digest);
		}
		memcpy(first, manifest.chunk_table_digest, sizeof(first));
		snapshot_writer_free(writer);
	}
	close(memory);
}

static void test_reading_does_not_fill_holes(void **state)
{
	struct fixture *fixture = *state;
	struct stat before, after;
	int memory = fixture_memory(MIB(4), 3);

	assert_int_equal(fstat(memory, &before), 0);
	fixture_publish(fixture, "holes", memory, MIB(4));
	assert_int_equal(fstat(memory, &after), 0);
	assert_int_equal(before.st_blocks, after.st_blocks);

	struct snapshot *snapshot = must_open(fixture, "holes");
	int image = must_fill(snapshot, NULL);

	/* Chunks 0 (hole) and 1 (zeros that were there) are holes; 2 is the first data. */
	assert_int_equal(lseek(image, 0, SEEK_DATA), 2 * SNAPSHOT_CHUNK_BYTES);
	close(image);
	snapshot_free(snapshot);
	close(memory);
}

static void test_image_seals(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MIB(1), 4);

	fixture_publish(fixture, "seals", memory, MIB(1));

	struct snapshot *snapshot = must_open(fixture, "seals");
	int image = must_fill(snapshot, NULL);
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	uint8_t byte = 1;

	assert_int_equal(fcntl(image, F_GET_SEALS), seals);
	assert_int_equal(pwrite(image, &byte, 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(image, 0), -1);
	assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, image, 0) == MAP_FAILED);

	/* What a VM does: a read-only descriptor, a private mapping that it writes to. */
	int reopened = -1;

	assert_int_equal(base_fd_reopen_readonly(image, &reopened), 0);

	uint8_t *private = mmap(NULL, MIB(1), PROT_READ | PROT_WRITE, MAP_PRIVATE, reopened, 0);

	assert_true(private != MAP_FAILED);
	memset(private, 0xaa, MIB(1));
	assert_int_equal(fixture_compare(memory, image, MIB(1)), 0);
	munmap(private, MIB(1));
	close(reopened);
	close(image);
	snapshot_free(snapshot);
	close(memory);
}

static void test_state_memfd(void **state)
{
	struct fixture *fixture = *state;
	const char expected[] = "registers, clocks and devices";
	char text[64] = { 0 };
	int memory = fixture_memory(KIB(64), 4);

	fixture_publish(fixture, "state", memory, KIB(64));

	struct snapshot *snapshot = must_open(fixture, "state");
	int fd = snapshot_state_fd(snapshot);

	assert_int_equal(fcntl(fd, F_GET_SEALS),
			 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	assert_int_equal(pread(fd, text, sizeof(text), 0), sizeof(expected) - 1);
	assert_string_equal(text, expected);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(snapshot_manifest(snapshot)->state_bytes, sizeof(expected) - 1);
	snapshot_free(snapshot);
	close(memory);
}

struct seen {
	uint64_t calls, last, total;
};

static void on_progress(void *userdata, uint64_t done, uint64_t total)
{
	struct seen *seen = userdata;

	assert_true(done >= seen->last && done <= total);
	*seen = (struct seen){ .calls = seen->calls + 1, .last = done, .total = total };
}

static void test_progress(void **state)
{
	struct fixture *fixture = *state;
	struct snapshot_writer *writer = NULL;
	struct seen seen = { 0 };
	int memory = fixture_memory(MIB(96), 6);

	assert_int_equal(snapshot_writer_new(fixture->store, &writer, NULL), 0);
	assert_int_equal(
		snapshot_writer_memory(writer, memory, MIB(96), 1, on_progress, &seen, NULL), 0);
	/* How often depends on the machine; that it is consistent was checked on the way. */
	assert_true(seen.calls == 0 || seen.total == MIB(96));
	snapshot_writer_free(writer);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	close(memory);
}

static void test_memory_refused(void **state)
{
	struct fixture *fixture = *state;
	struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest = fixture_manifest("refused");
	int memory = fixture_memory(MIB(1), 1);
	const uint64_t sizes[] = { 0, MIB(1) - 1, MIB(1) + KIB(4), KIB(512),
				   SNAPSHOT_MEMORY_MAX_BYTES + KIB(4) };

	assert_int_equal(snapshot_writer_new(fixture->store, &writer, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct base_error error = { 0 };

		assert_int_equal(
			snapshot_writer_memory(writer, memory, sizes[i], 1, NULL, NULL, &error),
			-EINVAL);
		assert_true(error.text[0]);
	}
	/* Without memory; then without state; then with the wrong size; then twice. */
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), -EINVAL);
	assert_int_equal(snapshot_writer_memory(writer, memory, MIB(1), 1, NULL, NULL, NULL), 0);
	assert_int_equal(snapshot_writer_memory(writer, memory, MIB(1), 1, NULL, NULL, NULL),
			 -EINVAL);
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), -EINVAL);
	assert_int_equal(
		ftruncate(snapshot_writer_state_fd(writer), (off_t)SNAPSHOT_STATE_MAX_BYTES + 1),
		0);
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), -EINVAL);
	assert_int_equal(
		ftruncate(snapshot_writer_state_fd(writer), (off_t)SNAPSHOT_STATE_MAX_BYTES), 0);
	manifest.memory_bytes = MIB(2);
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), -EINVAL);
	manifest.memory_bytes = MIB(1);
	manifest.n_vcpus = 0;
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), -EINVAL);
	manifest.n_vcpus = 1;
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), 0);
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), -EINVAL);
	snapshot_writer_free(writer);
	assert_int_equal(snapshot_verify(fixture->store, "refused", NULL), 0);
	close(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sizes, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_last_chunk_short, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_all_zero, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_all_random, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_file_does_not_depend_on_threads, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_reading_does_not_fill_holes, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_image_seals, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_state_memfd, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_progress, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_memory_refused, fixture_setup,
						fixture_teardown),
	};

	int failed;

	fixture_pager_start();
	failed = cmocka_run_group_tests_name("image", tests, NULL, NULL);
	fixture_pager_stop();
	return failed;
}
