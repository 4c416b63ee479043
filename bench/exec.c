/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How long is it from asking for a sandbox to code that has run in it?
 *
 * Takes parked Linux sandboxes, one after the other, runs a new process in each (and with --eval
 * CODE, in others, gives CODE to the resident interpreter), and releases them. Every stop-line is
 * from the same start, the call of acquire, and each is a series of its own: host work (claim
 * returned, first vCPU entry) is not mixed with guest work (agent replied, first exec finished),
 * whose speed depends on the kind of host. It waits until the pool is full and idle before it
 * asks, so that no miss and no restore is mixed in.
 *
 * One thread. A sandbox that fails is counted as failed; what fails outside of it ends the program.
 */

#include "base/clock.h"
#include "bench/daemon.h"
#include "bench/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COUNT	      50
#define QUICK_COUNT   4
#define PARKED	      2
#define GUEST_WAIT_MS 60000

enum line { CLAIM, ENTRY, AGENT, DONE, LINES };

static const struct {
	const char *name;
	const char *stop_line;
} lines[LINES] = {
	[CLAIM] = { "claim returned (host)", BENCH_STOP_CLAIM },
	[ENTRY] = { "first vCPU entry (host)", BENCH_STOP_ENTRY },
	[AGENT] = { "agent replied (guest)", BENCH_STOP_AGENT },
	[DONE] = { "first exec finished (guest)", BENCH_STOP_EXEC },
};

struct mode {
	const char *name;
	const char *code; /* NULL: a new process */
	struct base_histogram lines[LINES];
	uint64_t failed;
	bool absent; /* the template has no resident process */
};

static int run_code(struct warmbox_agent *agent, const char *code, uint32_t *ret_id,
		    struct warmbox_error *error)
{
	int r = warmbox_agent_resident(agent, ret_id, error);

	r = r ?: warmbox_agent_stdin(agent, *ret_id, code, strlen(code), error);
	return r ?: warmbox_agent_stdin(agent, *ret_id, NULL, 0, error);
}

static int run_process(struct warmbox_agent *agent, uint32_t *ret_id, struct warmbox_error *error)
{
	static char *const argv[] = { (char *)"/bin/true", NULL };

	return warmbox_agent_exec(agent, &(struct warmbox_exec_params){ .argv = argv }, ret_id,
				  error);
}

/* Its failures are the sandbox's. */
static int use_sandbox(struct mode *mode, int stream, uint64_t start, uint64_t at[LINES],
		       struct warmbox_error *error)
{
	struct warmbox_stdio stdio = { .stdin_fd = -1 };
	struct warmbox_agent *agent = NULL;
	struct warmbox_exit ended = { 0 };
	uint32_t id;
	int r = warmbox_agent_new(stream, &agent, error);

	r = r ?: warmbox_agent_ping(agent, GUEST_WAIT_MS, NULL, error);
	if (r == 0) {
		at[AGENT] = base_clock_monotonic_ns() - start;
		r = mode->code ? run_code(agent, mode->code, &id, error)
			       : run_process(agent, &id, error);
	}
	r = r ?: warmbox_agent_run(agent, id, GUEST_WAIT_MS, &stdio, &ended, error);
	if (r == 0) {
		at[DONE] = base_clock_monotonic_ns() - start;
	}
	if (r == 0 && (ended.signaled || ended.code != 0)) {
		snprintf(error->text, sizeof(error->text), "ended with %s %d",
			 ended.signaled ? "signal" : "status",
			 ended.signaled ? ended.signal : ended.code);
		r = -EPROTO;
	}
	warmbox_agent_free(agent);
	return r;
}

static int measure(struct bench_daemon *daemon, struct mode *mode)
{
	struct warmbox_error error = { 0 };
	struct warmbox_lease lease;
	uint64_t at[LINES] = { 0 }, start;
	int stream = -1;
	int r = bench_pool_wait(daemon, PARKED);

	if (r < 0) {
		return r;
	}
	start = base_clock_monotonic_ns();
	r = bench_claim(daemon, 0, &lease, &stream);
	if (r != 0) {
		mode->failed += r > 0;
		return r;
	}
	at[CLAIM] = base_clock_monotonic_ns() - start;
	if (use_sandbox(mode, stream, start, at, &error) < 0) {
		mode->absent = mode->code && error.code == WARMBOX_NOT_FOUND;
		fprintf(stderr, "%s: sandbox %s: %s\n", mode->name, lease.id, error.text);
		mode->failed++;
		return bench_release(daemon, lease.id);
	}
	r = bench_get_entered(daemon, lease.id, &lease);
	if (r < 0) {
		return r;
	}
	at[ENTRY] = lease.timings.first_entry_ns;
	for (int i = 0; i < LINES; i++) {
		base_histogram_add(&mode->lines[i], at[i]);
	}
	return bench_release(daemon, lease.id);
}

static int run_mode(struct bench_daemon *daemon, struct bench_report *report, struct mode *mode,
		    uint64_t count)
{
	char name[128];
	int r = 0;

	for (uint64_t i = 0; r >= 0 && i < count && !mode->absent; i++) {
		fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 " ", mode->name, i, count);
		r = measure(daemon, mode);
	}
	fprintf(stderr, "\n");
	if (mode->absent) {
		bench_report_note(report, "The template has no resident process: not measured.");
	}
	for (int i = 0; r >= 0 && i < LINES && !mode->absent; i++) {
		snprintf(name, sizeof(name), "%s, %s", lines[i].name, mode->name);
		bench_report_series(report, name, lines[i].stop_line, &mode->lines[i],
				    mode->failed);
	}
	return r;
}

static int run(struct bench_daemon *daemon, struct bench_report *report,
	       const struct bench_options *options)
{
	uint64_t count = options->count ?: options->quick ? QUICK_COUNT : COUNT;
	struct mode *modes = calloc(2, sizeof(*modes));
	int r = modes ? bench_pool_fill(daemon, PARKED) : -ENOMEM;

	if (r == 0) {
		modes[0].name = "new process";
		modes[1].name = "resident interpreter";
		modes[1].code = options->code;
		r = run_mode(daemon, report, &modes[0], count);
	}
	if (r >= 0 && options->code) {
		r = run_mode(daemon, report, &modes[1], count);
	}
	free(modes);
	return r;
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct bench_daemon daemon = { 0 };
	struct bench_report *report;
	int r;

	if (bench_options_parse(argc, argv, "exec",
				BENCH_OPTION_DAEMON | BENCH_OPTION_COUNT | BENCH_OPTION_EVAL,
				&options) < 0) {
		return 2;
	}
	report = bench_report_new("exec",
				  "How long from asking for a sandbox to code that has run in it?");
	r = bench_daemon_open(&daemon, &options);
	r = r ?: run(&daemon, report, &options);
	bench_daemon_close(&daemon);
	bench_report_note(report,
			  "Every line is timed from the call of acquire, for the same sandboxes. "
			  "\"New process\" is /bin/true in a fresh sandbox%s%s%s.",
			  options.code ? "; \"resident interpreter\" evaluates " : "",
			  options.code ?: "", options.code ? " in the template's own process" : "");
	return r < 0 ? EXIT_FAILURE : bench_report_print(report);
}
