/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Removing what nobody needs, by mark and sweep under the store's exclusive lock.
 *
 * tmp/ first: an entry that can be locked has no live owner. Then snapshots no template names, then
 * images no snapshot names and nobody has pinned. When marking meets something it cannot read, the
 * sweep of that directory does not happen: a damaged manifest must not cost its neighbours their
 * images. Nothing is reported; what could not be removed is met again by the next sweep.
 */

#include "snapshot/store.h"

#include "base/fd.h"
#include "snapshot/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* A snapshot's directory has one level; more is somebody's accident. */
#define REMOVE_DEPTH_MAX 8

/* A set of ids or digests, all of the same length. */
struct marks {
	char (*texts)[SNAPSHOT_ID_LENGTH + 1];
	size_t n;
};

_Static_assert(SNAPSHOT_ID_LENGTH == SNAPSHOT_DIGEST_LENGTH, "marks hold either");

static void marks_deinit(struct marks *marks)
{
	free(marks->texts);
}

static int marks_add(struct marks *marks, const char *text)
{
	void *grown = realloc(marks->texts, (marks->n + 1) * sizeof(*marks->texts));

	if (!grown) {
		return -ENOMEM;
	}
	marks->texts = grown;
	memcpy(marks->texts[marks->n++], text, SNAPSHOT_ID_LENGTH + 1);
	return 0;
}

static bool marks_have(const struct marks *marks, const char *text)
{
	for (size_t i = 0; i < marks->n; i++) {
		if (strcmp(marks->texts[i], text) == 0) {
			return true;
		}
	}
	return false;
}

/* Calls fn for each entry but "." and ".."; stops at the first failure. */
static int for_each_entry(int dir_fd, int (*fn)(void *userdata, const char *name), void *userdata)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	int r = snapshot_store_read_directory(dir_fd, &dir);

	while (r == 0) {
		errno = 0;

		struct dirent *entry = readdir(dir);

		if (!entry) {
			return -errno;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			r = fn(userdata, entry->d_name);
		}
	}
	return r;
}

struct removal {
	int dir_fd;
	unsigned depth;
};

static int remove_entry(void *userdata, const char *name)
{
	struct removal *removal = userdata;

	if (unlinkat(removal->dir_fd, name, 0) == 0 || errno == ENOENT) {
		return 0;
	}
	if (errno != EISDIR && errno != EPERM) {
		return -errno;
	}
	if (removal->depth == 0) {
		return -ELOOP;
	}

	_cleanup_fd_ int fd =
		openat(removal->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}

	struct removal inner = { .dir_fd = fd, .depth = removal->depth - 1 };
	int r = for_each_entry(fd, remove_entry, &inner);

	if (r < 0) {
		return r;
	}
	return unlinkat(removal->dir_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int snapshot_remove_tree(int dir_fd, const char *name)
{
	struct removal removal = { .dir_fd = dir_fd, .depth = REMOVE_DEPTH_MAX };

	return remove_entry(&removal, name);
}

static int sweep_tmp_entry(void *userdata, const char *name)
{
	struct snapshot_store *store = userdata;
	_cleanup_fd_ int fd = openat(store->tmp_fd, name,
				     O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	/* What cannot be opened (a link, say) is never locked either: owners lock what they fill.
	 */
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) {
		snapshot_remove_tree(store->tmp_fd, name);
	}
	return 0;
}

struct sweep {
	struct snapshot_store *store;
	struct marks marks;
};

static int mark_template(void *userdata, const char *name)
{
	struct sweep *sweep = userdata;
	char id[SNAPSHOT_ID_LENGTH + 1];
	int r = snapshot_store_resolve(sweep->store, name, id, NULL);

	return r < 0 ? r : marks_add(&sweep->marks, id);
}

static int sweep_snapshot(void *userdata, const char *name)
{
	struct sweep *sweep = userdata;
	struct snapshot_store *store = sweep->store;

	if (!snapshot_hex_is_valid(name, SNAPSHOT_ID_LENGTH) || marks_have(&sweep->marks, name)) {
		return 0;
	}
	/* Out of sight in one step, so that a crash leaves no half of it under its name. */
	if (renameat(store->snapshots_fd, name, store->tmp_fd, name) == 0) {
		snapshot_remove_tree(store->tmp_fd, name);
	}
	return 0;
}

static void sweep_snapshots(struct snapshot_store *store)
{
	struct sweep sweep = { .store = store };

	if (for_each_entry(store->templates_fd, mark_template, &sweep) == 0) {
		for_each_entry(store->snapshots_fd, sweep_snapshot, &sweep);
	}
	marks_deinit(&sweep.marks);
}

static int mark_images(void *userdata, const char *name)
{
	struct sweep *sweep = userdata;
	struct snapshot_manifest manifest;
	_cleanup_fd_ int dir_fd = openat(sweep->store->snapshots_fd, name,
					 O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir_fd < 0) {
		return -errno;
	}

	int r = snapshot_store_read_manifest(dir_fd, &manifest, NULL);

	for (uint32_t i = 0; r == 0 && i < manifest.n_disks; i++) {
		r = marks_add(&sweep->marks, manifest.disks[i].digest);
	}
	return r;
}

static int sweep_image(void *userdata, const char *name)
{
	struct sweep *sweep = userdata;
	char digest[SNAPSHOT_DIGEST_LENGTH + 1] = { 0 };
	char expected[SNAPSHOT_FILE_NAME_MAX];

	strncpy(digest, name, SNAPSHOT_DIGEST_LENGTH);
	snapshot_image_name(digest, expected);
	if (strcmp(name, expected) != 0 || marks_have(&sweep->marks, digest)) {
		return 0;
	}

	_cleanup_fd_ int fd = openat(sweep->store->images_fd, name,
				     O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
		unlinkat(sweep->store->images_fd, name, 0);
	}
	return 0;
}

static void sweep_images(struct snapshot_store *store)
{
	struct sweep sweep = { .store = store };

	if (for_each_entry(store->snapshots_fd, mark_images, &sweep) == 0) {
		for_each_entry(store->images_fd, sweep_image, &sweep);
	}
	marks_deinit(&sweep.marks);
}

void snapshot_store_sweep(struct snapshot_store *store)
{
	for_each_entry(store->tmp_fd, sweep_tmp_entry, store);
	sweep_snapshots(store);
	sweep_images(store);
}
