/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the parts of warmbox-spawner share: the place VMMs are started from, and the start of one.
 */

#include "base/error.h"
#include "pool/spawner.h"

#include <stdbool.h>
#include <sys/types.h>

enum spawner_place {
	SPAWNER_PLACE_HOST,
	SPAWNER_PLACE_EMPTY,
	SPAWNER_PLACE_USER,
};

/* Descriptors are close-on-exec and out of the way of those that a VMM has. */
struct spawner {
	enum spawner_place place;
	int manager; /* SPAWNER_CONTROL_FD */
	int devnull;
	int kvm;     /* /dev/null where there is none: the VMM says so */
	int program; /* of the VMM */
	int proc;    /* /proc, which is not mounted any more */
	uid_t uid;
	gid_t gid;
};

/* --- spawner_place.c --- */

/* Opens what VMMs are started with and goes where they are started from. Once. */
int spawner_place_enter(struct spawner *spawner, const char *program, struct base_error *error);

/* Makes the user namespace that was just entered one of these two ids and no others, by their own
 * numbers. It wants to be written by who has them. 0 or -errno. */
int spawner_place_map_ids(const struct spawner *spawner, uid_t uid, gid_t gid);

/* --- spawner_child.c --- */

/* Carries out SPAWNER_OP_START. 0: the child has answered or will. Else -errno, and *ret_pid is a
 * child that has ended without an answer, or 0. */
int spawner_child_start(const struct spawner *spawner, const struct base_message *request,
			const int *fds, size_t n_fds, pid_t *ret_pid);
