/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runs warmbox-vmm for a build.
 *
 * The VMM gets its end of the control socket as descriptor VMM_CONTROL_FD and nothing else; all it
 * works with is sent to it. It is put in a process group of its own, so that a Ctrl-C in the
 * terminal reaches only us, and we decide when it ends. stop() kills it: a VM that was never
 * published has nothing to lose. A VMM that outlives us by accident ends itself when the control
 * socket closes.
 */

#include "cli/build_vm.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int spawn(const char *path, int control, int output_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char *const argv[] = { (char *)"warmbox-vmm", NULL };
	sigset_t none, defaults;
	int r;

	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGINT);
	sigaddset(&defaults, SIGTERM);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawn_file_actions_init(&actions);
	r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, output_fd, STDERR_FILENO);
	r = r ?: posix_spawn_file_actions_adddup2(&actions, control, VMM_CONTROL_FD);
	r = r ?: posix_spawn_file_actions_addopen(&actions, VMM_KVM_FD, "/dev/kvm", O_RDWR, 0);
	r = r ?: posix_spawn(ret_pid, path, &actions, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return -r;
}

int cli_vm_start(struct cli_vm *vm, const char *vmm_path, int output_fd, struct base_error *error)
{
	_cleanup_fd_ int theirs = -1;
	int pair[2], r;

	*vm = CLI_VM_NONE;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return base_error_set_errno(error, -errno, "cannot make the control socket");
	}
	vm->control = pair[0];
	theirs = pair[1];
	r = spawn(vmm_path, theirs, output_fd, &vm->pid);
	if (r < 0) {
		vm->pid = -1;
		return base_error_set_errno(error, r, "cannot start the VMM %s", vmm_path);
	}
	vm->pidfd = (int)syscall(SYS_pidfd_open, vm->pid, 0);
	if (vm->pidfd < 0) {
		return base_error_set_errno(error, -errno, "cannot watch the VMM");
	}
	return 0;
}

void cli_vm_stop(struct cli_vm *vm)
{
	vm->control = base_fd_close(vm->control);
	if (vm->pid > 0) {
		kill(vm->pid, SIGKILL);
		while (waitpid(vm->pid, NULL, 0) < 0 && errno == EINTR) {
		}
		vm->pid = -1;
	}
	vm->pidfd = base_fd_close(vm->pidfd);
}

static void take_event(void *userdata, const struct base_message *event)
{
	struct cli_vm *vm = userdata;

	if (event->op == VMM_EVENT_EXITED) {
		vm->exited = true;
		snprintf(vm->exit_text, sizeof(vm->exit_text), "%s", event->text);
	}
}

/* The VMM is gone: says it in the words it left, if any. */
static int ended(const struct cli_vm *vm, struct base_error *error)
{
	return base_error_set(error, -ECONNRESET, "the virtual machine ended: %s",
			      vm->exited && vm->exit_text[0] ? vm->exit_text
							     : "its VMM died without a word");
}

static int call(struct cli_vm *vm, enum vmm_op op, const uint64_t arg[BASE_MESSAGE_ARGS],
		const char *text, const int *fds, size_t n_fds, int timeout_ms,
		struct base_message *ret_reply, int *ret_fd, struct base_error *error)
{
	struct base_message request = { .op = op, .sequence = ++vm->sequence };
	struct base_error reason = {};
	int r;

	if (arg) {
		memcpy(request.arg, arg, sizeof(request.arg));
	}
	if (text) {
		request.text_length =
			(uint32_t)snprintf(request.text, sizeof(request.text), "%s", text);
		if (request.text_length > BASE_MESSAGE_TEXT_MAX) {
			return base_error_set(error, -E2BIG,
					      "the kernel command line is longer than %d bytes",
					      BASE_MESSAGE_TEXT_MAX);
		}
	}
	r = base_message_call(vm->control, "VMM", &request, fds, n_fds, timeout_ms, take_event, vm,
			      ret_reply, ret_fd, &reason);
	if (r == -ECONNRESET || r == -EPIPE) {
		return ended(vm, error);
	}
	if (r < 0) {
		return reason.text[0] ? base_error_set(error, r, "%s", reason.text)
				      : base_error_set_errno(error, r, "the VMM failed");
	}
	return 0;
}

int cli_vm_call(struct cli_vm *vm, enum vmm_op op, const uint64_t arg[BASE_MESSAGE_ARGS],
		const char *text, const int *fds, size_t n_fds, int timeout_ms,
		struct base_message *ret_reply, struct base_error *error)
{
	return call(vm, op, arg, text, fds, n_fds, timeout_ms, ret_reply, NULL, error);
}

/* What VMM_CREATE_LAZY wants along. Where there is no such device, any file says so. */
static int open_userfault(struct base_error *error)
{
	int fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	}
	return fd < 0 ? base_error_set_errno(error, -errno, "cannot open /dev/null") : fd;
}

int cli_vm_create(struct cli_vm *vm, const struct cli_vm_config *config, int timeout_ms,
		  int *ret_userfault_fd, uint64_t *ret_address, struct base_error *error)
{
	uint64_t create[BASE_MESSAGE_ARGS] = {
		config->memory_bytes, config->n_vcpus, config->flags, 1, 1, config->cid,
	};
	bool lazy = config->flags & VMM_CREATE_LAZY;
	_cleanup_fd_ int no_listener = -1, userfault = -1, theirs = -1;
	struct base_message reply;
	enum vmm_host_kind kind;
	int r;

	r = vmm_host_kind_detect(&kind);
	if (r < 0) {
		return base_error_set_errno(error, r, "finding out the kind of KVM");
	}
	create[7] = kind;
	no_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (no_listener < 0) {
		return base_error_set_errno(error, -errno, "cannot make a socket");
	}
	if (lazy) {
		userfault = open_userfault(error);
		if (userfault < 0) {
			return userfault;
		}
	}

	const int fds[] = { config->memory_fd, config->console_fd, no_listener, config->root_fd,
			    userfault };

	r = call(vm, VMM_OP_CREATE, create, NULL, fds, ARRAY_SIZE(fds) - !lazy, timeout_ms, &reply,
		 &theirs, error);
	if (r < 0 || !lazy) {
		return r;
	}
	if (theirs < 0) {
		return base_error_set(error, -EPROTO, "the VMM sent no userfaultfd");
	}
	*ret_userfault_fd = TAKE_FD(theirs);
	*ret_address = reply.arg[5];
	return 0;
}

int cli_vm_check(struct cli_vm *vm, struct base_error *error)
{
	struct pollfd ready = { .fd = vm->control, .events = POLLIN };

	while (poll(&ready, 1, 0) > 0) {
		struct base_message message;
		int fds[BASE_MESSAGE_FDS_MAX], r;
		size_t n_fds = 0;

		r = base_message_receive(vm->control, &message, fds, &n_fds);
		for (size_t i = 0; r > 0 && i < n_fds; i++) {
			base_fd_close(fds[i]);
		}
		if (r <= 0) {
			return ended(vm, error);
		}
		take_event(vm, &message);
	}
	return vm->exited ? ended(vm, error) : 0;
}

int cli_vm_attach(struct cli_vm *vm, uint32_t port, int *ret_stream, struct base_error *error)
{
	const uint64_t arg[BASE_MESSAGE_ARGS] = { port };
	_cleanup_fd_ int ours = -1, theirs = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return base_error_set_errno(error, -errno, "cannot make a stream to the guest");
	}
	ours = pair[0];
	theirs = pair[1];
	r = cli_vm_call(vm, VMM_OP_ATTACH, arg, NULL, &theirs, 1, 5000, NULL, error);
	if (r < 0) {
		return r;
	}
	*ret_stream = TAKE_FD(ours);
	return 0;
}
