/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * File descriptors: closing, whole reads and writes, memfds, passing over Unix sockets.
 *
 * Every descriptor made here is close-on-exec. -1 is "none"; test with >= 0.
 */

#include "base/util.h"

#include <sys/types.h>

/* Closes fd if it is valid and returns -1. Never retried, keeps errno. */
int base_fd_close(int fd);

static inline void base_fd_closep(int *fd)
{
	base_fd_close(*fd);
}
#define _cleanup_fd_ _cleanup_(base_fd_closep)

/* Reads exactly size bytes. 0, -errno, or -ENODATA when the file ends before. Retries EINTR;
 * blocking fds only. */
int base_fd_read_full(int fd, void *data, size_t size);
int base_fd_pread_full(int fd, void *data, size_t size, off_t offset);

/* Writes exactly size bytes. 0 or -errno. Retries EINTR; blocking fds only. A broken pipe is
 * -EPIPE, no signal on sockets. */
int base_fd_write_full(int fd, const void *data, size_t size);
int base_fd_pwrite_full(int fd, const void *data, size_t size, off_t offset);

/* Reads a whole file of at most limit bytes into a new NUL-terminated buffer (owned by the caller).
 * -EFBIG past the limit. */
int base_fd_read_file(int fd, size_t limit, char **ret_data, size_t *ret_size);

/* A memfd of exactly size bytes, sealed against growing and shrinking. Filled with holes. */
int base_fd_memfd(const char *name, uint64_t size, int *ret_fd);

/* A second descriptor of the same file, opened read-only through /proc/self/fd. */
int base_fd_reopen_readonly(int fd, int *ret_fd);

/* The most descriptors that one message carries here. */
#define BASE_FD_PASS_MAX 16

/*
 * Sends one message with descriptors (borrowed; nothing is closed). flags as for sendmsg(2);
 * MSG_NOSIGNAL is always added. Returns bytes sent or -errno.
 */
ssize_t base_fd_send(int socket, const void *data, size_t size, const int *fds, size_t n_fds,
		     int flags);

/*
 * Receives one message. fds must have room for max_fds <= BASE_FD_PASS_MAX; what arrives is
 * close-on-exec and owned by the caller; if more arrived than fit, or the message was truncated,
 * all are closed and -EMSGSIZE is returned. Returns bytes received (0: end of stream) or -errno.
 */
ssize_t base_fd_receive(int socket, void *data, size_t size, int *fds, size_t max_fds,
			size_t *ret_n_fds, int flags);
