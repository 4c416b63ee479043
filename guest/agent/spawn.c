/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Where system calls are interpreted, one costs a third of a millisecond and a page fault several,
 * so what happens between a request and the first instruction of a program is counted here:
 *
 *   clone(CLONE_VM | CLONE_VFORK), then in the child rt_sigprocmask, setsid, a dup2 for each of
 *   stdout and stderr (stdin too when it is not /dev/null), chdir unless it is /, execve.
 *
 * The child shares our memory and we sleep until it has called execve or exited, so it reports an
 * error by writing it to a variable. It runs on a stack of its own, which is static: one child at a
 * time.
 *
 * Ends are told by a signalfd: PID 1 has to reap orphans too, so a pidfd for each of our own would
 * come on top of it.
 */

#include "guest/agent/spawn.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Room for a path and execve. */
#define STACK_BYTES (64 * 1024)
/* What has been killed forks no more, so the second pass meets what was forked during the first. */
#define KILL_PASSES 2

struct child {
	const struct agent_spawn_params *params;
	int result;
	const char *step;
};

static void ignore(int signal)
{
}

int agent_spawn_init(int *ret_signal_fd)
{
	/* An empty handler, not SIG_IGN: execve puts handlers back to the default, but keeps what
	 * is ignored. */
	const struct sigaction action = { .sa_handler = ignore, .sa_flags = SA_RESTART };
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	if (sigaction(SIGPIPE, &action, NULL) < 0 || sigprocmask(SIG_SETMASK, &mask, NULL) < 0) {
		return -errno;
	}
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0) {
		return -errno;
	}
	*ret_signal_fd = fd;
	return 0;
}

/* Runs argv[0] from the first directory of path that has it. Returns only on failure, -errno. */
static int search(const struct agent_spawn_params *params)
{
	const char *name = params->argv[0];
	const char *directory = params->path;
	size_t name_length = strlen(name);
	int result = -ENOENT;
	char candidate[PATH_MAX];

	if (strchr(name, '/')) {
		execve(name, params->argv, params->envp);
		return -errno;
	}
	while (name_length > 0 && name_length <= NAME_MAX && directory) {
		const char *end = strchrnul(directory, ':');
		size_t length = (size_t)(end - directory);

		/* An empty entry would mean the working directory: not from here. */
		if (length > 0 && length + 1 + name_length < sizeof(candidate)) {
			memcpy(candidate, directory, length);
			candidate[length] = '/';
			memcpy(candidate + length + 1, name, name_length + 1);
			execve(candidate, params->argv, params->envp);
			if (errno == EACCES) {
				result = -EACCES;
			} else if (errno != ENOENT && errno != ENOTDIR) {
				return -errno;
			}
		}
		directory = *end ? end + 1 : NULL;
	}
	return result;
}

/* In the child, in our memory. */
static int child_main(void *arg)
{
	struct child *child = arg;
	const struct agent_spawn_params *params = child->params;
	sigset_t none;

	sigemptyset(&none);
	child->step = "start a session";
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || setsid() < 0) {
		goto failed;
	}
	child->step = "set up the standard streams";
	for (int i = 0; i < AGENT_SPAWN_FDS; i++) {
		if (params->fds[i] >= 0 && dup2(params->fds[i], i) < 0) {
			goto failed;
		}
	}
	child->step = "change to the working directory";
	if (strcmp(params->cwd, "/") != 0 && chdir(params->cwd) < 0) {
		goto failed;
	}
	child->step = "execute the program";
	child->result = search(params);
	_exit(127);
failed:
	child->result = -errno;
	_exit(127);
}

int agent_spawn(const struct agent_spawn_params *params, pid_t *ret_pid, const char **ret_step)
{
	static _Alignas(64) char stack[STACK_BYTES];
	struct child child = { .params = params };
	pid_t pid;

	pid = clone(child_main, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &child);
	if (pid < 0) {
		*ret_step = "create a process";
		return -errno;
	}
	if (child.result < 0) {
		int status;

		agent_spawn_wait(pid, &status);
		*ret_step = child.step;
		return child.result;
	}
	*ret_pid = pid;
	return 0;
}

pid_t agent_spawn_rearm(int signal_fd)
{
	struct signalfd_siginfo info;
	ssize_t n;

	/* One read is enough: a signal is pending once, however many children have ended. */
	do {
		n = read(signal_fd, &info, sizeof(info));
	} while (n < 0 && errno == EINTR);
	return n == sizeof(info) ? (pid_t)info.ssi_pid : 0;
}

pid_t agent_spawn_next(int *ret_status)
{
	pid_t pid;

	do {
		pid = waitpid(-1, ret_status, WNOHANG | __WALL);
	} while (pid < 0 && errno == EINTR);
	return pid > 0 ? pid : 0;
}

void agent_spawn_wait(pid_t pid, int *ret_status)
{
	while (waitpid(pid, ret_status, __WALL) < 0 && errno == EINTR) {
	}
}

/* The session of a process that is not a zombie, or -1. */
static pid_t session_of(int proc_fd, const char *name)
{
	char path[32], line[512], *field;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/stat", name);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return -1;
	}
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (n <= 0) {
		return -1;
	}
	line[n] = '\0';
	/* "pid (name) state parent group session ...". The name may itself contain anything. */
	field = strrchr(line, ')');
	if (!field || strlen(field) < 4 || field[2] == 'Z' || field[2] == 'X') {
		return -1;
	}
	field += 3;
	strtol(field, &field, 10);
	strtol(field, &field, 10);
	return (pid_t)strtol(field, NULL, 10);
}

static void kill_members(DIR *proc, pid_t session)
{
	struct dirent *entry;

	rewinddir(proc);
	while ((entry = readdir(proc))) {
		if (isdigit((unsigned char)entry->d_name[0]) && strlen(entry->d_name) <= 10 &&
		    session_of(dirfd(proc), entry->d_name) == session) {
			kill((pid_t)atoi(entry->d_name), SIGKILL);
		}
	}
}

void agent_spawn_kill_session(pid_t session)
{
	DIR *proc;

	kill(-session, SIGKILL);
	proc = opendir("/proc");
	if (!proc) {
		return;
	}
	for (int i = 0; i < KILL_PASSES; i++) {
		kill_members(proc, session);
	}
	closedir(proc);
}

static int compare_fds(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

void agent_spawn_close(int *fds, size_t n_fds)
{
	qsort(fds, n_fds, sizeof(fds[0]), compare_fds);
	for (size_t i = 0; i < n_fds;) {
		size_t last = i;

		while (last + 1 < n_fds && fds[i] >= 0 && fds[last + 1] == fds[last] + 1) {
			last++;
		}
		if (fds[i] >= 0 &&
		    (last == i || syscall(SYS_close_range, fds[i], fds[last], 0) < 0)) {
			for (size_t j = i; j <= last; j++) {
				close(fds[j]);
			}
		}
		i = last + 1;
	}
}
