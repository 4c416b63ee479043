/* SPDX-License-Identifier: Apache-2.0 */

/* Reads the command line of a bench program; prints the usage when it makes no sense. */

#include "bench/options.h"

#include "base/util.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT_MAX   UINT64_C(10000000)
#define SECONDS_MAX UINT64_C(1000000)

enum id {
	ID_QUICK = 256,
	ID_SOCKET,
	ID_STORE,
	ID_TEMPLATE,
	ID_COUNT,
	ID_SECONDS,
	ID_PIN,
	ID_LOAD,
	ID_EVAL,
	ID_ECHO,
};

static const struct {
	unsigned group;
	struct option option;
	const char *usage;
} all[] = {
	{ 0, { "quick", no_argument, NULL, ID_QUICK }, "[--quick]" },
	{ BENCH_OPTION_DAEMON,
	  { "socket", required_argument, NULL, ID_SOCKET },
	  "[--socket PATH]" },
	{ BENCH_OPTION_STORE, { "store", required_argument, NULL, ID_STORE }, "[--store DIR]" },
	{ BENCH_OPTION_DAEMON | BENCH_OPTION_STORE,
	  { "template", required_argument, NULL, ID_TEMPLATE },
	  "--template NAME" },
	{ BENCH_OPTION_COUNT, { "count", required_argument, NULL, ID_COUNT }, "[--count N]" },
	{ BENCH_OPTION_SECONDS,
	  { "seconds", required_argument, NULL, ID_SECONDS },
	  "[--seconds N]" },
	{ BENCH_OPTION_PIN, { "pin", no_argument, NULL, ID_PIN }, "[--pin]" },
	{ BENCH_OPTION_LOAD, { "load", required_argument, NULL, ID_LOAD }, "[--load PERCENT]" },
	{ BENCH_OPTION_EVAL, { "eval", required_argument, NULL, ID_EVAL }, "[--eval CODE]" },
	{ BENCH_OPTION_ECHO, { "echo", no_argument, NULL, ID_ECHO }, "[--echo]" },
};

static bool is_accepted(size_t i, unsigned accepted)
{
	return all[i].group == 0 || (all[i].group & accepted);
}

static int usage(const char *bench, unsigned accepted)
{
	fprintf(stderr, "usage: bench-%s", bench);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (is_accepted(i, accepted)) {
			fprintf(stderr, " %s", all[i].usage);
		}
	}
	fprintf(stderr, "\n");
	return -EINVAL;
}

static int parse_number(const char *text, uint64_t max, uint64_t *ret_value)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value == 0 || value > max) {
		fprintf(stderr, "'%s' is not a number from 1 to %llu\n", text,
			(unsigned long long)max);
		return -EINVAL;
	}
	*ret_value = value;
	return 0;
}

static int take(int id, struct bench_options *options)
{
	uint64_t percent = options->load;
	int r;

	switch (id) {
	case ID_QUICK:
		options->quick = true;
		return 0;
	case ID_SOCKET:
		options->socket = optarg;
		return 0;
	case ID_STORE:
		options->store = optarg;
		return 0;
	case ID_TEMPLATE:
		options->template_name = optarg;
		return 0;
	case ID_COUNT:
		return parse_number(optarg, COUNT_MAX, &options->count);
	case ID_SECONDS:
		return parse_number(optarg, SECONDS_MAX, &options->seconds);
	case ID_PIN:
		options->pin = true;
		return 0;
	case ID_ECHO:
		options->echo = true;
		return 0;
	case ID_LOAD:
		r = parse_number(optarg, 1000, &percent);
		options->load = (unsigned)percent;
		return r;
	case ID_EVAL:
		options->code = optarg;
		return 0;
	default:
		return -EINVAL;
	}
}

int bench_options_parse(int argc, char **argv, const char *bench, unsigned accepted,
			struct bench_options *ret_options)
{
	struct option table[ARRAY_SIZE(all) + 1] = { 0 };
	struct bench_options options = { .load = 80 };
	size_t n = 0;
	int id;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (is_accepted(i, accepted)) {
			table[n++] = all[i].option;
		}
	}
	while ((id = getopt_long(argc, argv, "", table, NULL)) >= 0) {
		if (take(id, &options) < 0) {
			return usage(bench, accepted);
		}
	}
	if (optind < argc || ((accepted & BENCH_OPTION_DAEMON) && !options.template_name) ||
	    ((accepted & BENCH_OPTION_STORE) && !options.store != !options.template_name)) {
		return usage(bench, accepted);
	}
	*ret_options = options;
	return 0;
}
