/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The jail of VMM processes: how much of it this host allows, and whose ids they get.
 *
 * The jail itself is made by warmbox-spawner (pool/spawner.h) when a VMM is started, so that it
 * costs nothing later. It has nothing to do with the event loop: the command line uses this, too.
 */

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct base_message;

enum pool_jail_level {
	/* A process like any other of the daemon's user. */
	POOL_JAIL_NONE = 0,
	/* Namespaces, no capabilities, limits; the user id is the daemon's. For a daemon without
	 * capabilities. */
	POOL_JAIL_ROOTLESS,
	/* The same, and a user and group id that no other process has. */
	POOL_JAIL_FULL,
	/* The best of the two that this host allows. Never of a VMM. */
	POOL_JAIL_AUTO,
};

enum pool_jail_network {
	POOL_JAIL_NETWORK_OWN = 0, /* an empty network namespace for each */
	POOL_JAIL_NETWORK_SHARED,  /* one empty network namespace for all */
};

/* Ids that nothing else on a host uses: above those of containers (systemd's ranges), below what is
 * negative as an int. */
#define POOL_JAIL_UID_FIRST 2000000000u
#define POOL_JAIL_UID_LAST  2000065535u
/* Of VMMs without a manager: template builds. */
#define POOL_JAIL_UID_ALONE (POOL_JAIL_UID_FIRST - 1)
/* Of a configured range. */
#define POOL_JAIL_UIDS_MAX 1048576u

struct pool_jail_config {
	enum pool_jail_level level;
	enum pool_jail_network network;
	/* User ids, which are group ids as well, from the first to the last; for POOL_JAIL_FULL. */
	uint32_t uid_first, uid_last;
};

/* "none", "rootless", "full", "auto". */
const char *pool_jail_level_name(enum pool_jail_level level);

/*
 * Turns POOL_JAIL_AUTO into what this host allows, and makes sure of any other, by starting a real
 * VMM in it and ending it. Blocks for some milliseconds. 0, or -errno when there is no such jail,
 * with the reason in error. Of why AUTO did not become POOL_JAIL_FULL, lacking tells (empty when it
 * did; NULL: nobody wants to know).
 */
int pool_jail_resolve(struct pool_jail_config *config, const char *spawner_path,
		      const char *vmm_path, struct base_error *lacking, struct base_error *error);

/* One VMM without a manager. */
struct pool_jail_start {
	const char *spawner_path, *vmm_path;
	int control, errors; /* its socket; its standard error, or -1. Borrowed. */
	uint32_t uid;	     /* for POOL_JAIL_FULL */
};

/*
 * Starts a VMM by a spawner of its own, which ends again. Blocks until there is a process, which is
 * a child of this one. One that could not become the VMM is reaped. 0 with its pid and pidfd (the
 * caller's), or -errno with the reason in error.
 */
int pool_jail_start(const struct pool_jail_config *config, const struct pool_jail_start *start,
		    pid_t *ret_pid, int *ret_pidfd, struct base_error *error);

/* Fills in what SPAWNER_OP_START says of the jail. */
void pool_jail_fill_start(const struct pool_jail_config *config, uint32_t uid,
			  struct base_message *start);
/* argv[2] of the spawner. */
const char *pool_jail_place(const struct pool_jail_config *config);

/*
 * User ids: each is given to one VMM at a time. They are handed out in turn, from a place in the
 * range that is drawn, so that one comes back as late as possible.
 */
struct pool_jail_uids {
	uint32_t first, n, next, n_taken;
	uint8_t *taken; /* a bit for each */
};

/* 0 or -ENOMEM. first <= last, POOL_JAIL_UIDS_MAX at most. */
int pool_jail_uids_init(struct pool_jail_uids *uids, uint32_t first, uint32_t last);
void pool_jail_uids_deinit(struct pool_jail_uids *uids);
/* 0, or -EAGAIN: all are taken. */
int pool_jail_uids_take(struct pool_jail_uids *uids, uint32_t *ret_uid);
/* The VMM that had it has been reaped. */
void pool_jail_uids_give(struct pool_jail_uids *uids, uint32_t uid);
/* A VMM that is there already has it (one of an earlier manager). 0; -EEXIST: it is taken; -ERANGE:
 * it is none of the range. */
int pool_jail_uids_claim(struct pool_jail_uids *uids, uint32_t uid);
