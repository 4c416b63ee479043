/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Frozen tiny guests (tests/guest/tiny), for questions that Linux is not the point of.
 */

#include "base/error.h"
#include "base/fd.h"
#include "base/util.h"

/* The smallest memory that a tiny guest boots in. */
#define BENCH_TINY_MEMORY_BYTES MIB(2)

/* A VM with one vCPU, CID 3 and no disks, frozen. */
struct bench_tiny {
	int memory; /* memfd, owned */
	int state;  /* memfd, owned */
	uint64_t memory_bytes;
};

#define BENCH_TINY_NONE   \
	{                 \
		-1, -1, 0 \
	}

/*
 * Where a program or guest of this project is: beside the running program when it is installed,
 * else where it was built. Owned by the caller; NULL without memory.
 */
char *bench_path(const char *name, const char *built);

/* Has the harness use the VMM that belongs to this program. */
void bench_use_vmm(void);

/* Boots the tiny guest in `path` in so much memory, waits until its console says `ready`, and
 * freezes it. Takes tens of milliseconds. 0 or -errno. */
int bench_tiny_make(const char *path, uint64_t memory_bytes, const char *ready,
		    struct bench_tiny *ret_tiny, struct base_error *error);
/* The one that stands in for an agent, "identity". */
int bench_tiny_identity(struct bench_tiny *ret_tiny, struct base_error *error);

static inline void bench_tiny_release(struct bench_tiny *tiny)
{
	base_fd_close(tiny->memory);
	base_fd_close(tiny->state);
}
#define _cleanup_tiny_ _cleanup_(bench_tiny_release)
