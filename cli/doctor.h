/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The checks of `warmbox doctor`: each looks at one thing and says what it found. */

#include "base/util.h"

enum cli_verdict {
	CLI_VERDICT_OK,
	CLI_VERDICT_WARN, /* works, but worse than it could */
	CLI_VERDICT_FAIL, /* warmbox does not work here until this is mended */
};

struct cli_finding {
	const char *name; /* "kvm", …; stable, for programs */
	enum cli_verdict verdict;
	char text[256];
	char advice[384]; /* what to do; empty when it is well */
};

typedef void (*cli_finding_fn)(void *userdata, const struct cli_finding *finding);

/* Calls report for each finding, in the order in which one would mend them. */
void cli_doctor_check_kvm(cli_finding_fn report, void *userdata);
void cli_doctor_check_kernel(cli_finding_fn report, void *userdata);
/* What the kernel says of itself, below root ("" for this machine). */
void cli_doctor_check_hardening(const char *root, cli_finding_fn report, void *userdata);
void cli_doctor_check_resources(const char *store_path, cli_finding_fn report, void *userdata);

/* Fills and reports one finding. advice is printf-formatted text without arguments, may be NULL. */
void cli_doctor_report(cli_finding_fn report, void *userdata, const char *name,
		       enum cli_verdict verdict, const char *advice, const char *format, ...)
	_printf_(6, 7);
