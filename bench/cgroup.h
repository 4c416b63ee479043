/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A memory cgroup of our own around a tree of processes: what they are charged from then on, kernel
 * memory included, whatever others on the machine do. Versions 1 and 2.
 */

#include <stdint.h>
#include <sys/types.h>

struct bench_cgroup {
	char parent[64];
	char path[128]; /* empty: there is none */
	char usage[160];
};

/* Makes one, and moves pid and everything below it into it; later children are born there. 0 or
 * -errno, where there is no memory cgroup or it may not be made. */
int bench_cgroup_enter(struct bench_cgroup *cgroup, pid_t pid);
/* Bytes charged; 0 when there is no cgroup. */
uint64_t bench_cgroup_bytes(const struct bench_cgroup *cgroup);
/* Moves everything to the parent and removes it. */
void bench_cgroup_leave(struct bench_cgroup *cgroup, pid_t pid);
