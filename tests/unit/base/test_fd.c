/* SPDX-License-Identifier: Apache-2.0 */

/* Descriptors: whole reads and writes, memfds, passing over sockets, and what is left open. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir)) {
		n++;
	}
	closedir(dir);
	return n;
}

static int setup(void **state)
{
	static int before;

	before = count_fds();
	*state = &before;
	return 0;
}

static int teardown(void **state)
{
	return count_fds() - *(int *)*state;
}

static bool is_cloexec(int fd)
{
	return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static void test_close(void **state)
{
	int fd = dup(STDERR_FILENO);

	errno = ENOTTY;
	assert_int_equal(base_fd_close(-1), -1);
	assert_int_equal(base_fd_close(fd), -1);
	assert_int_equal(base_fd_close(fd), -1); /* EBADF is swallowed */
	assert_int_equal(errno, ENOTTY);
	{
		_cleanup_fd_ int none = -1;
		_cleanup_fd_ int some = dup(STDERR_FILENO);

		assert_true(none < 0 && some >= 0);
	}
}

static void test_file(void **state)
{
	_cleanup_fd_ int fd = memfd_create("file", MFD_CLOEXEC);
	char data[16] = { 0 };

	assert_int_equal(base_fd_write_full(fd, "0123456789", 10), 0);
	assert_int_equal(base_fd_pwrite_full(fd, "ab", 2, 4), 0);
	assert_int_equal(base_fd_pread_full(fd, data, 10, 0), 0);
	assert_string_equal(data, "0123ab6789");
	assert_int_equal(base_fd_pread_full(fd, data, 10, 1), -ENODATA);
	assert_int_equal(base_fd_read_full(fd, data, 1), -ENODATA);
	assert_int_equal(lseek(fd, 8, SEEK_SET), 8);
	assert_int_equal(base_fd_read_full(fd, data, 2), 0);
	assert_memory_equal(data, "89", 2);
	assert_int_equal(base_fd_read_full(fd, data, 0), 0);

	assert_int_equal(base_fd_read_full(-1, data, 1), -EBADF);
	assert_int_equal(base_fd_pread_full(-1, data, 1, 0), -EBADF);
	assert_int_equal(base_fd_write_full(-1, data, 1), -EBADF);
	assert_int_equal(base_fd_pwrite_full(-1, data, 1, 0), -EBADF);
}

#define STREAM_BYTES (4 << 20) /* more than any pipe or socket buffers */

static void *write_stream(void *userdata)
{
	uint8_t *data = malloc(STREAM_BYTES);
	intptr_t r = -ENOMEM;

	if (data) {
		for (size_t i = 0; i < STREAM_BYTES; i++) {
			data[i] = (uint8_t)(i * 7 >> 3);
		}
		r = base_fd_write_full(*(int *)userdata, data, STREAM_BYTES);
		free(data);
	}
	return (void *)r;
}

/* Partial reads and writes, on a pipe and on a socket. */
static void test_stream(void **state)
{
	for (int kind = 0; kind < 2; kind++) {
		uint8_t *data = malloc(STREAM_BYTES);
		int ends[2];
		pthread_t thread;
		void *result;

		assert_non_null(data);
		assert_int_equal(kind == 0
					 ? pipe2(ends, O_CLOEXEC)
					 : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends),
				 0);
		assert_int_equal(pthread_create(&thread, NULL, write_stream, &ends[1]), 0);
		assert_int_equal(base_fd_read_full(ends[0], data, STREAM_BYTES), 0);
		pthread_join(thread, &result);
		assert_null(result);
		for (size_t i = 0; i < STREAM_BYTES; i++) {
			assert_int_equal(data[i], (uint8_t)(i * 7 >> 3));
		}
		close(ends[1]);
		assert_int_equal(base_fd_read_full(ends[0], data, 1), -ENODATA);
		close(ends[0]);
		free(data);
	}
}

static void test_broken_socket(void **state)
{
	int ends[2];

	/* Without a handler, SIGPIPE would end the test here. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	close(ends[1]);
	assert_int_equal(base_fd_write_full(ends[0], "x", 1), -EPIPE);
	assert_int_equal(base_fd_send(ends[0], "x", 1, NULL, 0, 0), -EPIPE);
	close(ends[0]);
}

static void test_read_file(void **state)
{
	static const size_t sizes[] = { 0, 1, 4095, 4096, 4097, 100000 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_fd_ int fd = memfd_create("file", MFD_CLOEXEC);
		_cleanup_free_ char *content = malloc(sizes[i] + 1);
		_cleanup_free_ char *data = NULL, *again = NULL;
		size_t size = 99;

		assert_non_null(content);
		memset(content, 'c', sizes[i]);
		assert_int_equal(base_fd_write_full(fd, content, sizes[i]), 0);
		lseek(fd, 0, SEEK_SET);
		assert_int_equal(base_fd_read_file(fd, sizes[i], &data, &size), 0);
		assert_int_equal(size, sizes[i]);
		assert_int_equal(memcmp(data, content, size), 0);
		assert_int_equal(data[size], '\0');
		lseek(fd, 0, SEEK_SET);
		assert_int_equal(base_fd_read_file(fd, sizes[i] + 1000, &again, &size), 0);
		assert_int_equal(size, sizes[i]);
		if (sizes[i] > 0) {
			char *none = NULL;

			lseek(fd, 0, SEEK_SET);
			assert_int_equal(base_fd_read_file(fd, sizes[i] - 1, &none, &size), -EFBIG);
			assert_null(none);
		}
	}

	char *none = NULL;
	size_t size;

	assert_int_equal(base_fd_read_file(-1, 10, &none, &size), -EBADF);
	assert_null(none);
}

static void test_memfd(void **state)
{
	_cleanup_fd_ int fd = -1, reopened = -1;
	struct stat st;

	assert_int_equal(base_fd_memfd("test", 12345, &fd), 0);
	assert_true(is_cloexec(fd));
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 12345);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	assert_int_equal(ftruncate(fd, 1), -1);
	assert_int_equal(ftruncate(fd, 20000), -1);

	assert_int_equal(base_fd_pwrite_full(fd, "x", 1, 0), 0);
	assert_int_equal(base_fd_reopen_readonly(fd, &reopened), 0);
	assert_true(is_cloexec(reopened));
	assert_int_equal(fcntl(reopened, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(base_fd_pwrite_full(reopened, "y", 1, 0), -EBADF);
	/* A description of its own: the offsets are apart. */
	assert_int_equal(lseek(reopened, 100, SEEK_SET), 100);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);

	int none = -1;

	assert_int_equal(base_fd_reopen_readonly(-1, &none), -ENOENT);
	assert_true(base_fd_memfd("test", UINT64_MAX, &none) < 0);
	assert_int_equal(none, -1);
}

/* --- passing --- */

static void make_pair(int type, int ends[2])
{
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), 0);
}

static void close_pair(int ends[2])
{
	close(ends[0]);
	close(ends[1]);
}

static void test_pass(void **state)
{
	int ends[2], fds[BASE_FD_PASS_MAX], received[BASE_FD_PASS_MAX];
	char text[8] = { 0 };
	size_t n = 99;

	make_pair(SOCK_SEQPACKET, ends);
	for (size_t i = 0; i < BASE_FD_PASS_MAX; i++) {
		fds[i] = memfd_create("passed", MFD_CLOEXEC);
		assert_int_equal(ftruncate(fds[i], (off_t)i + 1), 0);
	}
	for (size_t count = 0; count <= BASE_FD_PASS_MAX; count++) {
		assert_int_equal(base_fd_send(ends[0], "hello", 5, fds, count, 0), 5);
		assert_int_equal(base_fd_receive(ends[1], text, sizeof(text), received,
						 BASE_FD_PASS_MAX, &n, 0),
				 5);
		assert_string_equal(text, "hello");
		assert_int_equal(n, count);
		for (size_t i = 0; i < n; i++) {
			struct stat st;

			assert_true(is_cloexec(received[i]));
			assert_int_equal(fstat(received[i], &st), 0);
			assert_int_equal(st.st_size, i + 1);
			close(received[i]);
		}
	}
	/* Borrowed: still open here. */
	for (size_t i = 0; i < BASE_FD_PASS_MAX; i++) {
		assert_int_equal(close(fds[i]), 0);
	}
	close_pair(ends);
}

static void test_pass_limits(void **state)
{
	int ends[2], fds[BASE_FD_PASS_MAX + 1], received[BASE_FD_PASS_MAX];
	char text[8] = { 0 };
	size_t n = 99;

	make_pair(SOCK_SEQPACKET, ends);
	for (size_t i = 0; i <= BASE_FD_PASS_MAX; i++) {
		fds[i] = STDERR_FILENO;
	}

	int before = count_fds();

	assert_int_equal(base_fd_send(ends[0], "x", 1, fds, BASE_FD_PASS_MAX + 1, 0), -E2BIG);

	/* More than the caller has room for: all are closed. */
	assert_int_equal(base_fd_send(ends[0], "x", 1, fds, 3, 0), 1);
	assert_int_equal(base_fd_receive(ends[1], text, sizeof(text), received, 2, &n, 0),
			 -EMSGSIZE);
	assert_int_equal(base_fd_send(ends[0], "x", 1, fds, 1, 0), 1);
	assert_int_equal(base_fd_receive(ends[1], text, sizeof(text), NULL, 0, &n, 0), -EMSGSIZE);
	/* A packet that is longer than the buffer. */
	assert_int_equal(base_fd_send(ends[0], "123456789", 9, fds, 2, 0), 9);
	assert_int_equal(base_fd_receive(ends[1], text, sizeof(text), received, 2, &n, 0),
			 -EMSGSIZE);
	assert_int_equal(count_fds(), before);

	/* More than any receiver takes: the control data is cut, all are closed. */
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(fds))];
	} control = { 0 };
	struct iovec iov = { .iov_base = text, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
	assert_int_equal(sendmsg(ends[0], &message, 0), 1);
	assert_int_equal(
		base_fd_receive(ends[1], text, sizeof(text), received, BASE_FD_PASS_MAX, &n, 0),
		-EMSGSIZE);
	assert_int_equal(count_fds(), before);
	assert_int_equal(n, 99); /* written on success only */
	close_pair(ends);
}

static void test_pass_ends(void **state)
{
	int ends[2], received[1];
	char text[8];
	size_t n = 99;

	make_pair(SOCK_STREAM, ends);
	assert_int_equal(
		base_fd_receive(ends[0], text, sizeof(text), received, 1, &n, MSG_DONTWAIT),
		-EAGAIN);
	close(ends[1]);
	assert_int_equal(base_fd_receive(ends[0], text, sizeof(text), received, 1, &n, 0), 0);
	assert_int_equal(n, 0);
	close(ends[0]);
	assert_int_equal(base_fd_receive(-1, text, sizeof(text), received, 1, &n, 0), -EBADF);
	assert_int_equal(base_fd_send(-1, text, 1, NULL, 0, 0), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_close, setup, teardown),
		cmocka_unit_test_setup_teardown(test_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken_socket, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memfd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pass, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pass_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pass_ends, setup, teardown),
	};

	return cmocka_run_group_tests_name("fd", tests, NULL, NULL);
}
