/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fault injection by countdown: whatever call of the manager fails, nothing is lost for good.
 *
 * The linker turns the calls of our libraries to allocation, the system and the event loop into the
 * __wrap functions below. A scenario (make a pool, load, restore, claim, release, stop) runs again
 * and again; in run n the n-th such call fails, once, until a run has fewer than n calls. In each
 * run: who asked is answered exactly once, with a reason if it is a refusal; after the one failure
 * the same pool serves an acquire; and the tear-down of the fixture finds no descriptor, process or
 * file that is left (and a sanitizer no memory).
 */

#include "tests/unit/pool/fixture.h"

#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* No scenario has that many calls; a bound for a countdown that never ends. */
#define CALLS_MAX 3000
/* So many runs in a row that have ended before their call: thread pools make the count vary. */
#define RUNS_AT_REST 3

static atomic_int countdown; /* 0: off; the call that takes it from 1 to 0 fails */
static const char *_Atomic failed_call;

static bool hit(const char *name)
{
	if (atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1) {
		failed_call = name;
		return true;
	}
	return false;
}

#define WRAP(type, name, parameters, arguments, failure, number) \
	type __real_##name parameters;                           \
	type __wrap_##name parameters;                           \
	type __wrap_##name parameters                            \
	{                                                        \
		if (hit(#name)) {                                \
			errno = (number);                        \
			return (failure);                        \
		}                                                \
		return __real_##name arguments;                  \
	}

WRAP(void *, malloc, (size_t size), (size), NULL, ENOMEM)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL, ENOMEM)
WRAP(void *, realloc, (void *p, size_t size), (p, size), NULL, ENOMEM)
WRAP(void *, reallocarray, (void *p, size_t n, size_t size), (p, n, size), NULL, ENOMEM)
WRAP(char *, strdup, (const char *text), (text), NULL, ENOMEM)
WRAP(char *, strndup, (const char *text, size_t size), (text, size), NULL, ENOMEM)
WRAP(int, socket, (int family, int type, int protocol), (family, type, protocol), -1, EMFILE)
WRAP(int, socketpair, (int family, int type, int protocol, int *pair),
     (family, type, protocol, pair), -1, EMFILE)
WRAP(int, bind, (int fd, const struct sockaddr *address, socklen_t size), (fd, address, size), -1,
     ENOSPC)
WRAP(int, listen, (int fd, int backlog), (fd, backlog), -1, EADDRINUSE)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), -1,
     ENOBUFS)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), -1,
     ENOMEM)
WRAP(ssize_t, pread64, (int fd, void *data, size_t size, off_t at), (fd, data, size, at), -1, EIO)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), -1,
     ENOSPC)
WRAP(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size), -1, EIO)
WRAP(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), -1, ENOSPC)
WRAP(ssize_t, getrandom, (void *data, size_t size, unsigned flags), (data, size, flags), -1, ENOSYS)
WRAP(int, fstat64, (int fd, struct stat *st), (fd, st), -1, EIO)
WRAP(int, ftruncate64, (int fd, off_t size), (fd, size), -1, ENOSPC)
WRAP(int, fsync, (int fd), (fd), -1, EIO)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EPERM)
WRAP(int, flock, (int fd, int operation), (fd, operation), -1, ENOLCK)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, ENOSPC)
WRAP(int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags), -1, EMFILE)
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), -1, EMFILE)
WRAP(DIR *, opendir, (const char *path), (path), NULL, EMFILE)
WRAP(DIR *, fdopendir, (int fd), (fd), NULL, ENOMEM)

int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode)
{
	if (hit("open")) {
		errno = EMFILE;
		return -1;
	}
	return __real_open64(path, flags, mode);
}

int __real_openat64(int fd, const char *path, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *path, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *path, int flags, mode_t mode)
{
	if (hit("openat")) {
		errno = EMFILE;
		return -1;
	}
	return __real_openat64(fd, path, flags, mode);
}

int __real_fcntl64(int fd, int command, long argument);
int __wrap_fcntl64(int fd, int command, long argument);
int __wrap_fcntl64(int fd, int command, long argument)
{
	if (hit("fcntl")) {
		errno = EMFILE;
		return -1;
	}
	return __real_fcntl64(fd, command, argument);
}

/* libuv's own, as far as they can fail in it. */
#define WRAP_UV(name, parameters, arguments)    \
	int __real_##name parameters;           \
	int __wrap_##name parameters;           \
	int __wrap_##name parameters            \
	{                                       \
		if (hit(#name)) {               \
			return UV_ENOMEM;       \
		}                               \
		return __real_##name arguments; \
	}

WRAP_UV(uv_poll_init, (uv_loop_t * loop, uv_poll_t *poll, int fd), (loop, poll, fd))
WRAP_UV(uv_poll_start, (uv_poll_t * poll, int events, uv_poll_cb fn), (poll, events, fn))
WRAP_UV(uv_fs_event_start,
	(uv_fs_event_t * event, uv_fs_event_cb fn, const char *path, unsigned flags),
	(event, fn, path, flags))

int __real_posix_spawn(pid_t *pid, const char *path, const void *actions, const void *attributes,
		       char *const *argv, char *const *envp);
int __wrap_posix_spawn(pid_t *pid, const char *path, const void *actions, const void *attributes,
		       char *const *argv, char *const *envp);
int __wrap_posix_spawn(pid_t *pid, const char *path, const void *actions, const void *attributes,
		       char *const *argv, char *const *envp)
{
	return hit("posix_spawn") ? EAGAIN
				  : __real_posix_spawn(pid, path, actions, attributes, argv, envp);
}

/* --- the scenario --- */

/* Returns whether there was a sandbox to be had. */
static bool acquire_and_release(struct fixture *fixture)
{
	struct acquired acquired;
	char *id = acquired.id;

	fixture_acquire(fixture, &acquired, "t", FIXTURE_WAIT_MS);
	fixture_until(fixture, acquired.calls > 0);
	assert_int_equal(acquired.calls, 1);
	if (acquired.status != POOL_OK) {
		assert_true(acquired.text[0] != '\0');
		return false;
	}
	assert_int_equal(pool_release(fixture->pool, id, POOL_CAUSE_RELEASED), POOL_OK);
	assert_int_not_equal(fixture_wait_ended(fixture, id), POOL_CAUSE_NONE);
	return true;
}

/* It may wait before it tries again what has failed. */
static void expect_service(struct fixture *fixture)
{
	uint64_t end_ns = base_clock_monotonic_ns() + FIXTURE_WAIT_MS * NSEC_PER_MSEC;

	while (!acquire_and_release(fixture)) {
		if (base_clock_monotonic_ns() > end_ns) {
			fail_msg("no sandbox since %s failed", failed_call);
		}
		fixture_run_ms(fixture, 20);
	}
}

/* Returns whether there were enough calls for one to fail. */
static bool run(unsigned n, unsigned shells)
{
	struct pool_config config;
	struct fixture *fixture;
	struct base_error error = { 0 };
	char text[BASE_ERROR_TEXT_MAX];
	void *state;
	int left;

	assert_int_equal(fixture_setup(&state), 0);
	fixture = state;
	fixture->shells = shells;
	fixture_template(fixture, "t", "");
	config = fixture_config(fixture, 1, 2, FIXTURE_WAIT_MS);
	failed_call = NULL;
	countdown = (int)n;
	if (pool_new(&fixture->loop, &config, &fixture->pool, &error) < 0) {
		assert_true(error.text[0] != '\0');
		assert_non_null(failed_call);
	} else {
		if (fixture_set(fixture, "t", 1, text, sizeof(text)) != POOL_OK) {
			assert_true(text[0] != '\0');
		}
		acquire_and_release(fixture);
		/* It has happened, or happens while stopping. */
		left = atomic_exchange(&countdown, 0);
		expect_service(fixture);
		countdown = left;
		fixture_stop(fixture);
	}
	countdown = 0;
	assert_int_equal(fixture_teardown(&state), 0);
	return failed_call != NULL;
}

static void each_call_fails_once(unsigned shells)
{
	unsigned at_rest = 0, n;

	for (n = 1; n < CALLS_MAX && at_rest < RUNS_AT_REST; n++) {
		at_rest = run(n, shells) ? 0 : at_rest + 1;
		printf("# call %u of a run: %s\n", n, failed_call ? failed_call : "none");
	}
	assert_in_range(n, RUNS_AT_REST + 50, CALLS_MAX - 1);
}

static void without_shells(void **state)
{
	each_call_fails_once(0);
}

static void with_a_shell(void **state)
{
	each_call_fails_once(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_shells),
		cmocka_unit_test(with_a_shell),
	};

	return cmocka_run_group_tests_name("pool-countdown", tests, NULL, NULL);
}
