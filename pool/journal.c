/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The journal's file.
 *
 * Happy path: a record is one pwrite() behind the last one. When most records are about what is
 * over, a new file is written beside it with what lives and renamed over it.
 *
 * Failure: a record that could not be written, or not all of it, leaves the end where it was: the
 * next one overwrites what there is of it. A new file that cannot be written leaves the old one.
 * Disks do not matter to a record, since with them the VMs would be gone; a new file on one is
 * synced all the same before it takes the old one's place, so that no power cut leaves neither.
 *
 * Shut-down: the file is removed when nothing is left to be told. Runs on the loop's thread.
 */

#include "pool/journal.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
#define NEW_SUFFIX   ".new"
/* Records beyond four for each sandbox that lives: what is written again now and then is short. */
#define STALE_RECORDS  1024
#define RETRY_DELAY_NS NSEC_PER_SEC

static int read_boot_id(char boot_id[POOL_JOURNAL_BOOT_ID_BYTES + 1])
{
	_cleanup_fd_ int fd = open(BOOT_ID_PATH, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}
	boot_id[POOL_JOURNAL_BOOT_ID_BYTES] = '\0';
	return base_fd_read_full(fd, boot_id, POOL_JOURNAL_BOOT_ID_BYTES);
}

int pool_journal_init(struct pool_journal *journal, const char *path,
		      uint64_t (*fill)(struct pool_journal *journal, struct base_writer *writer),
		      struct base_error *error)
{
	int r;

	*journal = (struct pool_journal){ .fd = -1, .fill = fill };
	r = read_boot_id(journal->boot_id);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading " BOOT_ID_PATH);
	}
	journal->path = strdup(path);
	return journal->path ? 0 : base_error_set_errno(error, -ENOMEM, "journal");
}

void pool_journal_deinit(struct pool_journal *journal)
{
	if (journal->path) {
		base_fd_close(journal->fd);
		base_writer_deinit(&journal->buffer);
		free(TAKE_PTR(journal->path));
	}
}

/* --- reading --- */

int pool_journal_read(struct pool_journal *journal,
		      void (*fn)(void *userdata, const struct pool_journal_record *record),
		      void *userdata, struct pool_journal_found *ret_found)
{
	_cleanup_fd_ int fd = open(journal->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_free_ char *data = NULL;
	size_t size;
	int r;

	if (fd < 0) {
		return -errno;
	}
	if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
		return errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
	}
	r = base_fd_read_file(fd, POOL_JOURNAL_BYTES_MAX, &data, &size);
	if (r < 0) {
		return r;
	}
	return pool_journal_parse(data, size, journal->boot_id, fn, userdata, ret_found);
}

/* --- a new file --- */

static bool is_volatile(int fd)
{
	struct statfs info;

	return fstatfs(fd, &info) == 0 &&
	       (info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC);
}

static int sync_directory(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);
	_cleanup_fd_ int fd = -1;

	if (!copy) {
		return -ENOMEM;
	}
	*strrchr(copy, '/') = '\0';
	fd = open(copy[0] ? copy : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* Writes the buffer to a new file. Its descriptor, or -errno. */
static int write_new(const char *path, const struct base_writer *content)
{
	_cleanup_fd_ int fd = -1;
	int r;

	(void)unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		return -errno;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		return -errno;
	}
	r = base_fd_pwrite_full(fd, content->data, content->size, 0);
	if (r < 0) {
		return r;
	}
	if (!is_volatile(fd) && fsync(fd) < 0) {
		return -errno;
	}
	return TAKE_FD(fd);
}

static int replace(struct pool_journal *journal, const struct base_writer *content,
		   uint64_t n_records)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_fd_ int fd = -1;

	if (asprintf(&path, "%s" NEW_SUFFIX, journal->path) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	fd = write_new(path, content);
	if (fd < 0 || rename(path, journal->path) < 0) {
		int r = fd < 0 ? fd : -errno;

		(void)unlink(path);
		return r;
	}
	/* It has taken the old one's place, whatever becomes of the directory. */
	base_fd_close(journal->fd);
	journal->fd = TAKE_FD(fd);
	journal->size = content->size;
	journal->n_records = n_records;
	return is_volatile(journal->fd) ? 0 : sync_directory(journal->path);
}

static int set_trouble(struct pool_journal *journal, int r)
{
	struct base_error error = { 0 };

	base_error_set_errno(&error, r, "the journal of leases %s cannot be written",
			     journal->path);
	memcpy(journal->trouble, error.text, sizeof(journal->trouble));
	return r;
}

int pool_journal_rewrite(struct pool_journal *journal)
{
	_cleanup_writer_ struct base_writer content = { 0 };
	uint64_t n_records;
	int r;

	pool_journal_put_header(&content, journal->boot_id);
	n_records = journal->fill(journal, &content);
	r = base_writer_result(&content);
	if (r == 0 && content.size > POOL_JOURNAL_BYTES_MAX) {
		r = -EFBIG;
	}
	if (r == 0) {
		r = replace(journal, &content, n_records);
	}
	if (r < 0) {
		journal->retry_ns = base_clock_monotonic_ns() + RETRY_DELAY_NS;
		return set_trouble(journal, r);
	}
	journal->trouble[0] = '\0';
	return 0;
}

/* --- records --- */

/* A file into which so much more goes. 0 or -errno. */
static int make_room(struct pool_journal *journal, size_t bytes)
{
	int r = journal->fd < 0					 ? -EBADF
		: journal->size + bytes > POOL_JOURNAL_BYTES_MAX ? -EFBIG
								 : 0;

	if (r == 0 || base_clock_monotonic_ns() < journal->retry_ns) {
		return r;
	}
	r = pool_journal_rewrite(journal);
	if (r == 0 && journal->size + bytes > POOL_JOURNAL_BYTES_MAX) {
		r = -EFBIG;
	}
	return r;
}

int pool_journal_append(struct pool_journal *journal, const struct pool_journal_record *record)
{
	struct base_writer *buffer = &journal->buffer;
	int r;

	buffer->size = 0;
	buffer->result = 0;
	pool_journal_put(buffer, record);
	r = base_writer_result(buffer);
	if (r == 0) {
		r = make_room(journal, buffer->size);
	}
	if (r == 0) {
		r = base_fd_pwrite_full(journal->fd, buffer->data, buffer->size,
					(off_t)journal->size);
	}
	if (r < 0) {
		/* The words of why there is no file are better than that there is none. */
		return r == -EBADF && journal->trouble[0] ? r : set_trouble(journal, r);
	}
	journal->size += buffer->size;
	journal->n_records++;
	journal->trouble[0] = '\0';
	return 0;
}

bool pool_journal_is_stale(const struct pool_journal *journal, uint64_t n_live)
{
	return journal->fd >= 0 && journal->n_records > 4 * n_live + STALE_RECORDS &&
	       base_clock_monotonic_ns() >= journal->retry_ns;
}

void pool_journal_remove(struct pool_journal *journal)
{
	if (journal->fd >= 0) {
		(void)unlink(journal->path);
		journal->fd = base_fd_close(journal->fd);
	}
}
