/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reading everything a template stands on: what opening checks, then every chunk, then every disk
 * image. Stops at the first fault. Any thread; blocks on disk for as long as the reading takes.
 */

#include "snapshot/store.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>

static int verify_chunks(const struct snapshot_memory *memory, struct base_error *error)
{
	_cleanup_free_ uint8_t *stored = malloc(SNAPSHOT_CHUNK_BYTES);
	_cleanup_free_ uint8_t *decoded = malloc(SNAPSHOT_CHUNK_BYTES);

	if (!stored || !decoded) {
		return base_error_set_errno(error, -ENOMEM, "memory");
	}
	for (uint64_t n = 0; n < snapshot_memory_chunk_count(memory); n++) {
		const struct snapshot_chunk *chunk = snapshot_memory_chunk(memory, n);
		int r = base_fd_pread_full(snapshot_memory_fd(memory), stored, chunk->length,
					   (off_t)chunk->offset);

		if (r < 0) {
			return base_error_set_errno(error, r == -ENODATA ? -EBADMSG : r,
						    "memory: data: cannot read it");
		}
		r = snapshot_memory_decode(memory, n, stored, decoded, error);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int verify_disk(struct snapshot_store *store, const struct snapshot_disk *disk,
		       struct base_error *error)
{
	char digest[SNAPSHOT_DIGEST_LENGTH + 1];
	_cleanup_fd_ int fd = -1;
	int r = snapshot_store_open_image(store, disk, &fd, error);

	if (r < 0) {
		return r;
	}
	r = snapshot_digest_fd(fd, digest, error);
	if (r < 0) {
		return base_error_prefix(error, r, "images/%s" SNAPSHOT_IMAGE_SUFFIX, disk->digest);
	}
	if (strcmp(digest, disk->digest) != 0) {
		return base_error_set(error, -EBADMSG,
				      "images/%s" SNAPSHOT_IMAGE_SUFFIX
				      ": digest: the content is damaged",
				      disk->digest);
	}
	return 0;
}

int snapshot_verify(struct snapshot_store *store, const char *name, struct base_error *error)
{
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	int r = snapshot_open(store, name, &snapshot, error);

	if (r < 0) {
		return r;
	}
	r = verify_chunks(snapshot_memory(snapshot), error);

	const struct snapshot_manifest *manifest = snapshot_manifest(snapshot);

	for (uint32_t i = 0; r == 0 && i < manifest->n_disks; i++) {
		r = verify_disk(store, &manifest->disks[i], error);
	}
	return r < 0 ? base_error_prefix(error, r, "snapshot %s", name) : 0;
}
