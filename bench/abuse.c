/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Does one sandbox that takes whatever it can get slow the others?
 *
 * Takes GOOD sandboxes and runs a new process in each of them, one after the other, again and
 * again; now and then it claims one more. First so, then beside a sandbox that burns CPU, memory,
 * disk, console, vsock and processes all at once, and both again, so that what else the machine
 * does falls on both. What counts is the ratio of the tails.
 *
 * A thread drains what the abuser writes: nobody slows it by not reading. It ends when the abuser
 * is released. A sandbox that fails is counted as failed; what fails outside of it ends the
 * program.
 */

#include "base/clock.h"
#include "bench/daemon.h"
#include "bench/report.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GOOD		20
#define PARKED		2
#define ROUNDS		5 /* through all of them, of each phase */
#define QUICK_ROUNDS	1
#define PHASES		4 /* quiet and not, in turn */
#define CLAIM_EVERY	5 /* runs */
#define GUEST_WAIT_MS	120000
#define WARM_UP_SECONDS 2
#define SLOWDOWN_MAX	2.0
#define P99		990000

/* Everything at once, for ever. What floods is the shell itself: on hosts where starting a process
 * takes a guest long, it would wait for that most of the time. */
static const char abuse_script[] =
	"exec 2>/dev/null\n"
	"x=abuse; for i in 1 2 3 4 5 6 7 8; do x=$x$x; done\n"
	"while :; do :; done &\n"
	"while :; do echo $x; done >/dev/console &\n"
	"while :; do dd if=/dev/zero of=/tmp/abuse bs=1M count=24; done &\n"
	"while :; do dd if=/dev/vda of=/dev/null bs=64k; echo 3 >/proc/sys/vm/drop_caches; done &\n"
	"while :; do (:) & (:) & (:) & (:) & wait; done &\n"
	"while :; do echo $x; done\n";

struct good {
	struct warmbox_lease lease;
	struct warmbox_agent *agent;
};

struct abuser {
	struct warmbox_lease lease;
	struct warmbox_agent *agent;
	uint32_t id;
	pthread_t thread;
	uint64_t bytes; /* that came out of it; the thread's until it is joined */
	uint64_t begin_ns, cpu_ns;
};

struct phase {
	const char *name;
	struct base_histogram exec, claim;
	uint64_t failed;
};

struct abuse {
	struct bench_daemon *daemon;
	struct good good[GOOD];
	struct phase phases[2]; /* quiet, and not */
	uint64_t abuser_bytes, abuser_cpu_ns, abuser_ns;
};

/* --- the abuser --- */

static int count_bytes(void *userdata, const void *data, size_t size)
{
	struct abuser *abuser = userdata;

	abuser->bytes += size;
	return 0;
}

/* Ends with the connection, when the lease does. */
static void *drain(void *userdata)
{
	struct abuser *abuser = userdata;
	struct warmbox_stdio stdio = { .userdata = abuser,
				       .on_stdout = count_bytes,
				       .stdin_fd = -1 };
	struct warmbox_exit ended;
	struct warmbox_error error;

	(void)warmbox_agent_run(abuser->agent, abuser->id, -1, &stdio, &ended, &error);
	return NULL;
}

/* Of all its threads; 0 when it cannot be asked. */
static uint64_t cpu_ns_of(pid_t pid)
{
	clockid_t clock;

	return clock_getcpuclockid(pid, &clock) == 0 ? base_clock_ns(clock) : 0;
}

static int abuser_start(struct bench_daemon *daemon, struct abuser *abuser)
{
	static char *const argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)abuse_script, NULL };
	struct warmbox_error error = { 0 };
	int stream = -1, r;

	memset(abuser, 0, sizeof(*abuser));
	r = bench_claim(daemon, BENCH_WAIT_MS, &abuser->lease, &stream);
	if (r != 0) {
		return r < 0 ? r : -ETIMEDOUT;
	}
	r = warmbox_agent_new(stream, &abuser->agent, &error);
	r = r
		    ?: warmbox_agent_exec(abuser->agent,
					  &(struct warmbox_exec_params){ .argv = argv },
					  &abuser->id, &error);
	if (r < 0) {
		return bench_complain("starting the abuser", r, &error);
	}
	abuser->begin_ns = base_clock_monotonic_ns();
	abuser->cpu_ns = cpu_ns_of((pid_t)abuser->lease.pid);
	return -pthread_create(&abuser->thread, NULL, drain, abuser);
}

static int abuser_end(struct abuse *abuse, struct abuser *abuser)
{
	int r;

	abuse->abuser_cpu_ns += cpu_ns_of((pid_t)abuser->lease.pid) - abuser->cpu_ns;
	abuse->abuser_ns += base_clock_monotonic_ns() - abuser->begin_ns;
	r = bench_release(abuse->daemon, abuser->lease.id);
	pthread_join(abuser->thread, NULL);
	abuse->abuser_bytes += abuser->bytes;
	warmbox_agent_free(abuser->agent);
	return r;
}

/* --- the others --- */

static int run_one(struct phase *phase, struct good *good)
{
	static char *const argv[] = { (char *)"/bin/true", NULL };
	struct warmbox_stdio stdio = { .stdin_fd = -1 };
	struct warmbox_error error = { 0 };
	struct warmbox_exit ended = { 0 };
	uint64_t start = base_clock_monotonic_ns();
	uint32_t id;
	int r = warmbox_agent_exec(good->agent, &(struct warmbox_exec_params){ .argv = argv }, &id,
				   &error);

	r = r ?: warmbox_agent_run(good->agent, id, GUEST_WAIT_MS, &stdio, &ended, &error);
	if (r < 0) {
		phase->failed++;
		return bench_complain(phase->name, r, &error);
	}
	base_histogram_add(&phase->exec, base_clock_monotonic_ns() - start);
	return 0;
}

static int claim_one(struct abuse *abuse, struct phase *phase)
{
	struct warmbox_lease lease;
	uint64_t start;
	int stream = -1, r = bench_pool_wait(abuse->daemon, PARKED);

	if (r < 0) {
		return r;
	}
	start = base_clock_monotonic_ns();
	r = bench_claim(abuse->daemon, 0, &lease, &stream);
	if (r != 0) {
		phase->failed += r > 0;
		return MIN(r, 0);
	}
	base_histogram_add(&phase->claim, base_clock_monotonic_ns() - start);
	close(stream);
	return bench_release(abuse->daemon, lease.id);
}

static int run_phase(struct abuse *abuse, struct phase *phase, uint64_t rounds)
{
	uint64_t n = rounds * GOOD;
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < n; i++) {
		fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " ", phase->name, i, n);
		r = run_one(phase, &abuse->good[i % GOOD]);
		if (r == 0 && i % CLAIM_EVERY == 0) {
			r = claim_one(abuse, phase);
		}
	}
	fprintf(stderr, "\n");
	return r;
}

static int run_phases(struct abuse *abuse, uint64_t rounds)
{
	struct abuser abuser;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < PHASES; i++) {
		bool quiet = i % 2 == 0;

		if (!quiet) {
			r = abuser_start(abuse->daemon, &abuser);
			if (r < 0) {
				return r;
			}
			sleep(WARM_UP_SECONDS);
		}
		r = run_phase(abuse, &abuse->phases[!quiet], rounds);
		if (!quiet) {
			int ended = abuser_end(abuse, &abuser);

			r = r ?: ended;
		}
	}
	return r;
}

static int take_good(struct abuse *abuse)
{
	struct warmbox_error error = { 0 };

	for (unsigned i = 0; i < GOOD; i++) {
		struct good *good = &abuse->good[i];
		int stream = -1, r;

		fprintf(stderr, "\rtaking sandboxes: %u of %u ", i, GOOD);
		r = bench_claim(abuse->daemon, BENCH_WAIT_MS, &good->lease, &stream);
		if (r != 0) {
			return r < 0 ? r : -ETIMEDOUT;
		}
		r = warmbox_agent_new(stream, &good->agent, &error);
		/* Its first run finds nothing in memory, in whatever phase that is. */
		r = r ?: warmbox_agent_ping(good->agent, GUEST_WAIT_MS, NULL, &error);
		if (r < 0) {
			return bench_complain("taking a sandbox", r, &error);
		}
		r = run_one(&abuse->phases[0], good);
		if (r < 0) {
			return r;
		}
	}
	fprintf(stderr, "\n");
	memset(&abuse->phases[0].exec, 0, sizeof(abuse->phases[0].exec));
	return 0;
}

static void give_good_back(struct abuse *abuse)
{
	for (unsigned i = 0; i < GOOD; i++) {
		if (abuse->good[i].lease.id[0]) {
			warmbox_agent_free(abuse->good[i].agent);
			(void)bench_release(abuse->daemon, abuse->good[i].lease.id);
		}
	}
}

/* --- the report --- */

static double p99_ratio(const struct base_histogram *quiet, const struct base_histogram *beside)
{
	return (double)base_histogram_percentile(beside, P99) /
	       (double)MAX(base_histogram_percentile(quiet, P99), UINT64_C(1));
}

static void report_all(struct bench_report *report, const struct abuse *abuse)
{
	const struct phase *quiet = &abuse->phases[0], *beside = &abuse->phases[1];
	double seconds = (double)MAX(abuse->abuser_ns, UINT64_C(1)) / NSEC_PER_SEC;
	char name[64];

	for (size_t i = 0; i < ARRAY_SIZE(abuse->phases); i++) {
		snprintf(name, sizeof(name), "exec, %s", abuse->phases[i].name);
		bench_report_series(report, name, NULL, &abuse->phases[i].exec,
				    abuse->phases[i].failed);
		snprintf(name, sizeof(name), "claim, %s", abuse->phases[i].name);
		bench_report_series(report, name, BENCH_STOP_CLAIM, &abuse->phases[i].claim, 0);
	}
	bench_report_target_at_most(report, "p99 of exec beside the abuser, over quiet",
				    BENCH_RATIO, p99_ratio(&quiet->exec, &beside->exec),
				    SLOWDOWN_MAX);
	bench_report_target_at_most(report, "p99 of claim beside the abuser, over quiet",
				    BENCH_RATIO, p99_ratio(&quiet->claim, &beside->claim),
				    SLOWDOWN_MAX);
	bench_report_value(report, "CPU that the abuser's VMM took", BENCH_PERCENT,
			   100.0 * (double)abuse->abuser_cpu_ns / (seconds * NSEC_PER_SEC));
	bench_report_value(report, "bytes a second that came out of it", BENCH_PER_S,
			   (double)abuse->abuser_bytes / seconds);
	bench_report_note(
		report,
		"%d sandboxes run /bin/true in turn, one at a time; every %d runs one more "
		"is claimed. Quiet and not in turn, %d phases.",
		GOOD, CLAIM_EVERY, PHASES);
}

static int run(struct bench_daemon *daemon, struct bench_report *report,
	       const struct bench_options *options)
{
	struct abuse *abuse = calloc(1, sizeof(*abuse));
	int r = abuse ? bench_pool_fill(daemon, PARKED) : -ENOMEM;

	if (r == 0) {
		abuse->daemon = daemon;
		abuse->phases[0].name = "quiet";
		abuse->phases[1].name = "beside the abuser";
		r = take_good(abuse);
		r = r
			    ?: run_phases(abuse, options->count	  ? options->count
						 : options->quick ? QUICK_ROUNDS
								  : ROUNDS);
		give_good_back(abuse);
	}
	if (r == 0) {
		report_all(report, abuse);
	}
	free(abuse);
	return r;
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct bench_daemon daemon = { 0 };
	struct bench_report *report;
	int r;

	if (bench_options_parse(argc, argv, "abuse", BENCH_OPTION_DAEMON | BENCH_OPTION_COUNT,
				&options) < 0) {
		return 2;
	}
	report = bench_report_new("abuse", "Does a sandbox that takes all it can slow the others?");
	r = bench_daemon_open(&daemon, &options);
	r = r ?: run(&daemon, report, &options);
	bench_daemon_close(&daemon);
	return r < 0 ? EXIT_FAILURE : bench_report_print(report);
}
