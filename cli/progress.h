/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Shows a template build on standard error: one line that is kept up to date on a terminal; a line
 * when a step begins, when it ends, and every two seconds between, elsewhere.
 */

#include "cli/build.h"

struct cli_progress {
	bool terminal;
	unsigned columns; /* of the terminal */
	bool open;	  /* a step was begun and not ended */
	enum cli_build_step step;
	char subject[CLI_BUILD_LINE_MAX + 1]; /* the detail that the step began with */
	uint64_t began_ns;		      /* CLOCK_MONOTONIC */
	uint64_t shown_ns;
};

void cli_progress_init(struct cli_progress *progress);
/* A cli_build_progress_fn; userdata is the struct cli_progress. */
void cli_progress_show(void *userdata, const struct cli_build_progress *now);
/* The build is over: ends the open line with a word on how its step went; "" when it is done. */
void cli_progress_finish(struct cli_progress *progress, const char *outcome);
