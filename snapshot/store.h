/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of this folder share about the store.
 *
 * Two kinds of flock(2) keep processes (and threads) apart:
 *
 *    the store's root directory   held while names change or several of them are looked at:
 *                                 exclusive for publish, remove and sweep, shared for opening
 *    an entry in tmp/             exclusive, by whoever fills it: a sweep takes what it can lock
 *    an image                     shared, from add_image() until a snapshot names it
 *
 * Each lock is taken on a descriptor of its own, so a lock also holds against other threads, and
 * the kernel drops it when its holder dies.
 */

#include "snapshot/format.h"

#include <dirent.h>
#include <pthread.h>

#define SNAPSHOT_MANIFEST_FILE "manifest"
#define SNAPSHOT_STATE_FILE    "state"
#define SNAPSHOT_MEMORY_FILE   "memory"
#define SNAPSHOT_IMAGE_SUFFIX  ".img"

/* "<digest>.img", and names in tmp/: "<id>.<what>". */
#define SNAPSHOT_FILE_NAME_MAX 48
/* "../snapshots/<id>" */
#define SNAPSHOT_LINK_PREFIX "../snapshots/"
#define SNAPSHOT_LINK_LENGTH (sizeof(SNAPSHOT_LINK_PREFIX) - 1 + SNAPSHOT_ID_LENGTH)

/* An image that no snapshot names yet. */
struct snapshot_pin {
	char digest[SNAPSHOT_DIGEST_LENGTH + 1];
	int fd; /* owned; holds the shared lock */
};

struct snapshot_store {
	char *path; /* for messages */
	int root_fd, images_fd, snapshots_fd, templates_fd, tmp_fd;

	pthread_mutex_t pins_lock;
	struct snapshot_pin *pins; /* owned */
	size_t n_pins;
};

/* --- store.c --- */

/* Takes the store's lock (operation: LOCK_SH or LOCK_EX; waits). Closing *ret_fd releases it. */
int snapshot_store_lock(struct snapshot_store *store, int operation, int *ret_fd,
			struct base_error *error);

/* The id that a template's link names. 0, -ENOENT, or -EBADMSG for anything but such a link. */
int snapshot_store_resolve(struct snapshot_store *store, const char *name,
			   char ret_id[SNAPSHOT_ID_LENGTH + 1], struct base_error *error);

/* A fresh random id. */
int snapshot_store_new_id(char ret_id[SNAPSHOT_ID_LENGTH + 1]);

/* A stream over a directory of the store that does not disturb dir_fd (borrowed). */
int snapshot_store_read_directory(int dir_fd, DIR **ret_dir);
BASE_DEFINE_CLEANUP(DIR *, closedir)

/* Opens a file of a snapshot's directory: read-only, no links, only regular files. -EBADMSG with
 * "<name>: missing" and the like. */
int snapshot_store_open_file(int dir_fd, const char *name, int *ret_fd, uint64_t *ret_size,
			     struct base_error *error);

/* Reads the first size bytes of a file that is called `file` in messages; owned by the caller.
 * -EBADMSG: it has not so many. */
int snapshot_store_read_start(const char *file, int fd, size_t size, uint8_t **ret_data,
			      struct base_error *error);

/* Reads and decodes the manifest in a snapshot's directory. */
int snapshot_store_read_manifest(int dir_fd, struct snapshot_manifest *ret_manifest,
				 struct base_error *error);

/* --- images.c --- */

void snapshot_image_name(const char *digest, char ret_name[SNAPSHOT_FILE_NAME_MAX]);
/* Gives up one pin of each of the manifest's disks: a snapshot names them now. */
void snapshot_images_unpin(struct snapshot_store *store, const struct snapshot_manifest *manifest);
/* Gives up all pins. True when there were any. */
bool snapshot_images_unpin_all(struct snapshot_store *store);

/* --- sweep.c --- */

/*
 * Removes what nobody needs: entries of tmp/ that no live process has locked, snapshots that no
 * template names, images that no snapshot names. In doubt (a directory or a manifest cannot be
 * read) things stay. The caller holds the exclusive lock. Best effort: the next sweep tries again.
 */
void snapshot_store_sweep(struct snapshot_store *store);

/* Removes a file, a link, or a directory with what is in it (bounded depth). 0 or -errno. */
int snapshot_remove_tree(int dir_fd, const char *name);
