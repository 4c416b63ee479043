/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Starting a program with as few kernel entries as the kernel lets us: no copy of the address
 * space, no error pipe, no signal bookkeeping in the child.
 */

#include "base/util.h"

#include <sys/types.h>

#define AGENT_SPAWN_FDS 4

struct agent_spawn_params {
	char *const *argv;
	char *const *envp;
	const char *path; /* searched when argv[0] has no slash */
	const char *cwd;
	/* What the program gets as 0 to 3; -1 leaves what the agent has there, which is /dev/null
	 * for 0 and must be close-on-exec for 3. */
	int fds[AGENT_SPAWN_FDS];
};

/*
 * Sets up signals; once, at the start. Programs start with all signals at their defaults and none
 * blocked. 0 with a descriptor (owned by the caller, non-blocking) that is readable when processes
 * have ended, or -errno.
 */
int agent_spawn_init(int *ret_signal_fd);

/*
 * Starts the program in a session of its own, and returns when it is running: 0, or -errno with
 * *ret_step saying what failed.
 */
int agent_spawn(const struct agent_spawn_params *params, pid_t *ret_pid, const char **ret_step);

/*
 * After the descriptor was readable, before the first agent_spawn_next(): arms it again. Returns
 * the process whose end made it readable, or 0 when that is not known.
 */
pid_t agent_spawn_rearm(int signal_fd);

/* Collects any process that has ended, started by us or left to us, without waiting: its pid with
 * *ret_status as wait(2) gives it; 0 when there is none (any more). */
pid_t agent_spawn_next(int *ret_status);

/* Waits for this one. */
void agent_spawn_wait(pid_t pid, int *ret_status);

/* Kills every process of the session, whatever its process group. */
void agent_spawn_kill_session(pid_t session);

/* Closes the descriptors >= 0 among fds, neighbours together with one call. The array is
 * reordered. */
void agent_spawn_close(int *fds, size_t n_fds);
