/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The files of cgroups: making one, its limits, who is in it, its end; see cgroup_tree.h.
 *
 * A cgroup of a sandbox is a directory of its id in each root of the tree. Making one that fails
 * half-way removes what was made. Removing one says -EBUSY while processes are in it, and whoever
 * asked tries again.
 *
 * Everything blocks. There is no state but the tree, which does not change.
 */

#include "pool/cgroup_tree.h"

#include "base/clock.h"
#include "base/fd.h"
#include "pool/cgroup_private.h"
#include "pool/launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENTRY_MAX	 (POOL_SANDBOX_ID_LENGTH + 64)
#define CPU_PERIOD_US	 100000
#define V1_SHARES	 1024 /* what version 1 has for POOL_CGROUP_WEIGHT_DEFAULT */
#define PROCS_MAX	 KIB(64)
#define SWEEP_PAUSE_US	 5000
#define V1_UNLIMITED_MIN (UINT64_C(1) << 60) /* version 1 says "none" with a huge number */

static int entry_path(char *out, const char *id, const char *file)
{
	int n = snprintf(out, ENTRY_MAX, "%s%s%s", id ?: "", id ? "/" : "", file);

	return n < ENTRY_MAX ? 0 : -ENAMETOOLONG;
}

int pool_cgroup_write(int directory, const char *id, const char *file, const char *text)
{
	char path[ENTRY_MAX];
	_cleanup_fd_ int fd = -1;
	int r = entry_path(path, id, file);

	if (r < 0) {
		return r;
	}
	fd = openat(directory, path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int write_number(int directory, const char *id, const char *file, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return pool_cgroup_write(directory, id, file, text);
}

/* The whole of a small file; NULL when it cannot be read. */
static char *read_entry(int directory, const char *id, const char *file)
{
	char path[ENTRY_MAX], *text;
	_cleanup_fd_ int fd = -1;
	size_t size;

	if (entry_path(path, id, file) < 0) {
		return NULL;
	}
	fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && base_fd_read_file(fd, PROCS_MAX, &text, &size) == 0 ? text : NULL;
}

/* --- limits --- */

/* Keeps the first failure. */
static void keep(int *result, int r)
{
	if (*result == 0) {
		*result = r;
	}
}

static uint64_t with_swap(const struct pool_cgroup_limits *limits)
{
	uint64_t sum;

	return __builtin_add_overflow(limits->memory_bytes, limits->swap_bytes, &sum) ? INT64_MAX
										      : sum;
}

/* Version 1 limits memory, and memory and swap together, which may never be less. So a limit that
 * grows needs the latter first. */
static int set_memory_v1(const struct pool_cgroup_tree *tree, int root, const char *id,
			 const struct pool_cgroup_limits *limits)
{
	int r = write_number(root, id, "memory.limit_in_bytes", limits->memory_bytes);

	if (tree->swap) {
		int with = write_number(root, id, "memory.memsw.limit_in_bytes", with_swap(limits));

		if (r == -EINVAL && with == 0) {
			r = write_number(root, id, "memory.limit_in_bytes", limits->memory_bytes);
		}
		keep(&r, with);
	}
	return r;
}

static int set_memory(const struct pool_cgroup_tree *tree, int root, const char *id,
		      const struct pool_cgroup_limits *limits)
{
	int r;

	if (limits->memory_bytes == 0) {
		return 0;
	}
	if (tree->version == 1) {
		return set_memory_v1(tree, root, id, limits);
	}
	r = write_number(root, id, "memory.max", limits->memory_bytes);
	if (tree->swap) {
		keep(&r, write_number(root, id, "memory.swap.max", limits->swap_bytes));
	}
	return r;
}

static int set_cpu(const struct pool_cgroup_tree *tree, int root, const char *id,
		   const struct pool_cgroup_limits *limits)
{
	uint64_t quota_us = (uint64_t)limits->cpu_percent * CPU_PERIOD_US / 100;
	char text[48];
	int r = 0;

	if (limits->cpu_weight > 0) {
		uint64_t shares =
			(uint64_t)limits->cpu_weight * V1_SHARES / POOL_CGROUP_WEIGHT_DEFAULT;

		r = tree->version == 1 ? write_number(root, id, "cpu.shares", MAX(shares, 2U))
				       : write_number(root, id, "cpu.weight", limits->cpu_weight);
	}
	if (quota_us == 0) {
		return r;
	}
	if (tree->version == 1) {
		keep(&r, write_number(root, id, "cpu.cfs_quota_us", quota_us));
	} else {
		snprintf(text, sizeof(text), "%" PRIu64 " %d", quota_us, CPU_PERIOD_US);
		keep(&r, pool_cgroup_write(root, id, "cpu.max", text));
	}
	return r;
}

static int set_root(const struct pool_cgroup_tree *tree, const struct pool_cgroup_root *root,
		    const char *id, const struct pool_cgroup_limits *limits)
{
	int r = 0;

	if (root->controllers & POOL_CGROUP_MEMORY) {
		keep(&r, set_memory(tree, root->fd, id, limits));
	}
	if (root->controllers & POOL_CGROUP_CPU) {
		keep(&r, set_cpu(tree, root->fd, id, limits));
	}
	if ((root->controllers & POOL_CGROUP_PIDS) && limits->pids > 0) {
		keep(&r, write_number(root->fd, id, "pids.max", limits->pids));
	}
	if ((root->controllers & POOL_CGROUP_IO) && limits->io_weight > 0 && tree->io_file) {
		keep(&r, write_number(root->fd, id, tree->io_file, limits->io_weight));
	}
	return r;
}

int pool_cgroup_tree_set(const struct pool_cgroup_tree *tree, const char *id,
			 const struct pool_cgroup_limits *limits)
{
	int r = 0;

	for (unsigned i = 0; i < tree->n_roots; i++) {
		keep(&r, set_root(tree, &tree->roots[i], id, limits));
	}
	return r;
}

/* --- making and removing --- */

int pool_cgroup_tree_make(const struct pool_cgroup_tree *tree, const char *id,
			  const struct pool_cgroup_limits *limits, int *ret_fd)
{
	int r = 0, fd = -1;

	for (unsigned i = 0; r == 0 && i < tree->n_roots; i++) {
		r = mkdirat(tree->roots[i].fd, id, 0755) < 0 ? -errno : 0;
	}
	if (r == 0) {
		r = pool_cgroup_tree_set(tree, id, limits);
	}
	if (r == 0 && ret_fd && tree->version == 2) {
		fd = openat(tree->roots[0].fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = fd < 0 ? -errno : 0;
	}
	if (r < 0) {
		(void)pool_cgroup_tree_remove(tree, id);
		return r;
	}
	if (ret_fd) {
		*ret_fd = fd;
	}
	return 0;
}

int pool_cgroup_tree_remove(const struct pool_cgroup_tree *tree, const char *id)
{
	int r = 0;

	for (unsigned i = 0; i < tree->n_roots; i++) {
		if (unlinkat(tree->roots[i].fd, id, AT_REMOVEDIR) < 0 && errno != ENOENT) {
			keep(&r, -errno);
		}
	}
	return r;
}

int pool_cgroup_tree_enter(const struct pool_cgroup_tree *tree, const char *id, pid_t pid)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < tree->n_roots; i++) {
		r = write_number(tree->roots[i].fd, id, "cgroup.procs", (uint64_t)pid);
	}
	return r;
}

/* --- what limits have done --- */

/* The number behind `name ` at the beginning of a line; 0 when there is none. */
static uint64_t value_of(const char *text, const char *name)
{
	size_t length = strlen(name);

	while (text && *text) {
		if (strncmp(text, name, length) == 0 && text[length] == ' ') {
			return strtoull(text + length, NULL, 10);
		}
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return 0;
}

static uint64_t value_in(int root, const char *id, const char *file, const char *name)
{
	_cleanup_free_ char *text = read_entry(root, id, file);

	return name ? value_of(text, name) : text ? strtoull(text, NULL, 10) : 0;
}

static void add_events(unsigned version, const struct pool_cgroup_root *root, const char *id,
		       struct pool_cgroup_events *events)
{
	bool v1 = version == 1;

	if (root->controllers & POOL_CGROUP_MEMORY) {
		events->oom_kills = value_in(
			root->fd, id, v1 ? "memory.oom_control" : "memory.events", "oom_kill");
		events->memory_limit =
			value_in(root->fd, id, v1 ? "memory.limit_in_bytes" : "memory.max", NULL);
		if (events->memory_limit >= V1_UNLIMITED_MIN) {
			events->memory_limit = 0;
		}
	}
	if (root->controllers & POOL_CGROUP_CPU) {
		events->throttled_ns =
			v1 ? value_in(root->fd, id, "cpu.stat", "throttled_time")
			   : value_in(root->fd, id, "cpu.stat", "throttled_usec") * NSEC_PER_USEC;
	}
	if (root->controllers & POOL_CGROUP_PIDS) {
		events->pids_refused = value_in(root->fd, id, "pids.events", "max");
	}
}

void pool_cgroup_tree_events(const struct pool_cgroup_tree *tree, const char *id,
			     struct pool_cgroup_events *ret_events)
{
	*ret_events = (struct pool_cgroup_events){ 0 };
	for (unsigned i = 0; i < tree->n_roots; i++) {
		add_events(tree->version, &tree->roots[i], id, ret_events);
	}
}

/* --- what another process has left --- */

static bool is_listed(int root, const char *id, pid_t pid)
{
	_cleanup_free_ char *text = read_entry(root, id, "cgroup.procs");
	char *save;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (strtol(line, NULL, 10) == pid) {
			return true;
		}
	}
	return false;
}

/* A pid may be reused between reading and killing, a pidfd not: what is listed when there is a
 * pidfd already is what it means. */
static void kill_one(int root, const char *id, pid_t pid)
{
	_cleanup_fd_ int pidfd = pidfd_open(pid, 0);

	if (pidfd >= 0 && is_listed(root, id, pid)) {
		(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	}
}

static void kill_all(const struct pool_cgroup_root *root, const char *id)
{
	_cleanup_free_ char *text = NULL;
	char *save;

	if (pool_cgroup_write(root->fd, id, "cgroup.kill", "1") == 0) {
		return;
	}
	text = read_entry(root->fd, id, "cgroup.procs");
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		kill_one(root->fd, id, (pid_t)strtol(line, NULL, 10));
	}
}

static bool is_id(const char *name)
{
	return strspn(name, "0123456789abcdef") == POOL_SANDBOX_ID_LENGTH &&
	       name[POOL_SANDBOX_ID_LENGTH] == '\0';
}

/* Kills and removes what may be removed now. How many are left, or -errno. */
static int sweep_root(const struct pool_cgroup_tree *tree, const struct pool_cgroup_root *root,
		      bool (*wanted)(void *userdata, const char *id), void *userdata)
{
	_cleanup_fd_ int fd = openat(root->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	int left = 0;

	if (!directory) {
		return -errno;
	}
	(void)TAKE_FD(fd);
	for (struct dirent *entry; (entry = readdir(directory));) {
		if (!is_id(entry->d_name) || (wanted && wanted(userdata, entry->d_name))) {
			continue;
		}
		kill_all(root, entry->d_name);
		left += pool_cgroup_tree_remove(tree, entry->d_name) < 0;
	}
	closedir(directory);
	return left;
}

int pool_cgroup_tree_sweep(const struct pool_cgroup_tree *tree,
			   bool (*wanted)(void *userdata, const char *id), void *userdata,
			   unsigned wait_ms)
{
	uint64_t end_ns = base_clock_monotonic_ns() + wait_ms * NSEC_PER_MSEC;

	for (;;) {
		int left = 0;

		for (unsigned i = 0; left >= 0 && i < tree->n_roots; i++) {
			int n = sweep_root(tree, &tree->roots[i], wanted, userdata);

			left = n < 0 ? n : left + n;
		}
		if (left <= 0 || base_clock_monotonic_ns() >= end_ns) {
			return left;
		}
		usleep(SWEEP_PAUSE_US);
	}
}

/* --- the tree --- */

char *pool_cgroup_tree_save(const struct pool_cgroup_tree *tree)
{
	size_t room = 1 + tree->n_roots * (POOL_CGROUP_PATH_MAX + 32), used = 0;
	char *text = calloc(1, room);

	for (unsigned i = 0; text && i < tree->n_roots; i++) {
		used += (size_t)snprintf(text + used, room - used, "%u %u %s\n", tree->version,
					 tree->roots[i].controllers, tree->roots[i].path);
	}
	return text;
}

int pool_cgroup_tree_reopen(struct pool_cgroup_tree *tree, const char *line)
{
	struct pool_cgroup_root *root = &tree->roots[0];
	char path[POOL_CGROUP_PATH_MAX];

	*tree = (struct pool_cgroup_tree){ .n_roots = 1 };
	if (sscanf(line, "%u %u %1023[^\n]", &tree->version, &root->controllers, path) != 3 ||
	    tree->version < 1 || tree->version > 2 || path[0] != '/') {
		*tree = (struct pool_cgroup_tree){ 0 };
		return -EINVAL;
	}
	strcpy(root->path, path);
	tree->controllers = root->controllers;
	root->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root->fd < 0) {
		*tree = (struct pool_cgroup_tree){ 0 };
		return -errno;
	}
	return 0;
}

unsigned pool_cgroup_tree_close(struct pool_cgroup_tree *tree, bool remove)
{
	unsigned left = 0;

	for (unsigned i = 0; i < tree->n_roots; i++) {
		base_fd_close(tree->roots[i].fd);
		if (remove && rmdir(tree->roots[i].path) < 0 && errno != ENOENT) {
			left++;
		}
	}
	*tree = (struct pool_cgroup_tree){ 0 };
	return left;
}
