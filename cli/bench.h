/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The parts of `warmbox bench`: what is run, how, on what host, and the report that comes out.
 *
 * Everything goes into one JSON document, of which table, CSV and page are views:
 *
 *    {"warmbox": version, "command": …, "started": …, "seconds": …, "host": {…}, "warnings": […],
 *     "results": [{what the program printed, and "template", "command", "seconds",
 *                  "status": "measured" | "skipped" | "failed", "reason": …}]}
 *
 * The programs' own format is described in bench/README.md.
 */

#include "cli/cli.h"

#include <sys/types.h>

/* --- what there is --- */

enum cli_bench_flags {
	CLI_BENCH_DAEMON = 1 << 0,  /* needs one: --socket, --template */
	CLI_BENCH_LINUX = 1 << 1,   /* and a guest that runs programs */
	CLI_BENCH_COUNT = 1 << 2,   /* takes --count */
	CLI_BENCH_SECONDS = 1 << 3, /* takes --seconds and --load */
	CLI_BENCH_PIN = 1 << 4,	    /* takes --pin */
	CLI_BENCH_EVAL = 1 << 5,    /* takes --eval */
	CLI_BENCH_ECHO = 1 << 6,    /* is told by --echo that the guest is the tiny one */
	CLI_BENCH_DEFAULT = 1 << 7, /* runs when no program is named */
	CLI_BENCH_STORE = 1 << 8,   /* takes --store and --template, and needs no daemon */
};

struct cli_bench_kind {
	const char *name;
	const char *question;
	unsigned flags;
};
extern const struct cli_bench_kind cli_bench_kinds[];
extern const size_t cli_bench_n_kinds;

/* One program to be run on one template. */
struct cli_bench_job {
	const struct cli_bench_kind *kind;
	const char *template_name; /* NULL: the tiny guest */
};

struct cli_bench_options {
	const char *socket; /* of a daemon that runs already; NULL: one of our own for each job */
	const char *store;
	const char *code;
	const char *count, *seconds, *load; /* as given; NULL: the program's default */
	bool quick;
};

/* --- running (cli/bench_run.c) --- */

/* Runs one job to its end. Always gives a result; owned by the caller. caught: a signal that ends
 * it early, or 0. */
json_t *cli_bench_run(const struct cli_bench_options *options, const struct cli_bench_job *job,
		      volatile sig_atomic_t *caught);

/* --- a daemon of our own (cli/bench_daemon.c) --- */

struct cli_bench_daemon {
	pid_t pid;	    /* 0: none */
	char directory[32]; /* holds everything; empty: none */
	char socket[64];
};

/* Starts warmboxd in a temporary directory, with the store (NULL: one of its own with the tiny
 * guest as CLI_BENCH_TINY), and waits until it serves. */
#define CLI_BENCH_TINY "tiny-guest"
int cli_bench_daemon_start(struct cli_bench_daemon *daemon, const char *store,
			   struct base_error *error);
/* Stops it, waits for it and removes the directory. */
void cli_bench_daemon_stop(struct cli_bench_daemon *daemon);
/* Where a program of ours is: in this build tree (folder), or installed. Owned; NULL without
 * memory. */
char *cli_bench_program(const char *folder, const char *name, const char *installed_in);

/* --- the host (cli/bench_host.c) --- */

/* {"kernel": …, …}; what cannot be known is left out. */
json_t *cli_bench_host(void);
/* What disturbs a measurement, in words. host: borrowed. */
json_t *cli_bench_warnings(json_t *host);

/* --- views (cli/bench_text.c, cli/bench_html.c, cli/bench_svg.c); document is borrowed --- */

void cli_bench_print_result(json_t *result, FILE *out);
void cli_bench_print_summary(json_t *document, FILE *out);
void cli_bench_write_csv(json_t *document, FILE *out);
void cli_bench_write_html(json_t *document, FILE *out);
/* Latency curves of those series of a result that have this stop-line; with_rest: and, dashed,
 * those that have none. */
void cli_bench_write_curves(json_t *result, const char *stop_line, bool with_rest, FILE *out);
#define CLI_BENCH_COLOURS 8

/* A figure in its unit, into buffer, which is returned. "–" for none. */
#define CLI_BENCH_FIGURE_MAX 48
const char *cli_bench_figure(char buffer[CLI_BENCH_FIGURE_MAX], json_t *value, const char *unit);
/* A percentile of a series; "–" where fewer than five values lie beyond it. */
const char *cli_bench_percentile(char buffer[CLI_BENCH_FIGURE_MAX], json_t *series,
				 const char *key);
/* "met", "not met" or "no figure". */
const char *cli_bench_verdict(json_t *target);
/* The string of a key, or "". */
const char *cli_bench_text(json_t *object, const char *key);
void cli_bench_write_escaped(const char *text, FILE *out);
