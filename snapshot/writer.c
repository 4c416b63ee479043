/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Writing a snapshot.
 *
 * A writer owns a locked directory in tmp/ and fills it: the caller writes `state`, the memory is
 * compressed into `memory`. Publishing completes and writes `manifest`, syncs, renames the
 * directory into snapshots/ and points the template's link at it. Until the link is replaced the
 * old snapshot is what the name means; every failure before that takes the new one back. A writer
 * that is freed without publishing removes its directory; one that is killed leaves a directory
 * without a lock, which the next writer sweeps. One thread at a time; everything blocks on disk.
 */

#include "snapshot/store.h"

#include "base/clock.h"
#include "base/fd.h"
#include "snapshot/compress.h"
#include "snapshot/digest.h"
#include "snapshot/manifest.h"
#include "snapshot/table.h"
#include "snapshot/working_set.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct snapshot_writer {
	struct snapshot_store *store; /* borrowed */
	char id[SNAPSHOT_ID_LENGTH + 1];
	char name[SNAPSHOT_FILE_NAME_MAX]; /* in tmp/; empty once it has left tmp/ */
	int dir_fd;			   /* holds the lock */
	int state_fd;
	int memory_fd;

	uint32_t *ws; /* as it was given; owned */
	size_t n_ws;

	uint64_t memory_bytes; /* 0: not written yet */
	uint64_t memory_file_bytes;
	uint64_t stored_chunks, ws_pages;
	char chunk_table_digest[SNAPSHOT_DIGEST_LENGTH + 1];
};

static int make_file(struct snapshot_writer *writer, const char *name, int *ret_fd,
		     struct base_error *error)
{
	int fd = openat(writer->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			0600);

	if (fd < 0) {
		int r = -errno;

		return base_error_set_errno(error, r, "cannot make %s in %s/tmp", name,
					    writer->store->path);
	}
	*ret_fd = fd;
	return 0;
}

static int make_directory(struct snapshot_writer *writer, struct base_error *error)
{
	struct snapshot_store *store = writer->store;
	_cleanup_fd_ int lock = -1;
	int r = snapshot_store_lock(store, LOCK_EX, &lock, error);

	if (r < 0) {
		return r;
	}
	snapshot_store_sweep(store);
	r = snapshot_store_new_id(writer->id);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot make an id");
	}

	char name[SNAPSHOT_FILE_NAME_MAX];

	snprintf(name, sizeof(name), "%s.snapshot", writer->id);
	if (mkdirat(store->tmp_fd, name, 0700) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot make a directory in %s/tmp",
					    store->path);
	}
	memcpy(writer->name, name, sizeof(name));
	writer->dir_fd =
		openat(store->tmp_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (writer->dir_fd < 0 || flock(writer->dir_fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot lock %s/tmp/%s", store->path, name);
	}
	return 0;
}

int snapshot_writer_new(struct snapshot_store *store, struct snapshot_writer **ret_writer,
			struct base_error *error)
{
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer =
		calloc(1, sizeof(*writer));
	int r;

	if (!writer) {
		return base_error_set_errno(error, -ENOMEM, "snapshot writer");
	}
	writer->store = store;
	writer->dir_fd = writer->state_fd = writer->memory_fd = -1;
	r = make_directory(writer, error);
	if (r < 0) {
		return r;
	}
	r = make_file(writer, SNAPSHOT_STATE_FILE, &writer->state_fd, error);
	if (r < 0) {
		return r;
	}
	r = make_file(writer, SNAPSHOT_MEMORY_FILE, &writer->memory_fd, error);
	if (r < 0) {
		return r;
	}
	*ret_writer = TAKE_PTR(writer);
	return 0;
}

void snapshot_writer_free(struct snapshot_writer *writer)
{
	if (!writer) {
		return;
	}
	base_fd_close(writer->state_fd);
	base_fd_close(writer->memory_fd);
	if (writer->name[0]) {
		snapshot_remove_tree(writer->store->tmp_fd, writer->name);
	}
	base_fd_close(writer->dir_fd);
	free(writer->ws);
	free(writer);
}

int snapshot_writer_state_fd(struct snapshot_writer *writer)
{
	return writer->state_fd;
}

static int check_memory(const struct snapshot_writer *writer, int memory_fd, uint64_t memory_bytes,
			struct base_error *error)
{
	struct stat st;

	if (writer->memory_bytes > 0) {
		return base_error_set(error, -EINVAL, "the memory is already written");
	}
	if (!snapshot_format_memory_bytes_valid(memory_bytes)) {
		return base_error_set(error, -EINVAL,
				      "%" PRIu64 " bytes of memory: out of range, or not whole "
				      "pages",
				      memory_bytes);
	}
	if (fstat(memory_fd, &st) < 0) {
		int r = -errno;

		return base_error_set_errno(error, r, "cannot look at the guest's memory");
	}
	if ((uint64_t)st.st_size != memory_bytes) {
		return base_error_set(error, -EINVAL,
				      "the memfd has %" PRIu64 " bytes instead of %" PRIu64,
				      (uint64_t)st.st_size, memory_bytes);
	}
	return 0;
}

int snapshot_writer_working_set(struct snapshot_writer *writer, const uint32_t *pages, size_t n,
				struct base_error *error)
{
	uint32_t *copy = calloc(MAX(n, (size_t)1), sizeof(*copy));

	if (!copy) {
		return base_error_set_errno(error, -ENOMEM, "working set");
	}
	if (n > 0) {
		memcpy(copy, pages, n * sizeof(*copy));
	}
	free(writer->ws);
	writer->ws = copy;
	writer->n_ws = n;
	return 0;
}

/* Puts the working set at the start of the data and into the table. *ret_offset is its end. */
static int write_working_set(struct snapshot_writer *writer, int memory_fd, uint64_t memory_bytes,
			     struct snapshot_table *table, uint64_t *ret_offset,
			     struct base_error *error)
{
	uint64_t offset;
	int r = snapshot_ws_select(memory_fd, memory_bytes, writer->ws, writer->n_ws, &table->ws,
				   &table->ws_pages, error);

	if (r < 0) {
		return r;
	}
	offset = snapshot_format_data_offset(snapshot_format_chunk_count(memory_bytes),
					     table->ws_pages);
	*ret_offset = offset + table->ws_pages * SNAPSHOT_PAGE_BYTES;
	if (table->ws_pages == 0) {
		return 0;
	}
	table->ws_checksums =
		calloc(snapshot_format_ws_blocks(table->ws_pages), sizeof(*table->ws_checksums));
	if (!table->ws_checksums) {
		return base_error_set_errno(error, -ENOMEM, "working set");
	}
	return snapshot_ws_write(memory_fd, table->ws, table->ws_pages, writer->memory_fd, offset,
				 table->ws_checksums, error);
}

static int write_table(struct snapshot_writer *writer, const struct snapshot_table *table,
		       uint64_t memory_bytes, uint64_t file_bytes, struct base_error *error)
{
	_cleanup_writer_ struct base_writer bytes = { 0 };
	int r = snapshot_table_encode(table, memory_bytes, file_bytes, &bytes);

	if (r == 0) {
		r = base_fd_pwrite_full(writer->memory_fd, bytes.data, bytes.size, 0);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot write the memory file");
	}
	snapshot_digest_text(bytes.data, bytes.size, writer->chunk_table_digest);
	return 0;
}

int snapshot_writer_memory(struct snapshot_writer *writer, int memory_fd, uint64_t memory_bytes,
			   unsigned n_threads,
			   void (*progress)(void *userdata, uint64_t done_bytes,
					    uint64_t total_bytes),
			   void *userdata, struct base_error *error)
{
	_cleanup_(snapshot_table_deinit) struct snapshot_table table = {};
	struct snapshot_compress_result result = { 0 };
	uint64_t offset = 0;
	int r = check_memory(writer, memory_fd, memory_bytes, error);

	r = r ?: write_working_set(writer, memory_fd, memory_bytes, &table, &offset, error);
	if (r < 0) {
		return r;
	}
	r = snapshot_compress(memory_fd, memory_bytes, writer->memory_fd, offset, n_threads,
			      progress, userdata, &result, error);
	if (r < 0) {
		return r;
	}
	table.chunks = result.chunks;
	r = write_table(writer, &table, memory_bytes, result.file_bytes, error);
	if (r < 0) {
		return r;
	}
	writer->memory_bytes = memory_bytes;
	writer->memory_file_bytes = result.file_bytes;
	writer->stored_chunks = result.stored_chunks;
	writer->ws_pages = table.ws_pages;
	return 0;
}

/* --- publishing --- */

static int digest_state(struct snapshot_writer *writer, struct snapshot_manifest *manifest,
			struct base_error *error)
{
	struct stat st;

	if (fstat(writer->state_fd, &st) < 0) {
		int r = -errno;

		return base_error_set_errno(error, r, "cannot look at the state file");
	}
	if (st.st_size == 0 || (uint64_t)st.st_size > SNAPSHOT_STATE_MAX_BYTES) {
		return base_error_set(error, -EINVAL,
				      "the state has %" PRIu64 " bytes, 1 to %" PRIu64
				      " are possible",
				      (uint64_t)st.st_size, SNAPSHOT_STATE_MAX_BYTES);
	}
	manifest->state_bytes = (uint64_t)st.st_size;
	return snapshot_digest_fd(writer->state_fd, manifest->state_digest, error);
}

static int complete_manifest(struct snapshot_writer *writer, struct snapshot_manifest *manifest,
			     struct base_error *error)
{
	if (writer->memory_bytes == 0 || !writer->name[0]) {
		return base_error_set(error, -EINVAL,
				      "no memory is written, or the snapshot is already "
				      "published");
	}
	if (manifest->memory_bytes != 0 && manifest->memory_bytes != writer->memory_bytes) {
		return base_error_set(error, -EINVAL,
				      "the manifest has %" PRIu64 " bytes of memory, %" PRIu64
				      " were written",
				      manifest->memory_bytes, writer->memory_bytes);
	}
	memcpy(manifest->id, writer->id, sizeof(manifest->id));
	if (manifest->created_realtime_ns == 0) {
		manifest->created_realtime_ns = base_clock_realtime_ns();
	}
	manifest->memory_bytes = writer->memory_bytes;
	manifest->memory_file_bytes = writer->memory_file_bytes;
	memcpy(manifest->chunk_table_digest, writer->chunk_table_digest,
	       sizeof(manifest->chunk_table_digest));
	manifest->stored_chunks = writer->stored_chunks;
	manifest->ws_pages = writer->ws_pages;
	manifest->zero_chunks =
		snapshot_format_chunk_count(writer->memory_bytes) - writer->stored_chunks;
	return digest_state(writer, manifest, error);
}

static int write_manifest(struct snapshot_writer *writer, const struct snapshot_manifest *manifest,
			  int *ret_fd, struct base_error *error)
{
	_cleanup_writer_ struct base_writer bytes = { 0 };
	_cleanup_fd_ int fd = -1;
	int r = snapshot_manifest_encode(manifest, &bytes, error);

	if (r < 0) {
		/* Here it is the caller's values, nothing read from disk. */
		return r == -EBADMSG ? -EINVAL : r;
	}
	/* One of an earlier attempt at publishing. */
	unlinkat(writer->dir_fd, SNAPSHOT_MANIFEST_FILE, 0);
	r = make_file(writer, SNAPSHOT_MANIFEST_FILE, &fd, error);
	if (r < 0) {
		return r;
	}
	r = base_fd_write_full(fd, bytes.data, bytes.size);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot write the manifest");
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int sync_files(struct snapshot_writer *writer, int manifest_fd, struct base_error *error)
{
	int files[] = { writer->state_fd, writer->memory_fd, manifest_fd };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (fchmod(files[i], 0400) < 0 || fsync(files[i]) < 0) {
			r = -errno;
			return base_error_set_errno(error, r, "cannot sync the snapshot");
		}
	}
	if (fsync(writer->dir_fd) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot sync the snapshot's directory");
	}
	return 0;
}

static int check_images(struct snapshot_store *store, const struct snapshot_manifest *manifest,
			struct base_error *error)
{
	for (uint32_t i = 0; i < manifest->n_disks; i++) {
		_cleanup_fd_ int fd = -1;
		int r = snapshot_store_open_image(store, &manifest->disks[i], &fd, error);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* Replaces the template's link in one step. */
static int link_template(struct snapshot_store *store, const char *name, const char *id)
{
	char target[SNAPSHOT_LINK_LENGTH + 1], temporary[SNAPSHOT_FILE_NAME_MAX];

	snprintf(target, sizeof(target), SNAPSHOT_LINK_PREFIX "%s", id);
	snprintf(temporary, sizeof(temporary), "%s.link", id);
	if (symlinkat(target, store->tmp_fd, temporary) < 0) {
		return -errno;
	}
	if (renameat(store->tmp_fd, temporary, store->templates_fd, name) < 0) {
		int r = -errno;

		unlinkat(store->tmp_fd, temporary, 0);
		return r;
	}
	return 0;
}

/*
 * Makes the name mean the new snapshot, durably. When that fails, the name means again what it did
 * before; *ret_linked says that not even this was possible, and the new snapshot has to stay.
 */
static int name_snapshot(struct snapshot_store *store, const char *name, const char *id,
			 bool *ret_linked)
{
	char old_id[SNAPSHOT_ID_LENGTH + 1];
	bool had_old = snapshot_store_resolve(store, name, old_id, NULL) == 0;
	int r = link_template(store, name, id);

	*ret_linked = r == 0;
	if (r < 0) {
		return r;
	}
	if (fsync(store->templates_fd) < 0) {
		r = -errno;
		if (had_old) {
			*ret_linked = link_template(store, name, old_id) < 0;
		} else {
			*ret_linked = unlinkat(store->templates_fd, name, 0) < 0;
		}
	}
	return r;
}

/* The steps that others can see, under the exclusive lock. */
static int publish_locked(struct snapshot_writer *writer, const struct snapshot_manifest *manifest,
			  struct base_error *error)
{
	struct snapshot_store *store = writer->store;
	int r = check_images(store, manifest, error);

	if (r < 0) {
		return r;
	}
	if (renameat(store->tmp_fd, writer->name, store->snapshots_fd, writer->id) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot rename the snapshot into place");
	}

	bool linked = false;

	r = fsync(store->snapshots_fd) < 0 ? -errno : 0;
	if (r == 0) {
		r = name_snapshot(store, manifest->template_name, writer->id, &linked);
	}
	if (r < 0) {
		/* Back into tmp/; if not even that works, no name leads to it and a sweep takes
		 * it. */
		if (linked ||
		    renameat(store->snapshots_fd, writer->id, store->tmp_fd, writer->name) < 0) {
			writer->name[0] = '\0';
		}
		return base_error_set_errno(error, r, "cannot name the template %s",
					    manifest->template_name);
	}
	writer->name[0] = '\0';
	return 0;
}

int snapshot_writer_publish(struct snapshot_writer *writer, struct snapshot_manifest *manifest,
			    struct base_error *error)
{
	struct snapshot_manifest complete = *manifest;
	_cleanup_fd_ int lock = -1, manifest_fd = -1;
	int r = complete_manifest(writer, &complete, error);

	if (r < 0) {
		return r;
	}
	r = write_manifest(writer, &complete, &manifest_fd, error);
	if (r < 0) {
		return r;
	}
	r = sync_files(writer, manifest_fd, error);
	if (r < 0) {
		return r;
	}
	r = snapshot_store_lock(writer->store, LOCK_EX, &lock, error);
	if (r < 0) {
		return r;
	}
	r = publish_locked(writer, &complete, error);
	if (r < 0) {
		return r;
	}
	snapshot_images_unpin(writer->store, &complete);
	snapshot_store_sweep(writer->store);
	*manifest = complete;
	return 0;
}
