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
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
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

static void test_discard_bounds(void **state)
{
	_cleanup_fd_ int fd = -1;
	struct vmm_memory memory = {};
	uint64_t bytes = 9;

	assert_int_equal(base_fd_memfd("memory", BYTES, &fd), 0);
	assert_int_equal(vmm_memory_init(&memory, fd, BYTES, true), 0);
	assert_int_equal(vmm_memory_discard(&memory, 0, BYTES + 1, &bytes), -EFAULT);
	assert_int_equal(vmm_memory_discard(&memory, BYTES, 4096, &bytes), -EFAULT);
	assert_int_equal(vmm_memory_discard(&memory, 4096, UINT64_MAX, &bytes), -EFAULT);
	assert_int_equal(vmm_memory_discard(&memory, UINT64_MAX - 4095, 4096, &bytes), -EFAULT);
	assert_int_equal(bytes, 9);
	assert_int_equal(vmm_memory_discard(&memory, BYTES, 0, &bytes), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(vmm_memory_discard(&memory, 1, 8190, &bytes), 0);
	assert_int_equal(bytes, 0);
	assert_int_equal(vmm_memory_discard(&memory, 1, 8191, &bytes), 0);
	assert_int_equal(bytes, 4096);
	assert_int_equal(vmm_memory_discard(&memory, 0, BYTES, &bytes), 0);
	assert_int_equal(bytes, BYTES);
	vmm_memory_deinit(&memory);
}

static void *read_first_byte(void *argument)
{
	const struct vmm_memory *memory = argument;
	uint8_t byte = 0;

	vmm_memory_read(memory, 0, &byte, 1);
	return (void *)(uintptr_t)byte;
}

/* A page of lazy memory that was given back and is a hole of the image: whoever reads it waits for
 * it to be filled, as before it was written. */
static void test_discard_keeps_the_registration(void **state)
{
	_cleanup_fd_ int fd = -1, read_only = -1;
	struct vmm_memory memory = {};
	uint8_t image = 0x55, own = 0x11;
	struct uffd_msg event;
	struct pollfd ready;
	pthread_t thread;
	uint64_t bytes;
	void *byte;
	int r;

	assert_int_equal(base_fd_memfd("memory", BYTES, &fd), 0);
	assert_int_equal(pwrite(fd, &image, 1, 0), 1);
	assert_int_equal(base_fd_reopen_readonly(fd, &read_only), 0);
	assert_int_equal(vmm_memory_init(&memory, read_only, BYTES, false), 0);
	r = vmm_memory_make_lazy(&memory, read_only, fd);
	if (r == -EPERM) {
		vmm_memory_deinit(&memory);
		skip();
	}
	assert_int_equal(r, 0);
	assert_int_equal(vmm_memory_write(&memory, 0, &own, 1), 0);
	assert_int_equal(vmm_memory_discard(&memory, 0, 4096, &bytes), 0);
	assert_int_equal(bytes, 4096);
	assert_int_equal(vmm_memory_read(&memory, 0, &own, 1), 0);
	assert_int_equal(own, 0x55);
	/* Again, and now the image has nothing there. */
	assert_int_equal(vmm_memory_discard(&memory, 0, 4096, &bytes), 0);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);

	assert_int_equal(pthread_create(&thread, NULL, read_first_byte, &memory), 0);
	ready = (struct pollfd){ .fd = memory.userfault_fd, .events = POLLIN };
	assert_int_equal(poll(&ready, 1, 10000), 1);
	assert_int_equal(read(memory.userfault_fd, &event, sizeof(event)), sizeof(event));
	assert_int_equal(event.event, UFFD_EVENT_PAGEFAULT);
	assert_int_equal(event.arg.pagefault.address, (uintptr_t)memory.base);
	image = 0x66;
	assert_int_equal(pwrite(fd, &image, 1, 0), 1);
	assert_int_equal(ioctl(memory.userfault_fd, UFFDIO_WAKE,
			       &(struct uffdio_range){ (uintptr_t)memory.base, 4096 }),
			 0);
	assert_int_equal(pthread_join(thread, &byte), 0);
	assert_int_equal((uintptr_t)byte, 0x66);
	assert_false(vmm_memory_is_whole(&memory));
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	assert_true(vmm_memory_is_whole(&memory));
	vmm_memory_deinit(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_private),
		cmocka_unit_test(test_wrong_size),
		cmocka_unit_test(test_discard_bounds),
		cmocka_unit_test(test_discard_keeps_the_registration),
	};

	return cmocka_run_group_tests_name("vmm-memory", tests, NULL, NULL);
}
