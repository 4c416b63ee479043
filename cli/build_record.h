/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Recording the working set of a template that is being built. Main thread only. */

#include "cli/build_monitor.h"
#include "uffd/uffd.h"

struct cli_record_params {
	const struct cli_build_params *build;
	struct cli_monitor *monitor;
	const volatile sig_atomic_t *interrupted;
	int state_fd;  /* what the VMM saved */
	int memory_fd; /* and the memory with it; nobody changes it any more */
	int root_fd;
};

/*
 * Restores the guest params->build->n_records times, lets it do what every sandbox does first, and
 * adds what it touches to the recorder. Everything in params is borrowed. A restore that fails
 * fails all of it: what cannot be restored is no template.
 */
int cli_record(const struct cli_record_params *params, struct uffd_recorder *recorder,
	       struct base_error *error);
