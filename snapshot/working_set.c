/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The working set on its way into a memory file.
 *
 * The pages are read from the guest's memory twice: once to leave out those that are all zero,
 * since their number has to be known before the place of any byte of data is, and once to store
 * them, block by block. Nobody changes the memory in between. A failure leaves nothing to undo: the
 * file belongs to a writer that removes it. Calling thread; blocks on disk.
 */

#include "snapshot/working_set.h"

#include "base/fd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

bool snapshot_is_zero(const uint8_t *data, size_t size)
{
	/* Each byte equals the one before it, and the first is zero. */
	return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

int snapshot_ws_count_valid(const uint32_t *pages, uint64_t n, uint64_t memory_bytes,
			    uint64_t *ret_valid)
{
	uint64_t n_pages = memory_bytes / SNAPSHOT_PAGE_BYTES, valid = 0;
	_cleanup_free_ uint8_t *seen = calloc(n_pages / 8 + 1, 1);

	if (!seen) {
		return -ENOMEM;
	}
	while (valid < n && pages[valid] < n_pages) {
		uint8_t *byte = &seen[pages[valid] / 8], bit = (uint8_t)(1 << pages[valid] % 8);

		if (*byte & bit) {
			break;
		}
		*byte |= bit;
		valid++;
	}
	*ret_valid = valid;
	return 0;
}

static int read_page(int memory_fd, uint32_t page, uint8_t *data, struct base_error *error)
{
	int r = base_fd_pread_full(memory_fd, data, SNAPSHOT_PAGE_BYTES,
				   (off_t)(page * (uint64_t)SNAPSHOT_PAGE_BYTES));

	return r < 0 ? base_error_set_errno(error, r, "cannot read the guest's memory") : 0;
}

int snapshot_ws_select(int memory_fd, uint64_t memory_bytes, const uint32_t *pages, size_t n,
		       uint32_t **ret_pages, uint32_t *ret_n, struct base_error *error)
{
	uint64_t limit = MIN(snapshot_format_ws_max(memory_bytes), (uint64_t)n), valid = 0;
	_cleanup_free_ uint32_t *kept = NULL;
	uint8_t data[SNAPSHOT_PAGE_BYTES];
	uint32_t n_kept = 0;
	int r = snapshot_ws_count_valid(pages, n, memory_bytes, &valid);

	if (r == 0 && valid < n) {
		return base_error_set(error, -EINVAL,
				      "page %" PRIu32 " of the working set is not inside the "
				      "memory, or there twice",
				      pages[valid]);
	}
	if (r == 0 && limit > 0) {
		kept = calloc(limit, sizeof(*kept));
		r = kept ? 0 : -ENOMEM;
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "working set");
	}
	for (size_t i = 0; i < n && n_kept < limit; i++) {
		r = read_page(memory_fd, pages[i], data, error);
		if (r < 0) {
			return r;
		}
		if (!snapshot_is_zero(data, sizeof(data))) {
			kept[n_kept++] = pages[i];
		}
	}
	*ret_pages = TAKE_PTR(kept);
	*ret_n = n_kept;
	return 0;
}

int snapshot_ws_write(int memory_fd, const uint32_t *pages, uint32_t n, int file_fd,
		      uint64_t offset, uint64_t *ret_checksums, struct base_error *error)
{
	_cleanup_free_ uint8_t *block = malloc(SNAPSHOT_WS_BLOCK_PAGES * SNAPSHOT_PAGE_BYTES);

	if (!block) {
		return base_error_set_errno(error, -ENOMEM, "working set");
	}
	for (uint64_t b = 0; b < snapshot_format_ws_blocks(n); b++) {
		uint32_t n_pages = snapshot_format_ws_block_pages(n, b);
		int r;

		for (uint32_t i = 0; i < n_pages; i++) {
			r = read_page(memory_fd, pages[b * SNAPSHOT_WS_BLOCK_PAGES + i],
				      block + i * SNAPSHOT_PAGE_BYTES, error);
			if (r < 0) {
				return r;
			}
		}
		r = base_fd_pwrite_full(file_fd, block, n_pages * SNAPSHOT_PAGE_BYTES,
					(off_t)offset);
		if (r < 0) {
			return base_error_set_errno(error, r, "cannot write the memory file");
		}
		ret_checksums[b] = XXH3_64bits(block, n_pages * SNAPSHOT_PAGE_BYTES);
		offset += n_pages * SNAPSHOT_PAGE_BYTES;
	}
	return 0;
}
