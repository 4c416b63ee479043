/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The kernel's limits of sandboxes: a control group for each VMM, made ahead of it, removed behind
 * it, off the loop's thread. pool/cgroup_tree.h is what it does to the file system.
 *
 * With version 2 a VMM is born into its cgroup (CLONE_INTO_CGROUP), so the cgroup comes first. With
 * version 1 the process comes first and is moved: that can take tens of milliseconds, but neither
 * the spawner nor the loop waits for it. No sandbox is parked that is not in its cgroup.
 */

#include "base/list.h"
#include "pool/cgroup_tree.h"
#include "pool/launch.h"

#include <uv.h>

enum pool_cgroups_use {
	POOL_CGROUPS_OFF = 0,
	POOL_CGROUPS_AUTO,     /* where they may be used; else sandboxes do without */
	POOL_CGROUPS_REQUIRED, /* nothing is started without */
};

/* What the sandboxes of a template may take of the host. 0: no limit, unless said otherwise. */
struct pool_cgroup_config {
	unsigned memory_mib; /* of everything; 0: guest memory, what KVM needs for it, and: */
	unsigned memory_overhead_mib;
	unsigned swap_mib;
	unsigned cpu_percent; /* of one CPU */
	unsigned cpu_weight;  /* against other sandboxes; POOL_CGROUP_WEIGHT_DEFAULT */
	unsigned pids;	      /* threads of the VMM */
	unsigned io_weight;   /* 0: not set */
};

struct pool_cgroup;

/* What is done by the file system's thread, in this order. */
enum pool_cgroup_step {
	POOL_CGROUP_MAKE = 1 << 0,
	POOL_CGROUP_ENTER = 1 << 1,
	POOL_CGROUP_SET = 1 << 2,
	POOL_CGROUP_LOOK = 1 << 3,
	POOL_CGROUP_REMOVE = 1 << 4,
};

/* Who makes, moves and asks, and who removes: neither waits for the other. */
struct pool_cgroup_lane {
	struct pool_cgroups *cgroups;
	uv_work_t work;
	struct base_link waiting, batch;
	bool busy;
};

/* Those of a pool. */
struct pool_cgroups {
	uv_loop_t *loop;
	enum pool_cgroups_use use;
	struct pool_cgroup_tree tree;
	/* Directories of managers before this one, should they be elsewhere. */
	struct pool_cgroup_tree *former;
	size_t n_former;
	char *record; /* path of a file that says where the directories are, for who comes after */
	bool is_trouble;
	char trouble[BASE_ERROR_TEXT_MAX]; /* why sandboxes do without */
	struct pool_cgroup_lane lanes[2];
	uv_timer_t retry; /* of removals that were refused */
	struct base_link refused;
	bool has_retry;
	unsigned n_cgroups;			       /* that are not removed */
	void (*on_idle)(struct pool_cgroups *cgroups); /* NULL: not stopping */
};

/* One; fields are private but for those said. */
struct pool_cgroup {
	struct base_link link;
	struct pool_cgroups *cgroups;
	char id[POOL_SANDBOX_ID_LENGTH + 1];
	unsigned wanted, running, done; /* steps */
	struct pool_cgroup_limits limits, running_limits;
	pid_t pid;
	bool made, entered;		  /* may be read */
	int fd;				  /* version 2, once made: its directory; may be borrowed */
	int result;			  /* of the steps that run */
	struct pool_cgroup_events events; /* after POOL_CGROUP_LOOK; may be read */
	unsigned tries;
	/* Steps were tried; result is the -errno of the first that failed, after which none was. */
	void (*fn)(struct pool_cgroup *cgroup, unsigned steps, int result);
	void *userdata; /* the owner's */
};

/*
 * Finds the host's cgroups, and what a manager before this one with the same runtime directory has
 * left. with_io: somebody has a weight for disks. Blocks. 0, or -errno with the reason in error
 * when they are required and cannot be had; when they are not required, the reason is kept as
 * trouble. Nothing is to be freed after -errno.
 */
int pool_cgroups_init(struct pool_cgroups *cgroups, uv_loop_t *loop, enum pool_cgroups_use use,
		      bool with_io, const char *runtime_dir, struct base_error *error);

/* Kills everything that a manager before this one has left in its cgroups, and removes them, but
 * those of sandboxes that keep wants (NULL: none). Before there are any of this one. Blocks. */
void pool_cgroups_sweep(struct pool_cgroups *cgroups, bool (*keep)(void *userdata, const char *id),
			void *userdata);

/* Every cgroup has been freed. Calls on_idle, maybe from inside, when all are removed, or those
 * that cannot be are given up. */
void pool_cgroups_stop(struct pool_cgroups *cgroups, void (*on_idle)(struct pool_cgroups *cgroups));
/* After that, or when none was ever made. Removes the pool's directories. */
void pool_cgroups_deinit(struct pool_cgroups *cgroups);

/* There are cgroups to be had. */
static inline bool pool_cgroups_are_there(const struct pool_cgroups *cgroups)
{
	return cgroups->tree.version > 0;
}

/* Sandboxes do without for this reason; logged when it is the first. */
void pool_cgroups_say_trouble(struct pool_cgroups *cgroups, const char *text);

/* The limits of a sandbox: config is its template's, image_zero_bytes what of the image's memory
 * is not stored. */
struct pool_cgroup_limits pool_cgroup_limits_of(const struct pool_cgroup_config *config,
						uint64_t memory_bytes, uint64_t zero_bytes,
						unsigned n_vcpus);

/* The weight of a sandbox that is worth as much less as a process of this nice value. */
unsigned pool_cgroup_weight_of_nice(unsigned weight, int nice);

/* Begins to make one. fn is called with POOL_CGROUP_MAKE. NULL: out of memory. */
struct pool_cgroup *
pool_cgroup_new(struct pool_cgroups *cgroups, const char *id,
		const struct pool_cgroup_limits *limits,
		void (*fn)(struct pool_cgroup *cgroup, unsigned steps, int result), void *userdata);
/* The same for one that is there, with a process in it: for who takes a sandbox over. */
struct pool_cgroup *pool_cgroup_adopt(
	struct pool_cgroups *cgroups, const char *id, const struct pool_cgroup_limits *limits,
	void (*fn)(struct pool_cgroup *cgroup, unsigned steps, int result), void *userdata);

/* Moves a process there, when it is made. Until fn says so the process must not be reaped. */
void pool_cgroup_enter(struct pool_cgroup *cgroup, pid_t pid);
static inline bool pool_cgroup_is_entering(const struct pool_cgroup *cgroup)
{
	return ((cgroup->wanted | cgroup->running) & POOL_CGROUP_ENTER) != 0;
}

/* Changes its limits, soon. Blocks nothing, so a claim may do it. */
void pool_cgroup_set(struct pool_cgroup *cgroup, const struct pool_cgroup_limits *limits);

/* Asks what the limits have done to it; fn is called with POOL_CGROUP_LOOK. */
void pool_cgroup_look(struct pool_cgroup *cgroup);

/* Removes it in the background, when the process in it has ended. fn is not called any more; the
 * caller has given it up. NULL is fine. */
void pool_cgroup_free(struct pool_cgroup *cgroup);
