/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Damage on disk: cuts, additions and bit flips in every file of a snapshot.
 *
 * Each must be refused with -EBADMSG, naming the file and the field, or be harmless: the memory
 * that is loaded and the manifest and state that are read are the same as before. (That happens:
 * an LZ4 stream can say the same in another way, and the only bits without a checksum of their own
 * are those of stored chunks, whose decoded bytes have one.) Under a sanitizer this is also a
 * search for crashes.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "snapshot/digest.h"
#include "snapshot/format.h"
#include "tests/unit/snapshot/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_BYTES (MIB(1) + KIB(260))
#define FLIPS	     2500

static const char *const files[] = { "manifest", "state", "memory" };

/* What a flip hits: the first two are whole files. */
enum { KIND_TABLE = 2, KIND_WORKING_SET, KIND_CHUNKS, KINDS };

struct subject {
	struct fixture *fixture;
	int memory;
	struct snapshot_manifest manifest;
	uint8_t *content[ARRAY_SIZE(files)];
	size_t size[ARRAY_SIZE(files)];
	char path[ARRAY_SIZE(files)][FIXTURE_PATH_MAX * 2];
};

static void subject_init(struct subject *subject, struct fixture *fixture)
{
	*subject = (struct subject){ .fixture = fixture };
	subject->memory = fixture_memory(MEMORY_BYTES, 42);
	subject->manifest = fixture_publish(fixture, "subject", subject->memory, MEMORY_BYTES);
	assert_true(subject->manifest.ws_pages > 2 * SNAPSHOT_WS_BLOCK_PAGES);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		strcpy(subject->path[i], fixture_path(fixture, subject->manifest.id, files[i]));
		subject->content[i] = fixture_read(subject->path[i], &subject->size[i]);
		assert_int_equal(chmod(subject->path[i], 0600), 0);
	}
}

static void subject_deinit(struct subject *subject)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		free(subject->content[i]);
	}
	close(subject->memory);
}

/* Reads the working set as a pager does: whole blocks, each checked before it is used. */
static int use_working_set(struct subject *subject, const struct snapshot_memory *memory,
			   struct base_error *error)
{
	static uint8_t block[SNAPSHOT_WS_BLOCK_PAGES * SNAPSHOT_PAGE_BYTES];
	uint64_t n_pages = snapshot_memory_ws_pages(memory);
	uint64_t offset = snapshot_memory_ws_offset(memory);

	for (uint64_t b = 0; b < snapshot_format_ws_blocks(n_pages); b++) {
		uint32_t n = snapshot_format_ws_block_pages(n_pages, b);
		int r = base_fd_pread_full(snapshot_memory_fd(memory), block,
					   n * SNAPSHOT_PAGE_BYTES, (off_t)offset);

		assert_int_equal(r, 0); /* opening has compared the size */
		r = snapshot_memory_ws_check(memory, b, block, error);
		if (r < 0) {
			return base_error_prefix(error, r, "snapshot");
		}
		for (uint32_t i = 0; i < n; i++) {
			uint8_t page[SNAPSHOT_PAGE_BYTES];
			uint64_t number =
				snapshot_memory_ws(memory)[b * SNAPSHOT_WS_BLOCK_PAGES + i];

			assert_int_equal(base_fd_pread_full(subject->memory, page, sizeof(page),
							    (off_t)(number * sizeof(page))),
					 0);
			assert_memory_equal(block + i * SNAPSHOT_PAGE_BYTES, page, sizeof(page));
		}
		offset += n * SNAPSHOT_PAGE_BYTES;
	}
	return 0;
}

/* Opens, loads and compares. Returns the first failure. */
static int use(struct subject *subject, struct base_error *error)
{
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	_cleanup_fd_ int image = -1;
	int r = snapshot_open(subject->fixture->store, "subject", &snapshot, error);

	if (r == 0) {
		r = use_working_set(subject, snapshot_memory(snapshot), error);
	}
	if (r == 0) {
		r = fixture_fill(snapshot, &image, NULL, error);
	}
	if (r == 0) {
		uint8_t state[64];

		assert_memory_equal(snapshot_manifest(snapshot), &subject->manifest,
				    sizeof(subject->manifest));
		assert_int_equal(pread(snapshot_state_fd(snapshot), state, sizeof(state), 0),
				 subject->size[1]);
		assert_memory_equal(state, subject->content[1], subject->size[1]);
		assert_int_equal(fixture_compare(subject->memory, image, MEMORY_BYTES), 0);
	}
	return r;
}

/* "...: <file>: <field>: why", or "...: memory: chunk N data: ..." */
static void check_text(const struct base_error *error, const char *file, const char *what)
{
	char needle[32];
	const char *at;

	snprintf(needle, sizeof(needle), ": %s: ", file);
	at = strstr(error->text, needle);
	if (!at || !strstr(at + strlen(needle), ": ")) {
		fail_msg("%s: the text does not name file and field: %s", what, error->text);
	}
}

/* 1 refused, 0 harmless */
static int try_damage(struct subject *subject, size_t file, const char *what)
{
	struct base_error error = { 0 };
	int r = use(subject, &error);

	if (r == 0) {
		return 0;
	}
	if (r != -EBADMSG) {
		fail_msg("%s: %d, %s", what, r, error.text);
	}
	check_text(&error, files[file], what);
	assert_int_equal(snapshot_verify(subject->fixture->store, "subject", NULL), -EBADMSG);
	return 1;
}

static void cut(struct subject *subject, size_t file, uint64_t size)
{
	char what[64];

	assert_int_equal(truncate(subject->path[file], (off_t)size), 0);
	snprintf(what, sizeof(what), "%s cut to %llu", files[file], (unsigned long long)size);
	if (try_damage(subject, file, what) == 0) {
		fail_msg("%s: accepted", what);
	}
	fixture_write(subject->path[file], subject->content[file], subject->size[file]);
}

static void test_truncation(void **state)
{
	struct subject subject;

	subject_init(&subject, *state);
	for (size_t size = 0; size < subject.size[0]; size++) {
		cut(&subject, 0, size);
	}
	for (size_t size = 0; size < subject.size[1]; size++) {
		cut(&subject, 1, size);
	}

	/* The memory file: each field of the header, each entry of the table, the working set,
	 * each chunk; at the border and a byte to either side, and in the middle. */
	uint64_t n_chunks = snapshot_format_chunk_count(MEMORY_BYTES);
	uint64_t ws_pages = subject.manifest.ws_pages;
	uint64_t data_offset = snapshot_format_data_offset(n_chunks, ws_pages);
	uint64_t borders[256];
	size_t n = 0;

	for (uint64_t at = 0; at < SNAPSHOT_MEMORY_HEADER_BYTES; at += 8) {
		borders[n++] = at;
	}
	for (uint64_t chunk = 0; chunk <= n_chunks; chunk++) {
		borders[n++] = SNAPSHOT_MEMORY_HEADER_BYTES + chunk * SNAPSHOT_TABLE_ENTRY_BYTES;
	}
	/* After the chunk table: page numbers, checksums, padding; then the blocks. */
	for (uint64_t at = borders[n - 1]; at < data_offset; at += data_offset / 32) {
		borders[n++] = at;
	}
	borders[n++] = snapshot_format_table_end(n_chunks, ws_pages);
	for (uint64_t page = 0; page < ws_pages; page += SNAPSHOT_WS_BLOCK_PAGES / 2) {
		borders[n++] = data_offset + page * SNAPSHOT_PAGE_BYTES;
	}

	struct snapshot *snapshot = NULL;

	assert_int_equal(snapshot_open(subject.fixture->store, "subject", &snapshot, NULL), 0);
	for (uint64_t chunk = 0; chunk < n_chunks; chunk++) {
		if (snapshot_memory_chunk(snapshot_memory(snapshot), chunk)->encoding !=
		    SNAPSHOT_CHUNK_ZERO) {
			borders[n++] =
				snapshot_memory_chunk(snapshot_memory(snapshot), chunk)->offset;
			borders[n++] =
				snapshot_memory_chunk(snapshot_memory(snapshot), chunk)->offset +
				snapshot_memory_chunk(snapshot_memory(snapshot), chunk)->length / 2;
		}
	}
	snapshot_free(snapshot);
	borders[n++] = subject.size[2] - 1;
	assert_true(n <= ARRAY_SIZE(borders));
	for (size_t i = 0; i < n; i++) {
		cut(&subject, 2, borders[i]);
		cut(&subject, 2, borders[i] > 0 ? borders[i] - 1 : 0);
		cut(&subject, 2, MIN(borders[i] + 1, (uint64_t)subject.size[2] - 1));
	}

	struct base_error error = { 0 };

	if (use(&subject, &error) < 0) {
		fail_msg("restored, but: %s", error.text);
	}
	subject_deinit(&subject);
}

static void test_addition(void **state)
{
	struct subject subject;

	subject_init(&subject, *state);
	for (size_t file = 0; file < ARRAY_SIZE(files); file++) {
		for (uint64_t more = 1; more <= 4097; more += 4096) {
			assert_int_equal(
				truncate(subject.path[file], (off_t)(subject.size[file] + more)),
				0);
			assert_int_equal(try_damage(&subject, file, "longer"), 1);
		}
		fixture_write(subject.path[file], subject.content[file], subject.size[file]);
	}
	subject_deinit(&subject);
}

/* Flips of all kinds in equal shares; each file's headers are small, so chance would miss them. */
static uint64_t choose_bit(const struct subject *subject, unsigned round, uint64_t *seed,
			   size_t *ret_file)
{
	uint64_t n_chunks = snapshot_format_chunk_count(MEMORY_BYTES);
	uint64_t ws_pages = subject->manifest.ws_pages;
	uint64_t data_offset = snapshot_format_data_offset(n_chunks, ws_pages);
	uint64_t ws_bytes = ws_pages * SNAPSHOT_PAGE_BYTES;
	uint64_t from = 0, size;

	*ret_file = MIN(round % KINDS, 2u);
	size = subject->size[*ret_file];
	switch (round % KINDS) {
	case KIND_TABLE:
		size = snapshot_format_table_end(n_chunks, ws_pages);
		break;
	case KIND_WORKING_SET:
		from = data_offset;
		size = ws_bytes;
		break;
	case KIND_CHUNKS:
		/* And the padding in front of the data. */
		from = fixture_random(seed) % 4 == 0 ? data_offset - 512 : data_offset + ws_bytes;
		size -= from;
		break;
	}
	return from * 8 + fixture_random(seed) % (size * 8);
}

static void test_bit_flips(void **state)
{
	const char *given = getenv("WARMBOX_TEST_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 0) : base_clock_monotonic_ns() | 1;
	unsigned harmless[ARRAY_SIZE(files)] = { 0 }, tried[ARRAY_SIZE(files)] = { 0 };
	struct subject subject;
	int fds[ARRAY_SIZE(files)];

	print_message("# WARMBOX_TEST_SEED=%llu\n", (unsigned long long)seed);
	subject_init(&subject, *state);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		fds[i] = open(subject.path[i], O_WRONLY | O_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	for (unsigned round = 0; round < FLIPS; round++) {
		size_t file;
		uint64_t bit = choose_bit(&subject, round, &seed, &file);
		uint8_t before = subject.content[file][bit / 8];
		uint8_t after = before ^ (uint8_t)(1 << bit % 8);
		char what[64];

		snprintf(what, sizeof(what), "%s bit %llu", files[file], (unsigned long long)bit);
		assert_int_equal(pwrite(fds[file], &after, 1, (off_t)(bit / 8)), 1);
		tried[file]++;
		if (round % KINDS == KIND_TABLE) {
			/* Header, table and page numbers are found out at opening, without any data
			 * being read.
			 */
			struct snapshot *snapshot = NULL;

			assert_int_equal(
				snapshot_open(subject.fixture->store, "subject", &snapshot, NULL),
				-EBADMSG);
		}

		bool ignored = try_damage(&subject, file, what) == 0;

		assert_false(ignored && round % KINDS == KIND_WORKING_SET);
		harmless[file] += ignored;
		assert_int_equal(pwrite(fds[file], &before, 1, (off_t)(bit / 8)), 1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		print_message("# %s: %u flips, %u harmless\n", files[i], tried[i], harmless[i]);
		close(fds[i]);
	}
	/* Only in stored chunks is there anything that can be said in two ways. */
	assert_int_equal(harmless[0], 0);
	assert_int_equal(harmless[1], 0);
	assert_true(harmless[2] < tried[2] / 20);

	struct base_error error = { 0 };

	if (use(&subject, &error) < 0) {
		fail_msg("restored, but: %s", error.text);
	}
	subject_deinit(&subject);
}

static void test_missing_and_strange_files(void **state)
{
	struct subject subject;

	subject_init(&subject, *state);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct base_error error = { 0 };
		char expected[64];

		assert_int_equal(unlink(subject.path[i]), 0);
		assert_int_equal(use(&subject, &error), -EBADMSG);
		snprintf(expected, sizeof(expected), "snapshot subject: %s: missing", files[i]);
		assert_string_equal(error.text, expected);

		/* A link, a directory and a FIFO in its place; none may be followed or hang us. */
		snprintf(expected, sizeof(expected), "snapshot subject: %s: not a regular file",
			 files[i]);
		assert_int_equal(symlink("/etc/hostname", subject.path[i]), 0);
		assert_int_equal(use(&subject, &error), -EBADMSG);
		assert_string_equal(error.text, expected);
		assert_int_equal(unlink(subject.path[i]), 0);
		assert_int_equal(mkdir(subject.path[i], 0700), 0);
		assert_int_equal(use(&subject, &error), -EBADMSG);
		assert_string_equal(error.text, expected);
		assert_int_equal(rmdir(subject.path[i]), 0);
		assert_int_equal(mkfifo(subject.path[i], 0600), 0);
		assert_int_equal(use(&subject, &error), -EBADMSG);
		assert_string_equal(error.text, expected);
		assert_int_equal(unlink(subject.path[i]), 0);
		fixture_write(subject.path[i], subject.content[i], subject.size[i]);
	}
	assert_int_equal(use(&subject, NULL), 0);
	subject_deinit(&subject);
}

/* Each file is sound, but they are not of one snapshot. */
static void test_mixed_up_files(void **state)
{
	struct fixture *fixture = *state;
	struct subject subject;
	int memory = fixture_memory(MEMORY_BYTES, 43);

	subject_init(&subject, fixture);

	struct snapshot_manifest other = fixture_publish(fixture, "other", memory, MEMORY_BYTES);

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct base_error error = { 0 };
		size_t size;
		uint8_t *content = fixture_read(fixture_path(fixture, other.id, files[i]), &size);

		if (i == 1) {
			content[0] ^= 1; /* both have the same state */
		}
		fixture_write(subject.path[i], content, size);
		assert_int_equal(use(&subject, &error), -EBADMSG);
		check_text(&error, files[i], "mixed up");
		fixture_write(subject.path[i], subject.content[i], subject.size[i]);
		free(content);
	}
	subject_deinit(&subject);
	close(memory);
}

/* The file loses its end, or a chunk changes, between our opening it and the pager's. */
static void test_damage_after_opening(void **state)
{
	struct subject subject;
	struct snapshot *snapshot = NULL;
	struct base_error error = { 0 };
	int image = -1;

	subject_init(&subject, *state);
	assert_int_equal(snapshot_open(subject.fixture->store, "subject", &snapshot, NULL), 0);
	assert_int_equal(truncate(subject.path[2], (off_t)subject.size[2] - 1), 0);
	assert_int_equal(fixture_fill(snapshot, &image, NULL, &error), -EBADMSG);
	assert_int_equal(image, -1);
	assert_non_null(strstr(error.text, ": memory: "));

	fixture_write(subject.path[2], subject.content[2], subject.size[2]);
	snapshot_free(snapshot);
	assert_int_equal(snapshot_open(subject.fixture->store, "subject", &snapshot, NULL), 0);
	/* Every one: a chunk of which the working set has all is not read. */
	for (uint64_t n = 0; n < snapshot_memory_chunk_count(snapshot_memory(snapshot)); n++) {
		const struct snapshot_chunk *chunk =
			snapshot_memory_chunk(snapshot_memory(snapshot), n);

		if (chunk->encoding != SNAPSHOT_CHUNK_ZERO) {
			subject.content[2][chunk->offset + chunk->length - 1] ^= 1;
		}
	}
	fixture_write(subject.path[2], subject.content[2], subject.size[2]);
	assert_int_equal(fixture_fill(snapshot, &image, NULL, &error), -EBADMSG);
	assert_int_equal(image, -1);
	assert_non_null(strstr(error.text, ": memory: chunk "));
	snapshot_free(snapshot);
	subject_deinit(&subject);
}

/* A forged working set, with checksum and digest to match: only reading both shows it. */
static void test_verify_compares_pages(void **state)
{
	struct fixture *fixture = *state;
	struct subject subject;
	struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest = fixture_manifest("forged");
	static const uint32_t page = 2 * SNAPSHOT_CHUNK_BYTES / SNAPSHOT_PAGE_BYTES;
	struct base_error error = { 0 };
	char path[FIXTURE_PATH_MAX * 2];
	uint8_t *content;
	size_t size;

	subject_init(&subject, fixture);
	assert_int_equal(snapshot_writer_new(fixture->store, &writer, NULL), 0);
	assert_int_equal(base_fd_write_full(snapshot_writer_state_fd(writer), "state", 5), 0);
	assert_int_equal(snapshot_writer_working_set(writer, &page, 1, NULL), 0);
	assert_int_equal(
		snapshot_writer_memory(writer, subject.memory, MEMORY_BYTES, 1, NULL, NULL, NULL),
		0);
	assert_int_equal(snapshot_writer_publish(writer, &manifest, NULL), 0);
	snapshot_writer_free(writer);
	assert_int_equal(snapshot_verify(fixture->store, "forged", NULL), 0);

	/* The page number becomes another; then whoever reads finds the wrong page there. */
	uint64_t n_chunks = snapshot_format_chunk_count(MEMORY_BYTES);
	uint64_t data_offset = snapshot_format_data_offset(n_chunks, 1);
	uint64_t at = SNAPSHOT_MEMORY_HEADER_BYTES + n_chunks * SNAPSHOT_TABLE_ENTRY_BYTES;
	char digest[SNAPSHOT_DIGEST_LENGTH + 1];

	strcpy(path, fixture_path(fixture, manifest.id, "memory"));
	content = fixture_read(path, &size);
	base_store_u32(content + at, page + 1);
	snapshot_digest_text(content, data_offset, digest);
	fixture_write(path, content, size);
	free(content);

	strcpy(path, fixture_path(fixture, manifest.id, "manifest"));
	content = fixture_read(path, &size);

	char *digest_at =
		memmem(content, size, manifest.chunk_table_digest, SNAPSHOT_DIGEST_LENGTH);

	assert_non_null(digest_at);
	memcpy(digest_at, digest, SNAPSHOT_DIGEST_LENGTH);
	snapshot_digest_bytes(content, size - SNAPSHOT_MANIFEST_TRAILER_BYTES,
			      content + size - SNAPSHOT_MANIFEST_TRAILER_BYTES);
	fixture_write(path, content, size);
	free(content);

	assert_int_equal(snapshot_verify(fixture->store, "forged", &error), -EBADMSG);
	assert_string_equal(error.text, "snapshot forged: memory: working set page 0: is not what "
					"chunk 2 has");
	subject_deinit(&subject);
}

static void test_verify_reads_disks(void **state)
{
	struct subject subject;
	struct base_error error = { 0 };
	char path[FIXTURE_PATH_MAX * 2];
	size_t size;

	subject_init(&subject, *state);
	snprintf(path, sizeof(path), "%s/images/%s.img", subject.fixture->store_path,
		 subject.manifest.disks[0].digest);

	uint8_t *content = fixture_read(path, &size);

	assert_int_equal(snapshot_verify(subject.fixture->store, "subject", &error), 0);
	content[size / 2] ^= 0x20;
	fixture_write(path, content, size);
	assert_int_equal(use(&subject, &error), 0); /* opening does not read disks */
	assert_int_equal(snapshot_verify(subject.fixture->store, "subject", &error), -EBADMSG);
	assert_non_null(strstr(error.text, subject.manifest.disks[0].digest));
	assert_non_null(strstr(error.text, "digest: "));

	/* A wrong size is seen when the disk is opened; so is its absence. */
	fixture_write(path, content, size - 1);
	assert_int_equal(snapshot_verify(subject.fixture->store, "subject", &error), -EBADMSG);
	assert_non_null(strstr(error.text, "size: "));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(snapshot_verify(subject.fixture->store, "subject", &error), -EBADMSG);
	assert_non_null(strstr(error.text, "missing"));
	free(content);
	subject_deinit(&subject);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_truncation, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_addition, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_bit_flips, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_missing_and_strange_files, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_mixed_up_files, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_damage_after_opening, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_verify_compares_pages, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_verify_reads_disks, fixture_setup,
						fixture_teardown),
	};

	int failed;

	fixture_pager_start();
	failed = cmocka_run_group_tests_name("damage", tests, NULL, NULL);
	fixture_pager_stop();
	return failed;
}
