/* SPDX-License-Identifier: Apache-2.0 */

/* The journal of leases: what was written is read again, whatever became of the file. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "pool/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define BOOT  "00000000-1111-2222-3333-444444444444"
#define OTHER "99999999-1111-2222-3333-444444444444"
#define N     6

static const struct pool_label labels[] = { { "owner", "somebody" }, { "empty", "" } };

static struct pool_journal_record record_of(enum pool_journal_type type, unsigned n)
{
	struct pool_journal_record record = {
		.type = type,
		.pid = 1000 + (int)n,
		.start_ticks = UINT64_C(1) << 40 | n,
		.token = "fedcba9876543210fedcba9876543210",
		.tenant = "uid:1000",
		.template_name = "python",
		.snapshot_id = "0123456789abcdef0123456789abcdef",
		.acquired_ns = UINT64_C(1800000000000000000),
		.expires_ns = n,
		.ttl_ms = 60000 + n,
		.bound = n % 2,
		.cause = "released",
		.labels = labels,
		.n_labels = ARRAY_SIZE(labels),
	};

	snprintf(record.id, sizeof(record.id), "%032x", n);
	snprintf(record.socket_path, sizeof(record.socket_path), "/run/x/%032x.sock", n);
	return record;
}

/* One of each type, and two of the long one. */
static struct pool_journal_record example(unsigned n)
{
	static const enum pool_journal_type types[N] = {
		POOL_JOURNAL_PAGER,  POOL_JOURNAL_STARTED, POOL_JOURNAL_LEASED,
		POOL_JOURNAL_LEASED, POOL_JOURNAL_RENEWED, POOL_JOURNAL_ENDED,
	};

	return record_of(types[n], n);
}

static void put_examples(struct base_writer *writer, size_t *ends)
{
	pool_journal_put_header(writer, BOOT);
	for (unsigned n = 0; n < N; n++) {
		struct pool_journal_record record = example(n);

		pool_journal_put(writer, &record);
		if (ends) {
			ends[n] = writer->size;
		}
	}
	assert_int_equal(base_writer_result(writer), 0);
}

static void assert_labels(const struct pool_journal_record *got,
			  const struct pool_journal_record *wanted)
{
	assert_int_equal(got->n_labels, wanted->n_labels);
	for (size_t i = 0; i < got->n_labels; i++) {
		assert_string_equal(got->labels[i].key, wanted->labels[i].key);
		assert_string_equal(got->labels[i].value, wanted->labels[i].value);
	}
}

/* What a type does not have is empty. */
static void assert_record(const struct pool_journal_record *got,
			  const struct pool_journal_record *wanted)
{
	bool pager = wanted->type == POOL_JOURNAL_PAGER;

	assert_int_equal(got->type, wanted->type);
	assert_string_equal(got->id, pager ? "" : wanted->id);
	if (wanted->type <= POOL_JOURNAL_LEASED) {
		assert_int_equal(got->pid, wanted->pid);
		assert_true(got->start_ticks == wanted->start_ticks);
	}
	if (wanted->type == POOL_JOURNAL_LEASED || wanted->type == POOL_JOURNAL_RENEWED) {
		assert_true(got->ttl_ms == wanted->ttl_ms && got->expires_ns == wanted->expires_ns);
	}
	assert_string_equal(got->cause, wanted->type == POOL_JOURNAL_ENDED ? wanted->cause : "");
	if (wanted->type == POOL_JOURNAL_LEASED) {
		assert_string_equal(got->token, wanted->token);
		assert_string_equal(got->tenant, wanted->tenant);
		assert_string_equal(got->template_name, wanted->template_name);
		assert_string_equal(got->snapshot_id, wanted->snapshot_id);
		assert_string_equal(got->socket_path, wanted->socket_path);
		assert_true(got->acquired_ns == wanted->acquired_ns);
		assert_int_equal(got->bound, wanted->bound);
		assert_labels(got, wanted);
	}
}

/* Which of the examples were read, in order; anything else fails the test. */
struct seen {
	unsigned n, lost;
	unsigned next;
};

static void on_record(void *userdata, const struct pool_journal_record *record)
{
	struct seen *seen = userdata;

	for (; seen->next < N; seen->next++) {
		struct pool_journal_record wanted = example(seen->next);

		if (wanted.type == record->type &&
		    (record->type == POOL_JOURNAL_PAGER || strcmp(wanted.id, record->id) == 0)) {
			assert_record(record, &wanted);
			seen->next++;
			seen->n++;
			return;
		}
		seen->lost++;
	}
	fail_msg("a record that was never written");
}

static int parse(const void *data, size_t size, struct seen *seen, struct pool_journal_found *found)
{
	*seen = (struct seen){ 0 };
	*found = (struct pool_journal_found){ 0 };
	return pool_journal_parse(data, size, BOOT, on_record, seen, found);
}

static void reads_what_was_written(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct pool_journal_found found;
	struct seen seen;

	put_examples(&writer, NULL);
	assert_int_equal(parse(writer.data, writer.size, &seen, &found), 0);
	assert_int_equal(seen.n, N);
	assert_int_equal(found.n_records, N);
	assert_int_equal(found.damaged_bytes, 0);
}

static void same_record(void *userdata, const struct pool_journal_record *record)
{
	assert_record(record, userdata);
}

static void takes_everything_at_its_limit(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct pool_journal_record record = record_of(POOL_JOURNAL_LEASED, 2);
	struct pool_label many[POOL_LABELS_MAX];
	char text[POOL_LABEL_BYTES_MAX + 1] = { 0 };
	struct pool_journal_found found;

	memset(text, 'x', POOL_LABEL_BYTES_MAX);
	for (unsigned i = 0; i < POOL_LABELS_MAX; i++) {
		many[i] = (struct pool_label){ text, text };
	}
	record.labels = many;
	record.n_labels = POOL_LABELS_MAX;
	memset(record.tenant, 't', sizeof(record.tenant) - 1);
	memset(record.socket_path, 's', sizeof(record.socket_path) - 1);
	pool_journal_put_header(&writer, BOOT);
	pool_journal_put(&writer, &record);
	assert_int_equal(base_writer_result(&writer), 0);
	assert_int_equal(
		pool_journal_parse(writer.data, writer.size, BOOT, same_record, &record, &found),
		0);
	assert_int_equal(found.n_records, 1);
}

/* Cut off anywhere, all whole records before are there, and what is left over is said. */
static void truncated_at_every_byte(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct pool_journal_found found;
	size_t ends[N];
	struct seen seen;

	put_examples(&writer, ends);
	for (size_t size = 0; size < writer.size; size++) {
		/* Its own block, so that a sanitizer sees a read behind it. */
		_cleanup_free_ uint8_t *copy = malloc(size ?: 1);
		unsigned whole = 0;
		int r;

		memcpy(copy, writer.data, size);
		r = parse(copy, size, &seen, &found);
		if (size < POOL_JOURNAL_HEADER_BYTES) {
			assert_int_equal(r, -EBADMSG);
			continue;
		}
		while (whole < N && ends[whole] <= size) {
			whole++;
		}
		assert_int_equal(r, 0);
		assert_int_equal(seen.n, whole);
		assert_int_equal(found.damaged_bytes,
				 size - (whole ? ends[whole - 1] : POOL_JOURNAL_HEADER_BYTES));
	}
}

/* One bit costs one record, and never makes another. */
static void flipped_at_every_bit(void **state)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct pool_journal_found found;
	struct seen seen;

	put_examples(&writer, NULL);
	for (size_t bit = 0; bit < writer.size * 8; bit++) {
		int r;

		writer.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		r = parse(writer.data, writer.size, &seen, &found);
		if (bit / 8 < POOL_JOURNAL_HEADER_BYTES) {
			assert_int_equal(r, -EBADMSG);
		} else {
			assert_int_equal(r, 0);
			assert_int_equal(seen.n, N - 1);
			assert_true(found.damaged_bytes > POOL_JOURNAL_RECORD_HEADER_BYTES);
			assert_true(found.damaged_at >= POOL_JOURNAL_HEADER_BYTES);
		}
		writer.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static void refuses_others(void **state)
{
	_cleanup_writer_ struct base_writer other = { 0 }, version = { 0 };
	struct pool_journal_found found;
	struct seen seen;

	pool_journal_put_header(&version, BOOT);
	base_store_u32(version.data + 8, POOL_JOURNAL_VERSION + 1);
	base_store_u64(version.data + version.size - 8,
		       XXH3_64bits(version.data, version.size - 8));
	assert_int_equal(parse(version.data, version.size, &seen, &found), -ENOTSUP);
	pool_journal_put_header(&other, OTHER);
	assert_int_equal(parse(other.data, other.size, &seen, &found), -ESTALE);
	assert_int_equal(parse("", 0, &seen, &found), -EBADMSG);
	assert_int_equal(
		parse("[daemon]\nsocket = /run/warmbox/warmboxd.sock\n# something else\n\n",
		      POOL_JOURNAL_HEADER_BYTES, &seen, &found),
		-EBADMSG);
}

/* --- the file --- */

struct file {
	char directory[64], path[96];
	struct pool_journal journal;
	unsigned live; /* how many `fill` says */
};

static struct file *current;

static uint64_t fill(struct pool_journal *journal, struct base_writer *writer)
{
	for (unsigned n = 0; n < current->live; n++) {
		struct pool_journal_record record = record_of(POOL_JOURNAL_STARTED, n);

		pool_journal_put(writer, &record);
	}
	return current->live;
}

static int setup(void **state)
{
	struct file *file = calloc(1, sizeof(*file));
	struct base_error error = { 0 };

	strcpy(file->directory, "/tmp/warmbox-journal-XXXXXX");
	assert_non_null(mkdtemp(file->directory));
	snprintf(file->path, sizeof(file->path), "%s/journal", file->directory);
	assert_int_equal(pool_journal_init(&file->journal, file->path, fill, &error), 0);
	*state = current = file;
	return 0;
}

static int teardown(void **state)
{
	struct file *file = *state;

	pool_journal_remove(&file->journal);
	pool_journal_deinit(&file->journal);
	/* Nothing is left in it. */
	assert_int_equal(rmdir(file->directory), 0);
	free(file);
	return 0;
}

static void count(void *userdata, const struct pool_journal_record *record)
{
	++*(unsigned *)userdata;
}

/* As a successor would, once the writer has gone. */
static unsigned read_again(struct file *file, struct pool_journal_found *found)
{
	struct pool_journal reader;
	struct base_error error = { 0 };
	unsigned n = 0;
	int fd = file->journal.fd;

	if (fd >= 0) {
		assert_int_equal(pool_journal_init(&reader, file->path, fill, &error), 0);
		assert_int_equal(pool_journal_read(&reader, count, &n, found), -EADDRINUSE);
		pool_journal_deinit(&reader);
	}
	file->journal.fd = base_fd_close(fd);
	assert_int_equal(pool_journal_read(&file->journal, count, &n, found), 0);
	file->journal.fd = open(file->path, O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(file->journal.fd, LOCK_EX | LOCK_NB), 0);
	return n;
}

static void append(struct file *file, unsigned n)
{
	struct pool_journal_record record = record_of(POOL_JOURNAL_LEASED, n);

	assert_int_equal(pool_journal_append(&file->journal, &record), 0);
}

static void a_file_is_read_by_the_next(void **state)
{
	struct file *file = *state;
	struct pool_journal_found found;
	struct stat info;
	unsigned n = 0;

	assert_int_equal(pool_journal_read(&file->journal, count, &n, &found), -ENOENT);
	assert_int_equal(pool_journal_rewrite(&file->journal), 0);
	for (unsigned i = 0; i < 10; i++) {
		append(file, i);
	}
	assert_int_equal(read_again(file, &found), 10);
	assert_int_equal(found.damaged_bytes, 0);
	assert_int_equal(stat(file->path, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0600);
}

static void the_first_record_makes_the_file(void **state)
{
	struct file *file = *state;
	struct pool_journal_found found;

	append(file, 1);
	assert_int_equal(read_again(file, &found), 1);
}

static void a_stale_file_is_written_again(void **state)
{
	struct file *file = *state;
	struct pool_journal_found found;
	uint64_t size = 0;

	file->live = 3;
	assert_int_equal(pool_journal_rewrite(&file->journal), 0);
	for (unsigned i = 0; !pool_journal_is_stale(&file->journal, file->live); i++) {
		assert_true(i < 100000);
		append(file, i);
		size = file->journal.size;
	}
	assert_int_equal(pool_journal_rewrite(&file->journal), 0);
	assert_false(pool_journal_is_stale(&file->journal, file->live));
	assert_true(file->journal.size < size / 100);
	assert_int_equal(read_again(file, &found), 3);
}

/* A disk that is full in the middle of a record: said, not counted, overwritten by the next. */
static void a_full_disk(void **state)
{
	struct file *file = *state;
	struct pool_journal_found found;
	struct pool_journal_record record = record_of(POOL_JOURNAL_LEASED, 7);
	struct rlimit before, limit;
	uint64_t size;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(pool_journal_rewrite(&file->journal), 0);
	append(file, 1);
	size = file->journal.size;
	for (unsigned more = 0; more < 100; more += 11) {
		limit = (struct rlimit){ size + more, before.rlim_max };
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		assert_int_equal(pool_journal_append(&file->journal, &record), -EFBIG);
		assert_non_null(strstr(file->journal.trouble, file->path));
		/* Nor can another take its place, and that leaves it as it is. */
		limit.rlim_cur = 10;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		assert_int_equal(pool_journal_rewrite(&file->journal), -EFBIG);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
		assert_int_equal(file->journal.size, size);
		assert_int_equal(read_again(file, &found), 1);
	}
	append(file, 2);
	assert_int_equal(file->journal.trouble[0], '\0');
	assert_int_equal(read_again(file, &found), 2);
}

static void without_a_place(void **state)
{
	struct file *file = *state;
	struct pool_journal_record record = record_of(POOL_JOURNAL_ENDED, 7);

	assert_int_equal(rmdir(file->directory), 0);
	assert_int_equal(pool_journal_append(&file->journal, &record), -ENOENT);
	assert_non_null(strstr(file->journal.trouble, "No such file"));
	/* Soon after it is not tried again, and the reason stays. */
	assert_int_equal(pool_journal_append(&file->journal, &record), -EBADF);
	assert_non_null(strstr(file->journal.trouble, "No such file"));
	assert_int_equal(mkdir(file->directory, 0700), 0);
	file->journal.retry_ns = 0;
	assert_int_equal(pool_journal_append(&file->journal, &record), 0);
}

int main(void)
{
#define FILE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_was_written),
		cmocka_unit_test(takes_everything_at_its_limit),
		cmocka_unit_test(truncated_at_every_byte),
		cmocka_unit_test(flipped_at_every_bit),
		cmocka_unit_test(refuses_others),
		FILE_TEST(a_file_is_read_by_the_next),
		FILE_TEST(the_first_record_makes_the_file),
		FILE_TEST(a_stale_file_is_written_again),
		FILE_TEST(a_full_disk),
		FILE_TEST(without_a_place),
	};

	return cmocka_run_group_tests_name("pool-journal", tests, NULL, NULL);
}
