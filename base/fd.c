/* SPDX-License-Identifier: Apache-2.0 */

/* File descriptor helpers. Stateless; any thread. */

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int base_fd_close(int fd)
{
	if (fd >= 0) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return -1;
}

int base_fd_read_full(int fd, void *data, size_t size)
{
	for (char *p = data; size > 0;) {
		ssize_t n = read(fd, p, size);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		if (n == 0) {
			return -ENODATA;
		}
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

int base_fd_pread_full(int fd, void *data, size_t size, off_t offset)
{
	for (char *p = data; size > 0;) {
		ssize_t n = pread(fd, p, size, offset);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		if (n == 0) {
			return -ENODATA;
		}
		p += n;
		offset += n;
		size -= (size_t)n;
	}
	return 0;
}

/* write() or, on a socket, send() without SIGPIPE. */
static ssize_t write_quietly(int fd, const void *data, size_t size)
{
	ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

	if (n < 0 && errno == ENOTSOCK) {
		n = write(fd, data, size);
	}
	return n;
}

int base_fd_write_full(int fd, const void *data, size_t size)
{
	for (const char *p = data; size > 0;) {
		ssize_t n = write_quietly(fd, p, size);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

int base_fd_pwrite_full(int fd, const void *data, size_t size, off_t offset)
{
	for (const char *p = data; size > 0;) {
		ssize_t n = pwrite(fd, p, size, offset);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		p += n;
		offset += n;
		size -= (size_t)n;
	}
	return 0;
}

int base_fd_read_file(int fd, size_t limit, char **ret_data, size_t *ret_size)
{
	_cleanup_free_ char *data = NULL;
	size_t size = 0, room = 0;

	for (;;) {
		if (size == room) {
			if (size > limit) {
				return -EFBIG;
			}
			room = MIN(MAX(room * 2, (size_t)4096), limit + 1);

			char *grown = realloc(data, room + 1);

			if (!grown) {
				return -ENOMEM;
			}
			data = grown;
		}

		ssize_t n = read(fd, data + size, room - size);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		if (n == 0) {
			break;
		}
		size += (size_t)n;
	}
	if (size > limit) {
		return -EFBIG;
	}
	data[size] = '\0';
	*ret_data = TAKE_PTR(data);
	*ret_size = size;
	return 0;
}

int base_fd_memfd(const char *name, uint64_t size, int *ret_fd)
{
	_cleanup_fd_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0) {
		return -errno;
	}
	if (ftruncate(fd, (off_t)size) < 0) {
		return -errno;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
		return -errno;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int base_fd_reopen_readonly(int fd, int *ret_fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

	int reopened = open(path, O_RDONLY | O_CLOEXEC);

	if (reopened < 0) {
		return -errno;
	}
	*ret_fd = reopened;
	return 0;
}

ssize_t base_fd_send(int socket, const void *data, size_t size, const int *fds, size_t n_fds,
		     int flags)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * BASE_FD_PASS_MAX)];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds > BASE_FD_PASS_MAX) {
		return -E2BIG;
	}
	if (n_fds > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);

		struct cmsghdr *header = CMSG_FIRSTHDR(&message);

		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * n_fds);
	}

	ssize_t n;

	do {
		n = sendmsg(socket, &message, flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t base_fd_receive(int socket, void *data, size_t size, int *fds, size_t max_fds,
			size_t *ret_n_fds, int flags)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * BASE_FD_PASS_MAX)];
	} control;
	struct iovec iov = { .iov_base = data, .iov_len = size };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	int received[BASE_FD_PASS_MAX];
	size_t n_received = 0;
	ssize_t n;

	do {
		n = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		return -errno;
	}

	for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) {
			continue;
		}

		size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; i < count && n_received < BASE_FD_PASS_MAX; i++) {
			memcpy(&received[n_received++], CMSG_DATA(h) + i * sizeof(int),
			       sizeof(int));
		}
	}
	if (n_received > max_fds || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		for (size_t i = 0; i < n_received; i++) {
			base_fd_close(received[i]);
		}
		return -EMSGSIZE;
	}
	if (n_received > 0) {
		memcpy(fds, received, sizeof(int) * n_received);
	}
	*ret_n_fds = n_received;
	return n;
}
