/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How long does filling a snapshot's memory take, next to the slower of the disk and the decoder?
 * And how long does a VM wait for one page?
 *
 *    bench-image [--quick] [--mebibytes N] [DIRECTORY]
 *
 * Makes a snapshot of mixed memory (half of it zero, a third compressible, the rest random) in a
 * temporary store below DIRECTORY (default: /var/tmp, since /tmp may be memory). Then, in turns, so
 * that what else the machine does meets all alike: reading the memory file alone, with O_DIRECT and
 * large reads; decoding alone, from memory, on all cores into a fresh memfd; and a warmbox-pager
 * that fills an image, from the request to the event that says that it is complete. Last, single
 * faults on an image of which nothing is in memory and nothing is read ahead. The store is removed
 * at the end.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "bench/report.h"
#include "bench/tiny.h"
#include "snapshot/snapshot.h"
#include "uffd/client.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RUNS_MAX	   15
#define RUNS_QUICK	   3
#define READ_BYTES	   MIB(1)
#define MEBIBYTES	   256
#define MEBIBYTES_QUICK	   64
#define MEBIBYTES_MAX	   16384
#define DECODE_THREADS_MAX 64
/* So slow that nothing but the first background read comes before the faults. */
#define NO_BACKGROUND 1
#define TARGET_RATIO  1.25

struct times {
	uint64_t ns[RUNS_MAX];
	unsigned n;
};

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t median(struct times *times)
{
	qsort(times->ns, times->n, sizeof(times->ns[0]), compare_ns);
	return times->ns[times->n / 2];
}

static void print(struct bench_report *report, const char *what, struct times *times,
		  uint64_t bytes)
{
	uint64_t middle = median(times);

	fprintf(stderr, "%-28s best %8.2f ms   median %8.2f ms   %8.0f MiB/s\n", what,
		(double)times->ns[0] / 1e6, (double)middle / 1e6,
		(double)bytes / (double)MIB(1) / ((double)middle / 1e9));
	bench_report_value(report, what, BENCH_NS, (double)middle);
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

/* --- the whole --- */

struct bench {
	const char *directory;
	uint64_t bytes;
	unsigned runs;
	struct bench_report *report;
	const struct snapshot *snapshot;
	struct uffd_client *client;
	uint64_t next_image;
	struct base_message complete; /* of the last fill */
	struct times disk, decode, fill;
	bool direct;
	struct base_histogram *faults;
};

static int fill(struct bench *bench, struct base_error *error)
{
	uint64_t start = base_clock_monotonic_ns();
	int image = -1;
	int r = uffd_client_fill(bench->client, bench->next_image++, bench->snapshot, &image,
				 &bench->complete, error);

	if (r == 0) {
		bench->fill.ns[bench->fill.n++] = base_clock_monotonic_ns() - start;
		close(image);
	}
	return r;
}

static int run_once(struct bench *bench, uint8_t *file, struct base_error *error)
{
	uint64_t start = base_clock_monotonic_ns();
	int r;

	bench->direct = read_file(bench->snapshot, file,
				  snapshot_manifest(bench->snapshot)->memory_file_bytes);
	bench->disk.ns[bench->disk.n++] = base_clock_monotonic_ns() - start;
	r = decode_all(bench->snapshot, file, &bench->decode.ns[bench->decode.n++]);
	if (r < 0) {
		return base_error_set_errno(error, r, "decoding");
	}
	return fill(bench, error);
}

static int measure(struct bench *bench, struct base_error *error)
{
	uint64_t room =
		base_align_up(snapshot_manifest(bench->snapshot)->memory_file_bytes, READ_BYTES) +
		READ_BYTES;
	uint8_t *file = mmap(NULL, room, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int r = 0;

	if (file == MAP_FAILED) {
		return base_error_set_errno(error, -ENOMEM, "buffer");
	}
	for (unsigned run = 0; r == 0 && run < bench->runs; run++) {
		r = run_once(bench, file, error);
	}
	munmap(file, room);
	return r;
}

/* --- single faults --- */

static int register_memory(void *memory, uint64_t bytes)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM };
	struct uffdio_register all = {
		.range = { .start = (uintptr_t)memory, .len = bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	_cleanup_fd_ int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0 ||
	    ioctl(uffd, UFFDIO_REGISTER, &all) < 0) {
		return -errno;
	}
	return TAKE_FD(uffd);
}

/* Touches a page of each stored chunk, every seventh first, so that no two in a row are neighbours
 * and none is read because of another. */
static void touch_chunks(struct bench *bench, const volatile uint8_t *memory)
{
	const struct snapshot_memory *file = snapshot_memory(bench->snapshot);
	uint64_t n_chunks = snapshot_memory_chunk_count(file);

	for (unsigned first = 0; first < 7; first++) {
		for (uint64_t n = first; n < n_chunks; n += 7) {
			if (snapshot_memory_chunk(file, n)->encoding == SNAPSHOT_CHUNK_ZERO) {
				continue;
			}

			uint64_t start = base_clock_monotonic_ns();

			(void)memory[n * SNAPSHOT_CHUNK_BYTES];
			base_histogram_add(bench->faults, base_clock_monotonic_ns() - start);
		}
	}
}

static int fault(struct bench *bench, struct base_error *error)
{
	uint64_t id = bench->next_image++;
	struct base_message vm = { .op = PAGER_OP_VM, .arg = { id, 1 } };
	struct base_message gone = { .op = PAGER_OP_IMAGE_GONE, .arg = { id } };
	_cleanup_fd_ int image = -1, uffd = -1;
	void *memory = MAP_FAILED;
	int r = base_fd_memfd("bench", bench->bytes, &image);

	if (r == 0) {
		memory = mmap(NULL, bench->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, image, 0);
		uffd = memory == MAP_FAILED ? -ENOMEM : register_memory(memory, bench->bytes);
		r = MIN(uffd, 0);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "userfaultfd");
	}
	r = uffd_client_image(bench->client, id, bench->snapshot, image, NO_BACKGROUND, 0, error);
	if (r == 0) {
		vm.arg[2] = (uintptr_t)memory;
		r = uffd_client_call(bench->client, &vm, &uffd, 1, NULL, error);
	}
	if (r == 0) {
		/* The first background read is past. */
		usleep(20000);
		touch_chunks(bench, memory);
		r = uffd_client_call(bench->client, &gone, NULL, 0, NULL, error);
	}
	munmap(memory, bench->bytes);
	return r;
}

/* --- putting it together --- */

static void report(struct bench *bench)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(bench->snapshot);
	struct bench_report *to = bench->report;
	bool direct = bench->complete.arg[7] & PAGER_IMAGE_DIRECT;
	uint64_t filled = bench->complete.arg[2];

	fprintf(stderr,
		"%.1f MiB of memory, %.1f MiB stored, %llu chunks stored, %llu zero, %ld cores\n",
		(double)manifest->memory_bytes / (double)MIB(1),
		(double)manifest->memory_file_bytes / (double)MIB(1),
		(unsigned long long)manifest->stored_chunks,
		(unsigned long long)manifest->zero_chunks, sysconf(_SC_NPROCESSORS_ONLN));
	print(to, bench->direct ? "disk alone (O_DIRECT)" : "disk alone (page cache)", &bench->disk,
	      manifest->memory_file_bytes);
	print(to, "decode alone, all cores", &bench->decode, filled);
	print(to, direct ? "pager (O_DIRECT)" : "pager (page cache)", &bench->fill, filled);

	double slower = (double)MAX(median(&bench->disk), median(&bench->decode));
	double ratio = (double)median(&bench->fill) / slower;

	fprintf(stderr, "pager / slower of the two: %.2f (medians)\n", ratio);
	fprintf(stderr, "one fault, nothing in memory: p50 %.1f us   p99 %.1f us   (%llu faults)\n",
		(double)base_histogram_percentile(bench->faults, 500000) / 1e3,
		(double)base_histogram_percentile(bench->faults, 990000) / 1e3,
		(unsigned long long)bench->faults->count);
	bench_report_value(to, "guest memory", BENCH_BYTES, (double)manifest->memory_bytes);
	bench_report_value(to, "memory file", BENCH_BYTES, (double)manifest->memory_file_bytes);
	bench_report_value(to, "runs", BENCH_COUNT, bench->runs);
	bench_report_target_at_most(to, "pager / slower of disk and decode", BENCH_RATIO, ratio,
				    TARGET_RATIO);
	bench_report_series(to, "one fault, nothing in memory", NULL, bench->faults, 0);
	bench_report_note(to, "medians of interleaved runs; each chunk's first fault waits for one "
			      "read and one decode");
}

static int run_in(struct bench *bench, const char *path, struct base_error *error)
{
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = NULL;
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	uint64_t write_ns = 0;
	int r = snapshot_store_open(path, true, &store, error);

	if (r == 0) {
		r = write_snapshot(store, bench->bytes, &write_ns, error);
	}
	if (r == 0) {
		r = snapshot_open(store, "bench", &snapshot, error);
	}
	if (r < 0) {
		return r;
	}
	fprintf(stderr, "written and published in %.2f ms\n", (double)write_ns / 1e6);
	bench->snapshot = snapshot;
	r = measure(bench, error);
	if (r == 0) {
		r = fault(bench, error);
	}
	if (r == 0) {
		report(bench);
	}
	return r;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int run(struct bench *bench, struct base_error *error)
{
	_cleanup_free_ char *pager = bench_path("warmbox-pager", BENCH_BUILT_PAGER);
	char path[4096];
	int r;

	bench->faults = calloc(1, sizeof(*bench->faults));
	if (!pager || !bench->faults) {
		return base_error_set_errno(error, -ENOMEM, "setting up");
	}
	r = uffd_client_start(pager, &bench->client, error);
	if (r < 0) {
		return r;
	}
	snprintf(path, sizeof(path), "%s/warmbox-bench-XXXXXX", bench->directory);
	if (!mkdtemp(path)) {
		r = -errno;
		return base_error_set_errno(error, r, "%s", path);
	}
	r = run_in(bench, path, error);
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return r;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "mebibytes", required_argument, NULL, 'm' },
		{},
	};
	struct bench bench = { .directory = "/var/tmp", .runs = RUNS_MAX, .next_image = 1 };
	unsigned long mebibytes = MEBIBYTES;
	struct base_error error = { 0 };
	int option, r;

	while ((option = getopt_long(argc, argv, "m:", options, NULL)) >= 0) {
		if (option == 'q') {
			bench.runs = RUNS_QUICK;
			mebibytes = MEBIBYTES_QUICK;
		} else {
			mebibytes = option == 'm' ? strtoul(optarg, NULL, 10) : 0;
		}
	}
	if (optind + 1 < argc || mebibytes == 0 || mebibytes > MEBIBYTES_MAX) {
		fprintf(stderr, "usage: bench-image [--quick] [--mebibytes N] [DIRECTORY]\n");
		return 2;
	}
	bench.directory = optind < argc ? argv[optind] : bench.directory;
	bench.bytes = MIB(mebibytes);
	bench.report = bench_report_new(
		"image", "How long does filling an image take, and one fault of it?");
	r = run(&bench, &error);
	uffd_client_free(bench.client);
	free(bench.faults);
	if (r < 0) {
		fprintf(stderr, "bench-image: %s\n", error.text);
		return 1;
	}
	return bench_report_print(bench.report);
}
