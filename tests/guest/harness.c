/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The harness of tests/guest/harness.h: posix_spawn() with the control socket as descriptor 3, then
 * plain blocking calls. A VMM that hangs is killed by its pid at the end.
 */

#include "tests/guest/harness.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_MEMORY_BYTES MIB(4)
#define STOP_TIMEOUT_MS	     10000
#define POLL_STEP_MS	     2

extern char **environ;

const char *harness_vmm_path(void)
{
	const char *path = getenv("WARMBOX_VMM");

	return path ? path : HARNESS_VMM_PATH;
}

static int make_control(struct harness_vm *vm)
{
	int pair[2];

	*vm = (struct harness_vm)HARNESS_VM_NONE;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return base_error_set_errno(&vm->error, -errno, "making the control socket");
	}
	/* A dup2() of a descriptor onto itself would keep it close-on-exec. */
	if (pair[1] == VMM_CONTROL_FD) {
		int moved = fcntl(pair[1], F_DUPFD_CLOEXEC, VMM_CONTROL_FD + 1);

		close(pair[1]);
		pair[1] = moved;
	}
	vm->control = pair[0];
	vm->theirs = pair[1];
	return 0;
}

int harness_start(struct harness_vm *vm)
{
	char *argv[] = { (char *)harness_vmm_path(), NULL };
	posix_spawn_file_actions_t actions;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, vm->theirs, VMM_CONTROL_FD);
	posix_spawn_file_actions_addopen(&actions, VMM_KVM_FD, "/dev/kvm", O_RDWR, 0);
	r = -posix_spawn(&vm->pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	vm->theirs = base_fd_close(vm->theirs);
	if (r < 0) {
		vm->pid = 0;
		return base_error_set_errno(&vm->error, r, "starting %s", argv[0]);
	}
	return 0;
}

int harness_spawn(struct harness_vm *vm)
{
	int r = make_control(vm);

	return r < 0 ? r : harness_start(vm);
}

int harness_stop(struct harness_vm *vm)
{
	int status = 0;

	vm->control = base_fd_close(vm->control);
	vm->theirs = base_fd_close(vm->theirs);
	if (vm->pid > 0) {
		pid_t done = 0;

		for (int waited = 0; waited < STOP_TIMEOUT_MS; waited += POLL_STEP_MS) {
			done = waitpid(vm->pid, &status, WNOHANG);
			if (done != 0) {
				break;
			}
			poll(NULL, 0, POLL_STEP_MS);
		}
		if (done == 0) {
			kill(vm->pid, SIGKILL);
			waitpid(vm->pid, &status, 0);
		}
		vm->pid = 0;
	}
	vm->console = base_fd_close(vm->console);
	vm->userfault = base_fd_close(vm->userfault);
	if (!vm->memory_is_borrowed) {
		base_fd_close(vm->memory);
	}
	vm->memory = -1;
	return status;
}

static void on_event(void *userdata, const struct base_message *event)
{
	struct harness_vm *vm = userdata;

	if (event->op == VMM_EVENT_ENTERED) {
		vm->entered_count++;
		vm->entered_ns = event->arg[0];
	} else if (event->op == VMM_EVENT_CONNECT) {
		vm->connects++;
	} else if (event->op == VMM_EVENT_EXITED) {
		vm->is_over = true;
		vm->over_reason = (enum vmm_exit_reason)event->arg[0];
		vm->over_code = (int)event->arg[1];
		memcpy(vm->over_text, event->text, sizeof(vm->over_text));
	}
}

int harness_post(struct harness_vm *vm, enum vmm_op op, const uint64_t *args, size_t n_args,
		 const int *fds, size_t n_fds, const char *text)
{
	struct base_message request;
	size_t length = text ? strlen(text) : 0;
	int r;

	if (length > BASE_MESSAGE_TEXT_MAX) {
		return -E2BIG;
	}
	memset(&request, 0, BASE_MESSAGE_HEADER_BYTES);
	request.op = op;
	request.sequence = ++vm->sequence;
	for (size_t i = 0; i < n_args; i++) {
		request.arg[i] = args[i];
	}
	base_message_set_text(&request, text ? text : "");
	vm->error.text[0] = '\0';
	r = base_message_send(vm->control, &request, fds, n_fds);
	return r < 0 ? base_error_set_errno(&vm->error, r, "sending a request to the VMM") : 0;
}

/* Takes in one message if there is one within timeout_ms. 0: an event. 1: a reply, in *ret_reply,
 * its descriptor in vm->reply_fd. -ETIMEDOUT or -errno. */
static int receive(struct harness_vm *vm, int timeout_ms, struct base_message *ret_reply)
{
	struct pollfd item = { .fd = vm->control, .events = POLLIN };
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;
	int r;

	r = poll(&item, 1, timeout_ms);
	if (r == 0) {
		return base_error_set(&vm->error, -ETIMEDOUT, "waiting for the VMM: timed out");
	}
	r = base_message_receive(vm->control, ret_reply, fds, &n_fds);
	if (r <= 0) {
		return base_error_set(&vm->error, r == 0 ? -ECONNRESET : r, "the VMM is gone");
	}
	vm->reply_fd = n_fds > 0 ? fds[0] : -1;
	for (size_t i = 1; i < n_fds; i++) {
		close(fds[i]);
	}
	if (ret_reply->sequence != 0) {
		return 1;
	}
	vm->reply_fd = base_fd_close(vm->reply_fd);
	on_event(vm, ret_reply);
	return 0;
}

int harness_reply(struct harness_vm *vm, enum vmm_op op)
{
	struct base_message reply;
	int r;

	do {
		r = receive(vm, HARNESS_TIMEOUT_MS, &reply);
	} while (r == 0);
	if (r < 0) {
		return r;
	}
	if (reply.op != op || reply.result > 0) {
		return base_error_set(&vm->error, -EBADMSG, "the VMM answered what was not asked");
	}
	if (reply.result < 0) {
		return base_error_set(&vm->error, reply.result, "%s", reply.text);
	}
	vm->reply = reply;
	return 0;
}

int harness_call(struct harness_vm *vm, enum vmm_op op, const uint64_t *args, size_t n_args,
		 const int *fds, size_t n_fds, const char *text)
{
	int r = harness_post(vm, op, args, n_args, fds, n_fds, text);

	return r < 0 ? r : harness_reply(vm, op);
}

static int make_memory(struct harness_vm *vm, const struct harness_params *params, int *ret_pass)
{
	vm->memory_bytes = params->memory_bytes ? params->memory_bytes : DEFAULT_MEMORY_BYTES;
	if (params->image_fd > 0) {
		vm->memory = params->image_fd;
		vm->memory_is_borrowed = true;
		vm->private_memory = true;
		return base_fd_reopen_readonly(params->image_fd, ret_pass);
	}
	*ret_pass = -1;
	return base_fd_memfd("guest-memory", vm->memory_bytes, &vm->memory);
}

int harness_prepare(struct harness_vm *vm, const struct harness_params *params)
{
	_cleanup_fd_ int userfault_device = -1;
	_cleanup_fd_ int no_listener = -1;
	_cleanup_fd_ int read_only = -1;
	size_t n_fds = 3 + params->n_disks;
	int fds[BASE_MESSAGE_FDS_MAX];
	enum vmm_host_kind kind = 0;
	int r;

	/* Without one the VMM refuses. */
	(void)vmm_host_kind_detect(&kind);
	r = make_control(vm);
	if (r < 0) {
		return r;
	}
	r = make_memory(vm, params, &read_only);
	if (r < 0) {
		return base_error_set_errno(&vm->error, r, "making guest memory");
	}
	if (params->console_fd <= 0) {
		vm->console = memfd_create("console", MFD_CLOEXEC);
	}
	no_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fds[0] = read_only >= 0 ? read_only : vm->memory;
	fds[1] = params->console_fd > 0 ? params->console_fd : vm->console;
	fds[2] = params->listener_fd > 0 ? params->listener_fd : no_listener;
	for (unsigned i = 0; i < params->n_disks; i++) {
		fds[3 + i] = params->disk_fds[i];
	}
	if (params->state_fd > 0) {
		fds[n_fds++] = params->state_fd;
	}
	if (params->lazy) {
		/* Without the device the VMM tries the system call. */
		userfault_device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		fds[n_fds++] = userfault_device >= 0 ? userfault_device : no_listener;
	}
	if (params->successor_fd > 0) {
		fds[n_fds++] = params->successor_fd;
	}

	uint64_t args[BASE_MESSAGE_ARGS] = {
		vm->memory_bytes,
		params->n_vcpus ? params->n_vcpus : 1,
		(vm->private_memory ? 0 : VMM_CREATE_SHARED) |
			(params->state_fd > 0 ? VMM_CREATE_STATE : 0) |
			(params->lazy ? VMM_CREATE_LAZY : 0) |
			(params->successor_fd > 0 ? VMM_CREATE_ADOPTABLE : 0) |
			(params->savable ? VMM_CREATE_SAVABLE : 0),
		params->n_disks,
		params->read_only_disks,
		params->cid ? params->cid : 3,
		params->fingerprint,
		kind,
	};

	return harness_post(vm, VMM_OP_CREATE, args, BASE_MESSAGE_ARGS, fds, n_fds, NULL);
}

int harness_created(struct harness_vm *vm)
{
	int r = harness_reply(vm, VMM_OP_CREATE);

	if (r == 0) {
		vm->userfault = TAKE_FD(vm->reply_fd);
		vm->address = vm->reply.arg[5];
	}
	return r;
}

int harness_create(struct harness_vm *vm, const struct harness_params *params)
{
	int r = harness_prepare(vm, params);

	r = r ?: harness_start(vm);
	if (r == 0 && params->nice > 0 &&
	    setpriority(PRIO_PROCESS, (id_t)vm->pid, params->nice) < 0) {
		return base_error_set_errno(&vm->error, -errno, "setting the VMM's nice value");
	}
	return r ?: harness_created(vm);
}

int harness_boot(struct harness_vm *vm, const char *kernel, const char *initramfs,
		 const char *cmdline)
{
	_cleanup_fd_ int kernel_fd = -1;
	_cleanup_fd_ int initramfs_fd = -1;
	int fds[2];

	kernel_fd = open(kernel, O_RDONLY | O_CLOEXEC);
	if (kernel_fd < 0) {
		return base_error_set_errno(&vm->error, -errno, "opening %s", kernel);
	}
	if (initramfs) {
		initramfs_fd = open(initramfs, O_RDONLY | O_CLOEXEC);
		if (initramfs_fd < 0) {
			return base_error_set_errno(&vm->error, -errno, "opening %s", initramfs);
		}
	}
	fds[0] = kernel_fd;
	fds[1] = initramfs_fd;
	return harness_call(vm, VMM_OP_BOOT, NULL, 0, fds, initramfs ? 2 : 1, cmdline);
}

int harness_load(struct harness_vm *vm, int state_fd)
{
	return harness_call(vm, VMM_OP_LOAD, NULL, 0, &state_fd, 1, NULL);
}

int harness_resume(struct harness_vm *vm)
{
	return harness_call(vm, VMM_OP_RESUME, NULL, 0, NULL, 0, NULL);
}

int harness_pause(struct harness_vm *vm)
{
	return harness_call(vm, VMM_OP_PAUSE, NULL, 0, NULL, 0, NULL);
}

int harness_save(struct harness_vm *vm, int *ret_state_fd, int *ret_memory_fd)
{
	_cleanup_fd_ int state_fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	_cleanup_fd_ int memory_fd = -1;
	int fds[2];
	int r;

	if (vm->private_memory) {
		r = base_fd_memfd("saved-memory", vm->memory_bytes, &memory_fd);
		if (r < 0) {
			return base_error_set_errno(&vm->error, r, "making a memfd");
		}
	}
	fds[0] = state_fd;
	fds[1] = memory_fd;
	r = harness_call(vm, VMM_OP_SAVE, NULL, 0, fds, vm->private_memory ? 2 : 1, NULL);
	if (r < 0) {
		return r;
	}
	*ret_state_fd = TAKE_FD(state_fd);
	if (ret_memory_fd) {
		*ret_memory_fd = TAKE_FD(memory_fd);
	}
	return 0;
}

/* Takes in one event if there is one within timeout_ms. 0 or -errno; -ETIMEDOUT. */
static int receive_event(struct harness_vm *vm, int timeout_ms)
{
	struct base_message message;
	int r = receive(vm, timeout_ms, &message);

	return r > 0 ? -EBADMSG : r;
}

int harness_wait_entered(struct harness_vm *vm)
{
	while (vm->entered_count == 0) {
		int r = receive_event(vm, HARNESS_TIMEOUT_MS);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

int harness_wait_exit(struct harness_vm *vm, int timeout_ms)
{
	uint64_t deadline_ns = base_clock_monotonic_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;

	while (!vm->is_over) {
		uint64_t now_ns = base_clock_monotonic_ns();
		int r;

		if (now_ns >= deadline_ns) {
			return -ETIMEDOUT;
		}
		r = receive_event(vm, (int)((deadline_ns - now_ns) / NSEC_PER_MSEC) + 1);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

char *harness_console(struct harness_vm *vm)
{
	char *text = NULL;
	struct stat info;

	if (vm->console < 0 || fstat(vm->console, &info) < 0) {
		return NULL;
	}
	text = calloc(1, (size_t)info.st_size + 1);
	if (text && base_fd_pread_full(vm->console, text, (size_t)info.st_size, 0) < 0) {
		text[0] = '\0';
	}
	return text;
}

int harness_wait_console(struct harness_vm *vm, const char *text, int timeout_ms)
{
	for (int waited = 0;; waited += POLL_STEP_MS) {
		_cleanup_free_ char *console = harness_console(vm);

		if (console && strstr(console, text)) {
			return 0;
		}
		if (vm->is_over || waited >= timeout_ms) {
			return -ETIMEDOUT;
		}
		/* The step is the pause between two looks; an event ends it early. */
		(void)receive_event(vm, POLL_STEP_MS);
	}
}
