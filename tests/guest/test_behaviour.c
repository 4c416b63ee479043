/* SPDX-License-Identifier: Apache-2.0 */

/* Tiny guests that run from boot to end: exits, interrupts, timers, a second CPU, pausing. */

#include "tests/guest/common.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#define PATIENCE_MS 20000

static void expect_end(struct harness_vm *vm, enum vmm_exit_reason reason, int code)
{
	assert_int_equal(harness_wait_exit(vm, PATIENCE_MS), 0);
	if (vm->over_reason != reason || vm->over_code != code) {
		fail_msg("reason %d, code %d: %s", vm->over_reason, vm->over_code, vm->over_text);
	}
}

static void expect_console(struct harness_vm *vm, const char *text)
{
	_cleanup_free_ char *console = harness_console(vm);

	assert_non_null(console);
	assert_string_equal(console, text);
}

static void test_exit(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	uint64_t before_ns = base_clock_monotonic_ns();
	int status;

	boot_tiny(&vm, "exit", 1, 0);
	expect_end(&vm, VMM_EXIT_GUEST, 42);
	expect_console(&vm, "hello\n");
	assert_int_equal(vm.entered_count, 1);
	assert_in_range(vm.entered_ns, before_ns, base_clock_monotonic_ns());
	status = harness_stop(&vm);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_create_times(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct harness_params params = {};

	assert_vm_ok(&vm, harness_create(&vm, &params));
	for (unsigned i = 1; i < 5; i++) {
		assert_true(vm.reply.arg[i] >= vm.reply.arg[i - 1]);
	}
}

static void test_interrupts(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, "interrupt", 1, 0);
	expect_end(&vm, VMM_EXIT_GUEST, 0);
	expect_console(&vm, ".interrupts ok\n");
}

static void test_timer(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, "timer", 1, 0);
	expect_end(&vm, VMM_EXIT_GUEST, 0);
	expect_console(&vm, "armed\nfired\nagain\n");
}

static void test_second_cpu(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, "smp", 2, 0);
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	mailbox_set(vm.memory, 0, 1);
	expect_end(&vm, VMM_EXIT_GUEST, 0);
	expect_console(&vm, "second\nready\nboth run\n");
}

static void test_most_vcpus(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, "exit", VMM_VCPUS_MAX, 0);
	expect_end(&vm, VMM_EXIT_GUEST, 42);
}

static void test_triple_fault(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, "triple", 1, 0);
	expect_end(&vm, VMM_EXIT_RESET, 0);
	assert_non_null(strstr(vm.over_text, "triple fault"));
	expect_console(&vm, "about to crash\n");
}

static void test_resets(void **state)
{
	for (uint32_t port = 0; port < 2; port++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

		boot_tiny(&vm, "reset", 1, port);
		expect_end(&vm, VMM_EXIT_RESET, 0);
		assert_non_null(strstr(vm.over_text, port ? "0xcf9" : "keyboard"));
	}
}

static void test_unknown_instruction(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	enum vmm_host_kind kind;

	assert_int_equal(vmm_host_kind_detect(&kind), 0);
	boot_tiny(&vm, "bad_instruction", 1, 0);
	if (kind != VMM_HOST_PVM) {
		expect_end(&vm, VMM_EXIT_GUEST, 0);
		return;
	}
	expect_end(&vm, VMM_EXIT_FAILURE, EIO);
	assert_non_null(strstr(vm.over_text, "bytes: f3 48 0f b8"));
	expect_console(&vm, "after fwait\n");
}

/* Saving and restoring the vector registers, which on kvm-pvm the VMM does. */
static void test_xsave(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, "xsave", 1, 0);
	expect_end(&vm, VMM_EXIT_GUEST, 0);
	expect_console(&vm, __builtin_cpu_supports("avx") ? "xsave ok\n" : "no AVX\n");
}

/* A guest that spins is stopped and goes on, many times; the clock does not run back. */
static void test_pause(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, "clock", 1, 0);
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	for (unsigned i = 0; i < 100; i++) {
		assert_vm_ok(&vm, harness_pause(&vm));
		assert_vm_ok(&vm, harness_pause(&vm));
		assert_vm_ok(&vm, harness_resume(&vm));
		assert_vm_ok(&vm, harness_resume(&vm));
	}
	assert_int_equal(vm.is_over, false);
	mailbox_set(vm.memory, 0, 1);
	expect_end(&vm, VMM_EXIT_GUEST, 0);
	/* A resume that is followed by a pause at once may have entered nothing. */
	assert_in_range(vm.entered_count, 1, 101);
}

/* Nobody reads the console: the guest goes on all the same. */
static void test_console_is_bounded(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct harness_params params = {};
	static const char fill[65536];
	int pipe_fds[2];

	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	while (write(pipe_fds[1], fill, sizeof(fill)) > 0) {
	}
	assert_int_equal(fcntl(pipe_fds[1], F_SETFL, 0), 0);
	params.console_fd = pipe_fds[1];
	assert_vm_ok(&vm, harness_create(&vm, &params));
	assert_vm_ok(&vm, harness_boot(&vm, tiny_path("exit"), NULL, ""));
	assert_vm_ok(&vm, harness_resume(&vm));
	expect_end(&vm, VMM_EXIT_GUEST, 42);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

/* The control socket closes: the VMM goes, whatever its guest does. */
static void test_starter_dies(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int status;

	boot_tiny(&vm, "memory", 1, 0);
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	status = harness_stop(&vm);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit),
		cmocka_unit_test(test_create_times),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_timer),
		cmocka_unit_test(test_second_cpu),
		cmocka_unit_test(test_most_vcpus),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_resets),
		cmocka_unit_test(test_unknown_instruction),
		cmocka_unit_test(test_xsave),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_console_is_bounded),
		cmocka_unit_test(test_starter_dies),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-behaviour", tests, NULL, NULL);
}
