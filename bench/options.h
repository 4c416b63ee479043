/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The command line of a bench program. `--quick` is taken by all of them. */

#include <stdbool.h>
#include <stdint.h>

enum bench_option {
	BENCH_OPTION_DAEMON = 1 << 0,  /* --socket PATH --template NAME; the latter is needed */
	BENCH_OPTION_COUNT = 1 << 1,   /* --count N */
	BENCH_OPTION_SECONDS = 1 << 2, /* --seconds N */
	BENCH_OPTION_PIN =
		1 << 3, /* --pin: the daemon is ours, and may be bound to cores or a cgroup */
	BENCH_OPTION_LOAD = 1 << 4,  /* --load PERCENT */
	BENCH_OPTION_EVAL = 1 << 5,  /* --eval CODE */
	BENCH_OPTION_ECHO = 1 << 6,  /* --echo: the guest is make-tiny's, and echoes */
	BENCH_OPTION_STORE = 1 << 7, /* --store DIR --template NAME; both or none */
};

struct bench_options {
	const char *socket; /* NULL: the library's default */
	const char *store;  /* NULL: none */
	const char *template_name;
	const char *code; /* NULL: none */
	uint64_t count;	  /* 0: the program's own default */
	uint64_t seconds; /* 0: the program's own default */
	unsigned load;	  /* percent */
	bool pin;
	bool echo;
	bool quick;
};

/* Reads what is accepted (enum bench_option). -EINVAL: the usage was printed; exit with 2. */
int bench_options_parse(int argc, char **argv, const char *bench, unsigned accepted,
			struct bench_options *ret_options);
