/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What /proc says of memory and of the processes below one (bytes and nanoseconds), and which cores
 * they may use. */

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A field of /proc/meminfo in bytes; 0 when there is none. */
uint64_t bench_meminfo(const char *field);

/* Processes of one kind: the manager, what spawns, the pager, the VMMs. */
enum bench_role {
	BENCH_ROLE_MANAGER, /* the root of the tree */
	BENCH_ROLE_SPAWNER, /* its child that is neither of the others */
	BENCH_ROLE_PAGER,
	BENCH_ROLE_VMM,
	BENCH_ROLES,
};
const char *bench_role_name(enum bench_role role);

struct bench_usage {
	size_t processes, threads, fds;
	/* With those that have ended and were waited for: these are VMMs. */
	uint64_t user_ns, system_ns;
	uint64_t rss_bytes;
	uint64_t pss_bytes, private_bytes; /* only with memory */
};

/* Looks at pid and everything below it. memory: also adds up smaps_rollup, which takes a while for
 * each process. Processes that end meanwhile are left out. */
void bench_proc_usage(pid_t pid, int memory, struct bench_usage ret_usage[BENCH_ROLES]);

/* Bytes of guest memory that only this VMM has: its dirty private pages of memfds. */
uint64_t bench_proc_guest_private(pid_t pid);

/* Calls fn for pid and each of its descendants. */
void bench_proc_each(pid_t pid, void (*fn)(void *userdata, pid_t pid), void *userdata);

/* The cores that this process may use, lowest first; returns how many, at most n. */
size_t bench_cores(int *ret_cores, size_t n);

/* Binds the one thread tid (0: the caller) to a core; what it starts later inherits that. 0 or
 * -errno. */
int bench_pin(pid_t tid, int core);
/* Binds every thread of the process and of its descendants to the cores of set. 0 or -errno. */
int bench_pin_tree(pid_t pid, const cpu_set_t *set);
