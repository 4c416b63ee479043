/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The memory file of a snapshot, opened.
 *
 * Everything in front of the data is read once, checked field by field and then against the digest
 * that the manifest has; what was checked is what is used later. The data is checked by whoever
 * reads it, piece by piece, through snapshot_memory_decode() and snapshot_memory_ws_check(). It
 * needs no store: a descriptor, a size and a digest are enough, so a process that has nothing else
 * can use it. Every fault is -EBADMSG and names the field. Immutable; any thread.
 */

#include "snapshot/store.h"

#include "base/fd.h"
#include "snapshot/digest.h"
#include "snapshot/table.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

struct snapshot_memory {
	int fd; /* owned */
	uint64_t bytes;
	uint64_t n_chunks, stored_chunks;
	struct snapshot_chunk *chunks; /* owned */
};

static int read_table(struct snapshot_memory *memory, const char *table_digest,
		      struct base_error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct stat st;
	int r;

	if (fstat(memory->fd, &st) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "memory: cannot look at it");
	}
	if (!snapshot_format_memory_bytes_valid(memory->bytes)) {
		return base_error_set(error, -EBADMSG, "memory: memory bytes: out of range");
	}
	memory->n_chunks = snapshot_format_chunk_count(memory->bytes);

	uint64_t table_bytes = snapshot_format_data_offset(memory->n_chunks);

	/* Before so much is allocated. */
	if ((uint64_t)st.st_size < table_bytes) {
		return base_error_set(error, -EBADMSG, "memory: size: cut off in the chunk table");
	}
	r = snapshot_store_read_start("memory", memory->fd, table_bytes, &data, error);
	if (r < 0) {
		return r;
	}
	/* Fields first: they say more than a digest does. */
	r = snapshot_table_decode(data, table_bytes, memory->bytes, (uint64_t)st.st_size,
				  &memory->chunks, &memory->stored_chunks, error);
	if (r < 0) {
		return r;
	}
	return snapshot_digest_check("memory: chunk table", data, table_bytes, table_digest, error);
}

int snapshot_memory_open(int fd, uint64_t memory_bytes, const char *table_digest,
			 struct snapshot_memory **ret_memory, struct base_error *error)
{
	_cleanup_(snapshot_memory_freep) struct snapshot_memory *memory =
		calloc(1, sizeof(*memory));
	int r;

	if (!memory) {
		return base_error_set_errno(error, -ENOMEM, "memory");
	}
	memory->bytes = memory_bytes;
	memory->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (memory->fd < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "memory: cannot duplicate its descriptor");
	}
	r = read_table(memory, table_digest, error);
	if (r < 0) {
		return r;
	}
	*ret_memory = TAKE_PTR(memory);
	return 0;
}

void snapshot_memory_free(struct snapshot_memory *memory)
{
	if (!memory) {
		return;
	}
	base_fd_close(memory->fd);
	free(memory->chunks);
	free(memory);
}

int snapshot_memory_fd(const struct snapshot_memory *memory)
{
	return memory->fd;
}

uint64_t snapshot_memory_bytes(const struct snapshot_memory *memory)
{
	return memory->bytes;
}

uint64_t snapshot_memory_chunk_count(const struct snapshot_memory *memory)
{
	return memory->n_chunks;
}

uint64_t snapshot_memory_stored_chunks(const struct snapshot_memory *memory)
{
	return memory->stored_chunks;
}

const struct snapshot_chunk *snapshot_memory_chunk(const struct snapshot_memory *memory, uint64_t n)
{
	assert(n < memory->n_chunks);
	return &memory->chunks[n];
}

int snapshot_memory_decode(const struct snapshot_memory *memory, uint64_t n, const void *stored,
			   void *out, struct base_error *error)
{
	assert(n < memory->n_chunks);
	return snapshot_table_decode_chunk(&memory->chunks[n], n,
					   snapshot_format_chunk_covers(memory->bytes, n), stored,
					   out, error);
}

/* Format version 1 has no working set. */

uint64_t snapshot_memory_ws_pages(const struct snapshot_memory *memory)
{
	return 0;
}

const uint32_t *snapshot_memory_ws(const struct snapshot_memory *memory)
{
	return NULL;
}

uint64_t snapshot_memory_ws_offset(const struct snapshot_memory *memory)
{
	return snapshot_format_data_offset(memory->n_chunks);
}

int snapshot_memory_ws_check(const struct snapshot_memory *memory, uint64_t block, const void *data,
			     struct base_error *error)
{
	return base_error_set(error, -EBADMSG, "memory: working set: there is none");
}
