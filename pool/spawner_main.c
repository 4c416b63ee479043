/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox-spawner: starts VMMs for the manager; pool/spawner.h says why and how.
 *
 * Happy path: the VMM program is opened, all mounts that a VMM does not need leave this process's
 * own mount namespace, then each request becomes one clone() that shares the memory and suspends
 * the caller (as vfork() does) and one execveat().
 *
 * Failure: a request that cannot be carried out is answered with -errno. Without the right to a
 * mount namespace of its own it says so on standard error and goes on with the one it has. When its
 * socket or the program is no good it ends with status 1, and the manager starts it again.
 *
 * Shut-down: when the socket closes. One thread.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "pool/spawner.h"
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define NOT_EXECUTED_STATUS 127
/* A VMM that is about to be: a message, an iovec, a control message and the sanitizers' frames. */
#define STACK_BYTES KIB(32)

static int manager = -1; /* SPAWNER_CONTROL_FD, out of the way of VMM_CONTROL_FD */
static int program = -1;
static int devnull = -1;

/* --- mounts --- */

/* Below /proc and /sys a container may have hidden something: what is mounted there stays. /usr and
 * /lib are for programs that are linked dynamically. */
static bool is_needed(const char *path)
{
	static const char *const exact[] = { "/", "/dev", "/dev/kvm", "/usr", "/lib", "/lib64" };
	static const char *const trees[] = { "/proc", "/sys" };

	for (size_t i = 0; i < ARRAY_SIZE(exact); i++) {
		if (strcmp(path, exact[i]) == 0) {
			return true;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(trees); i++) {
		size_t length = strlen(trees[i]);

		if (strncmp(path, trees[i], length) == 0 &&
		    (path[length] == '/' || path[length] == '\0')) {
			return true;
		}
	}
	return false;
}

/* The mount point in a line of mountinfo: its fifth field, where \ooo stands for blanks and the
 * like. Changes the line. NULL: not one. */
static char *mount_point(char *line)
{
	char *field = line, *out;

	for (unsigned i = 0; i < 4 && field; i++) {
		field = strchr(field, ' ');
		field = field ? field + 1 : NULL;
	}
	if (!field) {
		return NULL;
	}
	out = field;
	for (const char *in = field; *in && *in != ' ' && *in != '\n';) {
		unsigned code;

		if (in[0] == '\\' && sscanf(in + 1, "%3o", &code) == 1) {
			*out++ = (char)code;
			in += 4;
		} else {
			*out++ = *in++;
		}
	}
	*out = '\0';
	return field;
}

/* Detaches one mount that is not needed. 1: done, 0: there is none left, -errno. */
static int detach_one(void)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	int r = 0;

	if (!mounts) {
		return -errno;
	}
	while (r == 0 && getline(&line, &size, mounts) > 0) {
		char *path = mount_point(line);

		/* What is mounted over something else shows up once more when that is gone. */
		if (path && !is_needed(path) && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
			r = 1;
		}
	}
	fclose(mounts);
	return r;
}

/* Nothing is detached unless the namespace is our own and cut off from the others. */
static int leave_mounts(void)
{
	int r;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return -errno;
	}
	do {
		r = detach_one();
	} while (r > 0);
	return r;
}

/* --- starting a VMM --- */

struct start {
	const struct base_message *request;
	int control;
	int errors;
	uint64_t started_ns;
};

/* The sanitizer's notes about this stack are those of a process that never returned from it. */
#define NOT_SANITIZED __attribute__((no_sanitize("address")))

static NOT_SANITIZED void tell_not_executed(int r)
{
	struct base_message event = { .op = SPAWNER_EVENT_NOT_EXECUTED,
				      .result = r,
				      .arg = { (uint64_t)getpid() } };

	(void)base_message_send(manager, &event, NULL, 0);
}

/* In the new process, which has the memory in common with the spawner until it is a VMM, and its
 * own descriptors. All of those but four are close-on-exec. */
static NOT_SANITIZED int become_vmm(void *userdata)
{
	const struct start *start = userdata;
	char *const argv[] = { (char *)"warmbox-vmm", NULL };
	char *const environment[] = { NULL };
	struct base_message reply = {
		.op = SPAWNER_OP_START,
		.sequence = start->request->sequence,
		.arg = { (uint64_t)getpid(), start->started_ns },
	};
	int pidfd = pidfd_open(getpid(), 0);

	if (pidfd < 0) {
		reply.result = -errno;
	}
	/* A session of its own: a Ctrl-C that ends the manager must not overtake its orderly stop.
	 */
	setsid();
	(void)setpriority(PRIO_PROCESS, 0, (int)start->request->arg[0]);
	if (base_message_send(manager, &reply, &pidfd, pidfd >= 0 ? 1 : 0) < 0 || pidfd < 0) {
		_exit(NOT_EXECUTED_STATUS);
	}
	if (dup2(devnull, STDIN_FILENO) >= 0 && dup2(devnull, STDOUT_FILENO) >= 0 &&
	    dup2(start->errors, STDERR_FILENO) >= 0 && dup2(start->control, VMM_CONTROL_FD) >= 0) {
		execveat(program, "", argv, environment, AT_EMPTY_PATH);
	}
	tell_not_executed(-errno);
	_exit(NOT_EXECUTED_STATUS);
}

/* 0 when a process answers, or -errno. */
static int start_vmm(const struct base_message *request, const int *fds, size_t n_fds)
{
	static uint8_t stack[STACK_BYTES] __attribute__((aligned(16)));
	struct start start = {
		.request = request,
		.started_ns = base_clock_monotonic_ns(),
	};

	if (request->op != SPAWNER_OP_START || n_fds < 1 || n_fds > 2 || request->arg[0] > 19) {
		return -EINVAL;
	}
	start.control = fds[0];
	start.errors = n_fds > 1 ? fds[1] : devnull;
	if (clone(become_vmm, stack + sizeof(stack),
		  CLONE_VM | CLONE_VFORK | CLONE_PARENT | SIGCHLD, &start) < 0) {
		return -errno;
	}
	return 0;
}

static void serve(void)
{
	static struct base_message request, refusal;
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;
	int r;

	while (base_message_receive(manager, &request, fds, &n_fds) > 0) {
		r = start_vmm(&request, fds, n_fds);
		for (size_t i = 0; i < n_fds; i++) {
			base_fd_close(fds[i]);
		}
		n_fds = 0;
		if (r < 0) {
			refusal.op = request.op;
			refusal.sequence = request.sequence;
			refusal.result = r;
			base_message_set_text(&refusal, "");
			if (base_message_send(manager, &refusal, NULL, 0) < 0) {
				return;
			}
		}
	}
}

int main(int argc, char **argv)
{
	int r;

	if (argc != 2) {
		fprintf(stderr, "warmbox-spawner is started by warmboxd\n");
		return EXIT_FAILURE;
	}
	manager = fcntl(SPAWNER_CONTROL_FD, F_DUPFD_CLOEXEC, SPAWNER_CONTROL_FD + 1);
	devnull = open("/dev/null", O_RDWR | O_CLOEXEC);
	program = open(argv[1], O_PATH | O_CLOEXEC);
	if (manager < 0 || devnull < 0 || program < 0) {
		fprintf(stderr, "warmbox-spawner: %s: %s\n", argv[1], strerror(errno));
		return EXIT_FAILURE;
	}
	if (chdir("/") < 0) {
		return EXIT_FAILURE;
	}
	r = leave_mounts();
	if (r < 0) {
		fprintf(stderr,
			"warmbox-spawner: no mount namespace of its own (%s): VMMs see all "
			"mounts\n",
			strerror(-r));
	}
	serve();
	return EXIT_SUCCESS;
}
