/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What happens when many ask at once, and more than are parked?
 *
 * For N = 1, 2, 4 … 256: a pool of 32 is full and idle; N clients, each with a connection of its
 * own, send their acquire in one go and wait. Each claim is timed from the start of the burst, not
 * from its own send. Reported are the latencies, in which order the clients were served, and how
 * long after the last answer the pool is full again. Then all disconnect, which ends their leases.
 *
 * One thread. A claim that is refused is counted as failed.
 */

#include "base/clock.h"
#include "bench/daemon.h"
#include "bench/report.h"
#include "bench/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PARKED	       32
#define CLIENTS_MAX    256
#define REPEATS	       5
#define QUICK_CLIENTS  64
#define TARGET_CLIENTS 64 /* of which all must be served */
#define WAIT_MS	       120000

struct burst {
	struct base_histogram latency;
	uint64_t failed;
	uint64_t served_ns;  /* start → last answer; the worst */
	uint64_t recover_ns; /* last answer → full again; the worst */
	size_t overtaken;    /* the most that came later and were served before one; the worst */
};

/* The most clients that sent later than one and were served before it. */
static size_t most_overtaken(const size_t *order, size_t n)
{
	size_t most = 0;

	for (size_t i = 0; i < n; i++) {
		size_t before = 0;

		for (size_t j = 0; j < i; j++) {
			before += order[j] > order[i];
		}
		most = MAX(most, before);
	}
	return most;
}

static int collect(struct bench_wire *wire, struct burst *burst, uint64_t start, size_t n,
		   uint64_t *ret_last)
{
	size_t order[CLIENTS_MAX];
	size_t served = 0;

	*ret_last = start;
	for (size_t answered = 0; answered < n; answered++) {
		struct bench_answer answer;
		int r = bench_wire_next(wire, WAIT_MS * NSEC_PER_MSEC, &answer);

		if (r < 0) {
			return r;
		}
		if (r == 0) {
			burst->failed += n - answered;
			break;
		}
		if (answer.failed) {
			fprintf(stderr, "client %zu: %s\n", answer.client, answer.code);
			burst->failed++;
			continue;
		}
		base_histogram_add(&burst->latency, answer.at_ns - start);
		order[served++] = answer.client;
		*ret_last = answer.at_ns;
	}
	burst->served_ns = MAX(burst->served_ns, *ret_last - start);
	burst->overtaken = MAX(burst->overtaken, most_overtaken(order, served));
	return 0;
}

static int run_once(struct bench_daemon *daemon, struct burst *burst, size_t n)
{
	struct bench_wire *wire = NULL;
	uint64_t start, last = 0;
	int r = bench_pool_wait(daemon, PARKED);

	r = r ?: bench_wire_new(daemon->socket, n, &wire);
	if (r < 0) {
		return r;
	}
	start = base_clock_monotonic_ns();
	for (size_t i = 0; r == 0 && i < n; i++) {
		r = bench_wire_acquire(wire, i, daemon->template_name, WAIT_MS);
	}
	r = r ?: collect(wire, burst, start, n, &last);
	r = r ?: bench_pool_wait(daemon, PARKED);
	if (r == 0) {
		burst->recover_ns = MAX(burst->recover_ns, base_clock_monotonic_ns() - last);
	}
	bench_wire_free(wire);
	return r;
}

static void report_burst(struct bench_report *report, const struct burst *burst, size_t n)
{
	char name[64];

	snprintf(name, sizeof(name), "%zu at once", n);
	bench_report_series(report, name, BENCH_STOP_CLAIM, &burst->latency, burst->failed);
	snprintf(name, sizeof(name), "%zu at once: all served after", n);
	bench_report_value(report, name, BENCH_NS, (double)burst->served_ns);
	snprintf(name, sizeof(name), "%zu at once: pool full again, after the last answer", n);
	bench_report_value(report, name, BENCH_NS, (double)burst->recover_ns);
	snprintf(name, sizeof(name), "%zu at once: served before one that had asked earlier", n);
	bench_report_value(report, name, BENCH_COUNT, (double)burst->overtaken);
	if (n == TARGET_CLIENTS) {
		bench_report_target_at_most(report, "64 claims on 32 parked: not served",
					    BENCH_COUNT, (double)burst->failed, 0);
	}
}

static int run(struct bench_daemon *daemon, struct bench_report *report,
	       const struct bench_options *options)
{
	size_t most = options->quick ? QUICK_CLIENTS : CLIENTS_MAX;
	uint64_t repeats = options->count ?: options->quick ? 1 : REPEATS;
	_cleanup_free_ struct burst *burst = calloc(1, sizeof(*burst));
	int r = burst ? bench_pool_fill(daemon, PARKED) : -ENOMEM;

	for (size_t n = 1; r == 0 && n <= most; n *= 2) {
		memset(burst, 0, sizeof(*burst));
		fprintf(stderr, "\r%zu at once ", n);
		for (uint64_t i = 0; r == 0 && i < repeats; i++) {
			r = run_once(daemon, burst, n);
		}
		report_burst(report, burst, n);
	}
	fprintf(stderr, "\n");
	bench_report_note(report,
			  "A pool of %d, full and idle before each burst; %" PRIu64
			  " bursts of each size. Timed from the start of the burst. Single values "
			  "are the worst of the bursts.",
			  PARKED, repeats);
	return r;
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct bench_daemon daemon = { 0 };
	struct bench_report *report;
	int r;

	if (bench_options_parse(argc, argv, "burst", BENCH_OPTION_DAEMON | BENCH_OPTION_COUNT,
				&options) < 0) {
		return 2;
	}
	report = bench_report_new("burst", "What if many ask at once, and more than are parked?");
	r = bench_daemon_open(&daemon, &options);
	r = r ?: run(&daemon, report, &options);
	bench_daemon_close(&daemon);
	return r < 0 ? EXIT_FAILURE : bench_report_print(report);
}
