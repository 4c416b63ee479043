/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The block device: what its two halves share. virtio_block.c is the device (virtio 1.2, section
 * 5.2) and decides what a request may do, virtio_block_ring.c does it with io_uring.
 */

#include "vmm/virtio_internal.h"

#include <liburing.h>

/* A request of the most segments needs two descriptors more: header and status. */
#define VMM_BLOCK_QUEUE_SIZE 128u
#define VMM_BLOCK_SEG_MAX    (VMM_BLOCK_QUEUE_SIZE - 2)

#define VMM_BLOCK_CONFIG_BYTES 60

enum {
	VMM_BLOCK_IN = 0,
	VMM_BLOCK_OUT = 1,
	VMM_BLOCK_FLUSH = 4,
	VMM_BLOCK_GET_ID = 8,
	VMM_BLOCK_DISCARD = 11,
	VMM_BLOCK_WRITE_ZEROES = 13,
};

enum {
	VMM_BLOCK_S_OK = 0,
	VMM_BLOCK_S_IOERR = 1,
	VMM_BLOCK_S_UNSUPP = 2,
};

struct vmm_block {
	struct vmm_virtio virtio;
	int fd;
	bool read_only;
	uint64_t capacity_sectors;
	uint8_t config[VMM_BLOCK_CONFIG_BYTES];

	bool has_ring;
	struct io_uring ring;
	struct vmm_source ring_source; /* the ring's own descriptor: readable with a completion */
	unsigned in_flight;
	bool discarding; /* a reset: completions stay off guest memory */

	/* The next request of the queue has no tokens yet: nothing is taken out before the timer
	 * says so. */
	bool is_waiting;
	struct vmm_timer timer;
};

/* An operation in flight; what it needs of the chain, copied. */
struct vmm_block_request {
	uint16_t head;
	uint32_t type;
	uint8_t *status; /* in guest memory */
	uint64_t offset;
	uint64_t left_bytes;
	uint32_t done_bytes;
	int fallocate_mode;
	unsigned n_iov;
	struct iovec iov[]; /* what is left to transfer */
};

/*
 * Queues an operation like *model on n_iov buffers; vmm_block_submit() hands it to the kernel. 1,
 * or a status for the driver, negated.
 */
int vmm_block_start(struct vmm_block *block, const struct vmm_block_request *model,
		    const struct iovec *iov, unsigned n_iov);

/* Hands prepared operations to the kernel. What it does not take now (it may be short of memory) is
 * tried again from the loop. */
void vmm_block_submit(struct vmm_block *block);

/* Takes all completions that are there; true when any chain was given back. */
bool vmm_block_reap(struct vmm_block *block);

/* Blocks until nothing is in flight. */
void vmm_block_wait(struct vmm_block *block);

/* Makes the ring, restricted to what the device does with it. 0 or -errno. */
int vmm_block_ring_init(struct vmm_block *block);
/* Only with nothing in flight. Fine without a ring. */
void vmm_block_ring_deinit(struct vmm_block *block);

/* The answer to the driver; the status byte counts as written, too. */
void vmm_block_finish(struct vmm_block *block, uint16_t head, uint8_t *status, uint8_t value,
		      uint32_t written_bytes);
