/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The manager's side of pool/spawner.h: VMM processes, asked for without blocking.
 */

#include "base/list.h"
#include "pool/helper.h"
#include "pool/jail.h"

#include <sys/types.h>

/* Requests that the spawner has and has not answered; the others wait here. */
#define POOL_SPAWNS_SENT_MAX 32

/* What a process that could not become a VMM ends with. */
#define POOL_SPAWN_NOT_EXECUTED 127

struct pool_spawner {
	struct pool_helper helper;
	struct base_link waiting, sent; /* requests, oldest first */
	unsigned n_sent;
	uint64_t sequence;
	struct pool_jail_config jail;
	/* Of the latest process that could not become a VMM: what it could not do. Empty: none. */
	struct base_error not_executed;
};

/* One request, embedded in who asks. */
struct pool_spawn {
	struct base_link link;
	uint64_t sequence; /* 0: not sent */
	bool cancelled;
	int control; /* for the VMM; borrowed until fn is called */
	int cgroup;  /* of version 2, to be born into, likewise; -1: none */
	int nice;
	uint32_t uid; /* its own, for POOL_JAIL_FULL */
	/* Called once. result 0: there is a process, a child of this one; pidfd is owned by the
	 * callee. Else -errno, -ECANCELED after pool_spawn_cancel(). */
	void (*fn)(struct pool_spawn *spawn, int result, pid_t pid, int pidfd, uint64_t started_ns);
};

/* Starts nothing. 0 or -errno. */
int pool_spawner_init(struct pool_spawner *spawner, uv_loop_t *loop, const char *path,
		      const char *vmm_path, const struct pool_jail_config *jail);
void pool_spawner_deinit(struct pool_spawner *spawner);

/* Asks for a process. Everything from control on must be set. fn is not called from inside. */
void pool_spawn_start(struct pool_spawner *spawner, struct pool_spawn *spawn);

/* The process is not wanted any more. True: it was not asked for yet, and fn will not be called.
 * False: fn will be called, with a process if there is one. */
bool pool_spawn_cancel(struct pool_spawner *spawner, struct pool_spawn *spawn);
