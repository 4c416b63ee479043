/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Block operations in flight.
 *
 * Happy path: start() copies what an operation needs and prepares it, submit() hands all prepared
 * ones to the kernel at once, reap() takes completions, right after the submission or when the loop
 * says that the ring has some, writes the status byte and gives the chain back.
 *
 * The ring is made with the device, since later no filter lets one be made. What is asked for
 * through a ring passes by the system-call filters, so it is restricted to the operations below
 * before it is enabled: a VMM that its guest has taken over could open files and sockets with it
 * otherwise.
 *
 * Short transfers go on where they stopped; what the host cannot do becomes VIRTIO_BLK_S_UNSUPP,
 * other errors VIRTIO_BLK_S_IOERR. While `discarding` is set (a reset), completions stay off guest
 * memory. Runs in the main thread under the device lock; wait() also in a vCPU thread.
 */

#include "vmm/virtio_block.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/epoll.h>

static void block_ring_ready(struct vmm_source *source, uint32_t events);

static int restrict_ring(struct io_uring *ring)
{
	/* No flags, and nothing to register. */
	struct io_uring_restriction allowed[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE },
	};
	unsigned fd = (unsigned)ring->ring_fd;
	int r = io_uring_register(fd, IORING_REGISTER_RESTRICTIONS, allowed, ARRAY_SIZE(allowed));

	/* Not by the calls that have names of their own: liburing's shared library lacks them. */
	return r < 0 ? r : io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

int vmm_block_ring_init(struct vmm_block *block)
{
	/* As many completions as can be in flight, not twice as many. */
	struct io_uring_params params = {
		.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
		.cq_entries = VMM_BLOCK_QUEUE_SIZE,
	};
	int r;

	r = io_uring_queue_init_params(VMM_BLOCK_QUEUE_SIZE, &block->ring, &params);
	if (r < 0) {
		return r;
	}
	r = restrict_ring(&block->ring);
	if (r < 0) {
		io_uring_queue_exit(&block->ring);
		return r;
	}
	block->ring_source = (struct vmm_source){
		.fd = block->ring.ring_fd,
		.fn = block_ring_ready,
		.userdata = block,
	};
	r = vmm_loop_add(block->virtio.host->loop, &block->ring_source, EPOLLIN);
	if (r < 0) {
		io_uring_queue_exit(&block->ring);
		return r;
	}
	block->has_ring = true;
	return 0;
}

void vmm_block_finish(struct vmm_block *block, uint16_t head, uint8_t *status, uint8_t value,
		      uint32_t written_bytes)
{
	*status = value;
	vmm_virtio_queue_push(&block->virtio.queues[0], head, written_bytes + 1);
}

/* At most VMM_BLOCK_QUEUE_SIZE are in flight and the ring has as many entries. */
static void prepare(struct vmm_block *block, struct vmm_block_request *request)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&block->ring);

	assert(sqe);
	switch (request->type) {
	case VMM_BLOCK_IN:
		io_uring_prep_readv(sqe, block->fd, request->iov, request->n_iov, request->offset);
		break;
	case VMM_BLOCK_OUT:
		io_uring_prep_writev(sqe, block->fd, request->iov, request->n_iov, request->offset);
		break;
	case VMM_BLOCK_FLUSH:
		io_uring_prep_fsync(sqe, block->fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		io_uring_prep_fallocate(sqe, block->fd, request->fallocate_mode,
					(off_t)request->offset, (off_t)request->left_bytes);
		break;
	}
	io_uring_sqe_set_data(sqe, request);
}

static void advance(struct vmm_block_request *request, uint32_t bytes)
{
	struct iovec rest[VMM_BLOCK_QUEUE_SIZE];

	request->done_bytes += bytes;
	request->offset += bytes;
	request->left_bytes -= bytes;
	request->n_iov = vmm_virtio_iov_slice(request->iov, request->n_iov, bytes,
					      request->left_bytes, rest);
	memcpy(request->iov, rest, request->n_iov * sizeof(rest[0]));
}

/* True when the operation goes on: a short transfer, an interrupted one, or another way to do it.
 */
static bool goes_on(struct vmm_block *block, struct vmm_block_request *request, int result)
{
	bool transfers = request->type == VMM_BLOCK_IN || request->type == VMM_BLOCK_OUT;

	if (block->discarding) {
		return false;
	}
	if (result == -EINTR || result == -EAGAIN) {
		return true;
	}
	if (transfers && result > 0 && (uint64_t)result < request->left_bytes) {
		advance(request, (uint32_t)result);
		return true;
	}
	/* tmpfs, for one, cannot zero a range but by making a hole of it. */
	if (result == -EOPNOTSUPP && (request->fallocate_mode & FALLOC_FL_ZERO_RANGE)) {
		request->fallocate_mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		return true;
	}
	return false;
}

static void complete(struct vmm_block *block, struct vmm_block_request *request, int result)
{
	uint8_t status = VMM_BLOCK_S_OK;

	if (goes_on(block, request, result)) {
		prepare(block, request);
		return;
	}
	block->in_flight--;
	if (result == -EOPNOTSUPP) {
		status = VMM_BLOCK_S_UNSUPP;
	} else if (result < 0) {
		status = VMM_BLOCK_S_IOERR;
	} else if (request->n_iov > 0 && (uint64_t)result != request->left_bytes) {
		status = VMM_BLOCK_S_IOERR; /* the file ended: it was cut after we looked */
	} else if (request->n_iov > 0) {
		request->done_bytes += (uint32_t)result;
	}
	if (!block->discarding) {
		vmm_block_finish(block, request->head, request->status, status,
				 request->type == VMM_BLOCK_IN ? request->done_bytes : 0);
	}
	free(request);
}

void vmm_block_submit(struct vmm_block *block)
{
	int r;

	do {
		r = io_uring_submit(&block->ring);
	} while (r == -EINTR || (r > 0 && io_uring_sq_ready(&block->ring) > 0));
	if (io_uring_sq_ready(&block->ring) > 0) {
		vmm_virtio_kick(&block->virtio, 0);
	}
}

bool vmm_block_reap(struct vmm_block *block)
{
	unsigned in_flight = block->in_flight;
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&block->ring, &cqe) == 0) {
		struct vmm_block_request *request = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&block->ring, cqe);
		complete(block, request, result);
	}
	if (io_uring_sq_ready(&block->ring) > 0) {
		vmm_block_submit(block);
	}
	return block->in_flight != in_flight;
}

void vmm_block_wait(struct vmm_block *block)
{
	while (block->in_flight > 0) {
		io_uring_submit_and_wait(&block->ring, 1);
		vmm_block_reap(block);
	}
}

static void block_ring_ready(struct vmm_source *source, uint32_t events)
{
	struct vmm_block *block = source->userdata;

	if (vmm_block_reap(block)) {
		vmm_virtio_queue_interrupt(&block->virtio, 0);
		/* The queue may have been left alone while everything was in flight. */
		if (vmm_virtio_queue_pending(&block->virtio.queues[0])) {
			vmm_virtio_kick(&block->virtio, 0);
		}
	}
}

int vmm_block_start(struct vmm_block *block, const struct vmm_block_request *model,
		    const struct iovec *iov, unsigned n_iov)
{
	struct vmm_block_request *request;

	request = malloc(sizeof(*request) + n_iov * sizeof(request->iov[0]));
	if (!request) {
		return -VMM_BLOCK_S_IOERR;
	}
	*request = *model;
	request->n_iov = n_iov;
	if (n_iov > 0) {
		memcpy(request->iov, iov, n_iov * sizeof(request->iov[0]));
	}
	block->in_flight++;
	prepare(block, request);
	return 1;
}

void vmm_block_ring_deinit(struct vmm_block *block)
{
	assert(block->in_flight == 0);
	if (block->has_ring) {
		vmm_loop_remove(block->virtio.host->loop, &block->ring_source);
		io_uring_queue_exit(&block->ring);
		block->has_ring = false;
	}
}
