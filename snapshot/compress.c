/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Guest memory to the chunks of a memory file.
 *
 * Workers take batches of chunks in order, each reads its batch from the memfd (with pread: reading
 * a hole of a mapping would fill it), finds the zero chunks, compresses the others, waits until all
 * earlier batches know where they end, takes its place in the file and writes there. So the file is
 * the same whatever the number of threads, and memory stays at two batches a worker. The calling
 * thread only starts the workers, reports progress and joins them.
 *
 * The first failure of any worker stops all of them and is what the call returns. There is nothing
 * to undo: the file belongs to a writer that removes it.
 */

#include "snapshot/compress.h"

#include "base/clock.h"
#include "base/fd.h"
#include "snapshot/working_set.h"

#include <errno.h>
#include <lz4.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define BATCH_CHUNKS	     16
#define BATCH_BYTES	     (BATCH_CHUNKS * SNAPSHOT_CHUNK_BYTES)
#define THREADS_MAX	     64
#define PROGRESS_INTERVAL_NS (100 * NSEC_PER_MSEC)

struct job {
	int memory_fd; /* owned: a description of its own, since SEEK_DATA moves the offset */
	int file_fd;   /* borrowed */
	uint64_t memory_bytes, n_chunks, n_batches;
	struct snapshot_chunk *chunks; /* owned; each element is written by one worker */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	uint64_t next_batch;   /* the first that no worker has taken */
	uint64_t placed_batch; /* the first that has no place in the file yet */
	uint64_t file_bytes;   /* where that one begins */
	uint64_t done_batches;
	uint64_t stored_chunks;
	unsigned running;
	int result;
	struct base_error error;
};

struct batch {
	uint64_t number;
	uint64_t first_chunk;
	unsigned n_chunks;
	uint64_t offset; /* in guest memory */
	size_t size;
	uint8_t *memory; /* BATCH_BYTES, owned */
	uint8_t *stored; /* BATCH_BYTES, owned */
	size_t stored_bytes;
	unsigned stored_chunks;
};

static inline void batch_deinit(struct batch *batch)
{
	free(batch->memory);
	free(batch->stored);
}

static int fail(struct job *job, int r, const char *what)
{
	pthread_mutex_lock(&job->lock);
	if (job->result == 0) {
		job->result = base_error_set_errno(&job->error, r, "%s", what);
	}
	pthread_cond_broadcast(&job->changed);
	pthread_mutex_unlock(&job->lock);
	return r;
}

static bool take_batch(struct job *job, struct batch *batch)
{
	pthread_mutex_lock(&job->lock);

	bool taken = job->result == 0 && job->next_batch < job->n_batches;

	if (taken) {
		batch->number = job->next_batch++;
	}
	pthread_mutex_unlock(&job->lock);
	if (taken) {
		batch->first_chunk = batch->number * BATCH_CHUNKS;
		batch->n_chunks =
			(unsigned)MIN((uint64_t)BATCH_CHUNKS, job->n_chunks - batch->first_chunk);
		batch->offset = batch->number * BATCH_BYTES;
		batch->size = (size_t)MIN(BATCH_BYTES, job->memory_bytes - batch->offset);
	}
	return taken;
}

/* 1: read. 0: the whole batch is a hole. <0: -errno. */
static int read_batch(struct job *job, struct batch *batch)
{
	off_t data = lseek(job->memory_fd, (off_t)batch->offset, SEEK_DATA);

	if (data < 0 && errno == ENXIO) {
		return 0;
	}
	/* A file system without holes says where it was asked; any other failure shows in pread. */
	if (data >= 0 && (uint64_t)data >= batch->offset + batch->size) {
		return 0;
	}

	int r = base_fd_pread_full(job->memory_fd, batch->memory, batch->size,
				   (off_t)batch->offset);

	return r < 0 ? r : 1;
}

/* Fills in the chunks of the batch, with offsets that count from the batch's place in the file. */
static void compress_batch(struct job *job, struct batch *batch)
{
	batch->stored_bytes = 0;
	batch->stored_chunks = 0;
	for (unsigned i = 0; i < batch->n_chunks; i++) {
		const uint8_t *in = batch->memory + i * SNAPSHOT_CHUNK_BYTES;
		uint8_t *out = batch->stored + batch->stored_bytes;
		uint32_t covers =
			snapshot_format_chunk_covers(job->memory_bytes, batch->first_chunk + i);
		struct snapshot_chunk *chunk = &job->chunks[batch->first_chunk + i];

		if (snapshot_is_zero(in, covers)) {
			continue;
		}

		int n = LZ4_compress_default((const char *)in, (char *)out, (int)covers,
					     (int)covers - 1);

		if (n <= 0) {
			memcpy(out, in, covers);
		}
		*chunk = (struct snapshot_chunk){
			.offset = batch->stored_bytes,
			.length = n > 0 ? (uint32_t)n : covers,
			.encoding = n > 0 ? SNAPSHOT_CHUNK_LZ4 : SNAPSHOT_CHUNK_RAW,
			.checksum = XXH3_64bits(in, covers),
		};
		batch->stored_bytes += chunk->length;
		batch->stored_chunks++;
	}
}

/* Waits for the batch's turn and takes its place. False: another worker has failed. */
static bool place_batch(struct job *job, struct batch *batch, uint64_t *ret_offset)
{
	pthread_mutex_lock(&job->lock);
	while (job->placed_batch != batch->number && job->result == 0) {
		pthread_cond_wait(&job->changed, &job->lock);
	}

	bool placed = job->result == 0;

	if (placed) {
		*ret_offset = job->file_bytes;
		job->file_bytes += batch->stored_bytes;
		job->stored_chunks += batch->stored_chunks;
		job->placed_batch++;
		pthread_cond_broadcast(&job->changed);
	}
	pthread_mutex_unlock(&job->lock);
	return placed;
}

static int write_batch(struct job *job, struct batch *batch, uint64_t offset)
{
	for (unsigned i = 0; i < batch->n_chunks; i++) {
		struct snapshot_chunk *chunk = &job->chunks[batch->first_chunk + i];

		if (chunk->encoding != SNAPSHOT_CHUNK_ZERO) {
			chunk->offset += offset;
		}
	}
	return base_fd_pwrite_full(job->file_fd, batch->stored, batch->stored_bytes, (off_t)offset);
}

static void run_batches(struct job *job)
{
	_cleanup_(batch_deinit) struct batch batch = {
		.memory = malloc(BATCH_BYTES),
		.stored = malloc(BATCH_BYTES),
	};
	uint64_t offset = 0;
	int r;

	if (!batch.memory || !batch.stored) {
		fail(job, -ENOMEM, "cannot compress the memory");
		return;
	}
	while (take_batch(job, &batch)) {
		r = read_batch(job, &batch);
		if (r < 0) {
			fail(job, r, "cannot read the guest's memory");
			return;
		}
		if (r > 0) {
			compress_batch(job, &batch);
		} else {
			batch.stored_bytes = 0;
			batch.stored_chunks = 0;
		}
		if (!place_batch(job, &batch, &offset)) {
			return;
		}
		if (batch.stored_bytes > 0) {
			r = write_batch(job, &batch, offset);
			if (r < 0) {
				fail(job, r, "cannot write the memory file");
				return;
			}
		}
		pthread_mutex_lock(&job->lock);
		job->done_batches++;
		pthread_mutex_unlock(&job->lock);
	}
}

static void *worker(void *userdata)
{
	struct job *job = userdata;

	run_batches(job);
	pthread_mutex_lock(&job->lock);
	job->running--;
	pthread_cond_broadcast(&job->changed);
	pthread_mutex_unlock(&job->lock);
	return NULL;
}

static struct timespec after(uint64_t delay_ns)
{
	uint64_t at = base_clock_monotonic_ns() + delay_ns;

	return (struct timespec){
		.tv_sec = (time_t)(at / NSEC_PER_SEC),
		.tv_nsec = (long)(at % NSEC_PER_SEC),
	};
}

/* Reports until all workers have ended. */
static void watch(struct job *job, void (*progress)(void *, uint64_t, uint64_t), void *userdata)
{
	struct timespec deadline = after(PROGRESS_INTERVAL_NS);

	pthread_mutex_lock(&job->lock);
	while (job->running > 0) {
		if (pthread_cond_timedwait(&job->changed, &job->lock, &deadline) != ETIMEDOUT) {
			continue;
		}

		uint64_t done = MIN(job->done_batches * BATCH_BYTES, job->memory_bytes);

		pthread_mutex_unlock(&job->lock);
		if (progress) {
			progress(userdata, done, job->memory_bytes);
		}
		deadline = after(PROGRESS_INTERVAL_NS);
		pthread_mutex_lock(&job->lock);
	}
	pthread_mutex_unlock(&job->lock);
}

static unsigned thread_count(unsigned wanted, uint64_t n_batches)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t n = wanted > 0 ? wanted : (uint64_t)MAX(cores, 1L);

	n = MIN(n, (uint64_t)THREADS_MAX);
	return (unsigned)MIN(n, n_batches);
}

static void run(struct job *job, unsigned n_threads, void (*progress)(void *, uint64_t, uint64_t),
		void *userdata)
{
	pthread_t threads[THREADS_MAX];
	unsigned started = 0;
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&job->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	pthread_mutex_init(&job->lock, NULL);

	for (; started < n_threads; started++) {
		pthread_mutex_lock(&job->lock);
		job->running++;
		pthread_mutex_unlock(&job->lock);

		int r = pthread_create(&threads[started], NULL, worker, job);

		if (r != 0) {
			pthread_mutex_lock(&job->lock);
			job->running--;
			pthread_mutex_unlock(&job->lock);
			/* Fewer threads do the same, only later. */
			if (started == 0) {
				fail(job, -r, "cannot start a thread");
			}
			break;
		}
	}
	watch(job, progress, userdata);
	for (unsigned i = 0; i < started; i++) {
		pthread_join(threads[i], NULL);
	}
	pthread_cond_destroy(&job->changed);
	pthread_mutex_destroy(&job->lock);
}

int snapshot_compress(int memory_fd, uint64_t memory_bytes, int file_fd, uint64_t file_offset,
		      unsigned n_threads,
		      void (*progress)(void *userdata, uint64_t done_bytes, uint64_t total_bytes),
		      void *userdata, struct snapshot_compress_result *ret_result,
		      struct base_error *error)
{
	uint64_t n_chunks = snapshot_format_chunk_count(memory_bytes);
	_cleanup_free_ struct snapshot_chunk *chunks = calloc(n_chunks, sizeof(*chunks));
	_cleanup_fd_ int own_fd = -1;

	if (!chunks) {
		return base_error_set_errno(error, -ENOMEM, "cannot compress the memory");
	}

	int r = base_fd_reopen_readonly(memory_fd, &own_fd);

	if (r < 0) {
		return base_error_set_errno(error, r, "cannot reopen the guest's memory");
	}

	struct job job = {
		.memory_fd = own_fd,
		.file_fd = file_fd,
		.memory_bytes = memory_bytes,
		.n_chunks = n_chunks,
		.n_batches = (n_chunks + BATCH_CHUNKS - 1) / BATCH_CHUNKS,
		.chunks = chunks,
		.file_bytes = file_offset,
	};

	run(&job, thread_count(n_threads, job.n_batches), progress, userdata);
	if (job.result < 0) {
		return base_error_set(error, job.result, "%s", job.error.text);
	}
	ret_result->chunks = TAKE_PTR(chunks);
	ret_result->file_bytes = job.file_bytes;
	ret_result->stored_chunks = job.stored_chunks;
	return 0;
}
