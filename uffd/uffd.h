/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Image memfds: a snapshot's guest memory in page cache, shared by every VM restored from it.
 */

#include "snapshot/snapshot.h"

struct uffd_load_stats {
	uint64_t stored_bytes;	/* read from disk */
	uint64_t decoded_bytes; /* written to the image */
	uint64_t elapsed_ns;
	bool direct; /* O_DIRECT was used */
};

/*
 * Fills a new memfd with the snapshot's memory: io_uring reads, decode spread over n_threads (0:
 * all cores), every chunk's checksum checked before the descriptor is returned. Zero chunks stay
 * holes. Blocks; any thread. The memfd (owned by the caller) is sealed against every change:
 * F_SEAL_SHRINK, GROW, WRITE, SEAL. ret_stats may be NULL.
 */
int uffd_image_load(const struct snapshot *snapshot, unsigned n_threads, int *ret_fd,
		    struct uffd_load_stats *ret_stats, struct base_error *error);
