/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The io_uring and its buffers.
 *
 * The arena is mapped once, registered once and cut into two sizes of buffer and the workers'
 * scratch. A full submission queue is submitted at once to make room; more completions than the
 * queue holds are kept by the kernel.
 *
 * Failure: the set-up says what is missing on the host. Afterwards only submitting can fail, which
 * uffd_ring_wait() passes up and which ends the pager. The main thread's alone.
 */

#include "uffd/ring.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define SUBMISSIONS 256
#define COMPLETIONS 4096

static void cut_buffers(struct uffd_ring *ring)
{
	uint8_t *data = ring->arena;

	for (unsigned i = 0; i < ARRAY_SIZE(ring->buffers); i++) {
		struct uffd_buffer *buffer = &ring->buffers[i];

		buffer->size = i < UFFD_LARGE_BUFFERS ? UFFD_BUFFER_LARGE : UFFD_BUFFER_SMALL;
		buffer->data = data;
		data += i < UFFD_LARGE_BUFFERS ? UFFD_LARGE_BYTES : UFFD_SMALL_BYTES;
		base_list_append(&ring->free[buffer->size], &buffer->link);
	}
	ring->scratch = data;
}

static int make_arena(struct uffd_ring *ring, size_t scratch_bytes, struct base_error *error)
{
	size_t size = UFFD_LARGE_BUFFERS * UFFD_LARGE_BYTES +
		      UFFD_SMALL_BUFFERS * UFFD_SMALL_BYTES + scratch_bytes;
	void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (arena == MAP_FAILED) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot make read buffers");
	}
	ring->arena = arena;
	ring->arena_bytes = size;

	struct iovec iovec = { .iov_base = arena, .iov_len = size };

	r = io_uring_register_buffers(&ring->ring, &iovec, 1);
	if (r < 0) {
		return base_error_set_errno(error, r,
					    "cannot register %zu bytes of buffers with io_uring "
					    "(without CAP_IPC_LOCK, RLIMIT_MEMLOCK must allow it)",
					    size);
	}
	return 0;
}

int uffd_ring_init(struct uffd_ring *ring, size_t scratch_bytes, struct base_error *error)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = COMPLETIONS,
	};
	int r;

	*ring = (struct uffd_ring){ 0 };
	base_list_init(&ring->free[UFFD_BUFFER_SMALL]);
	base_list_init(&ring->free[UFFD_BUFFER_LARGE]);
	r = io_uring_queue_init_params(SUBMISSIONS, &ring->ring, &params);
	if (r < 0) {
		return base_error_set_errno(error, r,
					    "cannot set up io_uring (is it disabled on this "
					    "host?)");
	}
	ring->has_ring = true;
	r = make_arena(ring, scratch_bytes, error);
	if (r < 0) {
		return r;
	}
	cut_buffers(ring);
	return 0;
}

void uffd_ring_deinit(struct uffd_ring *ring)
{
	if (ring->has_ring) {
		io_uring_queue_exit(&ring->ring);
	}
	if (ring->arena) {
		munmap(ring->arena, ring->arena_bytes);
	}
}

struct uffd_buffer *uffd_buffer_get(struct uffd_ring *ring, enum uffd_buffer_size size)
{
	if (base_list_is_empty(&ring->free[size])) {
		return NULL;
	}

	struct uffd_buffer *buffer = CONTAINER_OF(ring->free[size].next, struct uffd_buffer, link);

	base_list_remove(&buffer->link);
	return buffer;
}

void uffd_buffer_put(struct uffd_ring *ring, struct uffd_buffer *buffer)
{
	base_list_append(&ring->free[buffer->size], &buffer->link);
}

static struct io_uring_sqe *get_sqe(struct uffd_ring *ring)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&ring->ring))) {
		/* Whatever it says, uffd_ring_wait() is going to meet it again. */
		(void)io_uring_submit(&ring->ring);
	}
	return sqe;
}

static uint64_t user_data(enum uffd_tag tag, void *pointer)
{
	assert(((uintptr_t)pointer & UFFD_TAG_MASK) == 0);
	return (uintptr_t)pointer | (uint64_t)tag;
}

void uffd_ring_read_buffer(struct uffd_ring *ring, int fd, struct uffd_buffer *buffer,
			   unsigned bytes, uint64_t offset, enum uffd_tag tag, void *pointer)
{
	struct io_uring_sqe *sqe = get_sqe(ring);

	io_uring_prep_read_fixed(sqe, fd, buffer->data, bytes, offset, 0);
	io_uring_sqe_set_data64(sqe, user_data(tag, pointer));
}

void uffd_ring_read(struct uffd_ring *ring, int fd, void *data, unsigned bytes, enum uffd_tag tag,
		    void *pointer)
{
	struct io_uring_sqe *sqe = get_sqe(ring);

	io_uring_prep_read(sqe, fd, data, bytes, (uint64_t)-1);
	io_uring_sqe_set_data64(sqe, user_data(tag, pointer));
}

void uffd_ring_poll(struct uffd_ring *ring, int fd, unsigned events, enum uffd_tag tag,
		    void *pointer)
{
	struct io_uring_sqe *sqe = get_sqe(ring);

	io_uring_prep_poll_add(sqe, fd, events);
	io_uring_sqe_set_data64(sqe, user_data(tag, pointer));
}

void uffd_ring_cancel(struct uffd_ring *ring, enum uffd_tag tag, void *pointer)
{
	struct io_uring_sqe *sqe = get_sqe(ring);

	io_uring_prep_cancel64(sqe, user_data(tag, pointer), 0);
	io_uring_sqe_set_data64(sqe, UFFD_TAG_IGNORE);
}

int uffd_ring_wait(struct uffd_ring *ring, uint64_t deadline_ns)
{
	struct __kernel_timespec timeout = { 0 };
	struct io_uring_cqe *cqe;
	int r;

	if (deadline_ns == 0) {
		r = io_uring_submit_and_get_events(&ring->ring);
	} else if (deadline_ns == UINT64_MAX) {
		r = io_uring_submit_and_wait(&ring->ring, 1);
	} else {
		uint64_t now_ns = base_clock_monotonic_ns();
		uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;

		timeout.tv_sec = (long long)(left_ns / NSEC_PER_SEC);
		timeout.tv_nsec = (long long)(left_ns % NSEC_PER_SEC);
		r = io_uring_submit_and_wait_timeout(&ring->ring, &cqe, 1, &timeout, NULL);
	}
	/* Busy: completions have to be taken first, and they are there. */
	return r == -ETIME || r == -EINTR || r == -EAGAIN || r == -EBUSY ? 0 : MIN(r, 0);
}

bool uffd_ring_next(struct uffd_ring *ring, enum uffd_tag *ret_tag, void **ret_pointer,
		    int *ret_result)
{
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(&ring->ring, &cqe) < 0) {
		return false;
	}

	uint64_t data = io_uring_cqe_get_data64(cqe);

	*ret_tag = (enum uffd_tag)(data & UFFD_TAG_MASK);
	*ret_pointer = (void *)(uintptr_t)(data & ~UFFD_TAG_MASK);
	*ret_result = cqe->res;
	io_uring_cqe_seen(&ring->ring, cqe);
	return true;
}
