/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What Ctrl-C does. The handlers only set a flag or end the process at once; what that means is
 * decided where the program waits.
 */

#include "cli/cli.h"

#include <unistd.h>

static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

static volatile sig_atomic_t caught;

static void keep_signal(int signal)
{
	caught = signal;
}

static void exit_on_signal(int signal)
{
	_exit(CLI_EXIT_SIGNAL + signal);
}

static void handle(void (*handler)(int))
{
	/* Without SA_RESTART: what blocks shall return and look at the flag. */
	const struct sigaction action = { .sa_handler = handler };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		sigaction(signals[i], &action, NULL);
	}
}

volatile sig_atomic_t *cli_signals_catch(void)
{
	handle(keep_signal);
	return &caught;
}

void cli_signals_exit(void)
{
	handle(exit_on_signal);
}

void cli_signals_block(sigset_t *ret_before)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		sigaddset(&set, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &set, ret_before);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		sigdelset(ret_before, signals[i]);
	}
}
