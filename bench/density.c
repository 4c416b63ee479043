/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What does a parked sandbox cost, when there are very many?
 *
 * The image is loaded and the pool emptied; then N are parked, and what that took of the machine is
 * read from /proc/meminfo and from the VMMs' own accounts. Then every one of them is claimed and
 * has to answer with a value of its own: a Linux guest by an exec, the tiny guest (--echo) by
 * echoing it. A sandbox that does not is counted as failed.
 *
 * The target follows the claims down, so that the pool does not replace what is claimed. One thread
 * for each core claims and asks; the main thread does all else.
 */

#include "base/clock.h"
#include "bench/cgroup.h"
#include "bench/daemon.h"
#include "bench/proc.h"
#include "bench/report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT_LINUX	 1000
#define COUNT_ECHO	 5000
#define QUICK_COUNT	 10
#define COUNT_MAX	 10000
#define ROOM_LINUX_BYTES MIB(4) /* what one may cost, so that the machine is not filled up */
#define ROOM_ECHO_BYTES	 MIB(2)
#define DRIFT_MOST	 0.1 /* of what was parked; more, and MemAvailable says nothing */
#define SETTLE_US	 1500000
#define SAMPLES		 32
#define WORKERS_MAX	 16
#define GUEST_WAIT_MS	 60000
#define CLAIM_WAIT_MS	 10000
#define SANDBOX_MOST	 ((double)MIB(1) * 2.5)
#define NOT_GUEST_MOST	 ((double)MIB(1))

static const char *const fields[] = { "PageTables", "SecPageTables", "Slab",
				      "SUnreclaim", "KernelStack",   "Percpu" };

struct memory {
	uint64_t available;
	uint64_t charged; /* to the cgroup; 0: there is none */
	uint64_t fields[ARRAY_SIZE(fields)];
	struct bench_usage usage[BENCH_ROLES];
};

static void read_memory(const struct bench_daemon *daemon, const struct bench_cgroup *cgroup,
			struct memory *ret_memory)
{
	/* What has just ended is still being freed. */
	usleep(SETTLE_US);
	ret_memory->available = bench_meminfo("MemAvailable");
	ret_memory->charged = bench_cgroup_bytes(cgroup);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		ret_memory->fields[i] = bench_meminfo(fields[i]);
	}
	bench_proc_usage(daemon->pid, 1, ret_memory->usage);
}

/* --- the mean of guest pages, over some VMMs --- */

struct sample {
	uint64_t bytes, n;
};

static void add_sample(void *userdata, pid_t pid)
{
	struct sample *sample = userdata;
	uint64_t bytes = sample->n < SAMPLES ? bench_proc_guest_private(pid) : 0;

	if (bytes > 0) {
		sample->bytes += bytes;
		sample->n++;
	}
}

/* --- every one answers --- */

struct ask {
	const struct bench_options *options;
	uint64_t count;
	pthread_mutex_t lock; /* of what follows, and of claiming */
	uint64_t claimed;
	uint64_t wrong;
	struct base_histogram latency;
	int result;
};

/* Claims one and lowers the target by one, as one step. 1: all are claimed. */
static int claim_next(struct ask *ask, struct bench_daemon *daemon, struct warmbox_lease *lease,
		      int *ret_stream, uint64_t *ret_value)
{
	int r = 1;

	pthread_mutex_lock(&ask->lock);
	if (ask->claimed < ask->count && ask->result == 0) {
		*ret_value = ask->claimed++;
		r = bench_claim(daemon, CLAIM_WAIT_MS, lease, ret_stream);
		if (r == 1) {
			r = -ETIMEDOUT;
		}
		r = r ?: bench_pool_set(daemon, ask->count - ask->claimed);
		ask->result = MIN(r, 0);
		if (ask->claimed % 50 == 0) {
			fprintf(stderr, "\rasked: %" PRIu64 " of %" PRIu64 " ", ask->claimed,
				ask->count);
		}
	}
	pthread_mutex_unlock(&ask->lock);
	return r;
}

static bool answers_echo(int stream, const char *value)
{
	struct timeval timeout = { .tv_sec = GUEST_WAIT_MS / 1000 };
	size_t length = strlen(value), got = 0;
	char answer[64];
	ssize_t n;

	setsockopt(stream, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	if (send(stream, value, length, MSG_NOSIGNAL) == (ssize_t)length) {
		while (got < length &&
		       (n = recv(stream, answer + got, sizeof(answer) - got, 0)) > 0) {
			got += (size_t)n;
		}
	}
	close(stream);
	return got == length && memcmp(answer, value, length) == 0;
}

struct output {
	char text[64];
	size_t size;
};

static int on_stdout(void *userdata, const void *data, size_t size)
{
	struct output *output = userdata;

	if (size > sizeof(output->text) - output->size) {
		return -EMSGSIZE;
	}
	memcpy(output->text + output->size, data, size);
	output->size += size;
	return 0;
}

static bool answers_exec(int stream, const char *value)
{
	char *const argv[] = { (char *)"/bin/echo", (char *)value, NULL };
	struct output output = { .size = 0 };
	struct warmbox_stdio stdio = { .userdata = &output,
				       .on_stdout = on_stdout,
				       .stdin_fd = -1 };
	struct warmbox_exit ended = { 0 };
	struct warmbox_error error = { 0 };
	struct warmbox_agent *agent = NULL;
	uint32_t id;
	int r = warmbox_agent_new(stream, &agent, &error);

	r = r
		    ?: warmbox_agent_exec(agent, &(struct warmbox_exec_params){ .argv = argv }, &id,
					  &error);
	r = r ?: warmbox_agent_run(agent, id, GUEST_WAIT_MS, &stdio, &ended, &error);
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", value, error.text);
	}
	warmbox_agent_free(agent);
	return r == 0 && !ended.signaled && ended.code == 0 && output.size == strlen(value) + 1 &&
	       memcmp(output.text, value, strlen(value)) == 0;
}

static void *ask_all(void *userdata)
{
	struct ask *ask = userdata;
	struct bench_daemon daemon;
	int r = bench_daemon_open(&daemon, ask->options);

	/* The main thread gives the limits back. */
	daemon.had_pool = false;
	while (r == 0) {
		struct warmbox_lease lease;
		uint64_t number, start = base_clock_monotonic_ns();
		char value[32];
		int stream = -1;
		bool right;

		r = claim_next(ask, &daemon, &lease, &stream, &number);
		if (r != 0) {
			break;
		}
		snprintf(value, sizeof(value), "sandbox-%" PRIu64, number);
		right = ask->options->echo ? answers_echo(stream, value)
					   : answers_exec(stream, value);
		r = bench_release(&daemon, lease.id);
		pthread_mutex_lock(&ask->lock);
		ask->wrong += !right;
		if (right) {
			base_histogram_add(&ask->latency, base_clock_monotonic_ns() - start);
		}
		pthread_mutex_unlock(&ask->lock);
	}
	if (r < 0) {
		pthread_mutex_lock(&ask->lock);
		ask->result = r;
		pthread_mutex_unlock(&ask->lock);
	}
	bench_daemon_close(&daemon);
	return NULL;
}

static int run_ask(struct ask *ask)
{
	size_t n = (size_t)MIN(MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L), (long)WORKERS_MAX);
	pthread_t threads[WORKERS_MAX];
	size_t started = 0;

	while (started < n && pthread_create(&threads[started], NULL, ask_all, ask) == 0) {
		started++;
	}
	for (size_t i = 0; i < started; i++) {
		pthread_join(threads[i], NULL);
	}
	fprintf(stderr, "\n");
	return started > 0 ? ask->result : -EAGAIN;
}

/* --- the account --- */

static void report_each(struct bench_report *report, const char *what, uint64_t after,
			uint64_t before, uint64_t count)
{
	char name[128];

	snprintf(name, sizeof(name), "for each sandbox: %s", what);
	bench_report_value(report, name, BENCH_BYTES,
			   ((double)after - (double)before) / (double)count);
}

/* What MemAvailable says of each, if what others do meanwhile does not drown it. */
static double available_each(struct bench_report *report, const struct memory *before,
			     const struct memory *after, uint64_t drift, uint64_t count)
{
	double lost = (double)before->available - (double)after->available;

	if (lost > 0 && (double)drift <= lost * DRIFT_MOST) {
		return lost / (double)count;
	}
	bench_report_note(report,
			  "No figure by MemAvailable: it moved by %.1f MiB while nothing was done "
			  "here, and by %.1f MiB while the sandboxes were parked. Others use this "
			  "machine.",
			  (double)drift / (double)MIB(1), lost / (double)MIB(1));
	return NAN;
}

static void report_memory(struct bench_report *report, const struct bench_options *options,
			  const struct memory *before, const struct memory *after, uint64_t drift,
			  const struct sample *guest, uint64_t count)
{
	const struct bench_usage *vmms = &after->usage[BENCH_ROLE_VMM];
	double each = available_each(report, before, after, drift, count);
	double pages = guest->n > 0 ? (double)guest->bytes / (double)guest->n : 0;
	double charged = ((double)after->charged - (double)before->charged) / (double)count;

	bench_report_value(report, "for each sandbox: everything (MemAvailable)", BENCH_BYTES,
			   each);
	bench_report_value(report, "for each sandbox: guest pages of its own", BENCH_BYTES, pages);
	bench_report_value(report, "for each sandbox: not guest pages", BENCH_BYTES, each - pages);
	if (after->charged > 0) {
		bench_report_value(report, "for each sandbox: charged to its memory cgroup",
				   BENCH_BYTES, charged);
		bench_report_value(report, "for each sandbox: of that not guest pages", BENCH_BYTES,
				   charged - pages);
	}
	report_each(report, "VMM, PSS", vmms->pss_bytes, 0, count);
	report_each(report, "VMM, private pages", vmms->private_bytes, 0, count);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		report_each(report, fields[i], after->fields[i], before->fields[i], count);
	}
	report_each(report, "manager, RSS", after->usage[BENCH_ROLE_MANAGER].rss_bytes,
		    before->usage[BENCH_ROLE_MANAGER].rss_bytes, count);
	bench_report_value(report, "VMM processes", BENCH_COUNT, (double)vmms->processes);
	bench_report_value(report, "threads of a VMM", BENCH_COUNT,
			   (double)vmms->threads / (double)MAX(vmms->processes, (size_t)1));
	bench_report_value(report, "descriptors of a VMM", BENCH_COUNT,
			   (double)vmms->fds / (double)MAX(vmms->processes, (size_t)1));
	if (!options->echo) {
		bench_report_target_at_most(report, "memory of a parked sandbox, by MemAvailable",
					    BENCH_BYTES, each, SANDBOX_MOST);
		bench_report_target_at_most(report, "of it not guest pages", BENCH_BYTES,
					    each - pages, NOT_GUEST_MOST);
	}
}

static uint64_t choose_count(struct bench_report *report, const struct bench_options *options)
{
	uint64_t room = bench_meminfo("MemAvailable") /
			(options->echo ? ROOM_ECHO_BYTES : ROOM_LINUX_BYTES);
	uint64_t count = options->echo ? COUNT_ECHO : COUNT_LINUX;

	if (options->count || options->quick) {
		return MIN(options->count ?: QUICK_COUNT, (uint64_t)COUNT_MAX);
	}
	if (room < count) {
		bench_report_note(report,
				  "%" PRIu64 " instead of %" PRIu64
				  ": the machine has no room for more.",
				  MAX(room, UINT64_C(1)), count);
	}
	return MAX(MIN(room, count), UINT64_C(1));
}

static int park(struct bench_daemon *daemon, const struct bench_cgroup *cgroup, uint64_t count,
		struct memory *before, struct memory *after, uint64_t *ret_drift, uint64_t *ret_ns)
{
	uint64_t start, available;
	/* Loads the image, and leaves it loaded. */
	int r = bench_pool_fill(daemon, 1);

	r = r ?: bench_pool_fill(daemon, 0);
	if (r < 0) {
		return r;
	}
	read_memory(daemon, cgroup, before);
	available = before->available;
	read_memory(daemon, cgroup, before);
	*ret_drift = MAX(available, before->available) - MIN(available, before->available);
	fprintf(stderr, "parking %" PRIu64 "\n", count);
	start = base_clock_monotonic_ns();
	r = bench_pool_fill(daemon, count);
	*ret_ns = base_clock_monotonic_ns() - start;
	if (r == 0) {
		read_memory(daemon, cgroup, after);
	}
	return r;
}

static int run_in(struct bench_daemon *daemon, const struct bench_cgroup *cgroup,
		  struct bench_report *report, const struct bench_options *options)
{
	_cleanup_free_ struct ask *ask = calloc(1, sizeof(*ask));
	struct memory before = { 0 }, after = { 0 };
	struct sample guest = { 0 };
	struct bench_pool pool;
	uint64_t count = choose_count(report, options), park_ns = 0, drift = 0;
	int r = ask ? park(daemon, cgroup, count, &before, &after, &drift, &park_ns) : -ENOMEM;

	if (r < 0) {
		return r;
	}
	bench_proc_each(daemon->pid, add_sample, &guest);
	bench_report_value(report, "parked at once", BENCH_COUNT, (double)count);
	bench_report_value(report, "parked after", BENCH_NS, (double)park_ns);
	report_memory(report, options, &before, &after, drift, &guest, count);
	ask->options = options;
	ask->count = count;
	pthread_mutex_init(&ask->lock, NULL);
	r = run_ask(ask);
	pthread_mutex_destroy(&ask->lock);
	r = r ?: bench_pool_get(daemon, &pool);
	if (r < 0) {
		return r;
	}
	bench_report_series(report,
			    options->echo ? "claimed, and its own value echoed by the guest"
					  : "claimed, and its own value printed by an exec",
			    options->echo ? BENCH_STOP_AGENT : BENCH_STOP_EXEC, &ask->latency,
			    ask->wrong);
	bench_report_target_at_most(report, "parked sandboxes that did not answer with their value",
				    BENCH_COUNT, (double)ask->wrong, 0);
	bench_report_value(report, "restores that failed", BENCH_COUNT, (double)pool.failed_total);
	bench_report_value(report, "sandboxes that died", BENCH_COUNT, (double)pool.died_total);
	return bench_pool_fill(daemon, 0);
}

/* Only a daemon that is ours is put into a cgroup. */
static int run(struct bench_daemon *daemon, struct bench_report *report,
	       const struct bench_options *options)
{
	struct bench_cgroup cgroup = { 0 };
	int r = options->pin ? bench_cgroup_enter(&cgroup, daemon->pid) : -EPERM;

	if (r < 0) {
		bench_report_note(report, "No account by memory cgroup: %s.",
				  options->pin ? strerror(-r) : "the daemon is not ours");
	}
	r = run_in(daemon, &cgroup, report, options);
	bench_cgroup_leave(&cgroup, daemon->pid);
	return r;
}

int main(int argc, char **argv)
{
	struct bench_options options;
	struct bench_daemon daemon = { 0 };
	struct bench_report *report;
	int r;

	if (bench_options_parse(argc, argv, "density",
				BENCH_OPTION_DAEMON | BENCH_OPTION_COUNT | BENCH_OPTION_ECHO |
					BENCH_OPTION_PIN,
				&options) < 0) {
		return 2;
	}
	report = bench_report_new("density", "What does a parked sandbox cost in memory?");
	r = bench_daemon_open(&daemon, &options);
	r = r ?: run(&daemon, report, &options);
	bench_daemon_close(&daemon);
	bench_report_note(
		report,
		"Differences of /proc/meminfo between an empty pool with the image loaded "
		"and a full one: what others on the machine do meanwhile is in them. "
		"\"Guest pages of its own\" are the mean of up to %d VMMs; the image's "
		"pages are shared and counted once, not here.",
		SAMPLES);
	return r < 0 ? EXIT_FAILURE : bench_report_print(report);
}
