/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One program in a sandbox, with this program's standard streams: what run, eval and exec share.
 */

#include "cli/remote.h"

/* timeout(1)'s status for a program that took too long. */
#define CLI_EXIT_TIMEOUT 124
/* With --json: output of each stream that is kept; what follows is dropped, and it is said. */
#define CLI_CAPTURE_MAX MIB(16)

struct cli_program {
	const struct warmbox_exec_params *exec; /* NULL: the resident process */
	int stdin_fd;				/* sent until its end; borrowed. -1: nothing */
	uint64_t timeout_ms;			/* 0: none */
	json_t *result; /* with --json: exit status and output are added to this object; borrowed */
	/* To say why the sandbox ended, when it does under the program; borrowed, may be NULL. */
	struct warmbox_connection *connection;
	const char *lease_id;
};

/*
 * Runs it to its end, and returns the exit status for this program. Output goes to the standard
 * streams as it comes. A first Ctrl-C is passed on to the program; a second one gives up. Failures
 * are printed. Closing the agent's stream, which kills what still runs, is up to the caller.
 */
int cli_program_run(const struct cli *cli, struct warmbox_agent *agent,
		    const struct cli_program *program);

/* The options of run, eval and exec that say what the program gets. */
#define CLI_ENVIRONMENT_MAX 256
struct cli_program_options {
	char *env[CLI_ENVIRONMENT_MAX + 1];
	size_t n_env;
	const char *cwd;
	bool want_stdin;
	uint64_t timeout_ms;
};
int cli_program_env(const struct cli *cli, struct cli_program_options *options, char *text);
