/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Linked into a pager, this makes the nth of certain calls fail: n is what stands behind the last
 * dash of argv[0]. Without a number none fails.
 */

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

static atomic_int countdown;

static bool hit(void)
{
	return atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1;
}

__attribute__((constructor)) static void init(int argc, char **argv)
{
	const char *dash = argc > 0 ? strrchr(argv[0], '-') : NULL;

	atomic_store(&countdown, dash ? atoi(dash + 1) : 0);
}

#define WRAP(type, name, parameters, arguments, failed, error) \
	type __real_##name parameters;                         \
	type __wrap_##name parameters;                         \
	type __wrap_##name parameters                          \
	{                                                      \
		if (hit()) {                                   \
			errno = error;                         \
			return failed;                         \
		}                                              \
		return __real_##name arguments;                \
	}

WRAP(void *, malloc, (size_t size), (size), NULL, ENOMEM)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL, ENOMEM)
WRAP(ssize_t, pread64, (int fd, void *data, size_t size, off_t offset), (fd, data, size, offset),
     -1, EIO)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off_t offset),
     (fd, data, size, offset), -1, ENOMEM)
WRAP(int, fstat64, (int fd, struct stat *st), (fd, st), -1, EIO)
WRAP(int, fallocate64, (int fd, int mode, off_t offset, off_t size), (fd, mode, offset, size), -1,
     ENOMEM)
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), -1, EMFILE)
WRAP(void *, mmap64, (void *at, size_t size, int protection, int flags, int fd, off_t offset),
     (at, size, protection, flags, fd, offset), MAP_FAILED, ENOMEM)
WRAP(int, eventfd, (unsigned count, int flags), (count, flags), -1, EMFILE)
/* These return their error. */
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*fn)(void *), void *userdata),
     (thread, attributes, fn, userdata), EAGAIN, 0)
WRAP(int, io_uring_queue_init_params,
     (unsigned entries, struct io_uring *ring, struct io_uring_params *params),
     (entries, ring, params), -EPERM, 0)
WRAP(int, io_uring_register_buffers,
     (struct io_uring * ring, const struct iovec *iovecs, unsigned n), (ring, iovecs, n), -ENOMEM,
     0)

/* Variadic: the third argument is there when it is asked for. */
int __real_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, mode_t mode);
int __wrap_open64(const char *name, int flags, mode_t mode)
{
	if (hit()) {
		errno = EMFILE;
		return -1;
	}
	return __real_open64(name, flags, mode);
}

int __real_fcntl64(int fd, int operation, ...);
int __wrap_fcntl64(int fd, int operation, long argument);
int __wrap_fcntl64(int fd, int operation, long argument)
{
	if (hit()) {
		errno = EPERM;
		return -1;
	}
	return __real_fcntl64(fd, operation, argument);
}
