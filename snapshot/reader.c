/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Opening a snapshot.
 *
 * Under the store's shared lock the name is resolved and the three files are opened; after that
 * nobody's removal matters. Each file is then read once: the manifest is decoded and checked, the
 * state goes through a buffer into a sealed memfd, the chunk table into memory (memory.c). What was
 * checked is what is used later. The data of the chunks is checked when it is decoded. Every fault
 * is -EBADMSG and names snapshot, file and field. An open snapshot is immutable: any thread may use
 * it.
 */

#include "snapshot/store.h"

#include "base/fd.h"
#include "snapshot/digest.h"
#include "snapshot/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct snapshot {
	struct snapshot_manifest manifest;
	int state_fd;
	struct snapshot_memory *memory; /* owned */
};

struct files {
	int dir_fd, state_fd, memory_fd;
	uint64_t state_bytes, memory_bytes;
};

static inline void files_deinit(struct files *files)
{
	base_fd_close(files->dir_fd);
	base_fd_close(files->state_fd);
	base_fd_close(files->memory_fd);
}

/* The id for a template name or an id; a template may have a name that looks like an id. */
static int resolve(struct snapshot_store *store, const char *name_or_id,
		   char ret_id[SNAPSHOT_ID_LENGTH + 1], struct base_error *error)
{
	if (!snapshot_name_is_valid(name_or_id)) {
		return base_error_set(error, -ENOENT,
				      "there is no such template: not a valid name");
	}

	int r = snapshot_store_resolve(store, name_or_id, ret_id, error);

	if (r == -ENOENT && snapshot_hex_is_valid(name_or_id, SNAPSHOT_ID_LENGTH)) {
		memcpy(ret_id, name_or_id, SNAPSHOT_ID_LENGTH + 1);
		return 1;
	}
	return r;
}

int snapshot_store_lookup(struct snapshot_store *store, const char *name_or_id,
			  char ret_id[SNAPSHOT_ID_LENGTH + 1], struct base_error *error)
{
	_cleanup_fd_ int lock = -1;
	char id[SNAPSHOT_ID_LENGTH + 1];
	int r = snapshot_store_lock(store, LOCK_SH, &lock, error);

	if (r < 0) {
		return r;
	}
	r = resolve(store, name_or_id, id, error);
	if (r < 0) {
		return r;
	}
	if (r > 0 && faccessat(store->snapshots_fd, id, F_OK, 0) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "snapshots/%s", id);
	}
	memcpy(ret_id, id, sizeof(id));
	return 0;
}

/* The caller holds the store's lock. */
static int open_files(struct snapshot_store *store, const char *name_or_id,
		      struct snapshot *snapshot, struct files *files, struct base_error *error)
{
	char id[SNAPSHOT_ID_LENGTH + 1];
	int by_id = resolve(store, name_or_id, id, error);
	int r;

	if (by_id < 0) {
		return by_id;
	}
	files->dir_fd =
		openat(store->snapshots_fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (files->dir_fd < 0) {
		r = -errno;
		if (r == -ENOENT && by_id) {
			return base_error_set(error, r, "there is no template or snapshot %s in %s",
					      name_or_id, store->path);
		}
		return base_error_set_errno(error, r == -ENOENT ? -EBADMSG : r,
					    "templates/%s: link: cannot open snapshots/%s",
					    name_or_id, id);
	}
	r = snapshot_store_read_manifest(files->dir_fd, &snapshot->manifest, error);
	if (r < 0) {
		return r;
	}
	if (strcmp(snapshot->manifest.id, id) != 0) {
		return base_error_set(error, -EBADMSG, "manifest: id: is that of another snapshot");
	}
	r = snapshot_store_open_file(files->dir_fd, SNAPSHOT_STATE_FILE, &files->state_fd,
				     &files->state_bytes, error);
	if (r < 0) {
		return r;
	}
	return snapshot_store_open_file(files->dir_fd, SNAPSHOT_MEMORY_FILE, &files->memory_fd,
					&files->memory_bytes, error);
}

static int check_size(const char *file, uint64_t size, uint64_t expected, struct base_error *error)
{
	if (size != expected) {
		return base_error_set(error, -EBADMSG,
				      "%s: size: %" PRIu64 " bytes instead of %" PRIu64, file, size,
				      expected);
	}
	return 0;
}

static int load_state(struct snapshot *snapshot, const struct files *files,
		      struct base_error *error)
{
	const struct snapshot_manifest *m = &snapshot->manifest;
	_cleanup_free_ uint8_t *data = NULL;
	int r = check_size("state", files->state_bytes, m->state_bytes, error);

	if (r < 0) {
		return r;
	}
	r = snapshot_store_read_start("state", files->state_fd, m->state_bytes, &data, error);
	if (r < 0) {
		return r;
	}
	r = snapshot_digest_check("state", data, m->state_bytes, m->state_digest, error);
	if (r < 0) {
		return r;
	}
	r = base_fd_memfd("warmbox-state", m->state_bytes, &snapshot->state_fd);
	if (r == 0) {
		r = base_fd_pwrite_full(snapshot->state_fd, data, m->state_bytes, 0);
	}
	if (r == 0 && fcntl(snapshot->state_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
		r = -errno;
	}
	return r < 0 ? base_error_set_errno(error, r, "cannot make a memfd of the state") : 0;
}

static int load_memory(struct snapshot *snapshot, const struct files *files,
		       struct base_error *error)
{
	const struct snapshot_manifest *m = &snapshot->manifest;
	int r = check_size("memory", files->memory_bytes, m->memory_file_bytes, error);

	if (r < 0) {
		return r;
	}
	r = snapshot_memory_open(files->memory_fd, m->memory_bytes, m->chunk_table_digest,
				 &snapshot->memory, error);
	if (r < 0) {
		return r;
	}

	if (snapshot_memory_stored_chunks(snapshot->memory) != m->stored_chunks) {
		return base_error_set(error, -EBADMSG,
				      "memory: chunk table: not %" PRIu64 " chunks are stored",
				      m->stored_chunks);
	}
	if (snapshot_memory_ws_pages(snapshot->memory) != m->ws_pages) {
		return base_error_set(error, -EBADMSG, "memory: working set pages: not %" PRIu64,
				      m->ws_pages);
	}
	return 0;
}

static int open_snapshot(struct snapshot_store *store, const char *name_or_id,
			 struct snapshot *snapshot, struct base_error *error)
{
	_cleanup_(files_deinit) struct files files = {
		.dir_fd = -1,
		.state_fd = -1,
		.memory_fd = -1,
	};
	_cleanup_fd_ int lock = -1;
	int r = snapshot_store_lock(store, LOCK_SH, &lock, error);

	if (r < 0) {
		return r;
	}
	r = open_files(store, name_or_id, snapshot, &files, error);
	lock = base_fd_close(lock);
	if (r == 0) {
		r = load_state(snapshot, &files, error);
	}
	if (r == 0) {
		r = load_memory(snapshot, &files, error);
	}
	return r;
}

int snapshot_open(struct snapshot_store *store, const char *name_or_id,
		  struct snapshot **ret_snapshot, struct base_error *error)
{
	_cleanup_(snapshot_freep) struct snapshot *snapshot = calloc(1, sizeof(*snapshot));

	if (!snapshot) {
		return base_error_set_errno(error, -ENOMEM, "snapshot");
	}
	snapshot->state_fd = -1;

	int r = open_snapshot(store, name_or_id, snapshot, error);

	if (r == -ENOENT) {
		return r;
	}
	if (r < 0) {
		return base_error_prefix(error, r, "snapshot %s", name_or_id);
	}
	*ret_snapshot = TAKE_PTR(snapshot);
	return 0;
}

void snapshot_free(struct snapshot *snapshot)
{
	if (!snapshot) {
		return;
	}
	base_fd_close(snapshot->state_fd);
	snapshot_memory_free(snapshot->memory);
	free(snapshot);
}

const struct snapshot_manifest *snapshot_manifest(const struct snapshot *snapshot)
{
	return &snapshot->manifest;
}

int snapshot_state_fd(const struct snapshot *snapshot)
{
	return snapshot->state_fd;
}

const struct snapshot_memory *snapshot_memory(const struct snapshot *snapshot)
{
	return snapshot->memory;
}
