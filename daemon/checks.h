/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What must be right before the daemon starts. Each refusal says what to do about it.
 */

#include "base/error.h"
#include "daemon/config.h"

#include <sys/types.h>

/* /dev/kvm is there and may be opened. */
int daemon_check_kvm(struct base_error *error);

/*
 * Finds the programs that are not configured and puts their paths into config: the one beside this
 * program, as it stands in a build tree or a directory; else the installed one.
 */
int daemon_check_programs(struct daemon_config *config, struct base_error *error);

/* The id of the configured group; RPC_GROUP_UNCHANGED without one. */
int daemon_check_group(const struct daemon_config *config, gid_t *ret_group,
		       struct base_error *error);

/*
 * Makes the runtime directory (mode 0750, of the group) and locks it: a second daemon would remove
 * the first one's sandboxes. One that is just dying is waited for, DAEMON_LOCK_WAIT_MS at most.
 * *ret_fd holds the lock (owned by the caller). -EADDRINUSE.
 */
int daemon_check_runtime_dir(const struct daemon_config *config, gid_t group, int *ret_fd,
			     struct base_error *error);

#define DAEMON_LOCK_WAIT_MS 2000

/* As many descriptors as the hard limit allows: each sandbox takes several. */
void daemon_raise_descriptor_limit(void);

/* Above the sandboxes, if this process may: claims come before what runs in them. */
void daemon_raise_priority(void);
