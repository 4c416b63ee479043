/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The control protocol misused: requests in the wrong order, with wrong arguments, packets that are
 * no requests. Answered with an error and words, or the VMM ends in good order.
 */

#include "tests/guest/common.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void test_wrong_order(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_fd_ int file = file_of("x", 1);
	int fds[2] = { file, file };
	struct harness_params params = {};
	uint64_t args[BASE_MESSAGE_ARGS] = { MIB(4), 1, 0, 0, 0, 3 };

	assert_int_equal(harness_spawn(&vm), 0);
	assert_int_equal(harness_call(&vm, VMM_OP_BOOT, NULL, 0, fds, 1, ""), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_LOAD, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_ATTACH, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_resume(&vm), -EBUSY);
	assert_int_equal(harness_pause(&vm), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_call(&vm, (enum vmm_op)99, NULL, 0, NULL, 0, NULL), -ENOSYS);
	/* An answer that nobody asked for has no reply and does no harm. */
	{
		struct base_message message = { .op = VMM_OP_CONNECTED, .sequence = 7 };

		assert_int_equal(base_message_send(vm.control, &message, fds, 1), 0);
	}
	assert_int_equal(harness_resume(&vm), -EBUSY);
	harness_stop(&vm);

	boot_tiny(&vm, "memory", 1, 0);
	assert_int_equal(harness_call(&vm, VMM_OP_CREATE, args, BASE_MESSAGE_ARGS, NULL, 0, NULL),
			 -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_BOOT, NULL, 0, fds, 1, ""), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_LOAD, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, NULL, 0, NULL), -EINVAL);
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, fds, 2, NULL), -EINVAL);
	assert_int_equal(harness_call(&vm, VMM_OP_RESUME, NULL, 0, fds, 1, NULL), -EINVAL);
	assert_int_equal(harness_call(&vm, VMM_OP_ATTACH, NULL, 0, NULL, 0, NULL), -EINVAL);
	assert_vm_ok(&vm, harness_resume(&vm));
	harness_stop(&vm);

	/* A kernel is not booted into a private image. */
	params.image_fd = memfd_create("image", MFD_CLOEXEC);
	assert_int_equal(ftruncate(params.image_fd, (off_t)MIB(4)), 0);
	assert_vm_ok(&vm, harness_create(&vm, &params));
	assert_int_equal(harness_boot(&vm, tiny_path("exit"), NULL, ""), -EBUSY);
	close(params.image_fd);
}

static void test_create_arguments(void **state)
{
	_cleanup_fd_ int memory = -1;
	static const struct {
		uint64_t args[BASE_MESSAGE_ARGS];
		size_t n_fds;
	} bad[] = {
		{ { MIB(4) + 1, 1, 0, 0, 0, 3 }, 3 }, /* no whole pages */
		{ { MIB(1) - 4096, 1, 0, 0, 0, 3 }, 3 },
		{ { GIB(3) + 4096, 1, 0, 0, 0, 3 }, 3 },
		{ { UINT64_MAX, 1, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), 0, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), VMM_VCPUS_MAX + 1, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), UINT64_C(1) << 32 | 1, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), 1, 2, 0, 0, 3 }, 3 },
		{ { MIB(4), 1, 0, VMM_DISKS_MAX + 1, 0, 3 }, 3 },
		{ { MIB(4), 1, 0, 1, 2, 3 }, 4 }, /* a read-only disk that is not there */
		{ { MIB(4), 1, 0, 0, 0, 2 }, 3 },
		{ { MIB(4), 1, 0, 0, 0, UINT32_MAX }, 3 },
		{ { MIB(4), 1, 0, 0, 0, 3 }, 2 }, /* descriptors missing */
		{ { MIB(4), 1, 0, 1, 0, 3 }, 3 },
		{ { MIB(4), 1, 0, 0, 0, 3 }, 4 }, /* one too many */
		{ { MIB(4), 1, 0, 0, 0, 3 }, 0 },
		{ { MIB(8), 1, 0, 0, 0, 3 }, 3 }, /* not the size of the memory file */
		{ { MIB(4), 1, 0, 0, 0, 3, 0, VMM_HOST_PVM + 1 }, 3 }, /* no kind of host */
	};
	enum vmm_host_kind kind;

	assert_int_equal(vmm_host_kind_detect(&kind), 0);
	assert_int_equal(base_fd_memfd("memory", MIB(4), &memory), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		int fds[4] = { memory, memory, memory, memory };
		uint64_t args[BASE_MESSAGE_ARGS];
		int r;

		memcpy(args, bad[i].args, sizeof(args));
		args[7] = args[7] ?: kind;
		assert_int_equal(harness_spawn(&vm), 0);
		r = harness_call(&vm, VMM_OP_CREATE, args, BASE_MESSAGE_ARGS, fds, bad[i].n_fds,
				 NULL);
		if (r != -EINVAL || strlen(vm.error.text) == 0) {
			fail_msg("case %zu: %d: %s", i, r, vm.error.text);
		}
	}
}

/* Sends one packet that is no request: the VMM ends, with an error status and no signal. */
static void expect_end(const void *packet, size_t size, size_t n_fds)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int fds[BASE_FD_PASS_MAX];
	char byte;
	int status;

	assert_int_equal(harness_spawn(&vm), 0);
	for (size_t i = 0; i < n_fds; i++) {
		fds[i] = vm.control;
	}
	assert_true(base_fd_send(vm.control, packet, size, fds, n_fds, 0) >= 0);
	assert_true(recv(vm.control, &byte, 1, 0) <= 0);
	status = harness_stop(&vm);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void test_malformed_packets(void **state)
{
	const size_t head = offsetof(struct base_message, text);
	static char large[8192];
	struct base_message message = { .op = VMM_OP_RESUME, .sequence = 1 };

	expect_end("x", 1, 0);
	expect_end(&message, head - 1, 0);
	expect_end(&message, head + 1, 0); /* a text that the length does not mention */
	message.text_length = 5;
	expect_end(&message, head + 4, 0);
	expect_end(&message, head + 5, 0); /* NULs in the text */
	message.text_length = BASE_MESSAGE_TEXT_MAX + 1;
	expect_end(&message, sizeof(message), 0);
	message.text_length = 0;
	message.reserved = 1;
	expect_end(&message, head, 0);
	message.reserved = 0;
	expect_end(&message, head, BASE_MESSAGE_FDS_MAX + 1);
	expect_end(large, sizeof(large), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong_order),
		cmocka_unit_test(test_create_arguments),
		cmocka_unit_test(test_malformed_packets),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-hostile-control", tests, NULL, NULL);
}
