/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the subcommands of `warmbox` share: options, output, exit statuses.
 *
 * A subcommand is one function that gets argv from its own name on, prints what there is to print
 * and returns the exit status. Results go to standard output, everything else to standard error.
 */

#include "base/error.h"

#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

/* Exit statuses. run, eval and exec otherwise pass on the program's, 128 + n for signal n. */
#define CLI_EXIT_FAILED		1   /* the command was tried and failed */
#define CLI_EXIT_USAGE		2   /* the command line makes no sense */
#define CLI_EXIT_WARMBOX	125 /* run, eval, exec: warmbox failed, not the program */
#define CLI_EXIT_NOT_EXECUTABLE 126 /* run, exec: the program cannot be executed */
#define CLI_EXIT_NOT_FOUND	127 /* run, exec: no such program */
#define CLI_EXIT_SIGNAL		128
#define CLI_EXIT_INTERRUPTED	130 /* Ctrl-C */

#define CLI_SOCKET_DEFAULT "/run/warmbox/warmboxd.sock"
#define CLI_STORE_DEFAULT  "/var/lib/warmbox"

struct cli {
	const char *command; /* "run", "template build", …; for messages */
	const char *socket_path;
	bool json;
};

/* Common options, at the end of every command's table. */
enum {
	CLI_OPTION_JSON = 0x1000,
	CLI_OPTION_SOCKET,
	CLI_OPTION_HELP,
	CLI_OPTION_FIRST_OWN, /* a command numbers its long-only options from here */
};
#define CLI_COMMON_OPTIONS                                                \
	{ "json", no_argument, NULL, CLI_OPTION_JSON },                   \
		{ "socket", required_argument, NULL, CLI_OPTION_SOCKET }, \
		{ "help", no_argument, NULL, CLI_OPTION_HELP },           \
	{                                                                 \
	}

/*
 * The next option of a command: its value, or -1 after the last (optind is then the first operand).
 * Common ones are dealt with here. Wrong ones and --help give '?', with *ret_status to return: the
 * message or the help has been printed.
 */
int cli_option_next(struct cli *cli, int argc, char **argv, const char *short_options,
		    const struct option *options, const char *help, int *ret_status);
/* Starts over with a new argv. */
void cli_option_reset(void);

/* "warmbox <command>: <message>" and where the help is; returns CLI_EXIT_USAGE. */
int cli_usage_error(const struct cli *cli, const char *format, ...) _printf_(2, 3);

/* A number in [min, max]; prints the usage error itself. 0 or -EINVAL. */
int cli_parse_number(const struct cli *cli, const char *option, const char *text, uint64_t min,
		     uint64_t max, uint64_t *ret_value);
/* A time such as 500ms, 10s, 5m, 2h or 10 (seconds), in ms; prints the usage error itself. */
int cli_parse_duration(const struct cli *cli, const char *option, const char *text,
		       uint64_t *ret_ms);

/* Splits text into words as a shell does (quotes, backslash), without any expansion. The words are
 * one allocation, NULL-terminated. -EINVAL with the reason. */
int cli_words_split(const char *text, char ***ret_words, struct base_error *error);

/* --- output --- */

/* Prints value as one JSON line on standard output, and takes the reference. */
void cli_print_json(json_t *value);

/* The message of a failure, for a person on standard error; with --json also as
 * {"error": {"code": …, "message": …}} on standard output. hint (may be NULL): what to do about it.
 */
void cli_print_error(const struct cli *cli, const char *code, const char *message,
		     const char *hint);

/* "1.5 MiB", "12 ms", "3 min ago", into a buffer that is returned. */
#define CLI_FORMAT_MAX 32
const char *cli_format_bytes(char buffer[CLI_FORMAT_MAX], uint64_t bytes);
const char *cli_format_duration(char buffer[CLI_FORMAT_MAX], uint64_t ns);
const char *cli_format_age(char buffer[CLI_FORMAT_MAX], uint64_t realtime_ns);

/* A table: header and rows of n cells each, columns as wide as they need to be. */
struct cli_table;
int cli_table_new(size_t n_columns, struct cli_table **ret_table);
void cli_table_free(struct cli_table *table);
BASE_DEFINE_CLEANUP(struct cli_table *, cli_table_free)
void cli_table_cell(struct cli_table *table, const char *format, ...) _printf_(2, 3);
/* 0, or -ENOMEM when a cell was lost. */
int cli_table_print(const struct cli_table *table, FILE *out);

/* --- interruption --- */

/* Catches SIGINT, SIGTERM and SIGHUP: calls in progress return EINTR, and the flag holds the
 * signal's number. */
volatile sig_atomic_t *cli_signals_catch(void);
/* Blocks those signals. *ret_before is the mask without them. */
void cli_signals_block(sigset_t *ret_before);
/* Until further notice they just end this program, with status 128 + n. For waits that leave
 * nothing behind: the daemon takes back a sandbox whose client has gone. */
void cli_signals_exit(void);

/* --- where things are --- */
const char *cli_store_path(void);     /* WARMBOX_STORE or the default */
const char *cli_socket_path(void);    /* WARMBOX_SOCKET or the default */
const char *cli_vmm_path(void);	      /* WARMBOX_VMM or where it was installed */
const char *cli_kernel_path(void);    /* WARMBOX_KERNEL or where one may be installed */
const char *cli_initramfs_path(void); /* WARMBOX_INITRAMFS or where it was installed */

/* --- the subcommands --- */
int cli_acquire_main(struct cli *cli, int argc, char **argv);
int cli_bench_main(struct cli *cli, int argc, char **argv);
int cli_doctor_main(struct cli *cli, int argc, char **argv);
int cli_eval_main(struct cli *cli, int argc, char **argv);
int cli_exec_main(struct cli *cli, int argc, char **argv);
int cli_health_main(struct cli *cli, int argc, char **argv);
int cli_pool_main(struct cli *cli, int argc, char **argv);
int cli_ps_main(struct cli *cli, int argc, char **argv);
int cli_release_main(struct cli *cli, int argc, char **argv);
int cli_renew_main(struct cli *cli, int argc, char **argv);
int cli_run_main(struct cli *cli, int argc, char **argv);
int cli_stats_main(struct cli *cli, int argc, char **argv);
int cli_template_main(struct cli *cli, int argc, char **argv);
int cli_build_main(struct cli *cli, int argc, char **argv); /* template build */
