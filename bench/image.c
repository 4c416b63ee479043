/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How long does loading a snapshot's memory take, next to the slower of the disk and the decoder?
 *
 *    bench-image [MEBIBYTES [DIRECTORY]]
 *
 * Makes a snapshot of mixed memory (half of it zero, a third compressible, the rest random) in a
 * temporary store below DIRECTORY (default: /var/tmp, since /tmp may be memory), and prints, as the
 * best and the median of several runs: reading the memory file alone, with O_DIRECT and large
 * reads; decoding alone, from memory, on all cores into a fresh memfd; and uffd_image_load(). The
 * store is removed at the end.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "snapshot/snapshot.h"
#include "uffd/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNS		   7
#define READ_BYTES	   MIB(1)
#define MEBIBYTES_MAX	   16384
#define DECODE_THREADS_MAX 64

struct times {
	uint64_t ns[RUNS];
};

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(struct times *times)
{
	qsort(times->ns, RUNS, sizeof(times->ns[0]), compare_ns);
	return times->ns[RUNS / 2];
}

static void print(const char *what, struct times *times, uint64_t bytes)
{
	uint64_t middle = median(times);

	printf("%-28s best %8.2f ms   median %8.2f ms   %8.0f MiB/s\n", what,
	       (double)times->ns[0] / 1e6, (double)middle / 1e6,
	       (double)bytes / (double)MIB(1) / ((double)middle / 1e9));
}

/* --- the subject --- */

static void fill_chunk(uint8_t *chunk, uint64_t n, uint64_t *seed)
{
	memset(chunk, 0, SNAPSHOT_CHUNK_BYTES);
	for (size_t i = 0; n % 6 >= 3 && i < SNAPSHOT_CHUNK_BYTES; i += 8) {
		*seed = *seed * UINT64_C(6364136223846793005) + 1;
		/* Compressible: pointers and small numbers between zeros, as in a real heap. */
		uint64_t word = n % 6 == 5    ? *seed ^ *seed >> 29
				: i % 24 == 0 ? UINT64_C(0x00007f0000000000) | (*seed >> 48) << 4
					      : *seed >> 60;

		memcpy(chunk + i, &word, sizeof(word));
	}
}

static int make_memory(uint64_t bytes, int *ret_fd)
{
	_cleanup_free_ uint8_t *chunk = malloc(SNAPSHOT_CHUNK_BYTES);
	_cleanup_fd_ int fd = -1;
	uint64_t seed = 1;
	int r = chunk ? base_fd_memfd("bench", bytes, &fd) : -ENOMEM;

	for (uint64_t n = 0; r == 0 && n < bytes / SNAPSHOT_CHUNK_BYTES; n++) {
		if (n % 6 >= 3) {
			fill_chunk(chunk, n, &seed);
			r = base_fd_pwrite_full(fd, chunk, SNAPSHOT_CHUNK_BYTES,
						(off_t)(n * SNAPSHOT_CHUNK_BYTES));
		}
	}
	if (r == 0) {
		*ret_fd = TAKE_FD(fd);
	}
	return r;
}

static int write_snapshot(struct snapshot_store *store, uint64_t bytes, uint64_t *ret_ns,
			  struct base_error *error)
{
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest = {
		.template_name = "bench",
		.n_vcpus = 1,
		.guest_cid = 3,
	};
	_cleanup_fd_ int memory = -1;
	int r = make_memory(bytes, &memory);

	if (r < 0) {
		return base_error_set_errno(error, r, "cannot make %llu bytes of memory",
					    (unsigned long long)bytes);
	}

	uint64_t start = base_clock_monotonic_ns();

	r = snapshot_writer_new(store, &writer, error);
	if (r < 0) {
		return r;
	}
	r = base_fd_write_full(snapshot_writer_state_fd(writer), "state", 5);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot write the state");
	}
	r = snapshot_writer_memory(writer, memory, bytes, 0, NULL, NULL, error);
	if (r == 0) {
		r = snapshot_writer_publish(writer, &manifest, error);
	}
	*ret_ns = base_clock_monotonic_ns() - start;
	return r;
}

/* --- the two halves of the work --- */

/* Reads the whole file with O_DIRECT, where there is such a thing; returns whether it was used. */
static bool read_file(const struct snapshot *snapshot, uint8_t *buffer, uint64_t bytes)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d",
		 snapshot_memory_fd(snapshot_memory(snapshot)));

	_cleanup_fd_ int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	bool direct = fd >= 0;

	if (!direct) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	for (uint64_t offset = 0; offset < bytes;) {
		ssize_t n = pread(fd, buffer + offset, READ_BYTES, (off_t)offset);

		if (n <= 0) {
			break;
		}
		offset += (uint64_t)n;
	}
	return direct;
}

struct decode {
	const struct snapshot_memory *memory;
	const uint8_t *file;
	uint8_t *image;
	atomic_uint_fast64_t next;
	atomic_bool failed;
};

static void *decode_chunks(void *userdata)
{
	struct decode *decode = userdata;

	for (;;) {
		uint64_t n = atomic_fetch_add(&decode->next, 1);

		if (n >= snapshot_memory_chunk_count(decode->memory)) {
			return NULL;
		}

		const struct snapshot_chunk *chunk = snapshot_memory_chunk(decode->memory, n);

		if (chunk->encoding != SNAPSHOT_CHUNK_ZERO &&
		    snapshot_memory_decode(decode->memory, n, decode->file + chunk->offset,
					   decode->image + n * SNAPSHOT_CHUNK_BYTES, NULL) < 0) {
			atomic_store(&decode->failed, true);
		}
	}
}

static int decode_all(const struct snapshot *snapshot, const uint8_t *file, uint64_t *ret_ns)
{
	uint64_t bytes = snapshot_manifest(snapshot)->memory_bytes;
	unsigned n_threads =
		(unsigned)MIN(MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L), (long)DECODE_THREADS_MAX);
	pthread_t threads[DECODE_THREADS_MAX];
	struct decode decode = { .memory = snapshot_memory(snapshot), .file = file };
	_cleanup_fd_ int fd = -1;
	unsigned started = 0;
	int r = base_fd_memfd("bench", bytes, &fd);

	if (r < 0) {
		return r;
	}

	uint64_t start = base_clock_monotonic_ns();

	decode.image = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (decode.image == MAP_FAILED) {
		return -errno;
	}
	while (started < n_threads &&
	       pthread_create(&threads[started], NULL, decode_chunks, &decode) == 0) {
		started++;
	}
	for (unsigned i = 0; i < started; i++) {
		pthread_join(threads[i], NULL);
	}
	munmap(decode.image, bytes);
	*ret_ns = base_clock_monotonic_ns() - start;
	return started == 0 || atomic_load(&decode.failed) ? -EIO : 0;
}

static int measure(const struct snapshot *snapshot, struct base_error *error)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(snapshot);
	uint64_t room = base_align_up(manifest->memory_file_bytes, READ_BYTES) + READ_BYTES;
	struct times disk, decode, load;
	struct uffd_load_stats stats = { 0 };
	bool direct = false;
	uint8_t *file = mmap(NULL, room, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (file == MAP_FAILED) {
		return base_error_set_errno(error, -ENOMEM, "buffer");
	}
	/* In turns, so that what else the machine does meets all three alike. */
	for (unsigned run = 0; run < RUNS; run++) {
		uint64_t start = base_clock_monotonic_ns();
		int image = -1;
		int r;

		direct = read_file(snapshot, file, manifest->memory_file_bytes);
		disk.ns[run] = base_clock_monotonic_ns() - start;
		r = decode_all(snapshot, file, &decode.ns[run]);
		if (r < 0) {
			munmap(file, room);
			return base_error_set_errno(error, r, "decoding");
		}
		r = uffd_image_load(snapshot, 0, &image, &stats, error);
		if (r < 0) {
			munmap(file, room);
			return r;
		}
		load.ns[run] = stats.elapsed_ns;
		close(image);
	}
	munmap(file, room);

	printf("%.1f MiB of memory, %.1f MiB stored, %llu chunks stored, %llu zero, %ld cores\n",
	       (double)manifest->memory_bytes / (double)MIB(1),
	       (double)manifest->memory_file_bytes / (double)MIB(1),
	       (unsigned long long)manifest->stored_chunks,
	       (unsigned long long)manifest->zero_chunks, sysconf(_SC_NPROCESSORS_ONLN));
	print(direct ? "disk alone (O_DIRECT)" : "disk alone (page cache)", &disk,
	      manifest->memory_file_bytes);
	print("decode alone", &decode, stats.decoded_bytes);
	print(stats.direct ? "load (O_DIRECT)" : "load (page cache)", &load, stats.decoded_bytes);
	printf("load / slower of the two: %.2f (medians)\n",
	       (double)median(&load) / (double)MAX(median(&disk), median(&decode)));
	return 0;
}

static int run(const char *path, uint64_t bytes, struct base_error *error)
{
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = NULL;
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	uint64_t write_ns = 0;
	int r = snapshot_store_open(path, true, &store, error);

	if (r < 0) {
		return r;
	}
	r = write_snapshot(store, bytes, &write_ns, error);
	if (r < 0) {
		return r;
	}
	printf("written and published in %.2f ms\n", (double)write_ns / 1e6);
	r = snapshot_open(store, "bench", &snapshot, error);
	return r < 0 ? r : measure(snapshot, error);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

int main(int argc, char **argv)
{
	unsigned long mebibytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 128;
	char path[4096];
	struct base_error error = { 0 };

	snprintf(path, sizeof(path), "%s/warmbox-bench-XXXXXX", argc > 2 ? argv[2] : "/var/tmp");
	if (argc > 3 || mebibytes == 0 || mebibytes > MEBIBYTES_MAX) {
		fprintf(stderr, "usage: %s [MEBIBYTES [DIRECTORY]]\n", argv[0]);
		return 2;
	}
	if (!mkdtemp(path)) {
		perror(path);
		return 1;
	}

	int r = run(path, MIB(mebibytes), &error);

	if (r < 0) {
		fprintf(stderr, "%s\n", error.text);
	}
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return r < 0 ? 1 : 0;
}
