/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Loading a snapshot's memory into an image memfd, all of it.
 *
 * The stored chunks are cut into jobs: runs of whole chunks that lie one after the other in the
 * file, about a megabyte each. The calling thread keeps reads in flight through io_uring into a few
 * registered buffers, with O_DIRECT where the file system has it; workers decode each full buffer
 * straight into a shared mapping of the memfd, checking every chunk's checksum there, and give the
 * buffer back. Nobody else has the memfd yet, so no unchecked page can be seen. Zero chunks are
 * never touched and stay holes.
 *
 * A read that comes back short or failed is finished through the plain descriptor, whose error then
 * counts; for O_DIRECT that is also the way out of a file system that takes the flag and refuses
 * the read. The first failure stops everything: no new reads, those in flight are awaited (they
 * write into our buffers), workers are joined, the memfd is closed.
 */

#include "uffd/uffd.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define JOB_TARGET_BYTES MIB(1)
/* O_DIRECT wants offsets, lengths and buffers in multiples of the logical block. */
#define DIRECT_ALIGN KIB(4)
/* A job ends with the chunk that takes it to the target; alignment adds a block at each end. */
#define BUFFER_BYTES (JOB_TARGET_BYTES + SNAPSHOT_CHUNK_BYTES + 2 * DIRECT_ALIGN)
#define THREADS_MAX  64
/* Reads in flight on top of one buffer in the hands of each worker. */
#define READS_MAX   4
#define BUFFERS_MAX (THREADS_MAX + READS_MAX)

/* One run of stored chunks. */
struct job {
	uint64_t first_chunk, end_chunk; /* zero chunks in between are skipped */
	uint64_t file_offset;		 /* aligned down */
	size_t size;			 /* up to the end of the last chunk */
};

struct buffer {
	uint8_t *data; /* BUFFER_BYTES of the arena */
	unsigned index;
	struct job job;
	struct buffer *next; /* in a list */
};

struct loader {
	const struct snapshot_memory *memory; /* borrowed */
	int image_fd;			      /* owned */
	uint8_t *image;			      /* shared mapping of the memfd; owned */
	uint64_t image_bytes;

	/* The calling thread's. */
	struct io_uring ring;
	bool has_ring;
	bool has_registered;
	int read_fd; /* O_DIRECT, or the snapshot's own (borrowed) */
	int direct_fd;
	uint64_t next_chunk;
	unsigned in_flight;
	uint64_t stored_bytes;

	uint8_t *arena; /* all buffers; owned */
	struct buffer buffers[BUFFERS_MAX];
	unsigned n_buffers;

	pthread_t threads[THREADS_MAX];
	unsigned n_threads;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t work;  /* for workers: full is not empty, or stop */
	pthread_cond_t room;  /* for the calling thread: empty is not empty, or failed */
	struct buffer *full_head, *full_tail;
	struct buffer *empty;
	bool stop;
	int result;
	struct base_error error;
	uint64_t decoded_bytes;
};

/* --- workers --- */

/* Keeps the first failure; r is negative. */
static int fail(struct loader *loader, int r, const struct base_error *error)
{
	pthread_mutex_lock(&loader->lock);
	if (loader->result == 0) {
		loader->result = r;
		loader->error = *error;
	}
	pthread_cond_broadcast(&loader->room);
	pthread_mutex_unlock(&loader->lock);
	return r;
}

/* Decodes the buffer's chunks into the image. */
static int decode_job(struct loader *loader, const struct buffer *buffer, uint64_t *decoded_bytes,
		      struct base_error *error)
{
	const struct job *job = &buffer->job;

	for (uint64_t n = job->first_chunk; n < job->end_chunk; n++) {
		const struct snapshot_chunk *chunk = snapshot_memory_chunk(loader->memory, n);
		uint64_t offset = n * SNAPSHOT_CHUNK_BYTES;
		uint64_t covers = MIN(SNAPSHOT_CHUNK_BYTES, loader->image_bytes - offset);

		if (chunk->encoding == SNAPSHOT_CHUNK_ZERO) {
			continue;
		}

		int r = snapshot_memory_decode(loader->memory, n,
					       buffer->data + (chunk->offset - job->file_offset),
					       loader->image + offset, error);

		if (r < 0) {
			return r;
		}
		*decoded_bytes += covers;
	}
	return 0;
}

static void *worker(void *userdata)
{
	struct loader *loader = userdata;

	pthread_mutex_lock(&loader->lock);
	for (;;) {
		struct buffer *buffer = loader->full_head;

		if (!buffer) {
			if (loader->stop) {
				break;
			}
			pthread_cond_wait(&loader->work, &loader->lock);
			continue;
		}
		loader->full_head = buffer->next;

		bool failed = loader->result < 0;

		pthread_mutex_unlock(&loader->lock);

		struct base_error error = { 0 };
		uint64_t decoded_bytes = 0;

		if (!failed) {
			int r = decode_job(loader, buffer, &decoded_bytes, &error);

			if (r < 0) {
				fail(loader, r, &error);
			}
		}

		pthread_mutex_lock(&loader->lock);
		loader->decoded_bytes += decoded_bytes;
		buffer->next = loader->empty;
		loader->empty = buffer;
		pthread_cond_signal(&loader->room);
	}
	pthread_mutex_unlock(&loader->lock);
	return NULL;
}

static void push_full(struct loader *loader, struct buffer *buffer)
{
	pthread_mutex_lock(&loader->lock);
	buffer->next = NULL;
	if (loader->full_head) {
		loader->full_tail->next = buffer;
	} else {
		loader->full_head = buffer;
	}
	loader->full_tail = buffer;
	pthread_cond_signal(&loader->work);
	pthread_mutex_unlock(&loader->lock);
}

/*
 * An empty buffer. Without `wait`, NULL when there is none now. NULL in any case after a failure.
 */
static struct buffer *pop_empty(struct loader *loader, bool wait)
{
	struct buffer *buffer = NULL;

	pthread_mutex_lock(&loader->lock);
	while (wait && !loader->empty && loader->result == 0) {
		pthread_cond_wait(&loader->room, &loader->lock);
	}
	if (loader->result == 0 && loader->empty) {
		buffer = loader->empty;
		loader->empty = buffer->next;
	}
	pthread_mutex_unlock(&loader->lock);
	return buffer;
}

/* --- reading --- */

/* The next run of stored chunks. False at the end. */
static bool next_job(struct loader *loader, struct job *ret_job)
{
	uint64_t n_chunks = snapshot_memory_chunk_count(loader->memory);
	uint64_t n = loader->next_chunk, end = 0;
	struct job job = { 0 };

	for (; n < n_chunks; n++) {
		const struct snapshot_chunk *chunk = snapshot_memory_chunk(loader->memory, n);

		if (chunk->encoding == SNAPSHOT_CHUNK_ZERO) {
			continue;
		}
		if (end == 0) {
			job.first_chunk = n;
			job.file_offset = chunk->offset & ~(DIRECT_ALIGN - 1);
		} else if (chunk->offset != end || end - job.file_offset >= JOB_TARGET_BYTES) {
			break;
		}
		end = chunk->offset + chunk->length;
		loader->stored_bytes += chunk->length;
	}
	loader->next_chunk = n;
	job.end_chunk = n;
	job.size = (size_t)(end - job.file_offset);
	*ret_job = job;
	return end > 0;
}

static void submit_read(struct loader *loader, struct buffer *buffer)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loader->ring); /* one for every buffer */
	unsigned size = (unsigned)base_align_up(buffer->job.size, DIRECT_ALIGN);

	if (loader->has_registered) {
		io_uring_prep_read_fixed(sqe, loader->read_fd, buffer->data, size,
					 buffer->job.file_offset, (int)buffer->index);
	} else {
		io_uring_prep_read(sqe, loader->read_fd, buffer->data, size,
				   buffer->job.file_offset);
	}
	io_uring_sqe_set_data(sqe, buffer);
	loader->in_flight++;
}

/* Takes one finished read; what it did not read is read here. */
static int reap_read(struct loader *loader, struct base_error *error)
{
	struct io_uring_cqe *cqe;
	int r;

	do {
		r = io_uring_wait_cqe(&loader->ring, &cqe);
	} while (r == -EINTR);
	if (r < 0) {
		return base_error_set_errno(error, r, "memory: io_uring");
	}

	struct buffer *buffer = io_uring_cqe_get_data(cqe);
	int n = cqe->res;

	io_uring_cqe_seen(&loader->ring, cqe);
	loader->in_flight--;
	if (n == -EINVAL && loader->read_fd == loader->direct_fd) {
		loader->read_fd = snapshot_memory_fd(loader->memory);
	}

	size_t done = n > 0 ? (size_t)n : 0;

	if (done < buffer->job.size) {
		r = base_fd_pread_full(snapshot_memory_fd(loader->memory), buffer->data + done,
				       buffer->job.size - done,
				       (off_t)(buffer->job.file_offset + done));
		if (r == -ENODATA) {
			return base_error_set(error, -EBADMSG,
					      "memory: size: the file was cut while open");
		}
		if (r < 0) {
			return base_error_set_errno(error, r, "memory: cannot read it");
		}
	}
	push_full(loader, buffer);
	return 0;
}

static int read_all(struct loader *loader, struct base_error *error)
{
	struct job job;
	bool more = next_job(loader, &job);
	int r = 0;

	while (more || loader->in_flight > 0) {
		while (more && loader->in_flight < READS_MAX) {
			struct buffer *buffer = pop_empty(loader, loader->in_flight == 0);

			if (!buffer) {
				break;
			}
			buffer->job = job;
			submit_read(loader, buffer);
			more = next_job(loader, &job);
		}
		if (loader->in_flight == 0) {
			return 0; /* a worker has failed: its result stands */
		}
		do {
			r = io_uring_submit(&loader->ring);
		} while (r == -EINTR || r == -EAGAIN);
		if (r < 0) {
			/* What was not submitted never completes. */
			loader->in_flight -= io_uring_sq_ready(&loader->ring);
			return base_error_set_errno(error, r, "memory: io_uring");
		}
		r = reap_read(loader, error);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* --- setting up, taking down --- */

static void open_direct(struct loader *loader)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", snapshot_memory_fd(loader->memory));
	loader->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	loader->read_fd =
		loader->direct_fd >= 0 ? loader->direct_fd : snapshot_memory_fd(loader->memory);
}

static int make_buffers(struct loader *loader, unsigned n_threads, struct base_error *error)
{
	struct iovec iovecs[BUFFERS_MAX];
	size_t size;
	int r;

	loader->n_buffers = n_threads + READS_MAX;
	size = loader->n_buffers * BUFFER_BYTES;
	loader->arena =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (loader->arena == MAP_FAILED) {
		r = -errno;
		loader->arena = NULL;
		return base_error_set_errno(error, r, "cannot make read buffers");
	}
	for (unsigned i = 0; i < loader->n_buffers; i++) {
		struct buffer *buffer = &loader->buffers[i];

		buffer->data = loader->arena + i * BUFFER_BYTES;
		buffer->index = i;
		buffer->next = loader->empty;
		loader->empty = buffer;
		iovecs[i] = (struct iovec){ .iov_base = buffer->data, .iov_len = BUFFER_BYTES };
	}
	r = io_uring_queue_init(loader->n_buffers, &loader->ring, 0);
	if (r < 0) {
		return base_error_set_errno(error, r,
					    "cannot set up io_uring (is it disabled on this "
					    "host?)");
	}
	loader->has_ring = true;
	/* Old kernels count registered buffers against RLIMIT_MEMLOCK; plain reads do as well. */
	loader->has_registered =
		io_uring_register_buffers(&loader->ring, iovecs, loader->n_buffers) == 0;
	return 0;
}

static int make_image(struct loader *loader, struct base_error *error)
{
	int r = base_fd_memfd("warmbox-image", loader->image_bytes, &loader->image_fd);

	if (r < 0) {
		return base_error_set_errno(error, r, "cannot make the image memfd");
	}

	void *image = mmap(NULL, loader->image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			   loader->image_fd, 0);

	if (image == MAP_FAILED) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot map the image memfd");
	}
	loader->image = image;
	return 0;
}

static int start_workers(struct loader *loader, unsigned n_threads, struct base_error *error)
{
	for (; loader->n_threads < n_threads; loader->n_threads++) {
		int r = -pthread_create(&loader->threads[loader->n_threads], NULL, worker, loader);

		if (r < 0) {
			/* Fewer threads do the same, only later. */
			return loader->n_threads > 0
				       ? 0
				       : base_error_set_errno(error, r, "cannot start a thread");
		}
	}
	return 0;
}

static void stop_workers(struct loader *loader)
{
	pthread_mutex_lock(&loader->lock);
	loader->stop = true;
	pthread_cond_broadcast(&loader->work);
	pthread_mutex_unlock(&loader->lock);
	for (unsigned i = 0; i < loader->n_threads; i++) {
		pthread_join(loader->threads[i], NULL);
	}
	loader->n_threads = 0;
}

/* After a failure: the kernel may still be writing into the buffers. */
static void drain_reads(struct loader *loader)
{
	struct io_uring_cqe *cqe;

	while (loader->in_flight > 0) {
		int r = io_uring_wait_cqe(&loader->ring, &cqe);

		if (r == -EINTR) {
			continue;
		}
		if (r < 0) {
			break; /* closing the ring cancels and waits */
		}
		io_uring_cqe_seen(&loader->ring, cqe);
		loader->in_flight--;
	}
}

static void loader_free(struct loader *loader)
{
	stop_workers(loader);
	if (loader->has_ring) {
		drain_reads(loader);
		io_uring_queue_exit(&loader->ring);
	}
	if (loader->arena) {
		munmap(loader->arena, loader->n_buffers * BUFFER_BYTES);
	}
	if (loader->image) {
		munmap(loader->image, loader->image_bytes);
	}
	base_fd_close(loader->image_fd);
	base_fd_close(loader->direct_fd);
	pthread_cond_destroy(&loader->work);
	pthread_cond_destroy(&loader->room);
	pthread_mutex_destroy(&loader->lock);
	free(loader);
}
BASE_DEFINE_CLEANUP(struct loader *, loader_free)

static unsigned thread_count(unsigned wanted)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = wanted > 0 ? wanted : (unsigned)MAX(cores, 1L);

	return MIN(n, (unsigned)THREADS_MAX);
}

static int load(struct loader *loader, unsigned n_threads, struct base_error *error)
{
	int r = make_image(loader, error);

	if (r < 0) {
		return r;
	}
	r = make_buffers(loader, n_threads, error);
	if (r < 0) {
		return r;
	}
	open_direct(loader);
	r = start_workers(loader, n_threads, error);
	if (r < 0) {
		return r;
	}

	struct base_error read_error = { 0 };

	r = read_all(loader, &read_error);
	if (r < 0) {
		fail(loader, r, &read_error);
	}
	stop_workers(loader);
	if (loader->result < 0) {
		return base_error_set(error, loader->result, "%s", loader->error.text);
	}

	/* A write seal is refused while a writable shared mapping exists. */
	munmap(loader->image, loader->image_bytes);
	loader->image = NULL;
	if (fcntl(loader->image_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot seal the image memfd");
	}
	return 0;
}

int uffd_image_load(const struct snapshot *snapshot, unsigned n_threads, int *ret_fd,
		    struct uffd_load_stats *ret_stats, struct base_error *error)
{
	uint64_t start_ns = base_clock_monotonic_ns();
	_cleanup_(loader_freep) struct loader *loader = calloc(1, sizeof(*loader));

	if (!loader) {
		return base_error_set_errno(error, -ENOMEM, "image");
	}
	loader->memory = snapshot_memory(snapshot);
	loader->image_bytes = snapshot_memory_bytes(loader->memory);
	loader->image_fd = loader->read_fd = loader->direct_fd = -1;
	pthread_mutex_init(&loader->lock, NULL);
	pthread_cond_init(&loader->work, NULL);
	pthread_cond_init(&loader->room, NULL);

	int r = load(loader, thread_count(n_threads), error);

	if (r < 0) {
		return base_error_prefix(error, r, "snapshot %s", snapshot_manifest(snapshot)->id);
	}
	*ret_fd = TAKE_FD(loader->image_fd);
	if (ret_stats) {
		*ret_stats = (struct uffd_load_stats){
			.stored_bytes = loader->stored_bytes,
			.decoded_bytes = loader->decoded_bytes,
			.elapsed_ns = base_clock_monotonic_ns() - start_ns,
			.direct = loader->direct_fd >= 0 && loader->read_fd == loader->direct_fd,
		};
	}
	return 0;
}
