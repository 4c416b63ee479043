/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a VMM gets: from nothing to the first request in its socket.
 *
 * Happy path: an id and an identity are drawn, the sockets are made, and CREATE is put into the
 * control socket; none of this blocks or depends on the process, which the spawner starts
 * meanwhile. It takes some tens of microseconds.
 *
 * Failure: the first step that fails is named; the caller kills, reaps and deinits whatever there
 * is.
 *
 * Runs on the loop's thread.
 */

#include "pool/launch.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/random.h"
#include "pool/internal.h"
#include "vmm/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOCKET_SUFFIX ".sock"
#define CTL_SUFFIX    ".ctl"
/* "_" and a port in decimal, for guest-initiated connections. */
#define PORT_SUFFIX_MAX 11
/* A successor is one. */
#define CTL_BACKLOG 4
/* Connections that wait for the VMM to accept them; the rest gets EAGAIN or waits in connect(). */
#define LISTEN_BACKLOG 64

void pool_launch_init(struct pool_launch *launch)
{
	*launch = (struct pool_launch){
		.pidfd = -1,
		.control = -1,
		.control_peer = -1,
		.stream = -1,
		.stream_peer = -1,
	};
}

int pool_launch_check_dir(const char *runtime_dir, struct base_error *error)
{
	size_t longest = strlen(runtime_dir) + 1 + POOL_SANDBOX_ID_LENGTH + strlen(SOCKET_SUFFIX) +
			 PORT_SUFFIX_MAX;

	if (longest >= POOL_SOCKET_PATH_MAX) {
		return base_error_set(error, -ENAMETOOLONG,
				      "the runtime directory %s is %zu bytes too long for the "
				      "paths of Unix sockets in it",
				      runtime_dir, longest - POOL_SOCKET_PATH_MAX + 1);
	}
	if (access(runtime_dir, W_OK | X_OK) < 0) {
		return base_error_set_errno(error, -errno, "runtime directory %s", runtime_dir);
	}
	return 0;
}

static int draw_names(struct pool_launch *launch, struct base_error *error)
{
	uint8_t id[POOL_SANDBOX_ID_LENGTH / 2];
	int r = base_random(id, sizeof(id));

	if (r < 0) {
		return base_error_set_errno(error, r, "drawing an id");
	}
	base_hex(id, sizeof(id), launch->id);
	r = guest_identity_generate(&launch->identity);
	if (r < 0) {
		return base_error_set_errno(error, r, "drawing an identity");
	}
	return 0;
}

/* The socket in front of the guest's vsock; the VMM gets it listening. */
static int make_listener(struct pool_launch *launch, const char *runtime_dir, int *ret_fd,
			 struct base_error *error)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (fd < 0) {
		return base_error_set_errno(error, -errno, "making the vsock socket");
	}
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s%s", runtime_dir, launch->id,
		 SOCKET_SUFFIX);
	/* The file gets the descriptor's mode, less the umask: no moment with a wider one, and
	 * nobody's but the manager's until it is claimed. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		return base_error_set_errno(error, -errno, "binding the vsock socket %s",
					    address.sun_path);
	}
	strcpy(launch->socket_path, address.sun_path);
	if (listen(fd, LISTEN_BACKLOG) < 0) {
		return base_error_set_errno(error, -errno, "listening on the vsock socket");
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* What a successor of this manager connects to; nobody else may. */
static int make_ctl(struct pool_launch *launch, const char *runtime_dir, int *ret_fd,
		    struct base_error *error)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (fd < 0) {
		return base_error_set_errno(error, -errno, "making the socket for a successor");
	}
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s%s", runtime_dir, launch->id,
		 CTL_SUFFIX);
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		return base_error_set_errno(error, -errno, "binding the socket %s",
					    address.sun_path);
	}
	strcpy(launch->ctl_path, address.sun_path);
	if (listen(fd, CTL_BACKLOG) < 0) {
		return base_error_set_errno(error, -errno, "listening for a successor");
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int make_pair(int type, int *ret_ours, int *ret_theirs, struct base_error *error)
{
	int pair[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) < 0) {
		return base_error_set_errno(error, -errno, "making a socket pair");
	}
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	return 0;
}

static int send_create(struct pool_launch *launch, const struct pool *pool,
		       const struct pool_image *image, int listener, int ctl)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(image->snapshot);
	struct base_message message = {
		.op = VMM_OP_CREATE,
		.sequence = POOL_STEP_CREATE,
		.arg = { manifest->memory_bytes, manifest->n_vcpus,
			 VMM_CREATE_STATE | VMM_CREATE_ADOPTABLE, image->n_disks, 0,
			 manifest->guest_cid, image->host_fingerprint, image->host_kind },
	};
	int fds[BASE_MESSAGE_FDS_MAX] = { image->memory_fd, pool->devnull, listener };
	size_t n_fds = 3;

	for (unsigned i = 0; i < image->n_disks; i++) {
		fds[n_fds++] = image->disk_fds[i];
		message.arg[4] |= UINT64_C(1) << i; /* read-only */
	}
	fds[n_fds++] = snapshot_state_fd(image->snapshot);
	if (!image->pager.complete) {
		message.arg[2] |= VMM_CREATE_LAZY;
		fds[n_fds++] = pool->userfaultfd_fd >= 0 ? pool->userfaultfd_fd : pool->devnull;
	}
	fds[n_fds++] = ctl;
	return base_message_send(launch->control, &message, fds, n_fds);
}

int pool_launch_prepare(struct pool_launch *launch, const struct pool *pool,
			const struct pool_image *image, struct base_error *error)
{
	_cleanup_fd_ int listener = -1, ctl = -1;
	int r;

	r = draw_names(launch, error);
	if (r < 0) {
		return r;
	}
	r = make_listener(launch, pool->runtime_dir, &listener, error);
	if (r < 0) {
		return r;
	}
	r = make_ctl(launch, pool->runtime_dir, &ctl, error);
	if (r < 0) {
		return r;
	}
	r = make_pair(SOCK_SEQPACKET, &launch->control, &launch->control_peer, error);
	if (r < 0) {
		return r;
	}
	r = make_pair(SOCK_STREAM, &launch->stream, &launch->stream_peer, error);
	if (r < 0) {
		return r;
	}
	if (fcntl(launch->control, F_SETFL, O_RDWR | O_NONBLOCK) < 0) {
		return base_error_set_errno(error, -errno, "control socket");
	}
	r = send_create(launch, pool, image, listener, ctl);
	if (r < 0) {
		return base_error_set_errno(error, r, "sending the first request");
	}
	return 0;
}

int pool_launch_limit(struct pool_launch *launch, const struct pool_limits_config *limits)
{
	struct base_message message;

	memset(&message, 0, BASE_MESSAGE_HEADER_BYTES);
	message.op = VMM_OP_LIMITS;
	message.arg[0] = limits->disk_bytes;
	message.arg[1] = limits->disk_burst_bytes;
	message.arg[2] = limits->disk_operations;
	message.arg[3] = limits->disk_operations_burst;
	message.arg[4] = limits->console_bytes;
	message.arg[5] = limits->vsock_connections;
	message.arg[6] = limits->vsock_bytes;
	return base_message_send(launch->control, &message, NULL, 0);
}

void pool_launch_kill(struct pool_launch *launch)
{
	if (launch->pidfd >= 0) {
		pidfd_send_signal(launch->pidfd, SIGKILL, NULL, 0);
	}
}

int pool_launch_reap(struct pool_launch *launch, int *ret_code, int *ret_killed_by)
{
	siginfo_t info = { 0 };

	*ret_code = 0;
	*ret_killed_by = 0;
	if (waitid(P_PIDFD, (id_t)launch->pidfd, &info, WEXITED | WNOHANG) < 0) {
		/* ECHILD: SIGCHLD is ignored in this process, so the kernel has reaped it. */
		return errno == ECHILD;
	}
	if (info.si_pid == 0) {
		return 0;
	}
	if (info.si_code == CLD_EXITED) {
		*ret_code = info.si_status;
	} else {
		*ret_killed_by = info.si_status;
	}
	return 1;
}

void pool_launch_wait(struct pool_launch *launch)
{
	/* Not by the pidfd: one that was watched does not block. */
	while (waitpid(launch->pid, NULL, 0) < 0 && errno == EINTR) {
	}
	launch->pidfd = base_fd_close(launch->pidfd);
}

int pool_launch_give(const struct pool_launch *launch, uid_t uid, gid_t gid)
{
	/* Nobody else can put anything into the directory, so the path is still the socket. */
	if (lchown(launch->socket_path, uid, gid) < 0) {
		return -errno;
	}
	return gid != POOL_GROUP_NONE && chmod(launch->socket_path, 0660) < 0 ? -errno : 0;
}

void pool_launch_unlink(struct pool_launch *launch)
{
	if (launch->socket_path[0]) {
		unlink(launch->socket_path);
	}
	if (launch->ctl_path[0]) {
		unlink(launch->ctl_path);
	}
}

void pool_launch_deinit(struct pool_launch *launch)
{
	launch->control = base_fd_close(launch->control);
	launch->control_peer = base_fd_close(launch->control_peer);
	launch->stream = base_fd_close(launch->stream);
	launch->stream_peer = base_fd_close(launch->stream_peer);
	launch->pidfd = base_fd_close(launch->pidfd);
	guest_identity_wipe(&launch->identity);
}

/* A non-blocking connection attempt to a Unix socket. A descriptor or -errno. */
static int connect_path(const struct sockaddr_un *address, int type)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0) {
		return -errno;
	}
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		return -errno;
	}
	return TAKE_FD(fd);
}

int pool_launch_connect(const struct pool_launch *launch, uint32_t port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", launch->socket_path,
			 port);

	if (n < 0 || (size_t)n >= sizeof(address.sun_path)) {
		return -ECONNREFUSED;
	}

	int fd = connect_path(&address, SOCK_STREAM);

	if (fd == -ENOENT || fd == -EAGAIN || fd == -EACCES || fd == -EPROTOTYPE) {
		return -ECONNREFUSED;
	}
	return fd;
}

int pool_launch_adopt(struct pool_launch *launch, const struct pool *pool, const char *id)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	strcpy(launch->id, id);
	snprintf(launch->socket_path, sizeof(launch->socket_path), "%s/%s%s", pool->runtime_dir, id,
		 SOCKET_SUFFIX);
	snprintf(launch->ctl_path, sizeof(launch->ctl_path), "%s/%s%s", pool->runtime_dir, id,
		 CTL_SUFFIX);
	strcpy(address.sun_path, launch->ctl_path);
	fd = connect_path(&address, SOCK_SEQPACKET);
	if (fd < 0) {
		return fd;
	}
	launch->control = fd;
	return 0;
}

static bool is_socket_name(const char *name)
{
	return strspn(name, "0123456789abcdef") == POOL_SANDBOX_ID_LENGTH &&
	       (strcmp(name + POOL_SANDBOX_ID_LENGTH, SOCKET_SUFFIX) == 0 ||
		strcmp(name + POOL_SANDBOX_ID_LENGTH, CTL_SUFFIX) == 0);
}

static bool is_ours(const struct pool *pool, const char *name)
{
	BASE_LIST_FOR_EACH(link, &pool->sandboxes)
	{
		const struct pool_sandbox *sandbox =
			CONTAINER_OF(link, struct pool_sandbox, pool_link);

		if (strncmp(sandbox->launch.id, name, POOL_SANDBOX_ID_LENGTH) == 0) {
			return true;
		}
	}
	return false;
}

void pool_launch_sweep(const struct pool *pool)
{
	DIR *dir = opendir(pool->runtime_dir);

	if (!dir) {
		return;
	}
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (is_socket_name(entry->d_name) && !is_ours(pool, entry->d_name)) {
			unlinkat(dirfd(dir), entry->d_name, 0);
		}
	}
	closedir(dir);
}
