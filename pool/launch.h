/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a VMM process is given to touch, and its end.
 */

#include "base/error.h"
#include "guest/identity.h"

#include <sys/types.h>
#include <sys/un.h>

#define POOL_SANDBOX_ID_LENGTH 32
#define POOL_SOCKET_PATH_MAX   sizeof(((struct sockaddr_un *)0)->sun_path)

/* A sandbox's requests to its VMM: one after the other, so the sequence number says which. */
enum pool_step {
	POOL_STEP_CREATE = 1,
	POOL_STEP_LOAD,
	POOL_STEP_ATTACH,
	POOL_STEP_RESUME,
	POOL_STEP_PAUSE,
	POOL_STEP_CLAIM, /* the second RESUME */
};

struct pool;
struct pool_image;

/* Descriptors are owned, -1 where there is none; the id and the path are of the sandbox and name
 * nothing else, ever. */
struct pool_launch {
	char id[POOL_SANDBOX_ID_LENGTH + 1];
	char socket_path[POOL_SOCKET_PATH_MAX]; /* the vsock listener; empty: not made */
	char ctl_path[POOL_SOCKET_PATH_MAX];	/* for a successor; empty: not made */
	struct guest_identity identity;
	pid_t pid;    /* 0: not started yet */
	uint32_t uid; /* its own; 0: the manager's */
	int pidfd;
	int control;	  /* non-blocking */
	int control_peer; /* the VMM's end, until it has been started */
	int stream;	  /* our end of what will be the agent's first connection */
	int stream_peer;  /* the VMM's end */
	uint64_t started_ns;
	uint64_t start_ticks; /* of /proc/PID/stat; 0: not known */
};

/* Before anything else. */
void pool_launch_init(struct pool_launch *launch);

/*
 * Draws the names, makes the sockets, and puts CREATE into the control socket, where the VMM finds
 * it when it comes. 0, or -errno with the reason in error; deinit closes what is there by then.
 */
int pool_launch_prepare(struct pool_launch *launch, const struct pool *pool,
			const struct pool_image *image, struct base_error *error);

struct pool_limits_config;

/* Tells the VMM what to hold its guest to: behind CREATE, and at any later time; there is no
 * answer. 0 or -errno. */
int pool_launch_limit(struct pool_launch *launch, const struct pool_limits_config *limits);

/* Kills the process. It has to be reaped with pool_launch_reap(). */
void pool_launch_kill(struct pool_launch *launch);

/* 1: the process has ended and is no more (*ret_status as of waitid, killed_by > 0: by that
 * signal). 0: it still runs. */
int pool_launch_reap(struct pool_launch *launch, int *ret_code, int *ret_killed_by);

/* Waits for a killed process. */
void pool_launch_wait(struct pool_launch *launch);

/* Gives the socket, which was the manager's alone, to a client: to its user, and to a group unless
 * that is POOL_GROUP_NONE. 0 or -errno, for example when this process may not. */
int pool_launch_give(const struct pool_launch *launch, uid_t uid, gid_t gid);

/* Removes the sockets. */
void pool_launch_unlink(struct pool_launch *launch);

/* Closes what is open. */
void pool_launch_deinit(struct pool_launch *launch);

/* True when runtime_dir leaves room for the paths of sockets. */
int pool_launch_check_dir(const char *runtime_dir, struct base_error *error);

/* Removes sockets of sandboxes that are none of this pool: left by a manager that was killed. */
void pool_launch_sweep(const struct pool *pool);

/* The paths of a sandbox that there is already, and a connection to its VMM. 0 or -errno. */
int pool_launch_adopt(struct pool_launch *launch, const struct pool *pool, const char *id);

/* Connects to what listens on `<socket path>_<port>`. A descriptor, or -ECONNREFUSED when nothing
 * does or it is busy, or another -errno. Does not block. */
int pool_launch_connect(const struct pool_launch *launch, uint32_t port);
