/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How many sandboxes a second can be restored, made unique and parked?
 *
 * The pool is emptied, then told to keep N, and the time until N are parked is taken: with the
 * daemon and everything below it bound to one core, and to two. Processor time is taken from /proc
 * for the manager, its helpers and the VMMs apart, user and system, and with it what bounds the
 * rate. This program polls the pool a few hundred times a second, on the last core.
 *
 * One thread. Restores that fail are counted.
 */

#include "base/clock.h"
#include "bench/daemon.h"
#include "bench/proc.h"
#include "bench/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COUNT	      500
#define QUICK_COUNT   16
#define ROUNDS	      3
#define BUSY_PERCENT  90 /* of the cores: more, and they are what bounds it */
#define RATE_AT_LEAST 300

struct round {
	uint64_t ns, failed;
	uint64_t user_ns[BENCH_ROLES], system_ns[BENCH_ROLES];
};

static int run_round(struct bench_daemon *daemon, uint64_t count, struct round *ret_round)
{
	struct bench_usage before[BENCH_ROLES], after[BENCH_ROLES];
	struct bench_pool first, last;
	struct round round = { 0 };
	int r = bench_pool_fill(daemon, 0);

	r = r ?: bench_pool_get(daemon, &first);
	if (r < 0) {
		return r;
	}
	bench_proc_usage(daemon->pid, 0, before);
	round.ns = base_clock_monotonic_ns();
	r = bench_pool_fill(daemon, count);
	round.ns = base_clock_monotonic_ns() - round.ns;
	bench_proc_usage(daemon->pid, 0, after);
	r = r ?: bench_pool_get(daemon, &last);
	if (r < 0) {
		return r;
	}
	round.failed = last.failed_total - first.failed_total;
	for (int i = 0; i < BENCH_ROLES; i++) {
		round.user_ns[i] = after[i].user_ns - MIN(before[i].user_ns, after[i].user_ns);
		round.system_ns[i] =
			after[i].system_ns - MIN(before[i].system_ns, after[i].system_ns);
	}
	*ret_round = round;
	return 0;
}

static double busy_percent(const struct round *round, size_t n_cores)
{
	uint64_t busy = 0;

	for (int i = 0; i < BENCH_ROLES; i++) {
		busy += round->user_ns[i] + round->system_ns[i];
	}
	return 100.0 * (double)busy / ((double)round->ns * (double)n_cores);
}

static enum bench_role busiest(const struct round *round, bool *ret_system)
{
	enum bench_role role = 0;
	uint64_t most = 0;

	for (int i = 0; i < BENCH_ROLES; i++) {
		if (MAX(round->user_ns[i], round->system_ns[i]) > most) {
			most = MAX(round->user_ns[i], round->system_ns[i]);
			*ret_system = round->system_ns[i] > round->user_ns[i];
			role = i;
		}
	}
	return role;
}

static void report_round(struct bench_report *report, const struct round *round, uint64_t count,
			 const char *where, size_t n_cores)
{
	const char *names[2 * BENCH_ROLES];
	double values[2 * BENCH_ROLES];
	char text[2 * BENCH_ROLES][64], name[128];
	double rate = (double)count / ((double)round->ns / 1e9);
	double busy = busy_percent(round, n_cores);
	bool system = false;
	size_t n = 0;

	snprintf(name, sizeof(name), "restored and parked, on %s", where);
	bench_report_value(report, name, BENCH_PER_S, rate);
	snprintf(name, sizeof(name), "per core, on %s", where);
	bench_report_value(report, name, BENCH_PER_S, rate / (double)n_cores);
	snprintf(name, sizeof(name), "restores that failed, on %s", where);
	bench_report_value(report, name, BENCH_COUNT, (double)round->failed);
	for (int i = 0; i < BENCH_ROLES; i++) {
		for (int side = 0; side < 2; side++) {
			uint64_t ns = side ? round->system_ns[i] : round->user_ns[i];

			if (ns > 0) {
				snprintf(text[n], sizeof(text[n]), "%s %s", bench_role_name(i),
					 side ? "system" : "user");
				names[n] = text[n];
				values[n++] = (double)ns / (double)count;
			}
		}
	}
	snprintf(name, sizeof(name), "processor time for one sandbox, on %s", where);
	bench_report_phases(report, name, n, names, values);
	snprintf(name, sizeof(name), "cores busy with it, on %s", where);
	bench_report_value(report, name, BENCH_PERCENT, busy);

	enum bench_role role = busiest(round, &system);

	snprintf(name, sizeof(name), "bound by, on %s", where);
	bench_report_text(report, name, "%s: %s, %s",
			  busy >= BUSY_PERCENT ? "processor" : "waiting", bench_role_name(role),
			  system ? "mostly in the kernel" : "mostly in user space");
}

/* The median round by time. */
static int run_rounds(struct bench_daemon *daemon, uint64_t count, uint64_t rounds,
		      struct round *ret_round)
{
	struct round all[ROUNDS];
	int r = 0;

	for (uint64_t i = 0; r == 0 && i < rounds; i++) {
		fprintf(stderr, "\rround %" PRIu64 " of %" PRIu64 " ", i + 1, rounds);
		r = run_round(daemon, count, &all[i]);
		for (uint64_t j = i; r == 0 && j > 0 && all[j - 1].ns > all[j].ns; j--) {
			struct round swap = all[j];

			all[j] = all[j - 1];
			all[j - 1] = swap;
		}
	}
	fprintf(stderr, "\n");
	if (r == 0) {
		*ret_round = all[rounds / 2];
	}
	return r;
}

static int run_on(struct bench_daemon *daemon, struct bench_report *report, const int *cores,
		  size_t n_cores, uint64_t count, uint64_t rounds)
{
	const char *where = n_cores == 1 ? "one core" : "two cores";
	struct round round = { 0 };
	cpu_set_t set;
	int r;

	CPU_ZERO(&set);
	for (size_t i = 0; i < n_cores; i++) {
		CPU_SET(cores[i], &set);
	}
	r = bench_pin_tree(daemon->pid, &set);
	if (r < 0) {
		fprintf(stderr, "cannot bind the daemon to %s: %s\n", where, strerror(-r));
		return r;
	}
	r = run_rounds(daemon, count, rounds, &round);
	if (r < 0) {
		return r;
	}
	report_round(report, &round, count, where, n_cores);
	if (n_cores == 1) {
		bench_report_target_at_least(report, "restored and parked, on one core",
					     BENCH_PER_S, (double)count / ((double)round.ns / 1e9),
					     RATE_AT_LEAST);
	}
	return 0;
}

static int run(struct bench_daemon *daemon, struct bench_report *report,
	       const struct bench_options *options)
{
	uint64_t count = options->count ?: options->quick ? QUICK_COUNT : COUNT;
	uint64_t rounds = options->quick ? 1 : ROUNDS;
	struct round round = { 0 };
	int cores[2];
	size_t n = bench_cores(cores, ARRAY_SIZE(cores));
	/* The image is loaded, and the helpers are started, before anything is taken. */
	int r = bench_pool_fill(daemon, 1);

	if (r == 0 && (!options->pin || n == 0)) {
		r = run_rounds(daemon, count, rounds, &round);
		report_round(report, &round, count, "all cores",
			     (size_t)sysconf(_SC_NPROCESSORS_ONLN));
	} else if (r == 0) {
		bench_pin(0, cores[n - 1]);
		r = run_on(daemon, report, cores, 1, count, rounds);
		if (r == 0 && n > 1) {
			r = run_on(daemon, report, cores, 2, count, rounds);
		}
	}
	bench_report_note(report,
			  "From an empty pool to %" PRIu64 " parked; the median of %" PRIu64
			  " rounds. Processor time is what /proc counted, in ticks of %ld ms.",
			  count, rounds, 1000 / sysconf(_SC_CLK_TCK));
	return r ?: bench_pool_fill(daemon, 0);
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct bench_daemon daemon = { 0 };
	struct bench_report *report;
	int r;

	if (bench_options_parse(argc, argv, "refill",
				BENCH_OPTION_DAEMON | BENCH_OPTION_COUNT | BENCH_OPTION_PIN,
				&options) < 0) {
		return 2;
	}
	report = bench_report_new(
		"refill", "How many sandboxes a second are restored, made unique and parked?");
	r = bench_daemon_open(&daemon, &options);
	r = r ?: run(&daemon, report, &options);
	bench_daemon_close(&daemon);
	return r < 0 ? EXIT_FAILURE : bench_report_print(report);
}
