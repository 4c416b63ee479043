/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Walking split virtqueues.
 *
 * Happy path: the driver makes a chain available; pop() copies its head and descriptors and turns
 * them into host buffers; the device works on them; push() writes the used element, then the used
 * index. A chain has at most as many descriptors as the queue, which also ends cycles. Anything
 * invalid is -EBADMSG and for the caller to turn into "device needs reset". Called under the device
 * lock; the guest's CPUs are the only other writers, hence the atomics.
 */

#include "vmm/virtio_queue.h"

#include "base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define DESC_BYTES	     16
#define DESC_F_NEXT	     1u
#define DESC_F_WRITE	     2u
#define DESC_F_ALL	     (DESC_F_NEXT | DESC_F_WRITE)
#define RING_HEADER	     4 /* flags, idx */
#define AVAIL_F_NO_INTERRUPT 1u

struct desc {
	uint64_t gpa;
	uint32_t length;
	uint16_t flags;
	uint16_t next;
};

static uint16_t load_u16(const uint8_t *p, int order)
{
	return __atomic_load_n((const uint16_t *)p, order);
}

int vmm_virtio_queue_enable(struct vmm_virtio_queue *queue, const struct vmm_memory *memory)
{
	uint64_t size = queue->size;
	uint8_t *desc, *avail, *used;

	if (size == 0 || size > queue->size_max || (size & (size - 1)) != 0) {
		return -EINVAL;
	}
	if (queue->desc_gpa % 16 != 0 || queue->avail_gpa % 2 != 0 || queue->used_gpa % 4 != 0) {
		return -EINVAL;
	}
	/* The two bytes at the end of each ring are those of the event index. */
	desc = vmm_memory_at(memory, queue->desc_gpa, size * DESC_BYTES);
	avail = vmm_memory_at(memory, queue->avail_gpa, RING_HEADER + size * 2 + 2);
	used = vmm_memory_at(memory, queue->used_gpa, RING_HEADER + size * 8 + 2);
	if (!desc || !avail || !used) {
		return -EINVAL;
	}
	queue->desc = desc;
	queue->avail = avail;
	queue->used = used;
	queue->ready = true;
	return 0;
}

void vmm_virtio_queue_reset(struct vmm_virtio_queue *queue)
{
	*queue = (struct vmm_virtio_queue){ .size_max = queue->size_max };
}

uint16_t vmm_virtio_queue_avail_index(const struct vmm_virtio_queue *queue)
{
	return queue->ready ? load_u16(queue->avail + 2, __ATOMIC_ACQUIRE) : 0;
}

bool vmm_virtio_queue_pending(const struct vmm_virtio_queue *queue)
{
	return queue->ready && vmm_virtio_queue_avail_index(queue) != queue->next_avail;
}

/* Both halves are read exactly once: what is validated is what is used. */
static struct desc copy_desc(const struct vmm_virtio_queue *queue, uint16_t index)
{
	const uint64_t *p = (const uint64_t *)(queue->desc + (size_t)index * DESC_BYTES);
	uint64_t low = __atomic_load_n(&p[0], __ATOMIC_RELAXED);
	uint64_t high = __atomic_load_n(&p[1], __ATOMIC_RELAXED);

	return (struct desc){
		.gpa = low,
		.length = (uint32_t)high,
		.flags = (uint16_t)(high >> 32),
		.next = (uint16_t)(high >> 48),
	};
}

static int add_desc(struct vmm_virtio_chain *chain, const struct vmm_memory *memory,
		    const struct desc *desc)
{
	unsigned n = chain->n_out + chain->n_in;
	void *data;

	if ((desc->flags & ~DESC_F_ALL) != 0 || desc->length == 0) {
		return -EBADMSG;
	}
	data = vmm_memory_at(memory, desc->gpa, desc->length);
	if (!data) {
		return -EBADMSG;
	}
	/* A chain has at most 2^32 bytes (2.7.5.2): lengths are reported in 32 bits. */
	if (chain->out_bytes + chain->in_bytes + desc->length > UINT32_MAX) {
		return -EBADMSG;
	}
	if (desc->flags & DESC_F_WRITE) {
		chain->n_in++;
		chain->in_bytes += desc->length;
	} else if (chain->n_in > 0) {
		return -EBADMSG; /* readable after writable */
	} else {
		chain->n_out++;
		chain->out_bytes += desc->length;
	}
	chain->iov[n] = (struct iovec){ .iov_base = data, .iov_len = desc->length };
	return 0;
}

static int walk(const struct vmm_virtio_queue *queue, const struct vmm_memory *memory,
		struct vmm_virtio_chain *chain)
{
	uint16_t index = chain->head;

	for (uint32_t i = 0; i < queue->size; i++) {
		struct desc desc;
		int r;

		if (index >= queue->size) {
			return -EBADMSG;
		}
		desc = copy_desc(queue, index);
		r = add_desc(chain, memory, &desc);
		if (r < 0) {
			return r;
		}
		if (!(desc.flags & DESC_F_NEXT)) {
			return 0;
		}
		index = desc.next;
	}
	return -EBADMSG; /* longer than the queue: a cycle */
}

int vmm_virtio_queue_pop(struct vmm_virtio_queue *queue, const struct vmm_memory *memory,
			 struct vmm_virtio_chain *ret_chain)
{
	uint16_t ahead;
	int r;

	if (!queue->ready) {
		return 0;
	}
	ahead = (uint16_t)(vmm_virtio_queue_avail_index(queue) - queue->next_avail);
	if (ahead == 0) {
		return 0;
	}
	if (ahead > queue->size) {
		return -EBADMSG;
	}
	ret_chain->n_out = 0;
	ret_chain->n_in = 0;
	ret_chain->out_bytes = 0;
	ret_chain->in_bytes = 0;
	ret_chain->head = load_u16(queue->avail + RING_HEADER +
					   2 * (size_t)(queue->next_avail & (queue->size - 1)),
				   __ATOMIC_RELAXED);
	r = walk(queue, memory, ret_chain);
	if (r < 0) {
		return r;
	}
	queue->next_avail++;
	return 1;
}

void vmm_virtio_queue_unpop(struct vmm_virtio_queue *queue)
{
	queue->next_avail--;
}

void vmm_virtio_queue_push(struct vmm_virtio_queue *queue, uint16_t head, uint32_t written_bytes)
{
	uint8_t *element;

	assert(queue->ready);
	element = queue->used + RING_HEADER + 8 * (size_t)(queue->next_used & (queue->size - 1));
	base_store_u32(element, head);
	base_store_u32(element + 4, written_bytes);
	queue->next_used++;
	__atomic_store_n((uint16_t *)(queue->used + 2), queue->next_used, __ATOMIC_RELEASE);
}

bool vmm_virtio_queue_wants_interrupt(const struct vmm_virtio_queue *queue)
{
	/* Pairs with the driver's barrier between setting the flag and looking at the used index.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return queue->ready && !(load_u16(queue->avail, __ATOMIC_RELAXED) & AVAIL_F_NO_INTERRUPT);
}

unsigned vmm_virtio_iov_slice(const struct iovec *iov, unsigned n, uint64_t offset, uint64_t size,
			      struct iovec *out)
{
	unsigned n_out = 0;

	for (unsigned i = 0; i < n && size > 0; i++) {
		uint64_t length = iov[i].iov_len;

		if (offset >= length) {
			offset -= length;
			continue;
		}
		length = MIN(length - offset, size);
		out[n_out++] = (struct iovec){
			.iov_base = (uint8_t *)iov[i].iov_base + offset,
			.iov_len = length,
		};
		offset = 0;
		size -= length;
	}
	return n_out;
}

static size_t copy(const struct iovec *iov, unsigned n, uint64_t offset, uint8_t *bytes,
		   size_t size, bool to_guest)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < size; i++) {
		uint64_t length = iov[i].iov_len;
		uint8_t *guest = iov[i].iov_base;

		if (offset >= length) {
			offset -= length;
			continue;
		}
		length = MIN(length - offset, size - done);
		if (to_guest) {
			memcpy(guest + offset, bytes + done, length);
		} else {
			memcpy(bytes + done, guest + offset, length);
		}
		offset = 0;
		done += length;
	}
	return done;
}

size_t vmm_virtio_iov_read(const struct iovec *iov, unsigned n, uint64_t offset, void *out,
			   size_t size)
{
	return copy(iov, n, offset, out, size, false);
}

size_t vmm_virtio_iov_write(const struct iovec *iov, unsigned n, uint64_t offset, const void *data,
			    size_t size)
{
	return copy(iov, n, offset, (uint8_t *)data, size, true);
}
