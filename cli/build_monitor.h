/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Watches a build from a thread of its own: reads the guest's console, reports progress twice a
 * second, and ends the VMM when the person at the keyboard has had enough.
 */

#include "cli/build.h"

struct cli_monitor;

/* Everything is borrowed and outlives the monitor. progress may be NULL. */
int cli_monitor_new(cli_build_progress_fn progress, void *userdata,
		    const volatile sig_atomic_t *interrupted, struct cli_monitor **ret_monitor);
void cli_monitor_free(struct cli_monitor *monitor);
BASE_DEFINE_CLEANUP(struct cli_monitor *, cli_monitor_free)

/* The write end of the console pipe; borrowed. */
int cli_monitor_console_fd(const struct cli_monitor *monitor);

/* A step begins. detail is copied, may be NULL. */
void cli_monitor_step(struct cli_monitor *monitor, enum cli_build_step step, const char *detail);

/* The same step goes on with something else. */
void cli_monitor_detail(struct cli_monitor *monitor, const char *detail);
void cli_monitor_bytes(struct cli_monitor *monitor, uint64_t done_bytes, uint64_t total_bytes);

/* Output of a command in the guest; kept like what comes over the console. */
void cli_monitor_output(struct cli_monitor *monitor, const void *data, size_t size);

/* From now on an interruption kills this process (a pidfd, borrowed). -1: no process. */
void cli_monitor_guard(struct cli_monitor *monitor, int pidfd);

/* The last lines of this step's output, oldest first. */
void cli_monitor_tail(struct cli_monitor *monitor, char ret_text[CLI_BUILD_CONSOLE_MAX + 1]);
uint64_t cli_monitor_elapsed_ns(const struct cli_monitor *monitor);
