/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A guest of a build: its VMM and the stream to its agent. The one that boots, and those that are
 * restored from it to be watched. Main thread only.
 */

#include "cli/build_monitor.h"
#include "cli/build_vm.h"
#include "rpc/warmbox.h"

/* Steps of the VMM that need no guest. */
#define CLI_GUEST_VMM_MS 30000

struct cli_guest {
	struct cli_monitor *monitor;		  /* borrowed */
	const volatile sig_atomic_t *interrupted; /* borrowed */
	const struct cli_build_params *params;	  /* borrowed */
	struct cli_vm vm;
	struct warmbox_agent *agent; /* owned; NULL: not connected */
};

/* Starts a VMM, which an interruption kills from now on, and makes the VM. memory_fd and root_fd
 * are borrowed; the last two as in cli_vm_create(). */
int cli_guest_create(struct cli_guest *guest, uint64_t flags, int memory_fd, int root_fd,
		     int *ret_userfault_fd, uint64_t *ret_address, struct base_error *error);

/* Kills it. Takes one that was never created. */
void cli_guest_stop(struct cli_guest *guest);

/* A call to the VMM without anything to it. */
int cli_guest_tell(struct cli_guest *guest, enum vmm_op op, struct base_error *error);

/* -EINTR once somebody has interrupted the build. */
int cli_guest_interrupted(const struct cli_guest *guest, struct base_error *error);

/* Says why talking to the agent failed: the VM's end tells more than the broken stream it leaves.
 */
int cli_guest_failed(struct cli_guest *guest, int r, const struct warmbox_error *failure,
		     const char *doing, struct base_error *error);

/* Runs a command to its end; its output goes to the monitor. `doing` names it in errors. -ENOENT:
 * the guest has no such program. -EIO: it did not end well. */
int cli_guest_exec(struct cli_guest *guest, char *const *argv, const char *doing,
		   struct base_error *error);
