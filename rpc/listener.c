/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Taking a socket path.
 *
 * A socket that is left over from a killed daemon looks like one that is served, so what counts is
 * a lock on a file beside it, which the kernel drops with its process. Whoever holds the lock may
 * remove the socket. The lock file is removed under the lock; an opener that locked a removed file
 * starts over. Blocks on nothing; used at start and stop.
 */

#include "rpc/listener.h"

#include "base/fd.h"
#include "rpc/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

#define LOCK_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(".lock"))

static void lock_path(const char *path, char out[LOCK_PATH_MAX])
{
	snprintf(out, LOCK_PATH_MAX, "%s.lock", path);
}

static int lock_refused(int fd, const char *path, struct base_error *error)
{
	char pid[16] = "";
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

	pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
	return base_error_set(
		error, -EADDRINUSE,
		"%s is served by another warmboxd (process %s); stop it, or give this "
		"one another socket",
		path, pid[0] ? pid : "unknown");
}

/* 1: locked, but somebody removed the file meanwhile. */
static int lock_once(const char *path, int *ret_fd, struct base_error *error)
{
	char name[LOCK_PATH_MAX];
	struct stat locked, named;
	char pid[16];
	_cleanup_fd_ int fd = -1;
	int n = snprintf(pid, sizeof(pid), "%d\n", getpid());

	lock_path(path, name);
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0) {
		return base_error_set_errno(error, -errno, "cannot open %s", name);
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int r = -errno;

		return r == -EWOULDBLOCK ? lock_refused(fd, path, error)
					 : base_error_set_errno(error, r, "cannot lock %s", name);
	}
	if (fstat(fd, &locked) < 0 || stat(name, &named) < 0 || locked.st_ino != named.st_ino ||
	    locked.st_dev != named.st_dev) {
		return 1;
	}
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
		return base_error_set_errno(error, -errno, "cannot write %s", name);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int remove_stale(const char *path, struct base_error *error)
{
	struct stat st;

	if (lstat(path, &st) < 0) {
		return errno == ENOENT ? 0 : base_error_set_errno(error, -errno, "%s", path);
	}
	if (!S_ISSOCK(st.st_mode)) {
		return base_error_set(error, -EEXIST,
				      "%s exists and is not a socket; remove it, or configure "
				      "another socket",
				      path);
	}
	if (unlink(path) < 0) {
		return base_error_set_errno(error, -errno, "cannot remove the stale socket %s",
					    path);
	}
	return 0;
}

static int bind_socket(const char *path, gid_t group, int *ret_fd, struct base_error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r;

	strcpy(address.sun_path, path);
	/* The mode before bind() is the most that the path is born with. */
	/* Nobody has to send this side a descriptor, and one may be costly to close: connections
	 * refuse them from the outset, where the kernel can. */
	if (fd >= 0) {
		(void)setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &(int){ 0 }, sizeof(int));
	}
	if (fd < 0 || fchmod(fd, 0600) < 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		return base_error_set_errno(error, -errno, "cannot bind %s", path);
	}
	if ((group != RPC_GROUP_UNCHANGED && chown(path, (uid_t)-1, group) < 0) ||
	    chmod(path, 0660) < 0 || listen(fd, SOMAXCONN) < 0) {
		r = base_error_set_errno(error, -errno, "cannot open %s to its group", path);
		unlink(path);
		return r;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int rpc_listener_open(const char *path, gid_t group, struct rpc_listener *ret_listener,
		      struct base_error *error)
{
	struct rpc_listener listener = { .fd = -1, .lock_fd = -1 };
	int r;

	if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		return base_error_set(error, -ENAMETOOLONG,
				      "%s: a socket's path has at most 107 bytes", path);
	}
	do {
		r = lock_once(path, &listener.lock_fd, error);
	} while (r > 0);
	if (r < 0) {
		return r;
	}
	listener.path = strdup(path);
	if (!listener.path) {
		r = base_error_set_errno(error, -ENOMEM, "%s", path);
	} else {
		r = remove_stale(path, error);
	}
	if (r == 0) {
		r = bind_socket(path, group, &listener.fd, error);
	}
	if (r < 0) {
		rpc_listener_close(&listener);
		return r;
	}
	*ret_listener = listener;
	return 0;
}

void rpc_listener_close(struct rpc_listener *listener)
{
	char name[LOCK_PATH_MAX];

	if (listener->fd >= 0) {
		unlink(listener->path);
		listener->fd = base_fd_close(listener->fd);
	}
	if (listener->lock_fd >= 0 && listener->path) {
		lock_path(listener->path, name);
		unlink(name);
	}
	listener->lock_fd = base_fd_close(listener->lock_fd);
	free(listener->path);
	listener->path = NULL;
}
