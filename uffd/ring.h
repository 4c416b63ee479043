/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The pager's io_uring and the memory that it reads into.
 *
 * One ring carries everything the main thread waits for; a completion says by its tag what it is.
 * All buffers, and the workers' scratch, are one arena that is registered with the ring, so the
 * kernel keeps its pages where they are: reads need no pinning of their own, and a write() from
 * there never finds its source gone half-way through a page (uffd/fill.c needs that).
 */

#include "base/error.h"
#include "base/list.h"

#include <liburing.h>
#include <stdbool.h>

/* O_DIRECT wants offsets, lengths and buffers in multiples of the logical block. */
#define UFFD_DIRECT_ALIGN KIB(4)

/* Large buffers are for what is read ahead, small ones for chunks that somebody waits for. A run
 * ends with the chunk that takes it to its target; alignment adds a block at each end. */
#define UFFD_LARGE_TARGET_BYTES MIB(1)
#define UFFD_LARGE_BYTES	(UFFD_LARGE_TARGET_BYTES + KIB(64) + 2 * UFFD_DIRECT_ALIGN)
#define UFFD_LARGE_BUFFERS	8
#define UFFD_SMALL_CHUNKS	4
#define UFFD_SMALL_BYTES	(UFFD_SMALL_CHUNKS * KIB(64) + 2 * UFFD_DIRECT_ALIGN)
#define UFFD_SMALL_BUFFERS	16

enum uffd_buffer_size {
	UFFD_BUFFER_SMALL,
	UFFD_BUFFER_LARGE,
	UFFD_BUFFER_SIZES,
};

struct uffd_buffer {
	struct base_link link; /* in the free list */
	uint8_t *data;
	enum uffd_buffer_size size;
};

/* What a completion is about; in the low bits of the pointer that goes with it. */
enum uffd_tag {
	UFFD_TAG_IGNORE = 0,
	UFFD_TAG_CONTROL = 1, /* the control socket */
	UFFD_TAG_JOBS = 2,    /* the workers' eventfd */
	UFFD_TAG_READ = 3,    /* a struct uffd_read */
	UFFD_TAG_VM = 4,      /* a struct uffd_vm */
};
#define UFFD_TAG_MASK UINT64_C(7)

struct uffd_ring {
	struct io_uring ring;
	bool has_ring;
	uint8_t *arena;
	size_t arena_bytes;
	uint8_t *scratch; /* the end of the arena */
	struct uffd_buffer buffers[UFFD_LARGE_BUFFERS + UFFD_SMALL_BUFFERS];
	struct base_link free[UFFD_BUFFER_SIZES];
};

/* scratch_bytes: how much of the arena is ring->scratch. */
int uffd_ring_init(struct uffd_ring *ring, size_t scratch_bytes, struct base_error *error);

/* Whatever is under way is cancelled and awaited. Also of a ring that is half-built. */
void uffd_ring_deinit(struct uffd_ring *ring);

/* A buffer, or NULL: they come back with uffd_buffer_put(). */
struct uffd_buffer *uffd_buffer_get(struct uffd_ring *ring, enum uffd_buffer_size size);
void uffd_buffer_put(struct uffd_ring *ring, struct uffd_buffer *buffer);

/* Each of these asks for one completion with the tag and pointer. They are submitted with the next
 * uffd_ring_wait(). */
void uffd_ring_read_buffer(struct uffd_ring *ring, int fd, struct uffd_buffer *buffer,
			   unsigned bytes, uint64_t offset, enum uffd_tag tag, void *pointer);
void uffd_ring_read(struct uffd_ring *ring, int fd, void *data, unsigned bytes, enum uffd_tag tag,
		    void *pointer);
void uffd_ring_poll(struct uffd_ring *ring, int fd, unsigned events, enum uffd_tag tag,
		    void *pointer);

/* Ends a request early: its own completion still comes. */
void uffd_ring_cancel(struct uffd_ring *ring, enum uffd_tag tag, void *pointer);

/* Submits, and waits for a completion, until the deadline (CLOCK_MONOTONIC; UINT64_MAX: for ever;
 * 0: not at all). 0 (also when the time is over) or -errno. */
int uffd_ring_wait(struct uffd_ring *ring, uint64_t deadline_ns);

/* Takes one completion. False when there is none. */
bool uffd_ring_next(struct uffd_ring *ring, enum uffd_tag *ret_tag, void **ret_pointer,
		    int *ret_result);
