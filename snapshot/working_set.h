/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The working set of a memory file: its page numbers, and its pages on their way into the file. */

#include "snapshot/format.h"

/* Counts how many page numbers, from the first on, are inside the memory and not among those
 * before. 0 or -ENOMEM. */
int snapshot_ws_count_valid(const uint32_t *pages, uint64_t n, uint64_t memory_bytes,
			    uint64_t *ret_valid);

/* Those of the pages that a memory file stores, in a new array: none that is all zero, and no more
 * than the limit. *ret_pages is NULL when none is left. -EINVAL when the page numbers are not
 * valid.
 */
int snapshot_ws_select(int memory_fd, uint64_t memory_bytes, const uint32_t *pages, size_t n,
		       uint32_t **ret_pages, uint32_t *ret_n, struct base_error *error);

/* Writes the pages to file_fd, from offset on, and the checksum of each block to ret_checksums. */
int snapshot_ws_write(int memory_fd, const uint32_t *pages, uint32_t n, int file_fd,
		      uint64_t offset, uint64_t *ret_checksums, struct base_error *error);

/* size > 0 */
bool snapshot_is_zero(const uint8_t *data, size_t size);
