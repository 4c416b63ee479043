/* SPDX-License-Identifier: Apache-2.0 */

/* A leased VM whose starter goes: it goes on, one successor at a time takes it over, and it does
 * not wait for ever. */

#include "tests/guest/common.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define PATIENCE_MS 30000
/* Longer than any of these tests takes, and shorter than anybody wants to wait. */
#define LONG_MS	 60000
#define SHORT_MS 300

/* What a successor connects to. */
struct meeting {
	struct sockaddr_un address; /* abstract: nothing is left behind */
	socklen_t size;
	int fd;
};

static void meeting_open(struct meeting *meeting)
{
	meeting->address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	meeting->size = sizeof(meeting->address);
	meeting->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_true(meeting->fd >= 0);
	assert_int_equal(
		bind(meeting->fd, (struct sockaddr *)&meeting->address, sizeof(sa_family_t)), 0);
	assert_int_equal(
		getsockname(meeting->fd, (struct sockaddr *)&meeting->address, &meeting->size), 0);
	assert_int_equal(listen(meeting->fd, 4), 0);
}

/* Once the VMM has it, this process does not need it. */
static void meeting_leave(struct meeting *meeting)
{
	meeting->fd = base_fd_close(meeting->fd);
}

static int arrive(const struct meeting *meeting)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&meeting->address, meeting->size), 0);
	return fd;
}

static int lease(struct harness_vm *vm, uint64_t timeout_ms)
{
	uint64_t args[] = { VMM_RESUME_LEASED, timeout_ms };

	return harness_call(vm, VMM_OP_RESUME, args, 2, NULL, 0, NULL);
}

/* "registers" says "ready", waits for "go", and ends with 0. */
static void boot(struct harness_vm *vm, struct meeting *meeting)
{
	struct harness_params params = { .successor_fd = -1 };

	meeting_open(meeting);
	params.successor_fd = meeting->fd;
	assert_vm_ok(vm, harness_create(vm, &params));
	meeting_leave(meeting);
	assert_vm_ok(vm, harness_boot(vm, tiny_path("registers"), NULL, ""));
}

static void go(struct harness_vm *vm)
{
	mailbox_set(vm->memory, 0, 1);
	assert_int_equal(harness_wait_exit(vm, PATIENCE_MS), 0);
	assert_int_equal(vm->over_reason, VMM_EXIT_GUEST);
	assert_int_equal(vm->over_code, 0);
}

static void test_taken_over(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct meeting meeting;

	boot(&vm, &meeting);
	assert_vm_ok(&vm, lease(&vm, LONG_MS));
	assert_int_equal(vm.reply.arg[0], 1); /* none of its memory is missing */
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	for (unsigned i = 0; i < 3; i++) {
		vm.control = base_fd_close(vm.control);
		/* At once, and after the VMM has noticed. */
		poll(NULL, 0, i == 1 ? 50 : 0);
		vm.control = arrive(&meeting);
		assert_vm_ok(&vm, lease(&vm, LONG_MS));
		assert_vm_ok(&vm, harness_call(&vm, VMM_OP_COUNTERS, NULL, 0, NULL, 0, NULL));
	}
	go(&vm);
	assert_int_equal(harness_stop(&vm), 0);
}

static void test_one_at_a_time(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];
	struct meeting meeting;
	size_t n_fds = 0;

	boot(&vm, &meeting);
	assert_vm_ok(&vm, lease(&vm, LONG_MS));
	for (unsigned i = 0; i < 2; i++) {
		_cleanup_fd_ int second = arrive(&meeting);
		struct pollfd item = { .fd = second, .events = POLLIN };

		assert_int_equal(poll(&item, 1, PATIENCE_MS), 1);
		assert_true(base_message_receive(second, &message, fds, &n_fds) <= 0);
		assert_vm_ok(&vm, harness_call(&vm, VMM_OP_COUNTERS, NULL, 0, NULL, 0, NULL));
		vm.control = base_fd_close(vm.control);
		vm.control = arrive(&meeting);
		assert_vm_ok(&vm, lease(&vm, LONG_MS));
	}
	go(&vm);
}

/* Waits until it has ended by itself. Returns how many ms it took. */
static unsigned wait_end(struct harness_vm *vm)
{
	uint64_t start_ns = base_clock_monotonic_ns(), took_ns = 0;
	int status = 0;

	while (waitpid(vm->pid, &status, WNOHANG) == 0) {
		took_ns = base_clock_monotonic_ns() - start_ns;
		assert_true(took_ns < PATIENCE_MS * NSEC_PER_MSEC);
		poll(NULL, 0, 1);
	}
	vm->pid = 0;
	assert_true(WIFEXITED(status));
	return (unsigned)(took_ns / NSEC_PER_MSEC);
}

static void test_nobody_comes(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct meeting meeting;

	boot(&vm, &meeting);
	assert_vm_ok(&vm, lease(&vm, LONG_MS));
	assert_vm_ok(&vm, lease(&vm, SHORT_MS)); /* the latest counts */
	vm.control = base_fd_close(vm.control);
	assert_true(wait_end(&vm) >= SHORT_MS / 2);
}

static void test_not_leased(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct meeting meeting;

	boot(&vm, &meeting);
	assert_vm_ok(&vm, harness_resume(&vm));
	vm.control = base_fd_close(vm.control);
	wait_end(&vm);
}

/* The guest ends while nobody is there to be told. */
static void test_over_alone(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct meeting meeting;

	boot(&vm, &meeting);
	assert_vm_ok(&vm, lease(&vm, LONG_MS));
	vm.control = base_fd_close(vm.control);
	mailbox_set(vm.memory, 0, 1);
	wait_end(&vm);
}

/* The vCPU waits for a page that nobody brings: the VMM is taken over all the same, says that pages
 * are missing, and ends in time. */
static void test_while_missing(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_image_ struct image whole = { -1, -1, 0 };
	_cleanup_fd_ int holes = -1;
	struct harness_params params = { .lazy = true };
	struct pollfd item = { .events = POLLIN };
	struct meeting meeting;

	make_image("registers", 1, 0, "ready", &whole);
	assert_int_equal(base_fd_memfd("holes", whole.memory_bytes, &holes), 0);
	meeting_open(&meeting);
	params.image_fd = holes;
	params.memory_bytes = whole.memory_bytes;
	params.successor_fd = meeting.fd;
	assert_vm_ok(&vm, harness_create(&vm, &params));
	meeting_leave(&meeting);
	assert_vm_ok(&vm, harness_load(&vm, whole.state));
	assert_vm_ok(&vm, lease(&vm, LONG_MS));
	item.fd = vm.userfault;
	assert_int_equal(poll(&item, 1, PATIENCE_MS), 1);
	vm.userfault = base_fd_close(vm.userfault);

	vm.control = base_fd_close(vm.control);
	vm.control = arrive(&meeting);
	assert_vm_ok(&vm, lease(&vm, SHORT_MS));
	assert_int_equal(vm.reply.arg[0], 0);
	assert_int_equal(fcntl(holes, F_ADD_SEALS, F_SEAL_WRITE), 0);
	assert_vm_ok(&vm, lease(&vm, SHORT_MS));
	assert_int_equal(vm.reply.arg[0], 1);
	vm.control = base_fd_close(vm.control);
	wait_end(&vm);
}

static void test_refused(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE, other = HARNESS_VM_NONE;
	struct meeting meeting;

	boot(&vm, &meeting);
	assert_int_equal(lease(&vm, 0), -EINVAL);
	assert_int_equal(lease(&vm, VMM_ORPHAN_TIMEOUT_MAX_MS + 1), -EINVAL);
	assert_vm_ok(&vm, lease(&vm, VMM_ORPHAN_TIMEOUT_MAX_MS));
	assert_vm_ok(&vm, lease(&vm, SHORT_MS));

	boot_tiny(&other, "registers", 1, 0);
	assert_int_equal(lease(&other, LONG_MS), -EBUSY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken_over),   cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_nobody_comes), cmocka_unit_test(test_not_leased),
		cmocka_unit_test(test_over_alone),   cmocka_unit_test(test_while_missing),
		cmocka_unit_test(test_refused),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-successor", tests, NULL, NULL);
}
