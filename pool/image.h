/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Images: a snapshot and all that VMMs get of it, opened once and shared, its memory filled by the
 * pager.
 */

#include "pool/pager.h"
#include "pool/pool.h"
#include "vmm/vmm.h"

/* Immutable once loaded, but for what the pager's client keeps; descriptors are passed to every
 * VMM. References are counted on the loop's thread: the template holds one while it restores from
 * the image, and each sandbox of it one. */
struct pool_image {
	struct pool *pool;
	struct pool_template *template; /* that loads it or restores from it; NULL: none does */
	unsigned n_refs;
	uv_work_t work; /* its end */
	struct snapshot *snapshot;
	struct base_link sandboxes;
	struct pool_pager_image pager;
	int memory_fd; /* read-only; filled behind it */
	int disk_fds[SNAPSHOT_DISKS_MAX];
	unsigned n_disks;
	enum vmm_host_kind host_kind; /* of this host; 0: it has no KVM, and VMMs say so */
	uint64_t host_fingerprint;    /* 0: each VMM has to ask KVM, which takes it longer */
	uint64_t load_ns;
};

/* An empty one with one reference. NULL: out of memory. */
struct pool_image *pool_image_new(struct pool *pool);
struct pool_image *pool_image_ref(struct pool_image *image);
/* The last one frees it, on a worker thread while the loop runs: giving back gigabytes takes long.
 */
void pool_image_unref(struct pool_image *image);

/* Fills in an empty image: opens the snapshot and makes the memory, all holes yet. Blocks. 0,
 * -ENOENT when there is no such snapshot, or -errno with the reason in error. */
int pool_image_load(struct pool_image *image, struct snapshot_store *store, const char *name,
		    struct base_error *error);

/* --- what the pager's client calls --- */

/* Restores may begin; or r < 0: it is refused, and text says why. */
void pool_image_opened(struct pool_image *image, int r, const char *text);
/* There are no holes left. */
void pool_image_completed(struct pool_image *image);
/* What is missing will never come. Ends the image's sandboxes. */
void pool_image_failed(struct pool_image *image, const char *text);

/* The id of the image's snapshot. */
static inline const char *pool_image_id(const struct pool_image *image)
{
	return snapshot_manifest(image->snapshot)->id;
}
