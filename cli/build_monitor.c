/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The build's second thread.
 *
 * It waits for bytes on the console pipe, at most half a second at a time. Between waits it calls
 * the progress function and looks at the interruption flag; once that is set it kills the guarded
 * process, and with that every call the main thread may be blocked in comes back. Output is kept
 * in a short tail, made harmless for a terminal as it comes in: a guest may print anything.
 *
 * One mutex guards all fields; progress is called with it held, which is what serializes the calls.
 * free() stops the thread through an eventfd and drains nothing: what was not read is not missed.
 */

#include "cli/build_monitor.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TICK_MS	      500
#define TICK_READ_MAX 4096

struct cli_monitor {
	cli_build_progress_fn progress;
	void *userdata;
	const volatile sig_atomic_t *interrupted;
	uint64_t started_ns;
	int read_fd, write_fd, stop_fd;
	bool has_thread;
	pthread_t thread;

	pthread_mutex_t lock; /* all below */
	enum cli_build_step step;
	uint64_t step_started_ns;
	uint64_t reported_ns;
	char detail[CLI_BUILD_LINE_MAX + 1];
	uint64_t done_bytes, total_bytes;
	char tail[CLI_BUILD_CONSOLE_MAX];
	size_t tail_size;
	size_t step_tail_size; /* how much of the tail was printed in this step */
	int pidfd;
};

/* The last line of this step's output with something on it, or false. */
static bool last_line(const struct cli_monitor *monitor, char out[CLI_BUILD_LINE_MAX + 1])
{
	const char *start = monitor->tail + monitor->tail_size - monitor->step_tail_size;
	const char *end = monitor->tail + monitor->tail_size;
	const char *line;
	size_t size;

	while (end > start && (end[-1] == '\n' || end[-1] == ' ')) {
		end--;
	}
	for (line = end; line > start && line[-1] != '\n'; line--) {
	}
	size = MIN((size_t)(end - line), (size_t)CLI_BUILD_LINE_MAX);
	memcpy(out, line, size);
	out[size] = '\0';
	return size > 0;
}

static void report(struct cli_monitor *monitor, bool begins)
{
	uint64_t now = base_clock_monotonic_ns();
	char line[CLI_BUILD_LINE_MAX + 1];
	struct cli_build_progress progress = {
		.step = monitor->step,
		.begins = begins,
		.step_ns = now - monitor->step_started_ns,
		.total_ns = now - monitor->started_ns,
		.detail = monitor->detail[0] ? monitor->detail : NULL,
		.console = last_line(monitor, line) ? line : NULL,
		.done_bytes = monitor->done_bytes,
		.total_bytes = monitor->total_bytes,
	};

	monitor->reported_ns = now;
	if (monitor->progress) {
		monitor->progress(monitor->userdata, &progress);
	}
}

/* Appends one byte as something a terminal only prints; drops the older half of a full tail. */
static void append(struct cli_monitor *monitor, char byte)
{
	if (byte == '\r') {
		return;
	}
	if (monitor->tail_size == sizeof(monitor->tail)) {
		size_t keep = sizeof(monitor->tail) / 2;

		memmove(monitor->tail, monitor->tail + sizeof(monitor->tail) - keep, keep);
		monitor->tail_size = keep;
		monitor->step_tail_size = MIN(monitor->step_tail_size, keep);
	}
	if (byte == '\t') {
		byte = ' ';
	} else if (byte != '\n' && (byte < 0x20 || byte > 0x7e)) {
		byte = '?';
	}
	monitor->tail[monitor->tail_size++] = byte;
	monitor->step_tail_size++;
}

static void read_console(struct cli_monitor *monitor)
{
	char data[TICK_READ_MAX];
	ssize_t n = read(monitor->read_fd, data, sizeof(data));

	if (n > 0) {
		cli_monitor_output(monitor, data, (size_t)n);
	}
}

static void *monitor_main(void *userdata)
{
	struct cli_monitor *monitor = userdata;
	struct pollfd fds[2] = {
		{ .fd = monitor->stop_fd, .events = POLLIN },
		{ .fd = monitor->read_fd, .events = POLLIN },
	};

	for (;;) {
		poll(fds, ARRAY_SIZE(fds), TICK_MS);
		if (fds[0].revents) {
			return NULL;
		}
		if (fds[1].revents) {
			read_console(monitor);
		}
		pthread_mutex_lock(&monitor->lock);
		if (*monitor->interrupted && monitor->pidfd >= 0) {
			syscall(SYS_pidfd_send_signal, monitor->pidfd, SIGKILL, NULL, 0);
		}
		if (base_clock_monotonic_ns() - monitor->reported_ns >= TICK_MS * NSEC_PER_MSEC) {
			report(monitor, false);
		}
		pthread_mutex_unlock(&monitor->lock);
	}
}

int cli_monitor_new(cli_build_progress_fn progress, void *userdata,
		    const volatile sig_atomic_t *interrupted, struct cli_monitor **ret_monitor)
{
	_cleanup_(cli_monitor_freep) struct cli_monitor *monitor = NULL;
	sigset_t all, before;
	int fds[2], r;

	monitor = calloc(1, sizeof(*monitor));
	if (!monitor) {
		return -ENOMEM;
	}
	monitor->progress = progress;
	monitor->userdata = userdata;
	monitor->interrupted = interrupted;
	monitor->started_ns = monitor->step_started_ns = base_clock_monotonic_ns();
	monitor->reported_ns = monitor->started_ns;
	monitor->read_fd = monitor->write_fd = monitor->stop_fd = monitor->pidfd = -1;
	pthread_mutex_init(&monitor->lock, NULL);
	/* Non-blocking on both ends: a VMM must not hang on us, nor we on a wrong wake-up. */
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		return -errno;
	}
	monitor->read_fd = fds[0];
	monitor->write_fd = fds[1];
	monitor->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (monitor->stop_fd < 0) {
		return -errno;
	}
	/* Signals are for the main thread, whose waits they shall end. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&monitor->thread, NULL, monitor_main, monitor);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0) {
		return r;
	}
	monitor->has_thread = true;
	*ret_monitor = TAKE_PTR(monitor);
	return 0;
}

void cli_monitor_free(struct cli_monitor *monitor)
{
	if (!monitor) {
		return;
	}
	if (monitor->has_thread) {
		eventfd_write(monitor->stop_fd, 1);
		pthread_join(monitor->thread, NULL);
	}
	base_fd_close(monitor->read_fd);
	base_fd_close(monitor->write_fd);
	base_fd_close(monitor->stop_fd);
	pthread_mutex_destroy(&monitor->lock);
	free(monitor);
}

int cli_monitor_console_fd(const struct cli_monitor *monitor)
{
	return monitor->write_fd;
}

void cli_monitor_step(struct cli_monitor *monitor, enum cli_build_step step, const char *detail)
{
	pthread_mutex_lock(&monitor->lock);
	monitor->step = step;
	monitor->step_started_ns = base_clock_monotonic_ns();
	monitor->step_tail_size = 0;
	monitor->done_bytes = monitor->total_bytes = 0;
	snprintf(monitor->detail, sizeof(monitor->detail), "%s", detail ? detail : "");
	report(monitor, true);
	pthread_mutex_unlock(&monitor->lock);
}

void cli_monitor_detail(struct cli_monitor *monitor, const char *detail)
{
	pthread_mutex_lock(&monitor->lock);
	snprintf(monitor->detail, sizeof(monitor->detail), "%s", detail ? detail : "");
	report(monitor, false);
	pthread_mutex_unlock(&monitor->lock);
}

void cli_monitor_bytes(struct cli_monitor *monitor, uint64_t done_bytes, uint64_t total_bytes)
{
	pthread_mutex_lock(&monitor->lock);
	monitor->done_bytes = done_bytes;
	monitor->total_bytes = total_bytes;
	pthread_mutex_unlock(&monitor->lock);
}

void cli_monitor_output(struct cli_monitor *monitor, const void *data, size_t size)
{
	const char *bytes = data;

	pthread_mutex_lock(&monitor->lock);
	for (size_t i = 0; i < size; i++) {
		append(monitor, bytes[i]);
	}
	pthread_mutex_unlock(&monitor->lock);
}

void cli_monitor_guard(struct cli_monitor *monitor, int pidfd)
{
	pthread_mutex_lock(&monitor->lock);
	monitor->pidfd = pidfd;
	pthread_mutex_unlock(&monitor->lock);
}

void cli_monitor_tail(struct cli_monitor *monitor, char ret_text[CLI_BUILD_CONSOLE_MAX + 1])
{
	/* The pipe may hold the guest's last words: a VMM that has just died wrote them before. */
	for (int i = 0; i < 16; i++) {
		read_console(monitor);
	}
	pthread_mutex_lock(&monitor->lock);
	memcpy(ret_text, monitor->tail + monitor->tail_size - monitor->step_tail_size,
	       monitor->step_tail_size);
	ret_text[monitor->step_tail_size] = '\0';
	pthread_mutex_unlock(&monitor->lock);
}

uint64_t cli_monitor_elapsed_ns(const struct cli_monitor *monitor)
{
	return base_clock_monotonic_ns() - monitor->started_ns;
}
