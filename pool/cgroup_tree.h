/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Control groups as directories and files: one for each sandbox, below one of the pool's own.
 *
 *     version 2   <own>/warmbox-<name>/<sandbox id>
 *     version 1   the same in the hierarchy of each controller
 *
 * <own> is the cgroup that this process is in. Version 2 allows no processes in a cgroup that has
 * controllers for those below it; so this process moves to <own>/warmboxd, unless it is there
 * already (systemd's DelegateSubgroup=). Version 2 is taken where it has any controller that is
 * wanted, version 1 otherwise.
 *
 * Everything here blocks: entering a cgroup of version 1 waits for a grace period of RCU, some ten
 * milliseconds, unless somebody else just did. Calls for different sandboxes may run at once.
 */

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define POOL_CGROUP_DAEMON "warmboxd" /* where version 2 has this process */
#define POOL_CGROUP_PREFIX "warmbox-"
/* cpu, memory, pids and io have a hierarchy each at most. */
#define POOL_CGROUP_ROOTS_MAX 4
#define POOL_CGROUP_PATH_MAX  1024
/* As version 2 counts; version 1 gets the same in its own units. */
#define POOL_CGROUP_WEIGHT_DEFAULT 100
#define POOL_CGROUP_WEIGHT_MAX	   10000
#define POOL_CGROUP_IO_WEIGHT_MAX  1000

enum pool_cgroup_controller {
	POOL_CGROUP_MEMORY = 1 << 0,
	POOL_CGROUP_CPU = 1 << 1,
	POOL_CGROUP_PIDS = 1 << 2,
	POOL_CGROUP_IO = 1 << 3,
};
#define POOL_CGROUP_ALWAYS (POOL_CGROUP_MEMORY | POOL_CGROUP_CPU | POOL_CGROUP_PIDS)

/* Of one sandbox. 0: none, unless said otherwise. */
struct pool_cgroup_limits {
	uint64_t memory_bytes; /* all that is charged to it, the kernel's memory for it as well */
	uint64_t swap_bytes;   /* beside memory_bytes; looked at with memory_bytes only */
	unsigned cpu_weight;   /* 0: as it is */
	unsigned cpu_percent;  /* of one CPU, over a tenth of a second */
	unsigned pids;	       /* threads count */
	unsigned io_weight;    /* 0: as it is */
};

/* What limits have done to one sandbox. */
struct pool_cgroup_events {
	uint64_t oom_kills;    /* processes killed since its memory was used up */
	uint64_t pids_refused; /* threads that could not be made */
	uint64_t throttled_ns; /* time that its CPU quota has taken from it */
	uint64_t memory_limit; /* in bytes, as the kernel has it; 0: not known */
};

/* Where the kernel tells about cgroups; for tests something else than the default. */
struct pool_cgroup_source {
	const char *cgroup;    /* NULL: /proc/self/cgroup */
	const char *mountinfo; /* NULL: /proc/self/mountinfo */
};

struct pool_cgroup_root {
	char path[POOL_CGROUP_PATH_MAX];
	unsigned controllers; /* that it limits with */
	int fd;
};

/* Immutable once it is open, so all threads may use it. */
struct pool_cgroup_tree {
	unsigned version;     /* 0: there is none */
	unsigned controllers; /* of all roots */
	bool swap;	      /* swap can be limited */
	const char *io_file;  /* NULL: there is no weight for disks */
	struct pool_cgroup_root roots[POOL_CGROUP_ROOTS_MAX];
	unsigned n_roots;
};

/*
 * Finds the hierarchies, makes the pool's own directory in each, and lets this process give
 * controllers to those below. wanted: enum pool_cgroup_controller; those that are not to be had are
 * left out. name tells pools of one host apart. -ENOTSUP when nothing of it is there; another
 * -errno, with the reason and what to do about it in error, when there is something that may not be
 * used. With -errno the tree is closed.
 */
int pool_cgroup_tree_open(struct pool_cgroup_tree *tree, const struct pool_cgroup_source *source,
			  const char *name, unsigned wanted, struct base_error *error);

/* Opens one of a directory that is there, as saved by another process. */
int pool_cgroup_tree_reopen(struct pool_cgroup_tree *tree, const char *line);
/* "<version> <controllers> <path>\n" for each root; for pool_cgroup_tree_reopen(). Owned by the
 * caller; NULL: out of memory. */
char *pool_cgroup_tree_save(const struct pool_cgroup_tree *tree);

/* remove: the directories of the pool, too, when nothing is in them any more. Returns how many of
 * these could not be removed. */
unsigned pool_cgroup_tree_close(struct pool_cgroup_tree *tree, bool remove);

/* Makes one with its limits. ret_fd (may be NULL): with version 2 its directory, for
 * CLONE_INTO_CGROUP, owned by the caller; else -1. 0 or -errno, and then there is none. */
int pool_cgroup_tree_make(const struct pool_cgroup_tree *tree, const char *id,
			  const struct pool_cgroup_limits *limits, int *ret_fd);

/* Moves a process with all its threads there. The caller sees to it that the pid is not reused
 * meanwhile. -ESRCH: it has ended. */
int pool_cgroup_tree_enter(const struct pool_cgroup_tree *tree, const char *id, pid_t pid);

/* Writes the limits again. Tries all of them, and returns the first failure. */
int pool_cgroup_tree_set(const struct pool_cgroup_tree *tree, const char *id,
			 const struct pool_cgroup_limits *limits);

/* What is not known stays 0. */
void pool_cgroup_tree_events(const struct pool_cgroup_tree *tree, const char *id,
			     struct pool_cgroup_events *ret_events);

/* Removes one; 0 also when there was none. -EBUSY: there are processes in it, for example one that
 * is about to end. */
int pool_cgroup_tree_remove(const struct pool_cgroup_tree *tree, const char *id);

/*
 * Kills whatever is in the cgroups of sandboxes and removes them, but those that keep wants (NULL:
 * none). Waits at most wait_ms for them to end. Returns how many are left that should not be, or
 * -errno.
 */
int pool_cgroup_tree_sweep(const struct pool_cgroup_tree *tree,
			   bool (*keep)(void *userdata, const char *id), void *userdata,
			   unsigned wait_ms);
