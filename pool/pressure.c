/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Memory pressure: the kernel's triggers, the floor, and the steps that both make.
 *
 * Happy path: nothing happens. A trigger is a descriptor that becomes readable with priority when
 * tasks have waited for memory for a share of a window; each such event is news. The floor is
 * compared with MemAvailable, which costs some 50 µs to read, so not more often than every
 * LOOK_MIN_NS.
 *
 * Failure: a kernel without PSI, or one that refuses the trigger, leaves the floor; that is said
 * once at the start. A trigger whose cgroup has gone is closed.
 *
 * Shut-down: pool_pressure_stop() closes the handles. Runs on the loop's thread.
 */

#include "pool/pressure.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/cgroup_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* In a window of two seconds some task has waited for 150 ms altogether. Shorter windows are for
 * those with CAP_SYS_RESOURCE only. */
#define PSI_TRIGGER "some 150000 2000000"
#define PSI_HOST    "/proc/pressure/memory"

#define LOOK_MIN_NS (50 * NSEC_PER_MSEC)

/* --- steps --- */

bool pool_pressure_news(struct pool_pressure *pressure, const char *of, uint64_t now_ns)
{
	snprintf(pressure->reason, sizeof(pressure->reason), "tasks of %s wait for memory", of);
	pressure->quiet_ns = now_ns;
	if ((pressure->step > 0 && now_ns < pressure->stepped_ns + POOL_PRESSURE_STEP_NS) ||
	    pressure->step == POOL_PRESSURE_STEPS_MAX) {
		return false;
	}
	pressure->step++;
	pressure->stepped_ns = now_ns;
	return true;
}

bool pool_pressure_advance(struct pool_pressure *pressure, uint64_t now_ns)
{
	if (pressure->step == 0 || pressure->starved ||
	    now_ns < pressure->quiet_ns + POOL_PRESSURE_DWELL_NS) {
		return false;
	}
	/* Not one by one: what a minute of need has added up to would take a quarter of an hour. */
	pressure->step /= 2;
	pressure->quiet_ns = now_ns;
	return true;
}

uint64_t pool_pressure_next_ns(const struct pool_pressure *pressure)
{
	if (pressure->starved) {
		return pressure->looked_ns + POOL_PRESSURE_LOOK_NS;
	}
	return pressure->step > 0 ? pressure->quiet_ns + POOL_PRESSURE_DWELL_NS : UINT64_MAX;
}

const char *pool_pressure_reason(const struct pool_pressure *pressure)
{
	return pressure->step > 0 || pressure->starved ? pressure->reason : NULL;
}

/* --- the floor --- */

bool pool_pressure_available(struct pool_pressure *pressure, uint64_t available_bytes,
			     uint64_t now_ns)
{
	bool was_starved = pressure->starved, stepped;

	pressure->looked_ns = now_ns;
	pressure->available_bytes = available_bytes;
	/* Over only with an eighth more, or what is given back brings it back. */
	pressure->starved = available_bytes <
			    pressure->floor_bytes + (was_starved ? pressure->floor_bytes / 8 : 0);
	if (!pressure->starved) {
		return was_starved;
	}
	stepped = pool_pressure_news(pressure, "the host", now_ns);
	snprintf(pressure->reason, sizeof(pressure->reason),
		 "%" PRIu64 " MiB of memory are available, and the floor is %" PRIu64 " MiB",
		 available_bytes >> 20, pressure->floor_bytes >> 20);
	return stepped || !was_starved;
}

/* The value of a line of /proc/meminfo, which is in KiB. 0: it is not there. */
static uint64_t meminfo_bytes(const char *text, const char *key)
{
	const char *line = strstr(text, key);

	return line ? strtoull(line + strlen(key), NULL, 10) << 10 : 0;
}

/* The beginning of /proc/meminfo, where the totals are. 0 or -errno. */
static int meminfo_read(int fd, char *text, size_t size)
{
	ssize_t n = pread(fd, text, size - 1, 0);

	if (n <= 0) {
		return n < 0 ? -errno : -ENODATA;
	}
	text[n] = '\0';
	return 0;
}

bool pool_pressure_look(struct pool_pressure *pressure, uint64_t now_ns)
{
	char text[512];

	if (pressure->floor_bytes == 0 ||
	    (pressure->looked_ns != 0 && now_ns < pressure->looked_ns + LOOK_MIN_NS)) {
		return false;
	}
	pressure->looked_ns = now_ns;
	if (meminfo_read(pressure->meminfo_fd, text, sizeof(text)) < 0) {
		return false;
	}
	return pool_pressure_available(pressure, meminfo_bytes(text, "MemAvailable:"), now_ns);
}

/* --- the kernel's news --- */

static void on_watch_closed(uv_handle_t *handle)
{
	struct pool_pressure *pressure = handle->data;

	if (--pressure->n_open == 0 && pressure->on_closed) {
		pressure->on_closed(pressure);
	}
}

static void watch_close(struct pool_pressure_watch *watch)
{
	if (watch->fd >= 0) {
		uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
		watch->fd = base_fd_close(watch->fd);
	}
}

static void on_news(uv_poll_t *poll, int status, int events)
{
	struct pool_pressure_watch *watch = CONTAINER_OF(poll, struct pool_pressure_watch, poll);
	struct pool_pressure *pressure = poll->data;

	if (status < 0) {
		base_log(BASE_LOG_WARNING, "pressure of memory in %s is not watched any more: %s",
			 watch->of, uv_strerror(status));
		watch_close(watch);
		return;
	}
	if (pool_pressure_news(pressure, watch->of, base_clock_monotonic_ns())) {
		pressure->on_change(pressure);
	}
}

/* 0 or -errno. */
static int watch_open(struct pool_pressure *pressure, struct pool_pressure_watch *watch,
		      uv_loop_t *loop, const char *path, const char *of)
{
	_cleanup_fd_ int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int r;

	/* The kernel wants the terminating NUL. */
	if (fd < 0 || write(fd, PSI_TRIGGER, sizeof(PSI_TRIGGER)) < 0) {
		return -errno;
	}
	r = uv_poll_init(loop, &watch->poll, fd);
	if (r < 0) {
		return r;
	}
	watch->of = of;
	watch->fd = TAKE_FD(fd);
	watch->poll.data = pressure;
	pressure->n_open++;
	uv_unref((uv_handle_t *)&watch->poll);
	return uv_poll_start(&watch->poll, UV_PRIORITIZED, on_news);
}

/* Beside the sandboxes' cgroups this process has one of its own; what is around both counts. */
static void leave_daemon_out(char *line)
{
	char *slash = strrchr(line, '/');

	if (slash && strcmp(slash + 1, POOL_CGROUP_DAEMON) == 0) {
		*slash = '\0';
	}
}

/* The file of this process's cgroup of version 2; false: it is in none but the root. */
static bool cgroup_file(char *path, size_t size)
{
	static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	_cleanup_fd_ int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	char text[4096], *line, *end;

	if (fd < 0 || meminfo_read(fd, text, sizeof(text)) < 0) {
		return false;
	}
	/* Its line is the last: "0::/system.slice/warmboxd.service". */
	line = strstr(text, "0::/");
	while (line && line != text && line[-1] != '\n') {
		line = strstr(line + 1, "0::/");
	}
	if (!line || line[4] == '\n' || line[4] == '\0') {
		return false;
	}
	end = strchr(line, '\n');
	if (end) {
		*end = '\0';
	}
	leave_daemon_out(line);
	for (unsigned i = 0; i < ARRAY_SIZE(roots); i++) {
		snprintf(path, size, "%s%s/memory.pressure", roots[i], line + 3);
		if (access(path, W_OK) == 0) {
			return true;
		}
	}
	return false;
}

void pool_pressure_start(struct pool_pressure *pressure, uv_loop_t *loop,
			 void (*on_change)(struct pool_pressure *pressure))
{
	char path[4096 + 64];
	int r;

	pressure->on_change = on_change;
	r = watch_open(pressure, &pressure->watches[0], loop, PSI_HOST, "the host");
	if (r < 0) {
		base_log(BASE_LOG_INFO, "%s: %s: memory pressure is seen by the floor only",
			 PSI_HOST, strerrordesc_np(-r));
	}
	if (cgroup_file(path, sizeof(path))) {
		r = watch_open(pressure, &pressure->watches[1], loop, path, "the service");
		if (r < 0) {
			base_log(BASE_LOG_INFO, "%s: %s: it is not watched", path,
				 strerrordesc_np(-r));
		}
	}
}

bool pool_pressure_stop(struct pool_pressure *pressure,
			void (*on_closed)(struct pool_pressure *pressure))
{
	pressure->on_closed = on_closed;
	for (unsigned i = 0; i < ARRAY_SIZE(pressure->watches); i++) {
		watch_close(&pressure->watches[i]);
	}
	return pressure->n_open > 0;
}

/* --- making --- */

void pool_pressure_init(struct pool_pressure *pressure, unsigned floor_percent)
{
	char text[512];

	*pressure = (struct pool_pressure){ .meminfo_fd = -1 };
	for (unsigned i = 0; i < ARRAY_SIZE(pressure->watches); i++) {
		pressure->watches[i].fd = -1;
	}
	if (floor_percent == 0) {
		return;
	}
	pressure->meminfo_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	if (pressure->meminfo_fd < 0 ||
	    meminfo_read(pressure->meminfo_fd, text, sizeof(text)) < 0) {
		base_log(BASE_LOG_WARNING,
			 "cannot read /proc/meminfo: there is no floor under free memory");
		return;
	}
	pressure->floor_bytes = meminfo_bytes(text, "MemTotal:") / 100 * floor_percent;
}

void pool_pressure_deinit(struct pool_pressure *pressure)
{
	pressure->meminfo_fd = base_fd_close(pressure->meminfo_fd);
}
