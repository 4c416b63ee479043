/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How long it takes from asking for a sandbox to code that has run in it.
 *
 * Takes n parked sandboxes from a running warmboxd, one after the other, runs something in each and
 * releases it, and prints the median and the 99th percentile of each stop-line. Host work (claim
 * returned, first vCPU entry) and guest work (agent replied, first exec finished) are apart,
 * because a guest's kernel runs at very different speeds on different kinds of host. It waits until
 * a sandbox is parked before it asks, so that no miss is mixed in.
 *
 * One thread, blocking. Any failure ends the program with a message and status 1.
 */

#include "base/clock.h"
#include "rpc/warmbox.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RUNS_MAX      100000
#define PARK_WAIT_MS  60000
#define GUEST_WAIT_MS 60000

enum line { CLAIM, ENTRY, AGENT, EXEC, EVAL, LINES };

static const struct {
	const char *name;
	const char *side;
	const char *key;
} lines[LINES] = {
	[CLAIM] = { "claim returned", "host", "claim_returned" },
	[ENTRY] = { "first vCPU entry", "host", "first_vcpu_entry" },
	[AGENT] = { "agent replied", "guest", "agent_replied" },
	[EXEC] = { "first exec finished (new process)", "guest", "first_exec_finished" },
	[EVAL] = { "first exec finished (warmed interpreter)", "guest", "first_eval_finished" },
};

struct samples {
	uint64_t *ns;
	size_t n;
};

struct options {
	const char *socket;
	const char *template_name;
	const char *code;
	char *const *argv;
	size_t runs;
	bool json;
};

static int compare_ns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The nearest-rank percentile of sorted samples. */
static uint64_t percentile_ns(const struct samples *samples, unsigned percent)
{
	size_t rank = (samples->n * percent + 99) / 100;

	return samples->ns[rank > 0 ? rank - 1 : 0];
}

static int complain(const char *what, int r, const struct warmbox_error *error)
{
	fprintf(stderr, "latency: %s: %s: %s\n", what, warmbox_code_name(error->code), error->text);
	return r;
}

static uint64_t unsigned_field(const msgpack_object *map, const char *key)
{
	const msgpack_object *value = map ? warmbox_map_get(map, key) : NULL;

	return value && value->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? value->via.u64 : 0;
}

/* Waits until the pool has a parked sandbox, so that a claim is measured and not a restore. */
static int wait_parked(struct warmbox_connection *connection, struct warmbox_error *error)
{
	uint64_t end = base_clock_monotonic_ns() + PARK_WAIT_MS * NSEC_PER_MSEC;

	for (;;) {
		struct warmbox_value *value = NULL;
		int r = warmbox_call(connection, "pool.get", NULL, 0, &value, error);

		if (r < 0) {
			return r;
		}

		const msgpack_object *pools = warmbox_map_get(warmbox_value_object(value), "pools");
		bool parked = false;

		for (uint32_t i = 0;
		     pools && pools->type == MSGPACK_OBJECT_ARRAY && i < pools->via.array.size;
		     i++) {
			const msgpack_object *pool = &pools->via.array.ptr[i];

			/* All the target, so that no restore of another competes with the measured
			 * one. */
			parked = parked || (unsigned_field(pool, "parked") > 0 &&
					    unsigned_field(pool, "restoring") == 0);
		}
		warmbox_value_free(value);
		if (parked) {
			return 0;
		}
		if (base_clock_monotonic_ns() > end) {
			snprintf(error->text, sizeof(error->text),
				 "no sandbox was parked within %d s", PARK_WAIT_MS / 1000);
			error->code = WARMBOX_TIMEOUT;
			return -ETIMEDOUT;
		}
		usleep(10000);
	}
}

static int run_something(struct warmbox_agent *agent, const struct options *options, bool eval,
			 struct warmbox_error *error)
{
	struct warmbox_exit ended = { 0 };
	struct warmbox_stdio stdio = { .stdin_fd = -1 };
	uint32_t id;
	int r;

	if (eval) {
		r = warmbox_agent_resident(agent, &id, error);
		if (r == 0) {
			r = warmbox_agent_stdin(agent, id, options->code, strlen(options->code),
						error);
		}
		if (r == 0) {
			r = warmbox_agent_stdin(agent, id, NULL, 0, error);
		}
	} else {
		r = warmbox_agent_exec(
			agent, &(struct warmbox_exec_params){ .argv = options->argv }, &id, error);
	}
	if (r == 0) {
		r = warmbox_agent_run(agent, id, GUEST_WAIT_MS, &stdio, &ended, error);
	}
	if (r == 0 && (ended.signaled || ended.code != 0)) {
		snprintf(error->text, sizeof(error->text),
			 "the program in the guest failed (%s %d)",
			 ended.signaled ? "signal" : "status",
			 ended.signaled ? ended.signal : ended.code);
		error->code = WARMBOX_FAILED;
		return -EPROTO;
	}
	return r;
}

static void record(struct samples *samples, uint64_t ns)
{
	samples->ns[samples->n++] = ns;
}

/* One sandbox from claim to release. */
static int measure(struct warmbox_connection *connection, const struct options *options, bool eval,
		   struct samples samples[LINES])
{
	struct warmbox_error error = { 0 };
	struct warmbox_acquire_params params = { .template_name = options->template_name,
						 .bind = true };
	struct warmbox_lease lease;
	struct warmbox_agent *agent = NULL;
	int stream = -1;
	int r = wait_parked(connection, &error);

	if (r < 0) {
		return complain("waiting for the pool", r, &error);
	}

	uint64_t start = base_clock_monotonic_ns();

	r = warmbox_acquire(connection, &params, &lease, &stream, &error);
	if (r < 0) {
		return complain("acquire", r, &error);
	}
	record(&samples[CLAIM], base_clock_monotonic_ns() - start);

	r = warmbox_agent_new(stream, &agent, &error);
	if (r == 0) {
		r = warmbox_agent_ping(agent, GUEST_WAIT_MS, NULL, &error);
	}
	if (r == 0) {
		record(&samples[AGENT], base_clock_monotonic_ns() - start);
		r = run_something(agent, options, eval, &error);
	}
	if (r == 0) {
		record(&samples[eval ? EVAL : EXEC], base_clock_monotonic_ns() - start);
		r = warmbox_get(connection, lease.id, &lease, &error);
	}
	if (r == 0) {
		record(&samples[ENTRY], lease.timings.first_entry_ns);
	}
	warmbox_agent_free(agent);
	if (r == 0) {
		r = warmbox_release(connection, lease.id, &error);
	}
	return r < 0 ? complain("using the sandbox", r, &error) : 0;
}

static void print_table(struct samples samples[LINES])
{
	printf("%-42s %-6s %12s %12s %6s\n", "stop-line, from the call of acquire", "work", "p50",
	       "p99", "n");
	for (int i = 0; i < LINES; i++) {
		if (samples[i].n == 0) {
			continue;
		}
		printf("%-42s %-6s %9.3f ms %9.3f ms %6zu\n", lines[i].name, lines[i].side,
		       (double)percentile_ns(&samples[i], 50) / 1e6,
		       (double)percentile_ns(&samples[i], 99) / 1e6, samples[i].n);
	}
}

static void print_json(struct samples samples[LINES])
{
	const char *separator = "";

	printf("{");
	for (int i = 0; i < LINES; i++) {
		if (samples[i].n > 0) {
			printf("%s\"%s\": {\"p50_ns\": %llu, \"p99_ns\": %llu, \"n\": %zu}",
			       separator, lines[i].key,
			       (unsigned long long)percentile_ns(&samples[i], 50),
			       (unsigned long long)percentile_ns(&samples[i], 99), samples[i].n);
			separator = ", ";
		}
	}
	printf("}\n");
}

static int usage(void)
{
	fprintf(stderr,
		"usage: latency [--socket PATH] [--runs N] [--json] [--eval CODE] TEMPLATE PROGRAM "
		"[ARGUMENT...]\n"
		"Takes N (default 20) parked sandboxes for PROGRAM, and N more for CODE in the "
		"resident interpreter.\n");
	return 2;
}

static int parse(int argc, char **argv, struct options *ret_options)
{
	static const struct option long_options[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "runs", required_argument, NULL, 'n' },
		{ "eval", required_argument, NULL, 'e' },
		{ "json", no_argument, NULL, 'j' },
		{ 0 },
	};
	struct options options = { .runs = 20 };
	int option;

	while ((option = getopt_long(argc, argv, "+s:n:e:j", long_options, NULL)) >= 0) {
		switch (option) {
		case 's':
			options.socket = optarg;
			break;
		case 'n':
			options.runs = strtoul(optarg, NULL, 10);
			break;
		case 'e':
			options.code = optarg;
			break;
		case 'j':
			options.json = true;
			break;
		default:
			return -EINVAL;
		}
	}
	if (argc - optind < 2 || options.runs < 1 || options.runs > RUNS_MAX) {
		return -EINVAL;
	}
	options.template_name = argv[optind];
	options.argv = argv + optind + 1;
	*ret_options = options;
	return 0;
}

int main(int argc, char **argv)
{
	struct samples samples[LINES] = { 0 };
	struct warmbox_connection *connection = NULL;
	struct warmbox_error error = { 0 };
	struct options options;
	int r;

	if (parse(argc, argv, &options) < 0) {
		return usage();
	}
	for (int i = 0; i < LINES; i++) {
		samples[i].ns = calloc(options.runs * 2, sizeof(uint64_t));
		if (!samples[i].ns) {
			fprintf(stderr, "latency: out of memory\n");
			return EXIT_FAILURE;
		}
	}
	r = warmbox_connect(options.socket, &connection, &error);
	if (r < 0) {
		complain("connecting", r, &error);
	}
	for (size_t i = 0; r == 0 && i < options.runs; i++) {
		r = measure(connection, &options, false, samples);
		if (r == 0 && options.code) {
			r = measure(connection, &options, true, samples);
		}
		if (r == 0 && isatty(STDERR_FILENO)) {
			fprintf(stderr, "\r%zu of %zu ", i + 1, options.runs);
		} else if (r == 0) {
			fprintf(stderr, "%s%zu", i % 10 == 9 ? "\n" : " ", i + 1);
		}
	}
	fprintf(stderr, "\n");
	for (int i = 0; i < LINES; i++) {
		qsort(samples[i].ns, samples[i].n, sizeof(uint64_t), compare_ns);
	}
	if (r == 0) {
		(options.json ? print_json : print_table)(samples);
	}
	warmbox_disconnect(connection);
	for (int i = 0; i < LINES; i++) {
		free(samples[i].ns);
	}
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
