/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How long it takes from asking for a restored VM to its first entry into the guest.
 *
 * Four ways, in turns, so that whatever else the machine does hits all alike: in a VMM that waits
 * with an empty VM (a shell); the same with the round trip and the identity that the manager puts
 * between; without a shell, from before the process is started; and the floor, a bare process that
 * does the same KVM calls by hand (bench/floor.c). The guest is tiny, its image is all in memory.
 * The clock stops at what the VMM itself noted just before KVM_RUN: this program's own waking up is
 * not in the figures, the VMM's is.
 *
 * Usage: bench-restore [--quick] [-n RUNS]. One thread, blocking. An attempt that fails is counted;
 * the first one's reason is printed.
 */

#include "base/clock.h"
#include "base/histogram.h"
#include "bench/floor.h"
#include "bench/report.h"
#include "bench/tiny.h"
#include "guest/agent.h"
#include "tests/guest/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUNS	   1000
#define RUNS_QUICK 50
#define RUNS_MAX   1000000
#define PARTS_MAX  6
/* About as long as a real one. */
#define IDENTITY_BYTES 400

extern char **environ;

enum way { SHELL, SHELL_IDENTITY, PROCESS, FLOOR, WAYS };

static const struct {
	const char *name;
	size_t n_parts;
	const char *parts[PARTS_MAX];
} ways[WAYS] = {
	[SHELL] = { "in a waiting shell", 3, { "request taken", "state loaded", "first entry" } },
	[SHELL_IDENTITY] = { "in a waiting shell, with identity",
			     3,
			     { "request taken", "state loaded", "identity and first entry" } },
	[PROCESS] = { "without a shell",
		      6,
		      { "process started", "VM and memory", "vCPU", "devices", "state loaded",
			"first entry" } },
	[FLOOR] = { "bare process, same KVM calls",
		    5,
		    { "process started", "VM and memory", "vCPU", "state loaded", "first entry" } },
};

struct series {
	struct base_histogram *histogram;
	struct base_histogram *parts[PARTS_MAX];
	uint64_t failed;
};

struct bench {
	struct bench_tiny tiny;
	struct harness_params params;
	int floor_state; /* memfd */
	char *floor_path;
	struct series series[WAYS];
};

/* Stamps in order; parts are the time between each and the one before. */
static void record(struct bench *bench, enum way way, const uint64_t *stamps)
{
	struct series *series = &bench->series[way];
	size_t n = ways[way].n_parts;

	for (size_t i = 0; i < n; i++) {
		base_histogram_add(series->parts[i],
				   stamps[i + 1] > stamps[i] ? stamps[i + 1] - stamps[i] : 0);
	}
	base_histogram_add(series->histogram, stamps[n] - stamps[0]);
}

static int post_load(struct bench *bench, struct harness_vm *vm)
{
	return harness_post(vm, VMM_OP_LOAD, NULL, 0, &bench->tiny.state, 1, NULL);
}

static int post_resume(struct harness_vm *vm)
{
	return harness_post(vm, VMM_OP_RESUME, NULL, 0, NULL, 0, NULL);
}

static int run_shell(struct bench *bench, struct harness_vm *vm)
{
	uint64_t stamps[4];
	int r;

	r = harness_create(vm, &bench->params);
	stamps[0] = base_clock_monotonic_ns();
	r = r ?: post_load(bench, vm);
	r = r ?: post_resume(vm);
	r = r ?: harness_reply(vm, VMM_OP_LOAD);
	stamps[1] = vm->reply.arg[3];
	stamps[2] = vm->reply.arg[4];
	r = r ?: harness_reply(vm, VMM_OP_RESUME);
	r = r ?: harness_wait_entered(vm);
	stamps[3] = vm->entered_ns;
	if (r == 0) {
		record(bench, SHELL, stamps);
	}
	return r;
}

/* As the manager does: the identity carries the time that LOAD answers. */
static int run_shell_identity(struct bench *bench, struct harness_vm *vm)
{
	static const char identity[IDENTITY_BYTES];
	_cleanup_fd_ int ours = -1, theirs = -1;
	uint64_t port = GUEST_AGENT_PORT;
	uint64_t stamps[4];
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	ours = pair[0];
	theirs = pair[1];
	r = harness_create(vm, &bench->params);
	stamps[0] = base_clock_monotonic_ns();
	r = r ?: post_load(bench, vm);
	r = r ?: harness_reply(vm, VMM_OP_LOAD);
	stamps[1] = vm->reply.arg[3];
	stamps[2] = vm->reply.arg[4];
	r = r ?: base_fd_write_full(ours, identity, sizeof(identity));
	r = r ?: harness_post(vm, VMM_OP_ATTACH, &port, 1, &theirs, 1, NULL);
	r = r ?: post_resume(vm);
	r = r ?: harness_reply(vm, VMM_OP_ATTACH);
	r = r ?: harness_reply(vm, VMM_OP_RESUME);
	r = r ?: harness_wait_entered(vm);
	stamps[3] = vm->entered_ns;
	if (r == 0) {
		record(bench, SHELL_IDENTITY, stamps);
	}
	return r;
}

static int run_process(struct bench *bench, struct harness_vm *vm)
{
	uint64_t stamps[7];
	int r;

	r = harness_prepare(vm, &bench->params);
	r = r ?: post_load(bench, vm);
	r = r ?: post_resume(vm);
	stamps[0] = base_clock_monotonic_ns();
	r = r ?: harness_start(vm);
	r = r ?: harness_created(vm);
	stamps[1] = vm->reply.arg[0];
	stamps[2] = vm->reply.arg[2];
	stamps[3] = vm->reply.arg[3];
	stamps[4] = vm->reply.arg[4];
	r = r ?: harness_reply(vm, VMM_OP_LOAD);
	stamps[5] = vm->reply.arg[4];
	r = r ?: harness_reply(vm, VMM_OP_RESUME);
	r = r ?: harness_wait_entered(vm);
	stamps[6] = vm->entered_ns;
	if (r == 0) {
		record(bench, PROCESS, stamps);
	}
	return r;
}

/* Starts bench-floor and waits for its end. stamps_fd -1: to capture a state. */
static int start_floor(struct bench *bench, int stamps_fd, uint64_t *ret_start_ns)
{
	char *argv[] = { bench->floor_path, stamps_fd < 0 ? (char *)"capture" : NULL, NULL };
	posix_spawn_file_actions_t actions;
	int status;
	pid_t pid;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, bench->tiny.memory, FLOOR_MEMORY_FD);
	posix_spawn_file_actions_adddup2(&actions, bench->floor_state, FLOOR_STATE_FD);
	if (stamps_fd >= 0) {
		posix_spawn_file_actions_adddup2(&actions, stamps_fd, FLOOR_STAMPS_FD);
	}
	*ret_start_ns = base_clock_monotonic_ns();
	r = -posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r < 0) {
		return r;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int run_floor(struct bench *bench)
{
	struct floor_stamps floor;
	uint64_t stamps[6];
	int pipe_fds[2];
	int r;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
		return -errno;
	}
	r = start_floor(bench, pipe_fds[1], &stamps[0]);
	close(pipe_fds[1]);
	r = r ?: base_fd_read_full(pipe_fds[0], &floor, sizeof(floor));
	close(pipe_fds[0]);
	if (r < 0) {
		return r;
	}
	stamps[1] = floor.start;
	stamps[2] = floor.memslot;
	stamps[3] = floor.vcpu;
	stamps[4] = floor.loaded;
	stamps[5] = floor.entry;
	record(bench, FLOOR, stamps);
	return 0;
}

static void run_once(struct bench *bench, enum way way)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct series *series = &bench->series[way];
	int r = 0;

	switch (way) {
	case SHELL:
		r = run_shell(bench, &vm);
		break;
	case SHELL_IDENTITY:
		r = run_shell_identity(bench, &vm);
		break;
	case PROCESS:
		r = run_process(bench, &vm);
		break;
	case FLOOR:
	case WAYS:
		r = run_floor(bench);
		break;
	}
	if (r < 0 && series->failed++ == 0) {
		fprintf(stderr, "bench-restore: %s: %s\n", ways[way].name,
			vm.error.text[0] ? vm.error.text : strerror(-r));
	}
}

static int set_up(struct bench *bench, struct base_error *error)
{
	_cleanup_fd_ int kvm_fd = -1;
	uint64_t start_ns;
	int r;

	for (unsigned way = 0; way < WAYS; way++) {
		struct series *series = &bench->series[way];

		series->histogram = calloc(1, sizeof(*series->histogram));
		for (size_t i = 0; i < ways[way].n_parts; i++) {
			series->parts[i] = calloc(1, sizeof(*series->parts[i]));
			if (!series->parts[i]) {
				return -ENOMEM;
			}
		}
		if (!series->histogram) {
			return -ENOMEM;
		}
	}
	bench->floor_path = bench_path("bench-floor", BENCH_BUILT_FLOOR);
	bench->floor_state = memfd_create("floor-state", MFD_CLOEXEC);
	if (!bench->floor_path || bench->floor_state < 0) {
		return base_error_set_errno(error, -ENOMEM, "setting up");
	}
	r = bench_tiny_identity(&bench->tiny, error);
	if (r < 0) {
		return r;
	}
	bench->params = (struct harness_params){
		.memory_bytes = bench->tiny.memory_bytes,
		.image_fd = bench->tiny.memory,
		.state_fd = bench->tiny.state,
	};
	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	r = vmm_host_fingerprint(kvm_fd, &bench->params.fingerprint);
	if (r < 0) {
		return base_error_set_errno(error, r, "looking at this host's KVM");
	}
	r = start_floor(bench, -1, &start_ns);
	return r < 0 ? base_error_set_errno(error, r, "the floor's first run") : 0;
}

static double median(const struct base_histogram *histogram)
{
	return (double)base_histogram_percentile(histogram, 500000);
}

static int print(struct bench *bench, struct bench_report *report)
{
	double p50[WAYS];

	for (unsigned way = 0; way < WAYS; way++) {
		const struct series *series = &bench->series[way];
		double parts[PARTS_MAX];

		p50[way] = median(series->histogram);
		bench_report_series(report, ways[way].name, BENCH_STOP_ENTRY, series->histogram,
				    series->failed);
		for (size_t i = 0; i < ways[way].n_parts; i++) {
			parts[i] = median(series->parts[i]);
		}
		bench_report_phases(report, ways[way].name, ways[way].n_parts, ways[way].parts,
				    parts);
		fprintf(stderr, "%-34s %7.1f us p50 %7.1f us p99:", ways[way].name, p50[way] / 1e3,
			(double)base_histogram_percentile(series->histogram, 990000) / 1e3);
		for (size_t i = 0; i < ways[way].n_parts; i++) {
			fprintf(stderr, " %s %.1f%s", ways[way].parts[i], parts[i] / 1e3,
				i + 1 < ways[way].n_parts ? "," : "\n");
		}
	}
	bench_report_value(report, "without a shell, as a multiple of the bare process",
			   BENCH_RATIO, p50[PROCESS] / p50[FLOOR]);
	bench_report_target_at_most(report, "p50 in a waiting shell", BENCH_NS, p50[SHELL], 300e3);
	bench_report_target_at_most(report, "p50 without a shell", BENCH_NS, p50[PROCESS], 1500e3);
	bench_report_target_at_most(report, "p50 without a shell, against the bare process",
				    BENCH_RATIO, p50[PROCESS] / p50[FLOOR], 1.5);
	bench_report_note(report, "The phases are medians of each part; they do not add up to the "
				  "median of the whole.");
	return bench_report_print(report);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "runs", required_argument, NULL, 'n' },
		{},
	};
	static struct bench bench = { .tiny = BENCH_TINY_NONE };
	struct bench_report *report;
	struct base_error error = {};
	unsigned long runs = RUNS;
	int option;

	while ((option = getopt_long(argc, argv, "n:", options, NULL)) >= 0) {
		if (option == '?') {
			fprintf(stderr, "usage: bench-restore [--quick] [-n RUNS]\n");
			return 2;
		}
		runs = option == 'q' ? RUNS_QUICK : strtoul(optarg, NULL, 10);
	}
	report = bench_report_new("restore", "How long until a restored VM enters its guest?");
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		return bench_report_skip(report, "/dev/kvm cannot be used here");
	}
	signal(SIGPIPE, SIG_IGN);
	if (set_up(&bench, &error) < 0) {
		fprintf(stderr, "bench-restore: %s\n", error.text);
		return 1;
	}
	for (unsigned long i = 0; i < MIN(runs, (unsigned long)RUNS_MAX); i++) {
		for (unsigned way = 0; way < WAYS; way++) {
			run_once(&bench, (enum way)way);
		}
	}
	return print(&bench, report);
}
