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
	uint64_t bytes, data_offset;
	struct snapshot_table table;
};

/* Here, so that whoever opens memory files needs nothing of a store. */
int snapshot_store_read_start(const char *file, int fd, size_t size, uint8_t **ret_data,
			      struct base_error *error)
{
	_cleanup_free_ uint8_t *data = malloc(size);

	if (!data) {
		return base_error_set_errno(error, -ENOMEM, "%s", file);
	}

	int r = base_fd_pread_full(fd, data, size, 0);

	if (r == -ENODATA) {
		return base_error_set(error, -EBADMSG, "%s: size: the file was cut while open",
				      file);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "%s: cannot read it", file);
	}
	*ret_data = TAKE_PTR(data);
	return 0;
}

/* How much stands in front of the data; all of it is in the file. */
static int read_header(const struct snapshot_memory *memory, uint64_t file_bytes,
		       uint64_t *ret_data_offset, struct base_error *error)
{
	uint8_t header[SNAPSHOT_MEMORY_HEADER_BYTES];
	size_t size = (size_t)MIN(file_bytes, (uint64_t)sizeof(header));
	int r = base_fd_pread_full(memory->fd, header, size, 0);

	if (r < 0) {
		return base_error_set_errno(error, r, "memory: cannot read it");
	}
	return snapshot_table_decode_header(header, size, memory->bytes, file_bytes,
					    ret_data_offset, error);
}

static int read_table(struct snapshot_memory *memory, const char *table_digest,
		      struct base_error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	uint64_t file_bytes;
	struct stat st;
	int r;

	if (fstat(memory->fd, &st) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "memory: cannot look at it");
	}
	file_bytes = (uint64_t)st.st_size;
	r = read_header(memory, file_bytes, &memory->data_offset, error);
	if (r < 0) {
		return r;
	}
	r = snapshot_store_read_start("memory", memory->fd, memory->data_offset, &data, error);
	if (r < 0) {
		return r;
	}
	/* Fields first: they say more than a digest does. */
	r = snapshot_table_decode(data, memory->data_offset, memory->bytes, file_bytes,
				  &memory->table, error);
	if (r < 0) {
		return r;
	}
	return snapshot_digest_check("memory: chunk table", data, memory->data_offset, table_digest,
				     error);
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
	snapshot_table_deinit(&memory->table);
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
	return snapshot_format_chunk_count(memory->bytes);
}

uint64_t snapshot_memory_stored_chunks(const struct snapshot_memory *memory)
{
	return memory->table.stored_chunks;
}

const struct snapshot_chunk *snapshot_memory_chunk(const struct snapshot_memory *memory, uint64_t n)
{
	assert(n < snapshot_memory_chunk_count(memory));
	return &memory->table.chunks[n];
}

int snapshot_memory_decode(const struct snapshot_memory *memory, uint64_t n, const void *stored,
			   void *out, struct base_error *error)
{
	assert(n < snapshot_memory_chunk_count(memory));
	return snapshot_table_decode_chunk(&memory->table.chunks[n], n,
					   snapshot_format_chunk_covers(memory->bytes, n), stored,
					   out, error);
}

uint64_t snapshot_memory_ws_pages(const struct snapshot_memory *memory)
{
	return memory->table.ws_pages;
}

const uint32_t *snapshot_memory_ws(const struct snapshot_memory *memory)
{
	return memory->table.ws;
}

uint64_t snapshot_memory_ws_offset(const struct snapshot_memory *memory)
{
	return memory->data_offset;
}

int snapshot_memory_ws_check(const struct snapshot_memory *memory, uint64_t block, const void *data,
			     struct base_error *error)
{
	assert(block < snapshot_format_ws_blocks(memory->table.ws_pages));
	return snapshot_table_check_block(&memory->table, block, data, error);
}
