/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The server side of the manager's protocol, for the daemon. docs/protocol.md says what it speaks.
 *
 * All on the given loop's thread. Disk is read on libuv's thread pool.
 */

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct pool;
struct snapshot_store;
struct rpc_server;

#define RPC_GROUP_UNCHANGED ((gid_t)-1)

struct rpc_server_config {
	const char *socket_path;
	gid_t group;		     /* of the socket; RPC_GROUP_UNCHANGED: the process's */
	uint64_t acquire_timeout_ms; /* for acquires that do not say */
	uint64_t message_timeout_ms; /* from a message's first byte to its last; 0: the default */
};

/*
 * Takes the socket: locks `<socket>.lock`, removes a socket that nobody serves, binds and listens.
 * Clients may connect from now on; they are served from rpc_server_start(). config is copied.
 * -EADDRINUSE: a live daemon has it; the error names its process.
 */
int rpc_server_new(uv_loop_t *loop, const struct rpc_server_config *config,
		   struct rpc_server **ret_server, struct base_error *error);

/* pool and store are borrowed until the server is stopped. 0 or -errno. */
int rpc_server_start(struct rpc_server *server, struct pool *pool, struct snapshot_store *store,
		     struct base_error *error);

/*
 * Removes the socket and closes every connection. Leases are left as they are: stop the pool first,
 * so that waiting clients are told. done is called when nothing of the server is on the loop any
 * more.
 */
void rpc_server_stop(struct rpc_server *server, void (*done)(void *userdata), void *userdata);

/* After done, or when rpc_server_new() was all that happened. NULL is fine. */
void rpc_server_free(struct rpc_server *server);
