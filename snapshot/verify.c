/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reading everything a template stands on: what opening checks, then the working set, then every
 * chunk, then every disk image. Stops at the first fault. Any thread; blocks on disk for as long as
 * the reading takes.
 *
 * The pages of the working set are compared with their chunks, since no checksum says that the two
 * are the same. For that they are sorted by page, and taken along as the chunks go by.
 */

#include "snapshot/store.h"

#include "base/fd.h"
#include "snapshot/format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct ws_page {
	uint32_t page;
	uint32_t index; /* in the working set */
};

struct verifier {
	const struct snapshot_memory *memory; /* borrowed */
	struct ws_page *ws;		      /* sorted by page; owned */
	uint64_t n_ws, next_ws;		      /* the first that is not in an earlier chunk */
	uint8_t *stored, *decoded;	      /* SNAPSHOT_CHUNK_BYTES each; owned */
};

static inline void verifier_deinit(struct verifier *verifier)
{
	free(verifier->ws);
	free(verifier->stored);
	free(verifier->decoded);
}

static int read_data(const struct verifier *verifier, void *data, size_t size, uint64_t offset,
		     struct base_error *error)
{
	int r = base_fd_pread_full(snapshot_memory_fd(verifier->memory), data, size, (off_t)offset);

	return r < 0 ? base_error_set_errno(error, r == -ENODATA ? -EBADMSG : r,
					    "memory: data: cannot read it")
		     : 0;
}

static int compare_pages(const void *a, const void *b)
{
	uint32_t x = ((const struct ws_page *)a)->page, y = ((const struct ws_page *)b)->page;

	return (x > y) - (x < y);
}

/* A block is as large as a chunk, and read into the same buffer. */
_Static_assert(SNAPSHOT_WS_BLOCK_PAGES *SNAPSHOT_PAGE_BYTES <= SNAPSHOT_CHUNK_BYTES, "block");

static int verify_blocks(struct verifier *verifier, struct base_error *error)
{
	uint64_t offset = snapshot_memory_ws_offset(verifier->memory);

	for (uint64_t b = 0; b < snapshot_format_ws_blocks(verifier->n_ws); b++) {
		size_t size =
			snapshot_format_ws_block_pages(verifier->n_ws, b) * SNAPSHOT_PAGE_BYTES;
		int r = read_data(verifier, verifier->stored, size, offset, error);

		r = r ?: snapshot_memory_ws_check(verifier->memory, b, verifier->stored, error);
		if (r < 0) {
			return r;
		}
		offset += size;
	}
	for (uint64_t i = 0; i < verifier->n_ws; i++) {
		verifier->ws[i] = (struct ws_page){
			.page = snapshot_memory_ws(verifier->memory)[i],
			.index = (uint32_t)i,
		};
	}
	if (verifier->n_ws > 0) {
		qsort(verifier->ws, verifier->n_ws, sizeof(*verifier->ws), compare_pages);
	}
	return 0;
}

/* The pages of the working set that chunk n has, against the decoded chunk. */
static int verify_pages(struct verifier *verifier, uint64_t n, struct base_error *error)
{
	uint64_t first = n * (SNAPSHOT_CHUNK_BYTES / SNAPSHOT_PAGE_BYTES);
	uint64_t end = first + SNAPSHOT_CHUNK_BYTES / SNAPSHOT_PAGE_BYTES;

	while (verifier->next_ws < verifier->n_ws && verifier->ws[verifier->next_ws].page < end) {
		const struct ws_page *page = &verifier->ws[verifier->next_ws++];
		int r = read_data(verifier, verifier->stored, SNAPSHOT_PAGE_BYTES,
				  snapshot_memory_ws_offset(verifier->memory) +
					  (uint64_t)page->index * SNAPSHOT_PAGE_BYTES,
				  error);

		if (r < 0) {
			return r;
		}
		if (memcmp(verifier->stored,
			   verifier->decoded + (page->page - first) * SNAPSHOT_PAGE_BYTES,
			   SNAPSHOT_PAGE_BYTES) != 0) {
			return base_error_set(error, -EBADMSG,
					      "memory: working set page %" PRIu32
					      ": is not what chunk %" PRIu64 " has",
					      page->index, n);
		}
	}
	return 0;
}

static int verify_memory(const struct snapshot_memory *memory, struct base_error *error)
{
	_cleanup_(verifier_deinit) struct verifier verifier = {
		.memory = memory,
		.n_ws = snapshot_memory_ws_pages(memory),
		.stored = malloc(SNAPSHOT_CHUNK_BYTES),
		.decoded = malloc(SNAPSHOT_CHUNK_BYTES),
	};
	int r;

	verifier.ws = calloc(MAX(verifier.n_ws, UINT64_C(1)), sizeof(*verifier.ws));
	if (!verifier.ws || !verifier.stored || !verifier.decoded) {
		return base_error_set_errno(error, -ENOMEM, "memory");
	}
	r = verify_blocks(&verifier, error);
	for (uint64_t n = 0; r == 0 && n < snapshot_memory_chunk_count(memory); n++) {
		const struct snapshot_chunk *chunk = snapshot_memory_chunk(memory, n);

		r = read_data(&verifier, verifier.stored, chunk->length, chunk->offset, error);
		r = r
			    ?: snapshot_memory_decode(memory, n, verifier.stored, verifier.decoded,
						      error);
		r = r ?: verify_pages(&verifier, n, error);
	}
	return r;
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
	r = verify_memory(snapshot_memory(snapshot), error);

	const struct snapshot_manifest *manifest = snapshot_manifest(snapshot);

	for (uint32_t i = 0; r == 0 && i < manifest->n_disks; i++) {
		r = verify_disk(store, &manifest->disks[i], error);
	}
	return r < 0 ? base_error_prefix(error, r, "snapshot %s", name) : 0;
}
