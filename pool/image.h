/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Images: a snapshot and all that VMMs get of it, loaded once and shared.
 */

#include "pool/pool.h"

/* Immutable once loaded; descriptors are passed to every VMM. References are counted on the loop's
 * thread: the template holds one while it restores from the image, and each sandbox of it one. */
struct pool_image {
	struct pool *pool;
	unsigned n_refs;
	uv_work_t work; /* its end */
	struct snapshot *snapshot;
	int memory_fd; /* read-only, sealed */
	int disk_fds[SNAPSHOT_DISKS_MAX];
	unsigned n_disks;
	uint64_t host_fingerprint; /* 0: each VMM has to look itself, which takes it longer */
	uint64_t load_ns;
};

/* An empty one with one reference. NULL: out of memory. */
struct pool_image *pool_image_new(struct pool *pool);
struct pool_image *pool_image_ref(struct pool_image *image);
/* The last one frees it, on a worker thread while the loop runs: giving back gigabytes takes long.
 */
void pool_image_unref(struct pool_image *image);

/* Fills an empty image. Blocks. 0, -ENOENT when there is no such snapshot, or -errno with the
 * reason in error. */
int pool_image_load(struct pool_image *image, struct snapshot_store *store, const char *name,
		    struct base_error *error);

/* The id of the image's snapshot. */
static inline const char *pool_image_id(const struct pool_image *image)
{
	return snapshot_manifest(image->snapshot)->id;
}
