/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How long does a client wait for a parked sandbox?
 *
 * Closed loop: from a pool that is full and idle a batch is claimed, one after the other, and after
 * each claim the same message goes to bench-echo, which only decodes and echoes it, so that the two
 * meet the same machine. Then the batch is released and the pool fills again. That is done for each
 * placement: client, daemon and echo on one core, and on two.
 *
 * Open loop: claims arrive at random (Poisson) at a fixed rate, half of what the pool refills, and
 * each is timed from when it should have started, so that a claim that holds up the next ones
 * counts against all of them.
 *
 * A claim that finds nothing parked is a miss: refused at once, counted, and never timed as a hit.
 * One thread. A failure of anything else ends the program.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "bench/arrivals.h"
#include "bench/daemon.h"
#include "bench/proc.h"
#include "bench/report.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BATCH		32
#define COUNT		10000
#define OTHERS_PART	4 /* of the count, for what is measured beside it */
#define STREAM_PART	10
#define QUICK_COUNT	200
#define OPEN_LOAD	0.5
#define SPIN_NS		(150 * NSEC_PER_USEC)
#define PENDING_MAX	64
#define BEYOND_LEAST	5
#define CLAIM_P50_NS	60000
#define CLAIM_P99_NS	250000
#define ECHO_RATIO_MOST 3

extern char **environ;

/* --- the floor --- */

struct echo {
	struct warmbox_connection *connection;
	pid_t pid;
	int stdin_fd; /* its end ends the server */
	msgpack_sbuffer params;
	char directory[32], path[48];
};

static int listen_at(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 16) < 0) {
		return -errno;
	}
	return TAKE_FD(fd);
}

/* bench-echo is beside this program. */
static int spawn_echo(struct echo *echo, int listener)
{
	posix_spawn_file_actions_t actions;
	char program[PATH_MAX];
	char *const argv[] = { (char *)"bench-echo", (char *)"3", NULL };
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	int input[2], r;
	char *slash;

	program[MAX(n, 0)] = '\0';
	slash = strrchr(program, '/');
	if (!slash || pipe2(input, O_CLOEXEC) < 0) {
		return -ENOENT;
	}
	snprintf(slash + 1, sizeof(program) - (size_t)(slash + 1 - program), "bench-echo");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, input[0], STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, listener, 3);
	r = posix_spawn(&echo->pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(input[0]);
	echo->stdin_fd = input[1];
	return -r;
}

static void pack_str(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str_with_body(packer, text, strlen(text));
}

static int echo_start(struct echo *echo, const char *template_name)
{
	struct warmbox_error error = { 0 };
	_cleanup_fd_ int listener = -1;
	msgpack_packer packer;
	int r;

	*echo = (struct echo){ .stdin_fd = -1, .directory = "/tmp/warmbox-echo-XXXXXX" };
	msgpack_sbuffer_init(&echo->params);
	/* What warmbox_acquire() sends in bench_claim(). */
	msgpack_packer_init(&packer, &echo->params, msgpack_sbuffer_write);
	msgpack_pack_map(&packer, 3);
	pack_str(&packer, "template");
	pack_str(&packer, template_name);
	pack_str(&packer, "timeout_ms");
	msgpack_pack_uint64(&packer, 0);
	pack_str(&packer, "bind");
	msgpack_pack_true(&packer);
	if (!mkdtemp(echo->directory)) {
		return -errno;
	}
	snprintf(echo->path, sizeof(echo->path), "%s/echo", echo->directory);
	listener = listen_at(echo->path);
	r = listener < 0 ? listener : spawn_echo(echo, listener);
	if (r < 0) {
		fprintf(stderr, "bench-echo does not start: %s\n", strerror(-r));
		return r;
	}
	r = warmbox_connect(echo->path, &echo->connection, &error);
	return r < 0 ? bench_complain("connecting to bench-echo", r, &error) : 0;
}

static void echo_stop(struct echo *echo)
{
	warmbox_disconnect(echo->connection);
	base_fd_close(echo->stdin_fd);
	if (echo->pid > 0) {
		waitpid(echo->pid, NULL, 0);
	}
	unlink(echo->path);
	rmdir(echo->directory);
	msgpack_sbuffer_destroy(&echo->params);
}

static int echo_once(struct echo *echo, struct base_histogram *histogram)
{
	struct warmbox_error error = { 0 };
	struct warmbox_value *value = NULL;
	uint64_t start = base_clock_monotonic_ns();
	int r = warmbox_call(echo->connection, "acquire", echo->params.data, echo->params.size,
			     &value, &error);

	if (r < 0) {
		return bench_complain("echo", r, &error);
	}
	base_histogram_add(histogram, base_clock_monotonic_ns() - start);
	warmbox_value_free(value);
	return 0;
}

/* --- closed loop --- */

struct figures {
	struct base_histogram claim, echo, entry, inside;
	uint64_t missed;
	uint64_t elapsed_ns;
};

struct bench {
	struct bench_daemon daemon;
	struct echo echo;
	struct bench_report *report;
	bool pin;
};

/* With stream, the sandbox's stream is asked for too. 0 with *ret_lease, or 1 for a miss. */
static int claim_once(struct bench *bench, struct figures *figures, bool stream,
		      struct warmbox_lease *ret_lease)
{
	int fd = -1;
	uint64_t start = base_clock_monotonic_ns();
	int r = bench_claim(&bench->daemon, 0, ret_lease, stream ? &fd : NULL);
	uint64_t end = base_clock_monotonic_ns();

	base_fd_close(fd);
	if (r == 0) {
		base_histogram_add(&figures->claim, end - start);
	} else if (r > 0) {
		figures->missed++;
	}
	return r;
}

/* What only the daemon knows is asked for when nothing is measured. */
static int look_and_release(struct bench *bench, struct figures *figures, const char *id)
{
	struct warmbox_lease lease;
	int r = bench_get_entered(&bench->daemon, id, &lease);

	if (r < 0) {
		return r;
	}
	if (lease.timings.first_entry_ns > 0) {
		base_histogram_add(&figures->entry, lease.timings.first_entry_ns);
	}
	base_histogram_add(&figures->inside, lease.timings.wait_ns + lease.timings.claim_ns);
	return bench_release(&bench->daemon, id);
}

static int claim_batch(struct bench *bench, struct figures *figures, bool stream, size_t n)
{
	struct warmbox_lease leases[BATCH];
	size_t claimed = 0;
	int r = bench_pool_wait(&bench->daemon, BATCH);

	for (size_t i = 0; r >= 0 && i < n; i++) {
		r = claim_once(bench, figures, stream, &leases[claimed]);
		if (r < 0) {
			break;
		}
		claimed += r == 0;
		r = echo_once(&bench->echo, &figures->echo);
	}
	for (size_t i = 0; r >= 0 && i < claimed; i++) {
		r = look_and_release(bench, figures, leases[i].id);
	}
	return r;
}

static int closed_loop(struct bench *bench, struct figures *figures, bool stream, uint64_t count)
{
	uint64_t start = base_clock_monotonic_ns();
	int r = 0;

	for (uint64_t done = 0; r >= 0 && done < count; done += BATCH) {
		r = claim_batch(bench, figures, stream, MIN(count - done, (uint64_t)BATCH));
		if (done % (BATCH * 16) == 0) {
			fprintf(stderr, "\rclosed loop: %" PRIu64 " of %" PRIu64 " ", done, count);
		}
	}
	fprintf(stderr, "\n");
	figures->elapsed_ns = base_clock_monotonic_ns() - start;
	return r;
}

/* The client, the daemon's loop and the echo. VMMs that run already, and what starts them, stay. */
static int place(struct bench *bench, int client, int server)
{
	int r = bench_pin(0, client);

	r = r ?: bench_pin(bench->daemon.pid, server);
	r = r ?: bench_pin(bench->echo.pid, server);
	if (r < 0) {
		fprintf(stderr, "cannot bind to cores %d and %d: %s\n", client, server,
			strerror(-r));
	}
	return r;
}

/* Not a number when too few values lie beyond it to mean anything. */
static double percentile(const struct base_histogram *histogram, uint32_t per_million)
{
	if (histogram->count * (1000000 - per_million) < UINT64_C(1000000) * BEYOND_LEAST) {
		return NAN;
	}
	return (double)base_histogram_percentile(histogram, per_million);
}

static void report_closed(struct bench *bench, const struct figures *figures, const char *place)
{
	double claim = percentile(&figures->claim, 500000);
	double echo = percentile(&figures->echo, 500000);
	char name[128];

	snprintf(name, sizeof(name), "closed loop, %s", place);
	bench_report_series(bench->report, name, BENCH_STOP_CLAIM, &figures->claim,
			    figures->missed);
	snprintf(name, sizeof(name), "echo server, %s", place);
	bench_report_series(bench->report, name, NULL, &figures->echo, 0);
	snprintf(name, sizeof(name), "first vCPU entry, %s", place);
	bench_report_series(bench->report, name, BENCH_STOP_ENTRY, &figures->entry,
			    figures->claim.count - figures->entry.count);
	snprintf(name, sizeof(name), "of it inside the daemon, p50, %s", place);
	bench_report_value(bench->report, name, BENCH_NS, percentile(&figures->inside, 500000));

	snprintf(name, sizeof(name), "claim p50, closed loop, %s", place);
	bench_report_target_at_most(bench->report, name, BENCH_NS, claim, CLAIM_P50_NS);
	snprintf(name, sizeof(name), "claim p99, closed loop, %s", place);
	bench_report_target_at_most(bench->report, name, BENCH_NS,
				    percentile(&figures->claim, 990000), CLAIM_P99_NS);
	snprintf(name, sizeof(name), "claim p50 against the echo server's, %s", place);
	bench_report_target_at_most(bench->report, name, BENCH_RATIO, claim / echo,
				    ECHO_RATIO_MOST);
}

static int run_closed(struct bench *bench, const char *place, bool stream, uint64_t count,
		      uint64_t *ret_elapsed_ns)
{
	_cleanup_free_ struct figures *figures = calloc(1, sizeof(*figures));
	int r = figures ? 0 : -ENOMEM;

	/* One batch that is not counted, for caches and for what is made on first use. */
	r = r ?: claim_batch(bench, figures, stream, BATCH);
	if (r >= 0) {
		memset(figures, 0, sizeof(*figures));
		r = closed_loop(bench, figures, stream, count);
	}
	if (r < 0) {
		return r;
	}
	if (stream) {
		bench_report_series(bench->report, "closed loop, with a stream to the agent",
				    BENCH_STOP_CLAIM, &figures->claim, figures->missed);
	} else {
		report_closed(bench, figures, place);
	}
	*ret_elapsed_ns = figures->elapsed_ns;
	return 0;
}

/* --- open loop --- */

struct pending {
	char ids[PENDING_MAX][WARMBOX_ID_LENGTH + 1];
	size_t n;
};

/* Releases while there is time before the next claim; a full list leaves no choice. */
static int release_pending(struct bench *bench, struct pending *pending, uint64_t until_ns)
{
	int r = 0;

	while (r >= 0 && pending->n > 0 &&
	       (pending->n == PENDING_MAX ||
		base_clock_monotonic_ns() + NSEC_PER_MSEC < until_ns)) {
		r = bench_release(&bench->daemon, pending->ids[--pending->n]);
	}
	return r;
}

/* Sleeping ends late by some tens of microseconds: the last part is waited for awake. */
static void wait_until(uint64_t ns)
{
	uint64_t now = base_clock_monotonic_ns();

	if (now + SPIN_NS < ns) {
		uint64_t wake = ns - SPIN_NS;
		struct timespec at = {
			.tv_sec = (time_t)(wake / NSEC_PER_SEC),
			.tv_nsec = (long)(wake % NSEC_PER_SEC),
		};

		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
		}
	}
	while (base_clock_monotonic_ns() < ns) {
	}
}

struct open_figures {
	struct base_histogram scheduled, called;
	uint64_t missed;
};

static int open_loop(struct bench *bench, struct open_figures *figures, double rate, uint64_t count)
{
	struct bench_arrivals arrivals = bench_arrivals(rate);
	struct pending pending = { 0 };
	uint64_t start = base_clock_monotonic_ns() + 10 * NSEC_PER_MSEC;
	int r = 0;

	for (uint64_t i = 0; r >= 0 && i < count; i++) {
		uint64_t due = start + bench_arrivals_next(&arrivals), called, end;
		struct warmbox_lease lease;

		r = release_pending(bench, &pending, due);
		if (r < 0) {
			break;
		}
		wait_until(due);
		called = base_clock_monotonic_ns();
		r = bench_claim(&bench->daemon, 0, &lease, NULL);
		end = base_clock_monotonic_ns();
		if (r == 0) {
			base_histogram_add(&figures->scheduled, end - due);
			base_histogram_add(&figures->called, end - called);
			memcpy(pending.ids[pending.n++], lease.id, sizeof(lease.id));
		} else if (r > 0) {
			figures->missed++;
		}
		if (i % 512 == 0) {
			fprintf(stderr, "\ropen loop: %" PRIu64 " of %" PRIu64 " ", i, count);
		}
	}
	fprintf(stderr, "\n");
	while (r >= 0 && pending.n > 0) {
		r = bench_release(&bench->daemon, pending.ids[--pending.n]);
	}
	return r;
}

static int run_open(struct bench *bench, double rate, uint64_t count)
{
	_cleanup_free_ struct open_figures *figures = calloc(1, sizeof(*figures));
	int r = figures ? bench_pool_wait(&bench->daemon, BATCH) : -ENOMEM;

	r = r < 0 ? r : open_loop(bench, figures, rate, count);
	if (r < 0) {
		return r;
	}
	bench_report_series(bench->report, "open loop, from the scheduled time", BENCH_STOP_CLAIM,
			    &figures->scheduled, figures->missed);
	bench_report_series(bench->report, "open loop, from the call", BENCH_STOP_CLAIM,
			    &figures->called, figures->missed);
	bench_report_value(bench->report, "open loop: arrivals", BENCH_PER_S, rate);
	bench_report_value(bench->report, "open loop: missed", BENCH_COUNT,
			   (double)figures->missed);
	return 0;
}

/* --- all of it --- */

static int run_placements(struct bench *bench, uint64_t count, uint64_t *ret_elapsed_ns)
{
	int cores[2];
	size_t n = bench_cores(cores, ARRAY_SIZE(cores));
	uint64_t unused;
	int r;

	if (!bench->pin || n == 0) {
		bench_report_note(bench->report,
				  "Placement: left to the scheduler (the daemon is not ours).");
		return run_closed(bench, "any core", false, count, ret_elapsed_ns);
	}
	bench_report_note(
		bench->report,
		"Placement: on \"one core\", client, daemon and echo server are bound to "
		"core %d; on \"two cores\" the client has core %d, daemon and echo server "
		"core %d. VMMs, and what starts them, may use all cores.",
		cores[0], cores[0], cores[n - 1]);
	r = place(bench, cores[0], cores[0]);
	r = r ?: run_closed(bench, "one core", false, count, ret_elapsed_ns);
	if (r == 0 && n > 1) {
		r = place(bench, cores[0], cores[1]);
		r = r
			    ?: run_closed(bench, "two cores", false,
					  MAX(count / OTHERS_PART, UINT64_C(1)), &unused);
		r = r ?: place(bench, cores[0], cores[0]);
	}
	return r;
}

static int run(struct bench *bench, const struct bench_options *options)
{
	uint64_t count = options->count ?: options->quick ? QUICK_COUNT : COUNT;
	uint64_t elapsed_ns = 0, unused;
	double rate;
	int r = bench_pool_fill(&bench->daemon, BATCH);

	r = r ?: run_placements(bench, count, &elapsed_ns);
	if (r < 0) {
		return r;
	}
	/* In the closed loop nearly all of the time is spent waiting for the pool to be full. */
	rate = OPEN_LOAD * (double)count / ((double)elapsed_ns / 1e9);
	r = run_closed(bench, "", true, MAX(count / STREAM_PART, UINT64_C(1)), &unused);
	r = r ?: run_open(bench, rate, count);
	if (r < 0) {
		return r;
	}
	bench_report_note(bench->report,
			  "A pool of %d. Closed loop: batches of %d from a full pool, while the "
			  "claims before in the batch are being replaced. \"Failed\" are misses: "
			  "nothing was parked, the claim was refused at once, and it is in no "
			  "figure.",
			  BATCH, BATCH);
	bench_report_note(bench->report,
			  "\"First vCPU entry\" and \"inside the daemon\" (received to answer "
			  "handed to the socket) are taken by the daemon, from when it had the "
			  "request.");
	return 0;
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct bench bench = { 0 };
	int r;

	if (bench_options_parse(argc, argv, "claim",
				BENCH_OPTION_DAEMON | BENCH_OPTION_COUNT | BENCH_OPTION_PIN,
				&options) < 0) {
		return 2;
	}
	bench.pin = options.pin;
	bench.report =
		bench_report_new("claim", "How long does a client wait for a parked sandbox?");
	prctl(PR_SET_TIMERSLACK, 1000);
	r = bench_daemon_open(&bench.daemon, &options);
	r = r ?: echo_start(&bench.echo, options.template_name);
	r = r ?: run(&bench, &options);
	echo_stop(&bench.echo);
	bench_daemon_close(&bench.daemon);
	return r < 0 ? EXIT_FAILURE : bench_report_print(bench.report);
}
