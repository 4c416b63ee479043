/* SPDX-License-Identifier: Apache-2.0 */

/*
 * uffd/record.c: the order of first touch over several runs, the pages that are shown, and what
 * happens when a fault cannot be answered. The VM is a child that touches a private mapping of the
 * image; it hands its userfaultfd over as a VMM does. Skipped where userfaultfd is not allowed.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "uffd/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES	     600
#define MEMORY_BYTES (PAGES * SNAPSHOT_PAGE_BYTES)

/* Exit statuses of the child. */
enum { CHILD_DONE, CHILD_NO_USERFAULT, CHILD_WRONG_PAGE, CHILD_FAILED };

/* Every page says its number; every seventh is a hole. */
static bool is_hole(uint32_t page)
{
	return page % 7 == 3;
}

static int make_memory(void)
{
	uint32_t data[SNAPSHOT_PAGE_BYTES / sizeof(uint32_t)];
	int fd = -1;

	assert_int_equal(base_fd_memfd("test-memory", MEMORY_BYTES, &fd), 0);
	for (uint32_t page = 0; page < PAGES; page++) {
		for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
			data[i] = page + 1;
		}
		if (!is_hole(page)) {
			assert_int_equal(base_fd_pwrite_full(fd, data, sizeof(data),
							     (off_t)(page * sizeof(data))),
					 0);
		}
	}
	return fd;
}

static int make_userfault(void *base, uint64_t size)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM };
	struct uffdio_register region = {
		.range = { (uint64_t)(uintptr_t)base, size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	_cleanup_fd_ int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC)
			     : (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &region) < 0) {
		return -1;
	}
	return fd;
}

/* The VM: reads (odd ones: writes) the pages in turn and compares what is there. */
static int touch(int image_fd, const uint32_t *pages, size_t n, int socket)
{
	uint8_t *base = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, image_fd, 0);
	uint64_t address = (uint64_t)(uintptr_t)base;
	int fd;

	if (base == MAP_FAILED) {
		return CHILD_FAILED;
	}
	fd = make_userfault(base, MEMORY_BYTES);
	if (fd < 0) {
		return CHILD_NO_USERFAULT;
	}
	if (base_fd_send(socket, &address, sizeof(address), &fd, 1, 0) != sizeof(address)) {
		return CHILD_FAILED;
	}
	for (size_t i = 0; i < n; i++) {
		uint32_t *page = (uint32_t *)(void *)(base + pages[i] * SNAPSHOT_PAGE_BYTES);
		uint32_t expected = is_hole(pages[i]) ? 0 : pages[i] + 1;

		if (pages[i] % 2 == 1) {
			page[17] = 0;
			page[17] = expected;
		}
		for (size_t w = 0; w < SNAPSHOT_PAGE_BYTES / sizeof(uint32_t); w++) {
			if (page[w] != expected) {
				return CHILD_WRONG_PAGE;
			}
		}
	}
	return CHILD_DONE;
}

static pid_t start_child(int image_fd, const uint32_t *pages, size_t n, int *ret_userfault,
			 uint64_t *ret_address)
{
	int pair[2], fd = -1;
	size_t n_fds = 0;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(pair[0]);
		_exit(touch(image_fd, pages, n, pair[1]));
	}
	close(pair[1]);
	if (base_fd_receive(pair[0], ret_address, sizeof(*ret_address), &fd, 1, &n_fds, 0) <= 0) {
		int status = 0;

		close(pair[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), CHILD_NO_USERFAULT);
		print_message("# SKIP: userfaultfd is not allowed here\n");
		skip();
	}
	close(pair[0]);
	*ret_userfault = fd;
	return pid;
}

/* One run; returns the child's wait status. */
static int run(struct uffd_recorder *recorder, const uint32_t *pages, size_t n, uint64_t shift,
	       int expected, struct base_error *error)
{
	_cleanup_fd_ int image = -1, pidfd = -1;
	uint64_t address = 0;
	int userfault = -1, status = 0;
	pid_t pid;

	assert_int_equal(uffd_recorder_image(recorder, &image, NULL), 0);
	pid = start_child(image, pages, n, &userfault, &address);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_int_equal(uffd_recorder_start(recorder, userfault, address + shift, pidfd, NULL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(uffd_recorder_stop(recorder, error), expected);
	return status;
}

static void test_order(void **state)
{
	_cleanup_(uffd_recorder_freep) struct uffd_recorder *recorder = NULL;
	_cleanup_fd_ int memory = make_memory();
	/* The last, the first, the same again, a hole, neighbours backwards. */
	static const uint32_t first[] = { 599, 0, 599, 3, 8, 7, 6, 300, 0 };
	static const uint32_t first_seen[] = { 599, 0, 3, 8, 7, 6, 300 };
	static const uint32_t second[] = { 7, 301, 300, 1 };
	static const uint32_t both[] = { 599, 0, 3, 8, 7, 6, 300, 301, 1 };
	const uint32_t *pages;
	size_t n = 1;

	if (uffd_host_check(NULL) == -ENOTSUP) {
		print_message("# SKIP: memfds have huge pages here\n");
		skip();
	}
	assert_int_equal(uffd_host_check(NULL), 0);
	assert_int_equal(uffd_recorder_new(memory, MEMORY_BYTES, &recorder, NULL), 0);
	uffd_recorder_pages(recorder, &n);
	assert_int_equal(n, 0);
	assert_int_equal(uffd_recorder_stop(recorder, NULL), 0);

	assert_int_equal(run(recorder, first, ARRAY_SIZE(first), 0, 0, NULL), CHILD_DONE);
	pages = uffd_recorder_pages(recorder, &n);
	assert_int_equal(n, ARRAY_SIZE(first_seen));
	assert_memory_equal(pages, first_seen, sizeof(first_seen));

	assert_int_equal(run(recorder, second, ARRAY_SIZE(second), 0, 0, NULL), CHILD_DONE);
	pages = uffd_recorder_pages(recorder, &n);
	assert_int_equal(n, ARRAY_SIZE(both));
	assert_memory_equal(pages, both, sizeof(both));
}

static void test_every_page(void **state)
{
	_cleanup_(uffd_recorder_freep) struct uffd_recorder *recorder = NULL;
	_cleanup_fd_ int memory = make_memory();
	uint32_t all[PAGES];
	const uint32_t *pages;
	size_t n = 0;

	for (uint32_t i = 0; i < PAGES; i++) {
		all[i] = i * 7 % PAGES; /* no common divisor */
	}
	assert_int_equal(uffd_recorder_new(memory, MEMORY_BYTES, &recorder, NULL), 0);
	assert_int_equal(run(recorder, all, PAGES, 0, 0, NULL), CHILD_DONE);
	assert_int_equal(run(recorder, all, PAGES, 0, 0, NULL), CHILD_DONE);
	pages = uffd_recorder_pages(recorder, &n);
	assert_int_equal(n, PAGES);
	assert_memory_equal(pages, all, sizeof(all));
}

/* Nobody may wait for ever: what cannot be answered kills the VM, and stop says why. */
static void test_unanswerable(void **state)
{
	_cleanup_(uffd_recorder_freep) struct uffd_recorder *recorder = NULL;
	_cleanup_fd_ int memory = make_memory();
	static const uint32_t pages[] = { 4 };
	struct base_error error = {};
	size_t n = 1;
	int status;

	assert_int_equal(uffd_recorder_new(memory, MEMORY_BYTES, &recorder, NULL), 0);
	/* As if its memory began behind the page that it touches. */
	status = run(recorder, pages, ARRAY_SIZE(pages), 5 * SNAPSHOT_PAGE_BYTES, -EPROTO, &error);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	assert_string_equal(error.text, "a fault outside of the guest's memory");
	uffd_recorder_pages(recorder, &n);
	assert_int_equal(n, 0);

	/* The next run is as good as any. */
	assert_int_equal(run(recorder, pages, 0, 0, 0, &error), CHILD_DONE);

	/* The saved memory cannot be read. */
	assert_int_equal(dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), memory), memory);
	status = run(recorder, pages, ARRAY_SIZE(pages), 0, -EBADF, &error);
	assert_true(WIFSIGNALED(status));
	assert_non_null(strstr(error.text, "saved memory"));
}

/* A VM that dies with a fault on its way, and a recorder that is freed in the middle of a run. */
static void test_death(void **state)
{
	_cleanup_(uffd_recorder_freep) struct uffd_recorder *recorder = NULL;
	_cleanup_fd_ int memory = make_memory(), image = -1;
	static const uint32_t page[] = { 1 };
	uint64_t address = 0;
	int userfault = -1, status = 0;
	struct pollfd fault;
	pid_t pid;

	assert_int_equal(uffd_recorder_new(memory, MEMORY_BYTES, &recorder, NULL), 0);
	assert_int_equal(uffd_recorder_image(recorder, &image, NULL), 0);
	pid = start_child(image, page, 1, &userfault, &address);
	fault = (struct pollfd){ .fd = userfault, .events = POLLIN };
	assert_int_equal(fcntl(userfault, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(poll(&fault, 1, 10000), 1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(uffd_recorder_start(recorder, userfault, address, -1, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_every_page),
		cmocka_unit_test(test_unanswerable),
		cmocka_unit_test(test_death),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
