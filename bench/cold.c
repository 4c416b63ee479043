/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What does the working set gain, when a sandbox is wanted from a memory image that is not loaded?
 *
 *    bench-cold [--quick] [--count N] [--store DIR --template NAME [--eval CODE]]
 *
 * No daemon: a warmbox-pager and VMMs of our own do what the manager has them do. Each run has a
 * new image. The snapshot's memory file is put out of the page cache first, and mincore() must
 * agree; then the clock starts, and it is IMAGE, CREATE, VM, LOAD, ATTACH with the identity,
 * RESUME, the acknowledgement, the first exec. In turns, so that whatever else the machine does
 * hits all alike: with the working set and without it; both once more with filling in the
 * background held to a low rate, as on a disk that others use, too, for on a fast and idle one the
 * background brings everything so soon that it hides much of the difference; and warm, where the
 * image is complete before CREATE: the floor.
 *
 * The guest is tiny, and visits scattered pages that it checks; or a Linux template of a store. A
 * run that fails is counted, and the first one's reason printed. One thread, blocking; a temporary
 * store lies below /var/tmp (/tmp may be memory) and is removed at the end.
 */

#include "base/clock.h"
#include "bench/cold_guest.h"
#include "bench/options.h"
#include "bench/report.h"
#include "bench/tiny.h"
#include "uffd/client.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DIRECTORY	    "/var/tmp"
#define RUNS_TINY	    30
#define RUNS_LINUX	    5
#define RUNS_QUICK	    2
#define MEMORY_BYTES	    MIB(128)
#define MEMORY_QUICK	    MIB(16)
#define VISITS		    1500
#define VISITS_QUICK	    150
#define LIMITED_BYTES_PER_S MIB(16)
/* Pages can be held for a moment by whoever puts them on the kernel's lists. */
#define DROP_ATTEMPTS 50
#define TARGET_RATIO  2.0

enum way { WITH, WITHOUT, LIMITED_WITH, LIMITED_WITHOUT, WARM, WAYS };

static const struct {
	const char *name;
	uint64_t flags; /* enum pager_fill_flags */
	uint64_t background_bytes_per_s;
} ways[WAYS] = {
	[WITH] = { "cold, with the working set", 0, 0 },
	[WITHOUT] = { "cold, without it", PAGER_FILL_NO_WORKING_SET, 0 },
	[LIMITED_WITH] = { "cold, with the working set, 16 MiB/s in the background", 0,
			   LIMITED_BYTES_PER_S },
	[LIMITED_WITHOUT] = { "cold, without it, 16 MiB/s in the background",
			      PAGER_FILL_NO_WORKING_SET, LIMITED_BYTES_PER_S },
	[WARM] = { "warm", 0, 0 },
};
_Static_assert(LIMITED_BYTES_PER_S == MIB(16), "the names say so");

/* An image leaves two events with the client that nobody asks for. */
#define RUNS_MAX (UFFD_CLIENT_EVENTS_MAX / (2 * WAYS))

/* OFF is of the whole what the VMM was not on a processor: it waited for pages, for a processor
 * that filling had, or for nothing. How slow the guest itself is does not count there. */
enum line { ENTRY, AGENT, EXEC, OFF, LINES };

static const struct {
	const char *name, *stop_line;
} lines[LINES] = {
	[ENTRY] = { "first vCPU entry", BENCH_STOP_ENTRY },
	[AGENT] = { "agent replied", BENCH_STOP_AGENT },
	[EXEC] = { "first exec finished", BENCH_STOP_EXEC },
	[OFF] = { "of it off the processor, p50", NULL },
};

/* Of one way. */
struct series {
	struct base_histogram lines[LINES];
	uint64_t failed;
	/* Sums of what the pager counted until the exec had finished. */
	uint64_t filled, from_working_set, read, faults, demand_chunks;
	bool direct;
};

struct bench {
	struct bench_report *report;
	struct cold_guest guest;
	const char *code; /* NULL: a new process */
	struct uffd_client *client;
	uint64_t next_image;
	int warm; /* a complete image */
	struct series *series;
};

/* --- one run --- */

static int count_cached(int fd, uint64_t bytes, uint64_t *ret_pages)
{
	size_t n = (bytes + TOUCH_PAGE_BYTES - 1) / TOUCH_PAGE_BYTES;
	_cleanup_free_ unsigned char *cached = malloc(n);
	void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	uint64_t pages = 0;
	int r = 0;

	if (!cached || map == MAP_FAILED) {
		r = -ENOMEM;
	} else if (mincore(map, bytes, cached) < 0) {
		r = -errno;
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		pages += cached[i] & 1;
	}
	if (map != MAP_FAILED) {
		munmap(map, bytes);
	}
	*ret_pages = pages;
	return r;
}

/* -EBUSY: it stays in the page cache. */
static int drop_cache(const struct snapshot *snapshot, struct base_error *error)
{
	int fd = snapshot_memory_fd(snapshot_memory(snapshot));
	uint64_t bytes = snapshot_manifest(snapshot)->memory_file_bytes, pages = 0;

	for (unsigned i = 0; i < DROP_ATTEMPTS; i++) {
		int r = fsync(fd) < 0 ? -errno : -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);

		r = r ?: count_cached(fd, bytes, &pages);
		if (r < 0) {
			return base_error_set_errno(error, r, "dropping the page cache");
		}
		if (pages == 0) {
			return 0;
		}
		usleep(1000);
	}
	return base_error_set(error, -EBUSY, "%llu pages of the memory file stay in the page cache",
			      (unsigned long long)pages);
}

static int create(struct bench *bench, struct harness_vm *vm, int image, bool lazy,
		  struct base_error *error)
{
	struct harness_params params = cold_guest_params(&bench->guest, image, lazy);
	int r = harness_create(vm, &params);

	return r < 0 ? base_error_set(error, r, "%s", vm->error.text) : 0;
}

static int use(struct bench *bench, struct harness_vm *vm, uint64_t id, struct series *series,
	       struct cold_times *times, struct base_error *error)
{
	struct base_message attach = { .op = PAGER_OP_VM, .arg = { id, 1, vm->address } };
	struct base_message ask = { .op = PAGER_OP_COUNTERS, .arg = { id } }, counters;
	int r;

	r = uffd_client_call(bench->client, &attach, &vm->userfault, 1, NULL, error);
	r = r ?: cold_guest_run(&bench->guest, vm, bench->code, times, error);
	r = r ?: uffd_client_call(bench->client, &ask, NULL, 0, &counters, error);
	if (r == 0) {
		series->filled += counters.arg[0];
		series->from_working_set += counters.arg[1];
		series->read += counters.arg[2];
		series->faults += counters.arg[3];
		series->demand_chunks += counters.arg[5];
		series->direct = counters.arg[7] & PAGER_IMAGE_DIRECT;
	}
	return r;
}

static int run_cold(struct bench *bench, enum way way, uint64_t *ret_start_ns,
		    struct cold_times *times, struct base_error *error)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	const struct snapshot *snapshot = bench->guest.snapshot;
	struct base_message gone = { .op = PAGER_OP_IMAGE_GONE, .arg = { bench->next_image++ } };
	uint64_t id = gone.arg[0];
	_cleanup_fd_ int image = -1;
	int r = drop_cache(snapshot, error);

	if (r == 0 &&
	    (r = base_fd_memfd("image", snapshot_manifest(snapshot)->memory_bytes, &image)) < 0) {
		base_error_set_errno(error, r, "making an image");
	}
	if (r < 0) {
		return r;
	}
	*ret_start_ns = base_clock_monotonic_ns();
	r = uffd_client_image(bench->client, id, snapshot, image, ways[way].background_bytes_per_s,
			      ways[way].flags, error);
	if (r < 0) {
		return r;
	}
	r = create(bench, &vm, image, true, error);
	r = r ?: use(bench, &vm, id, &bench->series[way], times, error);
	harness_stop(&vm);
	(void)uffd_client_call(bench->client, &gone, NULL, 0, NULL, NULL);
	return r;
}

static int run_warm(struct bench *bench, uint64_t *ret_start_ns, struct cold_times *times,
		    struct base_error *error)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int r;

	*ret_start_ns = base_clock_monotonic_ns();
	r = create(bench, &vm, bench->warm, false, error);
	return r ?: cold_guest_run(&bench->guest, &vm, bench->code, times, error);
}

static void run_once(struct bench *bench, enum way way)
{
	struct series *series = &bench->series[way];
	struct base_error error = {};
	struct cold_times times;
	uint64_t start_ns = 0;
	int r = way == WARM ? run_warm(bench, &start_ns, &times, &error)
			    : run_cold(bench, way, &start_ns, &times, &error);

	if (r < 0) {
		if (series->failed++ == 0) {
			fprintf(stderr, "\n%s: %s\n", ways[way].name, error.text);
		}
		return;
	}
	base_histogram_add(&series->lines[ENTRY], times.entry_ns - start_ns);
	base_histogram_add(&series->lines[AGENT], times.agent_ns - start_ns);
	base_histogram_add(&series->lines[EXEC], times.exec_ns - start_ns);
	base_histogram_add(&series->lines[OFF],
			   times.exec_ns - start_ns - MIN(times.cpu_ns, times.exec_ns - start_ns));
}

/* --- the report --- */

static double median(const struct bench *bench, enum way way, enum line line)
{
	const struct base_histogram *histogram = &bench->series[way].lines[line];

	return histogram->count > 0 ? (double)base_histogram_percentile(histogram, 500000) : NAN;
}

static void report_counts(const struct bench *bench, enum way way, const char *suffix)
{
	const struct series *series = &bench->series[way];
	double n = (double)series->lines[EXEC].count;
	char name[256];
	const struct {
		const char *what, *unit;
		uint64_t sum;
	} counts[] = {
		{ "faults", BENCH_COUNT, series->faults },
		{ "chunks on demand", BENCH_COUNT, series->demand_chunks },
		{ "filled", BENCH_BYTES, series->filled },
		{ "of it from the working set", BENCH_BYTES, series->from_working_set },
		{ "read from the file", BENCH_BYTES, series->read },
	};

	for (size_t i = 0; n > 0 && i < ARRAY_SIZE(counts); i++) {
		snprintf(name, sizeof(name), "%s%s: %s", ways[way].name, suffix, counts[i].what);
		bench_report_value(bench->report, name, counts[i].unit, (double)counts[i].sum / n);
	}
}

/* What the cold image adds to the warm floor, without the working set by with it. Where noise hides
 * it there is no figure. */
static double added(const struct bench *bench, enum way with, enum way without, enum line line)
{
	double warm = median(bench, WARM, line);
	double a = median(bench, with, line) - warm, b = median(bench, without, line) - warm;

	return a > 0 && b > 0 ? b / a : NAN;
}

/* What the working set gains, of a pair of ways. */
static void report_gain(const struct bench *bench, enum way with, enum way without,
			const char *suffix)
{
	double a = median(bench, with, EXEC), b = median(bench, without, EXEC);
	const char *limited = with == LIMITED_WITH ? ", 16 MiB/s in the background" : "";
	char name[256];

	snprintf(name, sizeof(name), "added over warm, without the working set / with it%s%s",
		 limited, suffix);
	bench_report_value(bench->report, name, BENCH_RATIO, added(bench, with, without, EXEC));
	snprintf(name, sizeof(name),
		 "added off the processor, without the working set / with it%s%s", limited, suffix);
	bench_report_value(bench->report, name, BENCH_RATIO, added(bench, with, without, OFF));
	snprintf(name, sizeof(name), "first exec, without the working set / with it%s%s", limited,
		 suffix);
	bench_report_target_at_least(bench->report, name, BENCH_RATIO, b / a, TARGET_RATIO);
	fprintf(stderr, "%s: %.2f (%.1f ms / %.1f ms; warm %.1f ms)\n", name, b / a, b / 1e6,
		a / 1e6, median(bench, WARM, EXEC) / 1e6);
}

static void report(const struct bench *bench, const char *suffix)
{
	char name[256];

	for (unsigned line = 0; line < LINES; line++) {
		for (unsigned way = 0; way < WAYS; way++) {
			snprintf(name, sizeof(name), "%s: %s%s", lines[line].name, ways[way].name,
				 suffix);
			if (lines[line].stop_line) {
				bench_report_series(bench->report, name, lines[line].stop_line,
						    &bench->series[way].lines[line],
						    bench->series[way].failed);
			} else {
				/* A part of a latency is none, and has no place among curves. */
				bench_report_value(bench->report, name, BENCH_NS,
						   median(bench, way, line));
			}
		}
	}
	for (unsigned way = 0; way < WARM; way++) {
		report_counts(bench, (enum way)way, suffix);
	}
	report_gain(bench, WITH, WITHOUT, suffix);
	report_gain(bench, LIMITED_WITH, LIMITED_WITHOUT, suffix);
}

static void report_guest(const struct bench *bench)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(bench->guest.snapshot);
	struct bench_report *to = bench->report;

	bench_report_value(to, "guest memory", BENCH_BYTES, (double)manifest->memory_bytes);
	bench_report_value(to, "memory file", BENCH_BYTES, (double)manifest->memory_file_bytes);
	bench_report_value(to, "working set", BENCH_BYTES,
			   (double)(manifest->ws_pages * SNAPSHOT_PAGE_BYTES));
	if (bench->guest.touch.count > 0) {
		bench_report_value(to, "pages that the first exec visits", BENCH_COUNT,
				   bench->guest.touch.count);
	}
	bench_report_text(to, "the memory file is read with", "%s",
			  bench->series[WITH].direct ? "O_DIRECT" : "the page cache");
	bench_report_note(to,
			  "All lines are timed from before the pager is told of the image (warm: "
			  "before the VMM is started). The memory file was not in the page cache "
			  "when a cold run began, or the run counts as failed; a cache of the "
			  "disk's own, and the root image, are as they are. Counts are means of "
			  "a run until its first exec had finished.");
}

/* --- all runs --- */

static int measure(struct bench *bench, const char *suffix, uint64_t runs, struct base_error *error)
{
	_cleanup_free_ char *pager = bench_path("warmbox-pager", BENCH_BUILT_PAGER);
	int r;

	memset(bench->series, 0, WAYS * sizeof(*bench->series));
	r = pager ? uffd_client_start(pager, &bench->client, error) : -ENOMEM;
	r = r
		    ?: uffd_client_fill(bench->client, bench->next_image++, bench->guest.snapshot,
					&bench->warm, NULL, error);
	for (uint64_t i = 0; r == 0 && i < runs; i++) {
		for (unsigned way = 0; way < WAYS; way++) {
			run_once(bench, (enum way)way);
		}
		fprintf(stderr, "\r%llu of %llu%s", (unsigned long long)i + 1,
			(unsigned long long)runs, i + 1 < runs ? " " : "\n");
	}
	bench->warm = base_fd_close(bench->warm);
	uffd_client_free(TAKE_PTR(bench->client));
	if (r == 0) {
		report(bench, suffix);
	}
	return r;
}

static int run(struct bench *bench, const struct bench_options *options, struct base_error *error)
{
	bool linux_guest = options->template_name;
	uint64_t runs = options->count
				?: options->quick ? RUNS_QUICK
			   : linux_guest	  ? RUNS_LINUX
						  : RUNS_TINY;
	int r;

	if (linux_guest) {
		r = cold_guest_open(&bench->guest, options->store, options->template_name, error);
	} else {
		r = cold_guest_make(&bench->guest, DIRECTORY,
				    options->quick ? MEMORY_QUICK : MEMORY_BYTES,
				    options->quick ? VISITS_QUICK : VISITS, error);
	}
	if (r == 0 && snapshot_manifest(bench->guest.snapshot)->ws_pages == 0) {
		return base_error_set(error, -ENODATA, "the template has no working set");
	}
	r = r ?: measure(bench, "", MIN(runs, (uint64_t)RUNS_MAX), error);
	if (r == 0 && options->code && linux_guest) {
		report_guest(bench);
		bench->code = options->code;
		return measure(bench, ", resident process", MIN(runs, (uint64_t)RUNS_MAX), error);
	}
	if (r == 0) {
		report_guest(bench);
	}
	return r;
}

int main(int argc, char **argv)
{
	struct bench bench = { .guest = COLD_GUEST_NONE, .next_image = 1, .warm = -1 };
	struct bench_options options;
	struct base_error error = {};
	int r;

	if (bench_options_parse(argc, argv, "cold",
				BENCH_OPTION_STORE | BENCH_OPTION_COUNT | BENCH_OPTION_EVAL,
				&options) < 0) {
		return 2;
	}
	bench.report = bench_report_new(
		"cold", "What does the working set gain when the memory image is not loaded?");
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		return bench_report_skip(bench.report, "/dev/kvm cannot be used here");
	}
	signal(SIGPIPE, SIG_IGN);
	bench.series = calloc(WAYS, sizeof(*bench.series));
	r = bench.series ? run(&bench, &options, &error)
			 : base_error_set_errno(&error, -ENOMEM, "setting up");
	cold_guest_close(&bench.guest);
	free(bench.series);
	if (r < 0) {
		fprintf(stderr, "bench-cold: %s\n", error.text);
		return 1;
	}
	return bench_report_print(bench.report);
}
