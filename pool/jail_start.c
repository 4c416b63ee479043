/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One VMM in its jail, without a manager: for programs that start few, and to find out what jail
 * this host allows.
 *
 * Happy path: a spawner is started with a socket, asked for one process, and its socket closed,
 * which ends it. The process is a child of this program, as the spawner was.
 *
 * Failure: a spawner that cannot set itself up says why on its standard error, which is read here.
 * A process that could not become the VMM is reaped, and what it said is the error.
 *
 * Blocks, with a bound. Keeps nothing between calls; any thread.
 */

#include "pool/jail.h"

#include "base/fd.h"
#include "pool/spawner.h"
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a spawner that sets itself up, and of a process that becomes a VMM. */
#define TIMEOUT_MS 10000

/* A spawner for one start. */
struct helper {
	pid_t pid;
	int socket, errors;
};

static int spawn(struct helper *helper, const char *path, const char *vmm_path, const char *place,
		 int socket, int errors)
{
	char *argv[] = { (char *)path, (char *)vmm_path, (char *)place, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
	posix_spawn_file_actions_init(&actions);
	r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, socket, SPAWNER_CONTROL_FD);
	r = r ?: posix_spawn_file_actions_addclosefrom_np(&actions, SPAWNER_CONTROL_FD + 1);
	r = r ?: posix_spawn(&helper->pid, path, &actions, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return -r;
}

/* What is copied in the child lies above where the copies go. */
static int above(int *fd)
{
	int moved = fcntl(*fd, F_DUPFD_CLOEXEC, SPAWNER_CONTROL_FD + 1);

	if (moved < 0) {
		return -errno;
	}
	base_fd_close(*fd);
	*fd = moved;
	return 0;
}

static int start_helper(struct helper *helper, const struct pool_jail_config *config,
			const struct pool_jail_start *start)
{
	_cleanup_fd_ int theirs = -1, their_errors = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	helper->socket = pair[0];
	theirs = pair[1];
	if (pipe2(pair, O_CLOEXEC) < 0) {
		return -errno;
	}
	helper->errors = pair[0];
	their_errors = pair[1];
	r = above(&theirs);
	r = r ?: above(&their_errors);
	return r
		       ?: spawn(helper, start->spawner_path, start->vmm_path,
				pool_jail_place(config), theirs, their_errors);
}

static void stop_helper(struct helper *helper)
{
	base_fd_close(helper->socket);
	if (helper->pid > 0) {
		while (waitpid(helper->pid, NULL, 0) < 0 && errno == EINTR) {
		}
	}
	base_fd_close(helper->errors);
}

/* The spawner ended without an answer: what it said before, less its name. */
static int tell_helper_failed(struct helper *helper, struct base_error *error)
{
	static const char name[] = "warmbox-spawner: ";
	char text[BASE_ERROR_TEXT_MAX];
	ssize_t n = read(helper->errors, text, sizeof(text) - 1);
	const char *said = text;

	text[MAX(n, 0)] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (strncmp(said, name, strlen(name)) == 0) {
		said += strlen(name);
	}
	return base_error_set(error, -EPERM, "%s", said[0] ? said : "the spawner ended");
}

/* 1: a message. 0: there is none any more. */
static int receive(struct helper *helper, struct base_message *message, int *ret_fd)
{
	struct pollfd item = { .fd = helper->socket, .events = POLLIN };
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;
	int r = poll(&item, 1, TIMEOUT_MS);

	*ret_fd = -1;
	if (r <= 0) {
		return r < 0 ? -errno : -ETIMEDOUT;
	}
	r = base_message_receive(helper->socket, message, fds, &n_fds);
	for (size_t i = 1; r > 0 && i < n_fds; i++) {
		base_fd_close(fds[i]);
	}
	if (r > 0 && n_fds > 0) {
		*ret_fd = fds[0];
	}
	return r == -ECONNRESET ? 0 : r;
}

static int ask(struct helper *helper, const struct pool_jail_config *config,
	       const struct pool_jail_start *start, pid_t *ret_pid, int *ret_pidfd,
	       struct base_error *error)
{
	struct base_message message = { .op = SPAWNER_OP_START, .sequence = 1 };
	int fds[] = { start->control, start->errors };
	int r;

	pool_jail_fill_start(config, start->uid, &message);
	r = base_message_send(helper->socket, &message, fds, start->errors >= 0 ? 2 : 1);
	if (r == 0) {
		r = receive(helper, &message, ret_pidfd);
		r = r == 0 ? -EPIPE : r;
	}
	if (r == -EPIPE) {
		return tell_helper_failed(helper, error);
	}
	if (r < 0 || message.result < 0 || *ret_pidfd < 0) {
		*ret_pidfd = base_fd_close(*ret_pidfd);
		r = r < 0 ? r : message.result < 0 ? message.result : -EBADMSG;
		return base_error_set_errno(error, r, "starting a process");
	}
	*ret_pid = (pid_t)message.arg[0];
	return 0;
}

/* The socket ends when the child has become the VMM, since the spawner reads no more. */
static int check_executed(struct helper *helper, struct base_error *error)
{
	struct base_message message;
	int fd, r;

	(void)shutdown(helper->socket, SHUT_WR);
	r = receive(helper, &message, &fd);
	base_fd_close(fd);
	if (r < 0) {
		return base_error_set_errno(error, r, "waiting for the VMM to be executed");
	}
	return r == 0 ? 0 : base_error_set_errno(error, message.result, "%s", message.text);
}

int pool_jail_start(const struct pool_jail_config *config, const struct pool_jail_start *start,
		    pid_t *ret_pid, int *ret_pidfd, struct base_error *error)
{
	struct helper helper = { .socket = -1, .errors = -1 };
	int r = start_helper(&helper, config, start);

	if (r < 0) {
		base_error_set_errno(error, r, "starting the spawner %s", start->spawner_path);
	} else {
		r = ask(&helper, config, start, ret_pid, ret_pidfd, error);
	}
	if (r == 0) {
		r = check_executed(&helper, error);
		if (r < 0) {
			kill(*ret_pid, SIGKILL);
			waitpid(*ret_pid, NULL, 0);
			*ret_pidfd = base_fd_close(*ret_pidfd);
		}
	}
	stop_helper(&helper);
	return r;
}

/* --- levels --- */

/* One VMM that lives for as long as it takes to be told that nobody wants it. */
static int probe(const struct pool_jail_config *config, const char *spawner_path,
		 const char *vmm_path, struct base_error *error)
{
	struct pool_jail_start start = {
		.spawner_path = spawner_path,
		.vmm_path = vmm_path,
		.errors = -1,
		.uid = config->uid_first,
	};
	_cleanup_fd_ int ours = -1, theirs = -1, pidfd = -1;
	int pair[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return base_error_set_errno(error, -errno, "making a socket pair");
	}
	ours = pair[0];
	theirs = start.control = pair[1];
	r = pool_jail_start(config, &start, &pid, &pidfd, error);
	if (r < 0) {
		return r;
	}
	ours = base_fd_close(ours);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
	}
	return 0;
}

int pool_jail_resolve(struct pool_jail_config *config, const char *spawner_path,
		      const char *vmm_path, struct base_error *lacking, struct base_error *error)
{
	bool automatic = config->level == POOL_JAIL_AUTO;
	struct base_error reason = {};
	int r;

	if (config->level == POOL_JAIL_NONE) {
		return 0;
	}
	if (automatic) {
		config->level = POOL_JAIL_FULL;
	}
	r = probe(config, spawner_path, vmm_path, &reason);
	if (r < 0 && automatic) {
		base_error_set(lacking, r, "%s", reason.text);
		config->level = POOL_JAIL_ROOTLESS;
		reason.text[0] = '\0';
		r = probe(config, spawner_path, vmm_path, &reason);
	}
	if (r < 0) {
		return base_error_set(error, r,
				      "no VMM can be started in a %s jail: %s (see warmbox doctor; "
				      "level = none in [jail] does without)",
				      pool_jail_level_name(config->level), reason.text);
	}
	return 0;
}
