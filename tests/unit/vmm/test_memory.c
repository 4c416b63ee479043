/* SPDX-License-Identifier: Apache-2.0 */

/* The one door to guest memory: bounds, sizes, private and shared. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "vmm/memory.h"

#include <errno.h>
#include <unistd.h>

#define BYTES MIB(1)

static void test_bounds(void **state)
{
	_cleanup_fd_ int fd = -1;
	struct vmm_memory memory = {};
	uint32_t value = 0x12345678, back = 0;

	assert_int_equal(base_fd_memfd("memory", BYTES, &fd), 0);
	assert_int_equal(vmm_memory_init(&memory, fd, BYTES, true), 0);
	assert_non_null(vmm_memory_at(&memory, 0, BYTES));
	assert_non_null(vmm_memory_at(&memory, BYTES, 0));
	assert_non_null(vmm_memory_at(&memory, BYTES - 1, 1));
	assert_null(vmm_memory_at(&memory, BYTES - 1, 2));
	assert_null(vmm_memory_at(&memory, BYTES + 1, 0));
	assert_null(vmm_memory_at(&memory, 1, UINT64_MAX));
	assert_null(vmm_memory_at(&memory, UINT64_MAX, 1));
	assert_null(vmm_memory_at(&memory, UINT64_MAX, UINT64_MAX));
	assert_int_equal(vmm_memory_write(&memory, BYTES - 4, &value, 4), 0);
	assert_int_equal(vmm_memory_read(&memory, BYTES - 4, &back, 4), 0);
	assert_int_equal(back, value);
	assert_int_equal(vmm_memory_write(&memory, BYTES - 3, &value, 4), -EFAULT);
	assert_int_equal(vmm_memory_read(&memory, BYTES - 3, &back, 4), -EFAULT);
	vmm_memory_deinit(&memory);
	vmm_memory_deinit(&memory);
}

static void test_private(void **state)
{
	_cleanup_fd_ int fd = -1, read_only = -1;
	struct vmm_memory memory = {};
	uint8_t one = 1, back = 9;

	assert_int_equal(base_fd_memfd("memory", BYTES, &fd), 0);
	assert_int_equal(base_fd_reopen_readonly(fd, &read_only), 0);
	assert_int_equal(vmm_memory_init(&memory, read_only, BYTES, true), -EACCES);
	assert_int_equal(vmm_memory_init(&memory, read_only, BYTES, false), 0);
	assert_int_equal(vmm_memory_write(&memory, 100, &one, 1), 0);
	assert_int_equal(pread(fd, &back, 1, 100), 1);
	assert_int_equal(back, 0);
	vmm_memory_deinit(&memory);
}

static void test_wrong_size(void **state)
{
	_cleanup_fd_ int fd = -1;
	struct vmm_memory memory = {};
	int pipe_fds[2];

	assert_int_equal(base_fd_memfd("memory", BYTES, &fd), 0);
	assert_int_equal(vmm_memory_init(&memory, fd, BYTES + 4096, true), -EINVAL);
	assert_int_equal(vmm_memory_init(&memory, fd, BYTES - 4096, true), -EINVAL);
	assert_int_equal(vmm_memory_init(&memory, fd, 0, true), -EINVAL);
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(vmm_memory_init(&memory, pipe_fds[0], 0, false), -EINVAL);
	assert_int_equal(vmm_memory_init(&memory, -1, BYTES, false), -EBADF);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_private),
		cmocka_unit_test(test_wrong_size),
	};

	return cmocka_run_group_tests_name("vmm-memory", tests, NULL, NULL);
}
