/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reads /proc. A process may end at any moment: what cannot be read counts as nothing. One thread.
 */

#include "bench/proc.h"

#include "base/fd.h"
#include "base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX_BYTES MIB(1)

/* The whole of a file below /proc, NUL-terminated; NULL when it cannot be read. */
static char *read_proc(const char *format, pid_t pid)
{
	char path[64];
	char *text = NULL;
	_cleanup_fd_ int fd = -1;
	size_t size;

	/* NOLINTNEXTLINE: formats are literals of this file */
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, format);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || base_fd_read_file(fd, FILE_MAX_BYTES, &text, &size) < 0) {
		return NULL;
	}
	return text;
}

/* "<field>   <n> kB" in bytes. */
static uint64_t kib_field(const char *text, const char *field)
{
	size_t length = strlen(field);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, field, length) == 0 && line[length] == ':') {
			return strtoull(line + length + 1, NULL, 10) * 1024;
		}
	}
	return 0;
}

uint64_t bench_meminfo(const char *field)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_fd_ int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	size_t size;

	if (fd < 0 || base_fd_read_file(fd, FILE_MAX_BYTES, &text, &size) < 0) {
		return 0;
	}
	return kib_field(text, field);
}

static size_t count_entries(const char *what, pid_t pid)
{
	char path[64];
	size_t n = 0;
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	directory = opendir(path);
	if (!directory) {
		return 0;
	}
	for (struct dirent *entry; (entry = readdir(directory));) {
		n += entry->d_name[0] != '.';
	}
	closedir(directory);
	return n;
}

static void each_child(pid_t pid, pid_t tid, void (*fn)(void *userdata, pid_t pid), void *userdata)
{
	char name[64];
	_cleanup_free_ char *text = NULL;
	char *end;

	snprintf(name, sizeof(name), "task/%d/children", tid);
	text = read_proc(name, pid);
	for (char *at = text; at && *at; at = end) {
		pid_t child = (pid_t)strtol(at, &end, 10);

		if (end == at) {
			return;
		}
		bench_proc_each(child, fn, userdata);
	}
}

static void each_thread(pid_t pid, void (*fn)(void *userdata, pid_t pid, pid_t tid), void *userdata)
{
	char path[64];
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	directory = opendir(path);
	for (struct dirent *entry; directory && (entry = readdir(directory));) {
		if (entry->d_name[0] != '.') {
			fn(userdata, pid, (pid_t)strtol(entry->d_name, NULL, 10));
		}
	}
	if (directory) {
		closedir(directory);
	}
}

struct each {
	void (*fn)(void *userdata, pid_t pid);
	void *userdata;
};

static void each_child_of(void *userdata, pid_t pid, pid_t tid)
{
	const struct each *each = userdata;

	each_child(pid, tid, each->fn, each->userdata);
}

void bench_proc_each(pid_t pid, void (*fn)(void *userdata, pid_t pid), void *userdata)
{
	struct each each = { fn, userdata };

	fn(userdata, pid);
	each_thread(pid, each_child_of, &each);
}

const char *bench_role_name(enum bench_role role)
{
	static const char *const names[BENCH_ROLES] = {
		[BENCH_ROLE_MANAGER] = "manager",
		[BENCH_ROLE_SPAWNER] = "spawner",
		[BENCH_ROLE_PAGER] = "pager",
		[BENCH_ROLE_VMM] = "VMMs",
	};

	return names[role];
}

struct usage {
	pid_t root;
	int memory;
	struct bench_usage *roles;
};

static enum bench_role role_of(pid_t root, pid_t pid, const char *name, size_t length)
{
	if (pid == root) {
		return BENCH_ROLE_MANAGER;
	}
	/* The kernel keeps 15 bytes of a name. */
	if (length >= 11 && strncmp(name, "warmbox-vmm", 11) == 0) {
		return BENCH_ROLE_VMM;
	}
	if (length >= 11 && strncmp(name, "warmbox-pag", 11) == 0) {
		return BENCH_ROLE_PAGER;
	}
	return BENCH_ROLE_SPAWNER;
}

static void add_process(void *userdata, pid_t pid)
{
	const struct usage *usage = userdata;
	_cleanup_free_ char *stat = read_proc("stat", pid), *rollup = NULL;
	const char *name = stat ? strchr(stat, '(') : NULL;
	const char *end = stat ? strrchr(stat, ')') : NULL;
	unsigned long long user, system, child_user, child_system, threads, rss;
	uint64_t tick_ns = NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK);
	struct bench_usage *role;

	/* proc_pid_stat(5): fields 14 to 17, 20 and 24. */
	if (!name || !end ||
	    sscanf(end + 1,
		   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu %*d %*d %llu "
		   "%*d %*u %*u %llu",
		   &user, &system, &child_user, &child_system, &threads, &rss) != 6) {
		return;
	}
	role = &usage->roles[role_of(usage->root, pid, name + 1, (size_t)(end - name - 1))];
	role->processes++;
	role->threads += threads;
	role->fds += count_entries("fd", pid);
	role->user_ns += user * tick_ns;
	role->system_ns += system * tick_ns;
	role->rss_bytes += rss * (uint64_t)sysconf(_SC_PAGESIZE);
	usage->roles[BENCH_ROLE_VMM].user_ns += child_user * tick_ns;
	usage->roles[BENCH_ROLE_VMM].system_ns += child_system * tick_ns;
	rollup = usage->memory ? read_proc("smaps_rollup", pid) : NULL;
	if (rollup) {
		role->pss_bytes += kib_field(rollup, "Pss");
		role->private_bytes +=
			kib_field(rollup, "Private_Clean") + kib_field(rollup, "Private_Dirty");
	}
}

void bench_proc_usage(pid_t pid, int memory, struct bench_usage ret_usage[BENCH_ROLES])
{
	struct usage usage = { .root = pid, .memory = memory, .roles = ret_usage };

	memset(ret_usage, 0, BENCH_ROLES * sizeof(*ret_usage));
	bench_proc_each(pid, add_process, &usage);
}

uint64_t bench_proc_guest_private(pid_t pid)
{
	_cleanup_free_ char *smaps = read_proc("smaps", pid);
	uint64_t bytes = 0;
	bool image = false;

	for (const char *line = smaps; line && *line;) {
		const char *end = strchrnul(line, '\n');
		const char *colon = memchr(line, ':', (size_t)(end - line));
		const char *space = memchr(line, ' ', (size_t)(end - line));

		if (colon && space && space < colon) {
			/* The head of a mapping: its first word is an address range. */
			image = memmem(line, (size_t)(end - line), " /memfd:", 8) != NULL;
		} else if (image && strncmp(line, "Private_Dirty:", 14) == 0) {
			bytes += strtoull(line + 14, NULL, 10) * 1024;
		}
		line = *end ? end + 1 : end;
	}
	return bytes;
}

/* --- where threads may run --- */

size_t bench_cores(int *ret_cores, size_t n)
{
	cpu_set_t set;
	size_t found = 0;

	if (sched_getaffinity(0, sizeof(set), &set) < 0) {
		return 0;
	}
	for (int core = 0; core < CPU_SETSIZE && found < n; core++) {
		if (CPU_ISSET(core, &set)) {
			ret_cores[found++] = core;
		}
	}
	return found;
}

int bench_pin(pid_t tid, int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	return sched_setaffinity(tid, sizeof(set), &set) < 0 ? -errno : 0;
}

struct pin {
	const cpu_set_t *set;
	int result;
};

static void pin_thread(void *userdata, pid_t pid, pid_t tid)
{
	struct pin *pin = userdata;

	if (sched_setaffinity(tid, sizeof(*pin->set), pin->set) < 0 && errno != ESRCH) {
		pin->result = -errno;
	}
}

static void pin_process(void *userdata, pid_t pid)
{
	each_thread(pid, pin_thread, userdata);
}

int bench_pin_tree(pid_t pid, const cpu_set_t *set)
{
	struct pin pin = { .set = set };

	bench_proc_each(pid, pin_process, &pin);
	return pin.result;
}
