/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Split virtqueues (virtio 1.2, section 2.7) from the device's side.
 *
 * The rings are in guest memory and the guest can write to them at any time. Every index and
 * descriptor is read once, validated, and used from the copy. What the specification forbids makes
 * the queue broken: the device then asks for a reset and takes nothing out of the rings any more.
 *
 * No indirect descriptors and no event index are offered: the first cost an interpreted guest
 * kernel an allocation each request, the second is how notifications get lost across a restore.
 */

#include "vmm/memory.h"

#include <sys/uio.h>

/* The longest queue a device here offers; also the limit of a descriptor chain. */
#define VMM_VIRTIO_QUEUE_SIZE_MAX 256

struct vmm_virtio_queue {
	/* As the driver set them; valid while ready. */
	gpa_t desc_gpa;
	gpa_t avail_gpa;
	gpa_t used_gpa;
	uint32_t size;
	bool ready;

	uint16_t size_max; /* what the device offers; a power of two */
	uint16_t next_avail;
	uint16_t next_used;

	/* The rings in host memory, checked by enable(). */
	uint8_t *desc;
	uint8_t *avail;
	uint8_t *used;
};

/* One request: the buffers the device reads, then the ones it writes. */
struct vmm_virtio_chain {
	uint16_t head;
	unsigned n_out; /* iov[0 … n_out): from the driver */
	unsigned n_in;	/* iov[n_out … n_out + n_in): to the driver */
	uint64_t out_bytes;
	uint64_t in_bytes;
	struct iovec iov[VMM_VIRTIO_QUEUE_SIZE_MAX];
};

/* Validates size, alignment and place of the rings and makes the queue ready. 0, or -EINVAL with
 * nothing changed. */
int vmm_virtio_queue_enable(struct vmm_virtio_queue *queue, const struct vmm_memory *memory);

/* Back to the state before the driver came; keeps size_max. */
void vmm_virtio_queue_reset(struct vmm_virtio_queue *queue);

/*
 * Takes the next chain. 1: *ret_chain is it; each chain goes back with push(). 0: the queue is
 * empty or not ready. -EBADMSG: the guest broke the queue.
 */
int vmm_virtio_queue_pop(struct vmm_virtio_queue *queue, const struct vmm_memory *memory,
			 struct vmm_virtio_chain *ret_chain);

/* Undoes the last pop(), which must not have been followed by a push(). */
void vmm_virtio_queue_unpop(struct vmm_virtio_queue *queue);

/* True when pop() would return 1 or an error. */
bool vmm_virtio_queue_pending(const struct vmm_virtio_queue *queue);

/* The driver's available index, for those who wait for it to move. */
uint16_t vmm_virtio_queue_avail_index(const struct vmm_virtio_queue *queue);

/* Gives a chain back, with the number of bytes written to it. */
void vmm_virtio_queue_push(struct vmm_virtio_queue *queue, uint16_t head, uint32_t written_bytes);

/* Whether the driver wants an interrupt for what was pushed. */
bool vmm_virtio_queue_wants_interrupt(const struct vmm_virtio_queue *queue);

/* Copies up to size bytes out of or into n buffers, from byte offset on. Returns the bytes copied.
 */
size_t vmm_virtio_iov_read(const struct iovec *iov, unsigned n, uint64_t offset, void *out,
			   size_t size);
size_t vmm_virtio_iov_write(const struct iovec *iov, unsigned n, uint64_t offset, const void *data,
			    size_t size);

/*
 * The part [offset, offset + size) of n buffers as buffers of its own (n entries at out are
 * enough). Returns how many; shorter when the buffers end before.
 */
unsigned vmm_virtio_iov_slice(const struct iovec *iov, unsigned n, uint64_t offset, uint64_t size,
			      struct iovec *out);
