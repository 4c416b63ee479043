/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Making, asking and removing a memory cgroup. Processes that end while they are moved do not
 * matter; one that cannot be moved makes entering fail, and what was moved is moved back. One
 * thread.
 */

#include "bench/cgroup.h"

#include "base/fd.h"
#include "base/util.h"
#include "bench/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define V1_ROOT	       "/sys/fs/cgroup/memory"
#define V2_ROOT	       "/sys/fs/cgroup"
#define LEAVE_TRIES    200
#define LEAVE_RETRY_US 50000

static bool is_cgroup(const char *path, long magic)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (long)fs.f_type == magic;
}

static int write_pid(const char *directory, pid_t pid)
{
	char path[192], text[16];
	_cleanup_fd_ int fd = -1;
	int n = snprintf(text, sizeof(text), "%d", pid);

	snprintf(path, sizeof(path), "%s/cgroup.procs", directory);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, text, (size_t)n) != n ? -errno : 0;
}

struct move {
	const char *to;
	int result;
};

static void move_one(void *userdata, pid_t pid)
{
	struct move *move = userdata;
	int r = write_pid(move->to, pid);

	if (r < 0 && r != -ESRCH) {
		move->result = r;
	}
}

int bench_cgroup_enter(struct bench_cgroup *cgroup, pid_t pid)
{
	bool v2 = is_cgroup(V2_ROOT, CGROUP2_SUPER_MAGIC);
	struct move move = { .to = cgroup->path };

	memset(cgroup, 0, sizeof(*cgroup));
	if (!v2 && !is_cgroup(V1_ROOT, CGROUP_SUPER_MAGIC)) {
		return -ENOENT;
	}
	snprintf(cgroup->parent, sizeof(cgroup->parent), "%s", v2 ? V2_ROOT : V1_ROOT);
	snprintf(cgroup->path, sizeof(cgroup->path), "%s/warmbox-bench-%d", cgroup->parent, pid);
	snprintf(cgroup->usage, sizeof(cgroup->usage), "%s/%s", cgroup->path,
		 v2 ? "memory.current" : "memory.usage_in_bytes");
	if (mkdir(cgroup->path, 0755) < 0) {
		move.result = -errno;
		cgroup->path[0] = '\0';
		return move.result;
	}
	if (access(cgroup->usage, R_OK) < 0) {
		move.result = -errno; /* version 2 without the memory controller */
	} else {
		bench_proc_each(pid, move_one, &move);
	}
	if (move.result < 0) {
		bench_cgroup_leave(cgroup, pid);
	}
	return move.result;
}

uint64_t bench_cgroup_bytes(const struct bench_cgroup *cgroup)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_fd_ int fd = -1;
	size_t size;

	if (!cgroup->path[0]) {
		return 0;
	}
	fd = open(cgroup->usage, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || base_fd_read_file(fd, 64, &text, &size) < 0) {
		return 0;
	}
	return strtoull(text, NULL, 10);
}

void bench_cgroup_leave(struct bench_cgroup *cgroup, pid_t pid)
{
	struct move move = { .to = cgroup->parent };

	if (!cgroup->path[0]) {
		return;
	}
	/* A VMM that is ending holds it until it is gone, and one may be started meanwhile. */
	for (int i = 0; i < LEAVE_TRIES; i++) {
		bench_proc_each(pid, move_one, &move);
		if (rmdir(cgroup->path) == 0) {
			break;
		}
		if (i + 1 == LEAVE_TRIES) {
			fprintf(stderr, "%s stays behind: %s\n", cgroup->path, strerror(errno));
		}
		usleep(LEAVE_RETRY_US);
	}
	cgroup->path[0] = '\0';
}
