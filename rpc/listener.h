/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon's listening socket, and the lock that makes it the only one. */

#include "base/error.h"

#include <sys/types.h>

struct rpc_listener {
	int fd;	     /* listening, non-blocking; -1: none */
	int lock_fd; /* holds the lock; -1: none */
	char *path;
};

/*
 * Locks `<path>.lock`, and binds path with mode 0660. -EADDRINUSE: another process holds the lock.
 * -EEXIST: something that is not a socket is in the way.
 */
int rpc_listener_open(const char *path, gid_t group, struct rpc_listener *ret_listener,
		      struct base_error *error);

/* Removes the socket and the lock. */
void rpc_listener_close(struct rpc_listener *listener);
