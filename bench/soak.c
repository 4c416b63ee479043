/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Does anything grow or fail under a load that lasts?
 *
 * First the capacity: some clients claim and release as fast as they are served, for a few seconds.
 * Then claims arrive at random (Poisson) at --load percent of it, for --seconds. Each is timed from
 * when it was due, released as soon as it is answered, and counted as failed when it is refused.
 * Latency is reported for each of six windows (of a minute each, over longer times), and what the
 * daemon holds, memory and descriptors, before and after, both times at rest with a full pool.
 *
 * One thread: requests are started when they are due and answers are taken as they come.
 */

#include "base/clock.h"
#include "bench/arrivals.h"
#include "bench/daemon.h"
#include "bench/proc.h"
#include "bench/report.h"
#include "bench/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PARKED		 32
#define CLIENTS		 64
#define BUSY_CLIENTS	 16
#define CAPACITY_SECONDS 6 /* of which the second half counts: the first drains the pool */
#define SECONDS		 60
#define QUICK_SECONDS	 4
#define WINDOWS_MIN	 UINT64_C(6)
#define WINDOWS_MAX	 UINT64_C(240)
#define WAIT_MS		 10000
#define SETTLE_US	 1000000

struct soak {
	struct bench_daemon daemon;
	struct bench_wire *wire;
	/* Of each client: when its claim was due; 0 while it releases or is free. */
	uint64_t due[CLIENTS];
	size_t free[CLIENTS];
	size_t n_free;
	struct base_histogram *windows;
	size_t n_windows;
	uint64_t window_ns, start;
	uint64_t failed, claims;
};

/* --- capacity --- */

static int take_capacity(struct soak *soak, double *ret_per_s)
{
	uint64_t start = base_clock_monotonic_ns();
	uint64_t half = start + CAPACITY_SECONDS * NSEC_PER_SEC / 2;
	uint64_t end = start + CAPACITY_SECONDS * NSEC_PER_SEC;
	bool claiming[BUSY_CLIENTS] = { 0 };
	size_t under_way = 0;
	uint64_t served = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < BUSY_CLIENTS; i++, under_way++) {
		claiming[i] = true;
		r = bench_wire_acquire(soak->wire, i, soak->daemon.template_name, WAIT_MS);
	}
	while (r == 0 && under_way > 0) {
		struct bench_answer answer;
		size_t i;

		r = bench_wire_next(soak->wire, 2 * WAIT_MS * NSEC_PER_MSEC, &answer);
		if (r <= 0) {
			return r < 0 ? r : -ETIMEDOUT;
		}
		r = 0;
		i = answer.client;
		served +=
			claiming[i] && !answer.failed && answer.at_ns >= half && answer.at_ns < end;
		if (claiming[i] && !answer.failed) {
			claiming[i] = false;
			r = bench_wire_release(soak->wire, i, answer.lease.id);
		} else if (answer.at_ns < end) {
			claiming[i] = true;
			r = bench_wire_acquire(soak->wire, i, soak->daemon.template_name, WAIT_MS);
		} else {
			under_way--;
		}
	}
	*ret_per_s = (double)served / (CAPACITY_SECONDS / 2.0);
	return r;
}

/* --- the load --- */

static int take_answer(struct soak *soak, const struct bench_answer *answer)
{
	size_t i = answer->client;
	uint64_t due = soak->due[i];
	size_t window;

	if (due == 0) {
		/* Released. */
		soak->failed += answer->failed;
		soak->free[soak->n_free++] = i;
		return 0;
	}
	soak->due[i] = 0;
	if (answer->failed) {
		soak->failed++;
		soak->free[soak->n_free++] = i;
		return 0;
	}
	window = MIN((size_t)((due - soak->start) / soak->window_ns), soak->n_windows - 1);
	base_histogram_add(&soak->windows[window], answer->at_ns - due);
	return bench_wire_release(soak->wire, i, answer->lease.id);
}

static int start_claim(struct soak *soak, uint64_t due)
{
	size_t i = soak->free[--soak->n_free];

	soak->due[i] = due;
	soak->claims++;
	return bench_wire_acquire(soak->wire, i, soak->daemon.template_name, WAIT_MS);
}

static int take_answers(struct soak *soak, uint64_t until_ns)
{
	uint64_t now = base_clock_monotonic_ns();
	struct bench_answer answer;
	int r = bench_wire_next(soak->wire, until_ns > now ? until_ns - now : 0, &answer);

	return r <= 0 ? r : take_answer(soak, &answer);
}

static int run_load(struct soak *soak, double rate, uint64_t seconds)
{
	struct bench_arrivals arrivals = bench_arrivals(rate);
	uint64_t end, due;
	int r = 0;

	soak->n_free = 0;
	for (size_t i = 0; i < CLIENTS; i++) {
		soak->free[soak->n_free++] = i;
	}
	soak->start = base_clock_monotonic_ns();
	end = soak->start + seconds * NSEC_PER_SEC;
	due = soak->start + bench_arrivals_next(&arrivals);
	while (r == 0 && due < end) {
		/* All clients may be under way: then a claim starts late, and is timed from due
		 * all the same. */
		while (r == 0 && (soak->n_free == 0 || base_clock_monotonic_ns() < due)) {
			r = take_answers(soak, soak->n_free == 0 ? due + NSEC_PER_SEC : due);
		}
		r = r ?: start_claim(soak, due);
		due = soak->start + bench_arrivals_next(&arrivals);
	}
	while (r == 0 && soak->n_free < CLIENTS) {
		struct bench_answer answer;

		r = bench_wire_next(soak->wire, 2 * WAIT_MS * NSEC_PER_MSEC, &answer);
		if (r <= 0) {
			return r < 0 ? r : -ETIMEDOUT;
		}
		r = take_answer(soak, &answer);
	}
	return r;
}

/* --- before and after --- */

struct rest {
	struct bench_usage usage[BENCH_ROLES];
	uint64_t available;
	struct bench_pool pool;
};

static int look_at_rest(struct soak *soak, struct rest *ret_rest)
{
	int r = bench_pool_fill(&soak->daemon, PARKED);

	usleep(SETTLE_US);
	bench_proc_usage(soak->daemon.pid, 1, ret_rest->usage);
	ret_rest->available = bench_meminfo("MemAvailable");
	return r ?: bench_pool_get(&soak->daemon, &ret_rest->pool);
}

static void report_growth(struct bench_report *report, const struct rest *before,
			  const struct rest *after)
{
	double fds = 0, processes = 0;
	char name[128];

	for (int i = 0; i < BENCH_ROLES; i++) {
		const struct bench_usage *a = &before->usage[i], *b = &after->usage[i];

		if (a->processes == 0 && b->processes == 0) {
			continue;
		}
		snprintf(name, sizeof(name), "%s: RSS before", bench_role_name(i));
		bench_report_value(report, name, BENCH_BYTES, (double)a->rss_bytes);
		snprintf(name, sizeof(name), "%s: RSS after", bench_role_name(i));
		bench_report_value(report, name, BENCH_BYTES, (double)b->rss_bytes);
		fds += (double)b->fds - (double)a->fds;
		processes += (double)b->processes - (double)a->processes;
	}
	bench_report_value(report, "MemAvailable, lost", BENCH_BYTES,
			   (double)before->available - (double)after->available);
	bench_report_target_at_most(report, "descriptors gained, all processes, at rest",
				    BENCH_COUNT, fds, 0);
	bench_report_target_at_most(report, "processes gained, at rest", BENCH_COUNT, processes, 0);
}

static void report_windows(struct bench_report *report, struct soak *soak)
{
	const struct base_histogram *first = &soak->windows[0];
	const struct base_histogram *last = &soak->windows[soak->n_windows - 1];
	double growth;
	char name[64];

	for (size_t i = 1; i < soak->n_windows; i++) {
		base_histogram_merge(&soak->windows[soak->n_windows], &soak->windows[i]);
	}
	base_histogram_merge(&soak->windows[soak->n_windows], first);
	bench_report_series(report, "all of the time", BENCH_STOP_CLAIM,
			    &soak->windows[soak->n_windows], soak->failed);
	for (size_t i = 0; i < soak->n_windows; i++) {
		snprintf(name, sizeof(name), "seconds %.1f to %.1f",
			 (double)(i * soak->window_ns) / 1e9,
			 (double)((i + 1) * soak->window_ns) / 1e9);
		bench_report_series(report, name, BENCH_STOP_CLAIM, &soak->windows[i], 0);
	}
	growth = (double)base_histogram_percentile(last, 500000) /
		 (double)base_histogram_percentile(first, 500000);
	bench_report_value(report, "p50 of the last window against the first", BENCH_RATIO, growth);
}

static int run(struct soak *soak, struct bench_report *report, const struct bench_options *options)
{
	uint64_t seconds = options->seconds ?: options->quick ? QUICK_SECONDS : SECONDS;
	struct rest before, after;
	double capacity = 0, rate;
	int r = bench_pool_fill(&soak->daemon, PARKED);

	soak->n_windows = MIN(MAX(seconds / 60, WINDOWS_MIN), WINDOWS_MAX);
	soak->window_ns = seconds * NSEC_PER_SEC / soak->n_windows;
	soak->windows = calloc(soak->n_windows + 1, sizeof(*soak->windows));
	if (!soak->windows) {
		return -ENOMEM;
	}
	r = r ?: bench_wire_new(soak->daemon.socket, CLIENTS, &soak->wire);
	fprintf(stderr, "capacity\n");
	r = r ?: take_capacity(soak, &capacity);
	r = r ?: look_at_rest(soak, &before);
	if (r == 0 && capacity <= 0) {
		fprintf(stderr, "no claim was served while the capacity was taken\n");
		r = -EIO;
	}
	rate = capacity * options->load / 100;
	fprintf(stderr, "%.1f claims/s of %.1f for %" PRIu64 " s\n", rate, capacity, seconds);
	r = r ?: run_load(soak, rate, seconds);
	r = r ?: look_at_rest(soak, &after);
	if (r < 0) {
		return r;
	}
	bench_report_value(report, "capacity: claims served", BENCH_PER_S, capacity);
	bench_report_value(report, "load", BENCH_PER_S, rate);
	bench_report_value(report, "claims", BENCH_COUNT, (double)soak->claims);
	bench_report_value(report, "claims that found nothing parked, and waited", BENCH_COUNT,
			   (double)(after.pool.missed_total - before.pool.missed_total));
	report_windows(report, soak);
	bench_report_target_at_most(report, "claims and releases that failed", BENCH_COUNT,
				    (double)soak->failed, 0);
	report_growth(report, &before, &after);
	bench_report_note(
		report,
		"%u %% of the capacity, for %" PRIu64
		" s; a pool of %d; every claim is timed from when it was due and released "
		"at once. Before and after: at rest, with a full pool.",
		options->load, seconds, PARKED);
	return 0;
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct soak soak = { 0 };
	struct bench_report *report;
	int r;

	if (bench_options_parse(argc, argv, "soak",
				BENCH_OPTION_DAEMON | BENCH_OPTION_SECONDS | BENCH_OPTION_LOAD,
				&options) < 0) {
		return 2;
	}
	report = bench_report_new("soak", "Does anything fail or grow under a load that lasts?");
	prctl(PR_SET_TIMERSLACK, 1000);
	r = bench_daemon_open(&soak.daemon, &options);
	r = r ?: run(&soak, report, &options);
	bench_wire_free(soak.wire);
	bench_daemon_close(&soak.daemon);
	free(soak.windows);
	return r < 0 ? EXIT_FAILURE : bench_report_print(report);
}
