/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox-vmm: one VM, told what to do over the control socket (vmm/control.h).
 *
 * Happy path: filter its own system calls (docs/security.md; argv[1] may be "log" or "off" instead
 * of "kill"), serve the loop; CREATE, BOOT or LOAD, RESUME, …, until the control
 * socket closes or the VM is over; a leased VM outlives the socket (vmm/successor.h). A request
 * that fails gets a reply with the reason and the VMM stays; a packet that is no request at all
 * ends it. Shut-down: the loop stops and the process exits; nothing is worth saving, and the kernel
 * takes a VM down faster than this program could, even one with a vCPU that waits for a page. The
 * main thread runs this file, but on_entered(), which a vCPU thread calls.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "filter/filter.h"
#include "vmm/boot.h"
#include "vmm/state.h"
#include "vmm/successor.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define KVM_API		     12
#define MMAP_THRESHOLD_BYTES 4096

#define CREATE_FLAGS                                                                               \
	(uint64_t)(VMM_CREATE_SHARED | VMM_CREATE_LAZY | VMM_CREATE_STATE | VMM_CREATE_ADOPTABLE | \
		   VMM_CREATE_SAVABLE)
#define RESUME_FLAGS (uint64_t)(VMM_RESUME_FOREGROUND | VMM_RESUME_LEASED)

/* A request as its handlers see it. */
struct request {
	const struct base_message *message;
	int *fds; /* owned by the dispatcher; a handler that takes one leaves -1 */
	size_t n_fds;
	struct base_message reply;
	int reply_fd; /* borrowed; -1: none */
	struct base_error error;
};

struct program {
	struct vmm_vm vm;
	struct vmm_loop loop;
	struct vmm_source control;
	struct vmm_source over;
	struct vmm_successor successor;
	int exit_status;
};

static void stop(struct program *program, int exit_status)
{
	program->loop.stop = true;
	program->exit_status = exit_status;
}

/* The other end of the control socket is gone: a leased VM goes on, any other ends. */
static void starter_gone(struct program *program)
{
	if (vmm_successor_await(&program->successor)) {
		vmm_virtio_vsock_refuse(program->vm.devices[VMM_SLOT_VSOCK]);
	} else {
		stop(program, EXIT_SUCCESS);
	}
}

/* On a vCPU thread. The socket's timeout bounds the send. */
static void on_entered(void *userdata, uint64_t monotonic_ns)
{
	struct base_message event;

	(void)userdata;
	/* Not the whole of it: a stack that is not touched costs nothing. */
	memset(&event, 0, BASE_MESSAGE_HEADER_BYTES);
	event.op = VMM_EVENT_ENTERED;
	event.arg[0] = monotonic_ns;
	/* Failing: the socket is closed or stuck; the main thread finds out and ends the VM. */
	(void)base_message_send(VMM_CONTROL_FD, &event, NULL, 0);
}

static int on_vsock_connect(void *userdata, uint64_t id, uint32_t port)
{
	struct base_message event = { .op = VMM_EVENT_CONNECT, .arg = { id, port } };

	(void)userdata;
	return base_message_send(VMM_CONTROL_FD, &event, NULL, 0);
}

/* On any thread. */
static void on_limited(void *userdata, const struct vmm_limit_hits *hits)
{
	struct base_message event;

	(void)userdata;
	memset(&event, 0, BASE_MESSAGE_HEADER_BYTES);
	event.op = VMM_EVENT_LIMITED;
	event.arg[0] = hits->disk_waits;
	event.arg[1] = hits->console_dropped;
	event.arg[2] = hits->vsock_refused;
	/* Failing: as in on_entered(). */
	(void)base_message_send(VMM_CONTROL_FD, &event, NULL, 0);
}

static bool is_abandoned(void *userdata)
{
	struct pollfd control = { .fd = VMM_CONTROL_FD };

	(void)userdata;
	return poll(&control, 1, 0) > 0;
}

static int wrong_state(struct request *request, const char *text)
{
	return base_error_set(&request->error, -EBUSY, "%s", text);
}

static int expect_fds(struct request *request, size_t least, size_t most)
{
	if (request->n_fds < least || request->n_fds > most) {
		return base_error_set(&request->error, -EINVAL,
				      "%zu descriptors came with the request, %zu to %zu expected",
				      request->n_fds, least, most);
	}
	return 0;
}

static int handle_create(struct program *program, struct request *request)
{
	const uint64_t *arg = request->message->arg;
	struct vmm_create_fds fds = { .state = -1, .userfault = -1 };
	struct vmm_create_times times;
	struct vmm_config config;
	bool has_state, adoptable;
	size_t n_fds;
	int r;

	if (program->vm.state != VMM_VM_NEW) {
		return wrong_state(request, "the VM was created already");
	}
	if (arg[1] > VMM_VCPUS_MAX || arg[2] & ~CREATE_FLAGS || arg[3] > VMM_DISKS_MAX ||
	    arg[4] > UINT32_MAX || arg[5] >= UINT32_MAX || arg[7] < VMM_HOST_VMX ||
	    arg[7] > VMM_HOST_PVM) {
		return base_error_set(&request->error, -EINVAL,
				      "creating the VM: vCPUs, flags, disks, CID or kind of host "
				      "out of range");
	}
	config = (struct vmm_config){
		.memory_bytes = arg[0],
		.n_vcpus = (unsigned)arg[1],
		.shared = arg[2] & VMM_CREATE_SHARED,
		.lazy = arg[2] & VMM_CREATE_LAZY,
		.savable = arg[2] & (VMM_CREATE_SHARED | VMM_CREATE_SAVABLE),
		.n_disks = (unsigned)arg[3],
		.read_only_disks = (uint32_t)arg[4],
		.cid = (uint32_t)arg[5],
	};
	has_state = arg[2] & VMM_CREATE_STATE;
	adoptable = arg[2] & VMM_CREATE_ADOPTABLE;
	n_fds = 3 + config.n_disks + has_state + config.lazy + adoptable;
	r = vmm_config_check(&config, &request->error);
	if (r == 0) {
		r = expect_fds(request, n_fds, n_fds);
	}
	if (r < 0) {
		return r;
	}
	fds.memory = request->fds[0];
	fds.console = request->fds[1];
	fds.listener = request->fds[2];
	memcpy(fds.disks, request->fds + 3, config.n_disks * sizeof(int));
	if (has_state) {
		fds.state = request->fds[3 + config.n_disks];
	}
	if (config.lazy) {
		fds.userfault = request->fds[3 + config.n_disks + has_state];
	}
	r = vmm_vm_create(&program->vm, &config, &fds, (enum vmm_host_kind)arg[7], arg[6], &times,
			  &request->error);
	request->fds[1] = fds.console;
	request->fds[2] = fds.listener;
	memcpy(request->fds + 3, fds.disks, config.n_disks * sizeof(int));
	if (r < 0) {
		return r;
	}
	if (adoptable) {
		vmm_successor_listen(&program->successor, TAKE_FD(request->fds[n_fds - 1]));
	}
	request->reply.arg[0] = times.start_ns;
	request->reply.arg[1] = times.vm_ns;
	request->reply.arg[2] = times.memslot_ns;
	request->reply.arg[3] = times.vcpus_ns;
	request->reply.arg[4] = times.devices_ns;
	if (config.lazy) {
		request->reply.arg[5] = (uint64_t)(uintptr_t)program->vm.memory.base;
		request->reply_fd = program->vm.memory.userfault_fd;
	}
	return 0;
}

static int expect_created(struct program *program, struct request *request)
{
	switch (program->vm.state) {
	case VMM_VM_CREATED:
		return 0;
	case VMM_VM_NEW:
		return wrong_state(request, "there is no VM yet");
	case VMM_VM_BROKEN:
		return wrong_state(request, "the VM is unusable since an earlier failure");
	case VMM_VM_PAUSED:
	case VMM_VM_RUNNING:
		break;
	}
	return wrong_state(request, "the VM has a state already");
}

static int expect_state(struct program *program, struct request *request)
{
	switch (program->vm.state) {
	case VMM_VM_PAUSED:
	case VMM_VM_RUNNING:
		return 0;
	case VMM_VM_BROKEN:
		return wrong_state(request, "the VM is unusable since an earlier failure");
	case VMM_VM_NEW:
	case VMM_VM_CREATED:
		break;
	}
	return wrong_state(request, "the VM was neither booted nor loaded");
}

/* From here on the main thread needs little. */
static int narrow(struct program *program, const struct filter *filter, struct base_error *error)
{
	int r = filter_install(filter, program->vm.filters);

	return r < 0 ? base_error_set_errno(error, r, "filtering system calls") : 0;
}

static int handle_boot(struct program *program, struct request *request)
{
	struct vmm_vm *vm = &program->vm;
	int r;

	r = expect_created(program, request);
	if (r == 0) {
		r = expect_fds(request, 1, 2);
	}
	if (r < 0) {
		return r;
	}
	if (!vm->config.shared) {
		return wrong_state(request, "booting needs shared memory (VMM_CREATE_SHARED)");
	}
	vm->state = VMM_VM_BROKEN;
	r = vmm_boot(vm, request->fds[0], request->n_fds == 2 ? request->fds[1] : -1,
		     request->message->text, &request->error);
	r = r ?: narrow(program, &filter_vmm_booted, &request->error);
	if (r < 0) {
		return r;
	}
	vm->state = VMM_VM_PAUSED;
	request->reply.arg[0] = vm->kind;
	return 0;
}

static int handle_load(struct program *program, struct request *request)
{
	uint64_t taken_ns = base_clock_monotonic_ns();
	struct vmm_vm *vm = &program->vm;
	struct vmm_state_clock clock;
	int r;

	r = expect_created(program, request);
	if (r == 0) {
		r = expect_fds(request, 1, 1);
	}
	if (r < 0) {
		return r;
	}
	vm->state = VMM_VM_BROKEN;
	r = vmm_state_load(vm, request->fds[0], &clock, &request->error);
	r = r
		    ?: narrow(program, vm->config.savable ? &filter_vmm_booted : &filter_vmm_loaded,
			      &request->error);
	if (r < 0) {
		return r;
	}
	vm->state = VMM_VM_PAUSED;
	request->reply.arg[0] = clock.realtime_ns;
	request->reply.arg[1] = clock.tsc;
	request->reply.arg[2] = clock.tsc_khz;
	request->reply.arg[3] = taken_ns;
	request->reply.arg[4] = base_clock_monotonic_ns();
	return 0;
}

static int handle_attach(struct program *program, struct request *request)
{
	uint64_t port = request->message->arg[0];
	int r;

	r = expect_state(program, request);
	if (r == 0) {
		r = expect_fds(request, 1, 1);
	}
	if (r < 0) {
		return r;
	}
	if (port >= UINT32_MAX) {
		return base_error_set(&request->error, -EINVAL, "port %llu is out of range",
				      (unsigned long long)port);
	}
	r = vmm_virtio_vsock_attach(program->vm.devices[VMM_SLOT_VSOCK], TAKE_FD(request->fds[0]),
				    (uint32_t)port);
	return r < 0 ? base_error_set_errno(&request->error, r, "attaching a stream") : 0;
}

static int lease(struct program *program, struct request *request)
{
	uint64_t timeout_ms = request->message->arg[1];
	int r;

	if (program->successor.listening.fd < 0) {
		return wrong_state(request, "leasing needs VMM_CREATE_ADOPTABLE");
	}
	if (timeout_ms == 0 || timeout_ms > VMM_ORPHAN_TIMEOUT_MAX_MS) {
		return base_error_set(&request->error, -EINVAL,
				      "leasing: the time to wait for a successor is out of range");
	}
	r = vmm_successor_lease(&program->successor, timeout_ms);
	if (r < 0) {
		return base_error_set_errno(&request->error, r, "leasing");
	}
	request->reply.arg[0] = vmm_memory_is_whole(&program->vm.memory);
	return 0;
}

static int handle_resume(struct program *program, struct request *request)
{
	uint64_t flags = request->message->arg[0];
	int r = expect_state(program, request);

	if (r == 0) {
		r = expect_fds(request, 0, 0);
	}
	if (r < 0) {
		return r;
	}
	if (flags & ~RESUME_FLAGS) {
		return base_error_set(&request->error, -EINVAL, "resuming: unknown flags %#llx",
				      (unsigned long long)flags);
	}
	if (flags & VMM_RESUME_LEASED) {
		r = lease(program, request);
		if (r < 0) {
			return r;
		}
	}
	/* All threads are in the group that main() made. Where it is not allowed the VM is slower,
	 * not wrong. */
	if (flags & VMM_RESUME_FOREGROUND) {
		(void)setpriority(PRIO_PGRP, 0, 0);
	}
	return vmm_vm_resume(&program->vm, &request->error);
}

static int handle_pause(struct program *program, struct request *request)
{
	int r = expect_state(program, request);

	if (r == 0) {
		r = expect_fds(request, 0, 0);
	}
	r = r < 0 ? r : vmm_vm_pause(&program->vm, &request->error);
	if (r == 0) {
		/* It may stay paused for long, and be one of thousands: what loading its state took
		 * of the heap is half of it. */
		malloc_trim(0);
	}
	return r;
}

static int handle_save(struct program *program, struct request *request)
{
	struct vmm_vm *vm = &program->vm;
	size_t n_fds = vm->config.shared ? 1 : 2;
	uint64_t state_bytes;
	int r;

	r = expect_state(program, request);
	if (r < 0) {
		return r;
	}
	if (vm->state != VMM_VM_PAUSED || vm->is_over) {
		return wrong_state(request, "saving needs a VM that is paused");
	}
	if (!vm->config.savable) {
		return wrong_state(request, "saving needs VMM_CREATE_SAVABLE");
	}
	r = expect_fds(request, n_fds, n_fds);
	if (r < 0) {
		return r;
	}
	r = vmm_state_save(vm, request->fds[0], n_fds == 2 ? request->fds[1] : -1, &state_bytes,
			   &request->error);
	if (r == 0) {
		request->reply.arg[0] = state_bytes;
	}
	return r;
}

static int handle_counters(struct program *program, struct request *request)
{
	const struct vmm_counters *counters = &program->vm.counters;
	struct vmm_limit_hits hits;
	int r = expect_fds(request, 0, 0);

	if (r < 0) {
		return r;
	}
	request->reply.arg[0] = counters->exits;
	request->reply.arg[1] = counters->port_exits;
	request->reply.arg[2] = counters->mmio_exits;
	request->reply.arg[3] = counters->stepped;
	if (program->vm.n_devices > VMM_SLOT_BALLOON) {
		request->reply.arg[4] =
			vmm_virtio_balloon_returned_bytes(program->vm.devices[VMM_SLOT_BALLOON]);
	}
	vmm_vm_limit_hits(&program->vm, &hits);
	request->reply.arg[5] = hits.disk_waits;
	request->reply.arg[6] = hits.console_dropped;
	request->reply.arg[7] = hits.vsock_refused;
	return 0;
}

static int handle_limits(struct program *program, struct request *request)
{
	const uint64_t *arg = request->message->arg;
	const struct vmm_limits limits = { arg[0], arg[1], arg[2], arg[3], arg[4], arg[5], arg[6] };
	enum vmm_vm_state state = program->vm.state;
	int r;

	r = expect_fds(request, 0, 0);
	if (r < 0) {
		return r;
	}
	if (state == VMM_VM_NEW || state == VMM_VM_BROKEN) {
		return wrong_state(request, "there is no VM to be limited");
	}
	return vmm_vm_set_limits(&program->vm, &limits, &request->error);
}

/* No reply: it is one itself. */
static void handle_connected(struct program *program, struct request *request)
{
	int result = request->message->result;
	int stream = -1;

	if (expect_state(program, request) < 0) {
		return;
	}
	if (result == 0 && request->n_fds == 1) {
		stream = TAKE_FD(request->fds[0]);
	} else if (result >= 0) {
		result = -ECONNREFUSED;
	}
	vmm_virtio_vsock_connected(program->vm.devices[VMM_SLOT_VSOCK], request->message->arg[0],
				   result, stream);
}

static int dispatch(struct program *program, struct request *request)
{
	switch (request->message->op) {
	case VMM_OP_CREATE:
		return handle_create(program, request);
	case VMM_OP_BOOT:
		return handle_boot(program, request);
	case VMM_OP_LOAD:
		return handle_load(program, request);
	case VMM_OP_ATTACH:
		return handle_attach(program, request);
	case VMM_OP_RESUME:
		return handle_resume(program, request);
	case VMM_OP_PAUSE:
		return handle_pause(program, request);
	case VMM_OP_SAVE:
		return handle_save(program, request);
	case VMM_OP_COUNTERS:
		return handle_counters(program, request);
	case VMM_OP_LIMITS:
		return handle_limits(program, request);
	default:
		return base_error_set(&request->error, -ENOSYS, "unknown operation %u",
				      request->message->op);
	}
}

static void serve(struct program *program, struct request *request)
{
	int r;

	request->reply.op = request->message->op;
	request->reply.sequence = request->message->sequence;
	if (request->message->op == VMM_OP_CONNECTED) {
		handle_connected(program, request);
		return;
	}
	if (request->message->op == VMM_OP_LIMITS && request->message->sequence == 0) {
		r = handle_limits(program, request);
		if (r < 0 && program->vm.state != VMM_VM_BROKEN) {
			/* Better no VM than one without its limits. */
			log_error("%s", request->error.text);
			stop(program, EXIT_FAILURE);
		}
		return;
	}
	if (request->message->sequence == 0) {
		r = base_error_set(&request->error, -EINVAL, "a request with sequence 0");
	} else {
		r = dispatch(program, request);
	}
	request->reply.result = r;
	if (r < 0) {
		memset(request->reply.arg, 0, sizeof(request->reply.arg));
		base_message_set_text(&request->reply, request->error.text);
	}
	r = base_message_send(VMM_CONTROL_FD, &request->reply, &request->reply_fd,
			      r == 0 && request->reply_fd >= 0 ? 1 : 0);
	if (r == -EPIPE) {
		starter_gone(program); /* while it waited */
	} else if (r < 0) {
		log_error("answering a request: %s", strerror(-r));
		stop(program, EXIT_FAILURE);
	}
}

static void on_control(struct vmm_source *source, uint32_t events)
{
	struct program *program = source->userdata;
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];
	struct request request = { .message = &message, .fds = fds, .reply_fd = -1 };
	int r;

	r = base_message_receive(VMM_CONTROL_FD, &message, fds, &request.n_fds);
	if (r == -EAGAIN) {
		return;
	}
	if (r == 0 || r == -ECONNRESET) {
		starter_gone(program);
		return;
	}
	if (r < 0) {
		log_error("receiving a request: %s", strerror(-r));
		stop(program, EXIT_FAILURE);
		return;
	}
	serve(program, &request);
	for (size_t i = 0; i < request.n_fds; i++) {
		base_fd_close(fds[i]);
	}
}

/* Takes out what the starter sent meanwhile, so that closing the socket does not reset it: the
 * starter shall find the event first and the end after it. */
static void discard_requests(void)
{
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;

	(void)shutdown(VMM_CONTROL_FD, SHUT_RD);
	while (base_message_receive(VMM_CONTROL_FD, &message, fds, &n_fds) > 0) {
		for (size_t i = 0; i < n_fds; i++) {
			base_fd_close(fds[i]);
		}
	}
}

static void on_over(struct vmm_source *source, uint32_t events)
{
	struct program *program = source->userdata;
	struct vmm_vm *vm = &program->vm;
	struct base_message event = {
		.op = VMM_EVENT_EXITED,
		.arg = { (uint64_t)vm->over_reason, (uint64_t)vm->over_code },
	};
	int r;

	base_message_set_text(&event, vm->over_text.text);
	r = base_message_send(VMM_CONTROL_FD, &event, NULL, 0);
	if (r < 0) {
		log_error("saying that the VM is over: %s", strerror(-r));
	}
	discard_requests();
	stop(program, EXIT_SUCCESS);
}

/* The control socket must be what it is said to be; a person who starts this by hand is told. */
static int check_control_socket(void)
{
	struct timeval timeout = { .tv_sec = VMM_SEND_TIMEOUT_S };
	socklen_t length = sizeof(int);
	int type;

	if (getsockopt(VMM_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &length) < 0 ||
	    type != SOCK_SEQPACKET) {
		log_error("warmbox-vmm is started by warmboxd: descriptor %d must be a "
			  "SOCK_SEQPACKET socket",
			  VMM_CONTROL_FD);
		return -EINVAL;
	}
	if (fcntl(VMM_CONTROL_FD, F_SETFD, FD_CLOEXEC) < 0 ||
	    setsockopt(VMM_CONTROL_FD, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0) {
		return -errno;
	}
	return 0;
}

static int check_kvm(void)
{
	if (ioctl(VMM_KVM_FD, KVM_GET_API_VERSION, 0) != KVM_API) {
		log_error("descriptor %d is not a /dev/kvm that speaks API version %d", VMM_KVM_FD,
			  KVM_API);
		return -EIO;
	}
	return fcntl(VMM_KVM_FD, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

static int run(struct program *program)
{
	struct vmm_vm *vm = &program->vm;
	int r;

	program->control = (struct vmm_source){
		.fd = VMM_CONTROL_FD,
		.fn = on_control,
		.userdata = program,
	};
	program->over =
		(struct vmm_source){ .fd = vm->over_fd, .fn = on_over, .userdata = program };
	r = vmm_successor_init(&program->successor, &program->loop, &program->control);
	if (r == 0) {
		r = vmm_loop_add(&program->loop, &program->control, EPOLLIN);
	}
	if (r == 0) {
		r = vmm_loop_add(&program->loop, &program->over, EPOLLIN);
	}
	return r < 0 ? r : vmm_loop_run(&program->loop);
}

/*
 * What is a page or more (a state that is loaded, a stream's buffer, a device) comes from the
 * kernel as zeros that nobody has to touch, and goes back when it is freed. That takes a heap
 * without slack at its end, which would be used first (the C library has made one before this); and
 * no thread gets a heap of its own.
 */
static void set_up_heap(void)
{
	mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
	mallopt(M_TOP_PAD, 0);
	malloc_trim(0);
	mallopt(M_ARENA_MAX, 1);
}

int main(int argc, char **argv)
{
	static struct program program = { .exit_status = EXIT_SUCCESS };
	const struct vmm_vm_callbacks callbacks = {
		.entered = on_entered,
		.vsock_connect = on_vsock_connect,
		.limited = on_limited,
		.abandoned = is_abandoned,
		.userdata = &program,
	};
	struct base_error error = {};
	enum filter_mode filters = FILTER_KILL;
	int r;

	if (argc > 2 || (argc == 2 && filter_mode_parse(argv[1], &filters) < 0)) {
		log_error("usage: warmbox-vmm [kill|log|off]");
		return EXIT_FAILURE;
	}
	/* An exec() has made it readable for whoever has its user id. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	r = filter_install(&filter_vmm_setup, filters);
	if (r < 0) {
		log_error("filtering system calls: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	set_up_heap();
	/* A client that hangs up is an error code, not a death. */
	signal(SIGPIPE, SIG_IGN);
	/* Priorities are set for the group. A session's leader has one of its own already. */
	(void)setpgid(0, 0);
	if (check_control_socket() < 0 || check_kvm() < 0) {
		return EXIT_FAILURE;
	}
	r = vmm_loop_init(&program.loop);
	if (r < 0) {
		log_error("starting the event loop: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	r = vmm_vm_init(&program.vm, VMM_KVM_FD, filters, &program.loop, &callbacks, &error);
	if (r < 0) {
		log_error("%s", error.text);
		return EXIT_FAILURE;
	}
	r = run(&program);
	if (r < 0) {
		log_error("event loop: %s", strerror(-r));
		program.exit_status = EXIT_FAILURE;
	}
	if (program.vm.serial.dropped_bytes > 0) {
		log_warning("%llu bytes of the guest's console were dropped: nobody read them",
			    (unsigned long long)program.vm.serial.dropped_bytes);
	}
	/* Not exit(): it would run beside vCPU threads that still serve their guest. */
	_exit(program.exit_status);
}
