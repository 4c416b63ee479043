/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Helper programs: a child with one socket, watched by its pidfd.
 *
 * Happy path: posix_spawn() with the socket as descriptor 3, then messages. posix_spawn() is slow
 * in a large process, but this happens once.
 *
 * Failure: a death is noticed at once by the pidfd. What the helper had said is read to the end of
 * the socket, then `gone` is called and it is started again: at once the first time, and after a
 * wait that doubles when it dies soon again. A helper that cannot be started counts as one that
 * died.
 *
 * Shut-down: it is killed and reaped, since none keeps anything that wants an orderly end. When the
 * manager dies, its socket closes and it ends by itself.
 *
 * Runs on the loop's thread.
 */

#include "pool/helper.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELPER_CONTROL_FD 3
/* Messages taken before others get their turn. */
#define MESSAGES_PER_TURN 32
/* What the kernel holds of requests that the helper has not read yet, where it may be set. */
#define SEND_BUFFER_BYTES (4 << 20)

/* One life of a helper. */
struct pool_helper_process {
	struct pool_helper *helper;
	uv_poll_t control, exit;
	unsigned n_handles;
	pid_t pid;
	int socket, pidfd;
	int reserve; /* a descriptor that is closed while one is received, so that there is room */
	bool reaped, finished; /* the process; what it said */
};

static void helper_failed(struct pool_helper *helper);

/* --- the end of a life --- */

static void on_helper_stopped(struct pool_helper *helper)
{
	if (helper->stopping && helper->n_handles == 0) {
		helper->on_stopped(helper);
	}
}

static void free_process(struct pool_helper_process *process)
{
	base_fd_close(process->socket);
	base_fd_close(process->pidfd);
	base_fd_close(process->reserve);
	free(process);
}

static void on_process_handle_closed(uv_handle_t *handle)
{
	struct pool_helper_process *process = handle->data;
	struct pool_helper *helper = process->helper;

	helper->n_handles--;
	if (--process->n_handles == 0) {
		free_process(process);
	}
	on_helper_stopped(helper);
}

static void close_process(struct pool_helper_process *process)
{
	uv_close((uv_handle_t *)&process->control, on_process_handle_closed);
	uv_close((uv_handle_t *)&process->exit, on_process_handle_closed);
}

/* Both its end and the end of what it said are known. */
static void check_over(struct pool_helper_process *process)
{
	struct pool_helper *helper = process->helper;

	if (!process->reaped || !process->finished || helper->process != process) {
		return;
	}
	helper->process = NULL;
	close_process(process);
	if (!helper->stopping) {
		helper->ops->gone(helper);
		helper_failed(helper);
	}
}

static void reap(struct pool_helper_process *process)
{
	struct pool_helper *helper = process->helper;
	siginfo_t info = { 0 };
	int r;

	do {
		r = waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG);
	} while (r < 0 && errno == EINTR);
	if (r == 0 && info.si_pid == 0) {
		return;
	}
	process->reaped = true;
	if (!helper->stopping) {
		base_log(BASE_LOG_WARNING, "the %s (pid %d) %s %d: starting it again", helper->name,
			 (int)process->pid,
			 info.si_code == CLD_EXITED ? "ended with status" : "was killed by signal",
			 info.si_status);
	}
}

static void on_process_exit(uv_poll_t *poll, int status, int events)
{
	struct pool_helper_process *process = poll->data;

	reap(process);
	if (process->reaped) {
		uv_poll_stop(poll);
	}
	check_over(process);
}

/* --- messages --- */

/* As base_message_receive(). A descriptor that comes along is not lost to a full table: whoever
 * takes one here has given another back by the time the next message is taken. */
static int receive(struct pool_helper_process *process, struct base_message *message, int *fds,
		   size_t *n_fds)
{
	process->reserve = base_fd_close(process->reserve);
	return base_message_receive(process->socket, message, fds, n_fds);
}

static void take_messages(struct pool_helper_process *process)
{
	struct pool_helper *helper = process->helper;
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];

	for (unsigned i = 0; i < MESSAGES_PER_TURN && helper->process == process; i++) {
		size_t n_fds = 0;
		int r = receive(process, &message, fds, &n_fds);

		if (r > 0) {
			helper->ops->message(helper, &message, fds, n_fds);
		}
		process->reserve = fcntl(process->socket, F_DUPFD_CLOEXEC, 0);
		/* Without memory for it the message stays where it is, and the loop comes again. */
		if (r == -EAGAIN || r == -ENOMEM || r == -ENOBUFS) {
			return;
		}
		if (r == -ECONNRESET) {
			continue; /* it left requests unread; what it said can still be read */
		}
		if (r <= 0) {
			process->finished = true;
			uv_poll_stop(&process->control);
			/* Without its socket it is of no use. */
			pidfd_send_signal(process->pidfd, SIGKILL, NULL, 0);
			check_over(process);
			return;
		}
	}
}

void pool_helper_drain(struct pool_helper *helper)
{
	if (helper->process && !helper->process->finished) {
		take_messages(helper->process);
	}
}

static void on_control(uv_poll_t *poll, int status, int events)
{
	struct pool_helper_process *process = poll->data;
	struct pool_helper *helper = process->helper;

	if (status < 0 || events & UV_READABLE) {
		take_messages(process);
	}
	/* libuv stops watching what has an error; there may be something left to read. */
	if (status < 0 && helper->process == process && !process->finished) {
		uv_poll_start(poll, UV_READABLE, on_control);
	}
	if (helper->process == process && status == 0 && events & UV_WRITABLE) {
		uv_poll_start(&process->control, UV_READABLE, on_control);
		helper->ops->writable(helper);
	}
}

int pool_helper_send(struct pool_helper *helper, const struct base_message *message, const int *fds,
		     size_t n_fds)
{
	struct pool_helper_process *process = helper->process;
	int r;

	if (!process || process->finished || helper->stopping) {
		return -ENOTCONN;
	}
	r = base_message_send(process->socket, message, fds, n_fds);
	if (r == -EPIPE || r == -ECONNRESET) {
		return -ENOTCONN; /* its end is noticed elsewhere */
	}
	/* The socket is full, or the kernel is out of memory or of descriptors in flight. */
	if (r < 0) {
		uv_poll_start(&process->control, UV_READABLE | UV_WRITABLE, on_control);
		return -EAGAIN;
	}
	return 0;
}

void pool_helper_kill(struct pool_helper *helper, const char *why)
{
	if (helper->process && !helper->process->reaped) {
		base_log(BASE_LOG_ERROR, "the %s %s: killing it", helper->name, why);
		pidfd_send_signal(helper->process->pidfd, SIGKILL, NULL, 0);
	}
}

/* --- starting --- */

static int fill_actions(posix_spawn_file_actions_t *actions, int socket)
{
	int r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);

	if (r == 0) {
		r = posix_spawn_file_actions_adddup2(actions, STDIN_FILENO, STDOUT_FILENO);
	}
	if (r == 0) {
		r = posix_spawn_file_actions_adddup2(actions, socket, HELPER_CONTROL_FD);
	}
	if (r == 0) {
		r = posix_spawn_file_actions_addclosefrom_np(actions, HELPER_CONTROL_FD + 1);
	}
	return -r;
}

/* A session of its own, as VMMs have; signals as a program expects them. */
static int fill_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, all;
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	r = posix_spawnattr_setsigmask(attributes, &none);
	if (r == 0) {
		r = posix_spawnattr_setsigdefault(attributes, &all);
	}
	if (r == 0) {
		r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID |
								 POSIX_SPAWN_SETSIGMASK |
								 POSIX_SPAWN_SETSIGDEF);
	}
	return -r;
}

/* The environment is kept: a sanitizer's options are in it. */
static int spawn(struct pool_helper *helper, int socket, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int r;

	r = -posix_spawn_file_actions_init(&actions);
	if (r < 0) {
		return r;
	}
	r = -posix_spawnattr_init(&attributes);
	if (r < 0) {
		posix_spawn_file_actions_destroy(&actions);
		return r;
	}
	r = fill_actions(&actions, socket);
	if (r == 0) {
		r = fill_attributes(&attributes);
	}
	if (r == 0) {
		r = -posix_spawn(ret_pid, helper->argv[0], &actions, &attributes, helper->argv,
				 environ);
	}
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* The socket is above HELPER_CONTROL_FD, where the child wants its copy. */
static int make_sockets(int pair[2])
{
	int size = SEND_BUFFER_BYTES;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	if (fcntl(pair[0], F_SETFL, O_RDWR | O_NONBLOCK) < 0 ||
	    (setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 &&
	     setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)) {
		int r = -errno;

		base_fd_close(pair[0]);
		base_fd_close(pair[1]);
		return r;
	}
	return 0;
}

static int watch(struct pool_helper_process *process, uv_poll_t *poll, int fd, uv_poll_cb callback)
{
	struct pool_helper *helper = process->helper;
	int r = uv_poll_init(helper->loop, poll, fd);

	if (r < 0) {
		return r;
	}
	poll->data = process;
	process->n_handles++;
	helper->n_handles++;
	uv_unref((uv_handle_t *)poll);
	return uv_poll_start(poll, UV_READABLE, callback);
}

/* A process that cannot be watched has to go. */
static void abandon(struct pool_helper_process *process)
{
	kill(process->pid, SIGKILL);
	/* Not by the pidfd: there may be none, and one that is watched does not block. */
	while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR) {
	}
	process->finished = true;
	for (uv_poll_t *poll = &process->control; poll <= &process->exit; poll++) {
		if (poll->type == UV_POLL) {
			uv_close((uv_handle_t *)poll, on_process_handle_closed);
		}
	}
	if (process->n_handles == 0) {
		free_process(process);
	}
}

_Static_assert(offsetof(struct pool_helper_process, exit) ==
		       offsetof(struct pool_helper_process, control) + sizeof(uv_poll_t),
	       "abandon() goes over both");

static int start(struct pool_helper *helper)
{
	_cleanup_free_ struct pool_helper_process *process = calloc(1, sizeof(*process));
	_cleanup_fd_ int theirs = -1;
	int pair[2], r;

	if (!process) {
		return -ENOMEM;
	}
	r = make_sockets(pair);
	if (r < 0) {
		return r;
	}
	theirs = pair[1];
	process->helper = helper;
	process->socket = pair[0];
	process->pidfd = process->reserve = -1;
	r = spawn(helper, theirs, &process->pid);
	theirs = base_fd_close(theirs);
	if (r < 0) {
		base_fd_close(process->socket);
		return r;
	}
	process->pidfd = pidfd_open(process->pid, 0);
	process->reserve = fcntl(process->socket, F_DUPFD_CLOEXEC, 0);
	r = process->pidfd < 0 || process->reserve < 0 ? -errno : 0;
	if (r == 0) {
		r = watch(process, &process->exit, process->pidfd, on_process_exit);
	}
	if (r == 0) {
		r = watch(process, &process->control, process->socket, on_control);
	}
	if (r < 0) {
		abandon(TAKE_PTR(process));
		return r;
	}
	helper->process = TAKE_PTR(process);
	return 0;
}

void pool_helper_start(struct pool_helper *helper)
{
	int r = start(helper);

	helper->started_ns = base_clock_monotonic_ns();
	helper->starts_total++;
	if (r < 0) {
		base_log(BASE_LOG_ERROR, "cannot start the %s %s: %s", helper->name,
			 helper->argv[0], strerrordesc_np(-r));
		helper_failed(helper);
		return;
	}
	helper->ops->started(helper);
}

static void on_retry(uv_timer_t *timer)
{
	pool_helper_start(timer->data);
}

/* It has died, or could not be started. */
static void helper_failed(struct pool_helper *helper)
{
	uint64_t now_ns = base_clock_monotonic_ns(), delay_ns = 0;

	if (now_ns - helper->started_ns >= POOL_HELPER_STABLE_NS) {
		helper->failures = 0;
	}
	if (++helper->failures > 1) {
		delay_ns = POOL_HELPER_RETRY_MIN_NS << MIN(helper->failures - 2, 16U);
		delay_ns = MIN(delay_ns, POOL_HELPER_RETRY_MAX_NS);
	}
	if (!helper->has_timer) {
		uv_timer_init(helper->loop, &helper->retry);
		helper->retry.data = helper;
		uv_unref((uv_handle_t *)&helper->retry);
		helper->has_timer = true;
		helper->n_handles++;
	}
	uv_update_time(helper->loop);
	uv_timer_start(&helper->retry, on_retry, delay_ns / NSEC_PER_MSEC, 0);
}

/* --- making and stopping --- */

int pool_helper_init(struct pool_helper *helper, const struct pool_helper_ops *ops, uv_loop_t *loop,
		     const char *name, const char *path, const char *const *arguments)
{
	*helper = (struct pool_helper){ .ops = ops, .loop = loop, .name = name };
	helper->argv[0] = strdup(path);
	for (size_t i = 0; arguments[i]; i++) {
		assert(i < POOL_HELPER_ARGUMENTS_MAX);
		helper->argv[i + 1] = helper->argv[i] ? strdup(arguments[i]) : NULL;
		if (!helper->argv[i + 1]) {
			return -ENOMEM;
		}
	}
	return helper->argv[0] ? 0 : -ENOMEM;
}

void pool_helper_deinit(struct pool_helper *helper)
{
	assert(helper->n_handles == 0);
	for (size_t i = 0; i < ARRAY_SIZE(helper->argv); i++) {
		free(helper->argv[i]);
	}
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct pool_helper *helper = handle->data;

	helper->n_handles--;
	on_helper_stopped(helper);
}

void pool_helper_stop(struct pool_helper *helper, void (*on_stopped)(struct pool_helper *helper))
{
	helper->stopping = true;
	helper->on_stopped = on_stopped;
	/* So that there is always one handle whose end says that all is over. */
	if (!helper->has_timer) {
		uv_timer_init(helper->loop, &helper->retry);
		helper->retry.data = helper;
		helper->has_timer = true;
		helper->n_handles++;
	}
	uv_close((uv_handle_t *)&helper->retry, on_timer_closed);
	if (helper->process) {
		/* Until both ends are seen; a kill takes no time worth speaking of. */
		uv_ref((uv_handle_t *)&helper->process->exit);
		uv_ref((uv_handle_t *)&helper->process->control);
		pidfd_send_signal(helper->process->pidfd, SIGKILL, NULL, 0);
	}
}

int pool_helper_pid(const struct pool_helper *helper)
{
	return helper->process ? helper->process->pid : 0;
}

bool pool_helper_is_trouble(const struct pool_helper *helper)
{
	return helper->failures >= POOL_HELPER_TROUBLE &&
	       (!helper->process ||
		base_clock_monotonic_ns() - helper->started_ns < POOL_HELPER_STABLE_NS);
}
