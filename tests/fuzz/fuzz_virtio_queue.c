/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Walking a virtqueue, without a device: the input is the registers, a piece of guest memory with
 * the rings in it, and how often to take and give back. What is taken is touched, all of it, so
 * that a buffer outside guest memory faults; the rules of a chain are checked.
 */

#include "tests/fuzz/guest.h"

#include "vmm/virtio_queue.h"

#define POPS_MAX 64

static void check_chain(const struct vmm_virtio_chain *chain, const struct vmm_virtio_queue *queue)
{
	uint64_t out_bytes = 0, in_bytes = 0;

	FUZZ_CHECK(chain->n_out + chain->n_in >= 1 && chain->n_out + chain->n_in <= queue->size);
	FUZZ_CHECK(chain->head < queue->size);
	for (unsigned i = 0; i < chain->n_out + chain->n_in; i++) {
		const struct iovec *iov = &chain->iov[i];
		volatile uint8_t *bytes = iov->iov_base;

		FUZZ_CHECK(iov->iov_len > 0);
		/* The first and the last byte: what is between them is there, too. */
		(void)bytes[0];
		(void)bytes[iov->iov_len - 1];
		*(i < chain->n_out ? &out_bytes : &in_bytes) += iov->iov_len;
	}
	FUZZ_CHECK(out_bytes == chain->out_bytes && in_bytes == chain->in_bytes);
}

static void use_chain(const struct vmm_virtio_chain *chain, struct fuzz_input *input)
{
	static uint8_t scratch[4096];
	struct iovec slice[VMM_VIRTIO_QUEUE_SIZE_MAX];
	uint64_t offset = fuzz_u16(input), size = fuzz_u16(input) % sizeof(scratch), sliced = 0;
	size_t copied = vmm_virtio_iov_read(chain->iov, chain->n_out, offset, scratch, size);
	unsigned n = vmm_virtio_iov_slice(chain->iov, chain->n_out, offset, size, slice);

	for (unsigned i = 0; i < n; i++) {
		sliced += slice[i].iov_len;
	}
	FUZZ_CHECK(copied == sliced && copied <= size);
	FUZZ_CHECK(copied == size || copied == chain->out_bytes - MIN(offset, chain->out_bytes));
	vmm_virtio_iov_write(chain->iov + chain->n_out, chain->n_in, offset, scratch, size);
}

static void walk(struct vmm_virtio_queue *queue, const struct vmm_memory *memory,
		 struct fuzz_input *input)
{
	static struct vmm_virtio_chain chain;

	for (unsigned i = 0; i < POPS_MAX; i++) {
		bool pending = vmm_virtio_queue_pending(queue);
		int r = vmm_virtio_queue_pop(queue, memory, &chain);
		uint8_t how;

		FUZZ_CHECK((r != 0) == pending);
		if (r <= 0) {
			return;
		}
		check_chain(&chain, queue);
		use_chain(&chain, input);
		how = fuzz_u8(input);
		if (how & 1) {
			vmm_virtio_queue_unpop(queue);
		} else {
			vmm_virtio_queue_push(queue, chain.head, how);
		}
		(void)vmm_virtio_queue_wants_interrupt(queue);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vmm_memory memory;
	struct fuzz_input input = { data, size };
	struct vmm_virtio_queue queue = { .size_max = VMM_VIRTIO_QUEUE_SIZE_MAX };
	uint8_t how = fuzz_u8(&input);

	if (!memory.base) {
		fuzz_memory_init(&memory, KIB(8));
	}
	memset(memory.base, 0, memory.size_bytes);
	queue.size = fuzz_u16(&input);
	queue.desc_gpa = how & 1 ? fuzz_u64(&input) : fuzz_u16(&input);
	queue.avail_gpa = how & 2 ? fuzz_u64(&input) : fuzz_u16(&input);
	queue.used_gpa = how & 4 ? fuzz_u64(&input) : fuzz_u16(&input);
	if (vmm_virtio_queue_enable(&queue, &memory) < 0) {
		FUZZ_CHECK(!queue.ready);
		return 0;
	}
	queue.next_avail = queue.next_used = fuzz_u16(&input);
	/* From where the descriptors are on, so that few bytes make a chain. */
	size = MIN(input.left, (size_t)(memory.size_bytes - queue.desc_gpa));
	memcpy(memory.base + queue.desc_gpa, input.data, size);
	walk(&queue, &memory, &input);
	return 0;
}
