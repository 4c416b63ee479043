/* SPDX-License-Identifier: Apache-2.0 */

/* VMMs, snapshots and surroundings that go wrong, at every step; and stopping in every state. */

#include "tests/unit/pool/fixture.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* A template of which the first `times` VMMs have the fault. */
static void faulty_template(struct fixture *fixture, const char *fault, unsigned times)
{
	char script[256];

	snprintf(script, sizeof(script), "fault=%s\ntimes=%u\ncounter=%s/count-%s\n", fault, times,
		 fixture->root, fault);
	fixture_template(fixture, fault, script);
}

struct restore_fault {
	const char *fault;
	const char *text; /* part of last_error */
};

static const struct restore_fault restore_faults[] = {
	{ "create-error", "creating the VM: told to fail" },
	{ "create-die", "ended with status 7" },
	{ "create-sequence", "a reply to nothing" },
	{ "create-op", "a reply to nothing" },
	{ "create-twice", "a descriptor" },
	{ "create-short", "malformed" },
	{ "create-fd", "its memory: " },
	{ "create-hangup", "killed by signal 9" },
	{ "create-silent", "creating the VM took longer" },
	{ "load-error", "loading the state: told to fail" },
	{ "load-die", "ended with status 7" },
	{ "load-sequence", "a reply to nothing" },
	{ "load-fd", "a descriptor" },
	{ "load-silent", "loading the state took longer" },
	{ "attach-error", "attaching a stream: told to fail" },
	{ "attach-die", "ended with status 7" },
	{ "attach-silent", "a reply to nothing" },
	{ "resume-error", "running: told to fail" },
	{ "resume-die", "ended with status 7" },
	{ "resume-silent", "did not acknowledge its identity within" },
	{ "pause-error", "pausing: told to fail" },
	{ "pause-die", "ended with status 7" },
	{ "pause-twice", "a parked sandbox died" },
	{ "pause-silent", "pausing took longer" },
	{ "no-ack", "did not acknowledge its identity within 150 ms" },
	{ "half-ack", "did not acknowledge its identity within 150 ms" },
	{ "bad-ack", "did not acknowledge its identity" },
	{ "long-ack", "did not acknowledge its identity" },
	{ "close-stream", "the stream to the agent was closed" },
	{ "parked-die", "" }, /* seen as parked or not yet */
};

static void a_restore_that_fails_is_repeated(void **state)
{
	struct fixture *fixture = *state;

	fixture_pool(fixture, 0, 2, 150);
	for (unsigned i = 0; i < ARRAY_SIZE(restore_faults); i++) {
		const struct restore_fault *f = &restore_faults[i];
		struct pool_template_info info;

		faulty_template(fixture, f->fault, 1);
		assert_int_equal(fixture_set(fixture, f->fault, 1, NULL, 0), POOL_OK);
		fixture_until(fixture, ({
				      info = fixture_info(fixture, f->fault);
				      info.parked == 1 && info.failed_total + info.died_total > 0;
			      }));
		assert_int_equal(info.failed_total + info.died_total, 1);
		assert_int_equal(info.restoring, 0);
		assert_string_equal(info.state, "ready");
		assert_non_null(info.last_error);
		if (!strstr(info.last_error, f->text)) {
			fail_msg("%s: %s", f->fault, info.last_error);
		}
		assert_int_equal(fixture_set(fixture, f->fault, 0, NULL, 0), POOL_OK);
		fixture_until(fixture, fixture_sandboxes(fixture) == 0);
	}
}

/* Never acknowledged: never parked, however often it is tried. */
static void without_acknowledgement_nothing_is_parked(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a;

	fixture_template(fixture, "t", "fault=no-ack\n");
	fixture_pool(fixture, 2, 2, 60);
	fixture_acquire(fixture, &a, "t", 10000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	assert_non_null(strstr(a.text, "did not acknowledge"));
	info = fixture_info(fixture, "t");
	assert_int_equal(info.restored_total, 0);
	assert_true(info.failed_total >= 3);
	assert_string_equal(info.state, "failed");
	/* While the back-off lasts, an acquire need not wait to be told. */
	fixture_acquire(fixture, &a, "t", 10000);
	assert_int_equal(a.calls, 0);

	uint64_t start_ns = base_clock_monotonic_ns();

	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	assert_true(base_clock_monotonic_ns() - start_ns < NSEC_PER_SEC);
}

/* Attempts come ever more rarely. */
static void a_broken_snapshot_does_not_spin(void **state)
{
	struct fixture *fixture = *state;
	static const char *const faults[] = { "load-error", "parked-die" };

	fixture_pool(fixture, 0, 2, 1000);
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
		char script[64];
		struct pool_template_info info;

		snprintf(script, sizeof(script), "fault=%s\n", faults[i]);
		fixture_template(fixture, faults[i], script);
		assert_int_equal(fixture_set(fixture, faults[i], 2, NULL, 0), POOL_OK);
		fixture_run_ms(fixture, 1000);
		info = fixture_info(fixture, faults[i]);
		/* Waves of two at 0, 0, 100, 300, 700 ms. */
		assert_in_range(info.failed_total + info.died_total, 3, 12);
		assert_int_equal(fixture_set(fixture, faults[i], 0, NULL, 0), POOL_OK);
	}
}

struct claim_fault {
	const char *fault;
	enum pool_cause cause;
};

static const struct claim_fault claim_faults[] = {
	{ "claim-error", POOL_CAUSE_VMM_DIED },	   { "claim-die", POOL_CAUSE_VMM_DIED },
	{ "claim-sequence", POOL_CAUSE_VMM_DIED }, { "claim-twice", POOL_CAUSE_VMM_DIED },
	{ "claim-short", POOL_CAUSE_VMM_DIED },	   { "claim-fd", POOL_CAUSE_VMM_DIED },
	{ "claim-hangup", POOL_CAUSE_VMM_DIED },   { "exit-guest", POOL_CAUSE_GUEST_EXITED },
	{ "exit-reset", POOL_CAUSE_GUEST_EXITED }, { "exit-failure", POOL_CAUSE_VMM_DIED },
	{ "connect-flood", POOL_CAUSE_VMM_DIED },
};

static void a_leased_sandbox_that_dies_ends_its_lease(void **state)
{
	struct fixture *fixture = *state;

	fixture_pool(fixture, 0, 2, 5000);
	for (unsigned i = 0; i < ARRAY_SIZE(claim_faults); i++) {
		const struct claim_fault *f = &claim_faults[i];
		struct acquired a;

		faulty_template(fixture, f->fault, 1);
		fixture_acquire(fixture, &a, f->fault, 5000);
		fixture_until(fixture, a.calls > 0);
		assert_int_equal(a.status, POOL_OK);

		enum pool_cause cause = fixture_wait_ended(fixture, a.id);

		if (cause != f->cause) {
			fail_msg("%s: %s", f->fault, pool_cause_name(cause));
		}
		assert_int_equal(fixture_info(fixture, f->fault).died_total, 1);
		assert_int_equal(fixture_info(fixture, f->fault).leased, 0);
		fixture_until(fixture, kill(a.pid, 0) < 0);
	}
}

static void a_killed_leased_vmm_ends_its_lease(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 1, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	fixture_acquire(fixture, &a, "t", 0);
	assert_int_equal(a.status, POOL_OK);
	assert_int_equal(kill(a.pid, SIGKILL), 0);
	assert_int_equal(fixture_wait_ended(fixture, a.id), POOL_CAUSE_VMM_DIED);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.died_total, 1);
	assert_int_equal(info.failed_total, 0);
}

static void a_forbidden_system_call_ends_a_lease(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 1, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	fixture_acquire(fixture, &a, "t", 0);
	assert_int_equal(a.status, POOL_OK);
	assert_int_equal(kill(a.pid, SIGSYS), 0);
	assert_int_equal(fixture_wait_ended(fixture, a.id), POOL_CAUSE_FORBIDDEN);
	assert_int_equal(fixture_info(fixture, "t").forbidden_total, 1);
	assert_int_equal(fixture_info(fixture, "t").died_total, 1);
}

static int only_child(void)
{
	int pids[4];

	assert_int_equal(fixture_vmms(pids, ARRAY_SIZE(pids)), 1);
	return pids[0];
}

/* Until it is dead but not reaped. Does not run the loop. */
static void wait_zombie(int pid)
{
	siginfo_t info;

	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void a_killed_parked_vmm_is_replaced(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a;
	int pid;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 1, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	assert_int_equal(kill(only_child(), SIGKILL), 0);
	fixture_until(fixture, (info = fixture_info(fixture, "t")).died_total == 1);
	assert_string_equal(info.last_error,
			    "a parked sandbox died: the VMM was killed by signal 9 (Killed)");
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	/* Dead, and the loop has not noticed: a claim must not hand it out. */
	pid = only_child();
	assert_int_equal(kill(pid, SIGKILL), 0);
	wait_zombie(pid);
	fixture_acquire(fixture, &a, "t", 5000);
	assert_int_equal(a.calls, 0);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_int_not_equal(a.pid, pid);
	assert_int_equal(fixture_info(fixture, "t").died_total, 2);
}

static void a_killed_restoring_vmm_is_replaced(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	int pids[4];

	fixture_template(fixture, "t", "slow_ms=200\n");
	fixture_pool(fixture, 1, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_vmms(pids, 4) == 1);
	assert_int_equal(fixture_info(fixture, "t").restoring, 1);
	fixture_run_ms(fixture, 50);
	assert_int_equal(kill(pids[0], SIGKILL), 0);
	fixture_until(fixture, (info = fixture_info(fixture, "t")).parked == 1);
	assert_int_equal(info.failed_total, 1);
	assert_int_equal(info.died_total, 0);
}

static void missing_templates_can_come_later(void **state)
{
	struct fixture *fixture = *state;
	char text[BASE_ERROR_TEXT_MAX];
	struct acquired a, b, bad;

	fixture_pool(fixture, 1, 1, 5000);
	fixture_acquire(fixture, &a, "later", 5000);
	fixture_acquire(fixture, &b, "later", 5000);
	fixture_acquire(fixture, &bad, "../etc", 5000);
	assert_int_equal(a.calls + b.calls + bad.calls, 0);
	fixture_until(fixture, a.calls && b.calls && bad.calls);
	assert_int_equal(a.status, POOL_NOT_FOUND);
	assert_int_equal(b.status, POOL_NOT_FOUND);
	assert_int_equal(bad.status, POOL_NOT_FOUND);
	assert_int_equal(fixture_set(fixture, "later", 1, text, sizeof(text)), POOL_NOT_FOUND);
	assert_non_null(strstr(text, "later"));
	/* A wrong guess is not remembered. */
	assert_string_equal(fixture_info(fixture, "later").state, "unknown");
	fixture_template(fixture, "later", "");
	fixture_acquire(fixture, &a, "later", 5000);
	assert_string_equal(fixture_info(fixture, "later").state, "loading");
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
}

static void flip_byte(const char *path, off_t offset)
{
	_cleanup_fd_ int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
}

static void corrupt_templates_can_be_repaired(void **state)
{
	struct fixture *fixture = *state;
	char path[256], text[BASE_ERROR_TEXT_MAX];
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 1, 1, 5000);
	snprintf(path, sizeof(path), "%s/templates/t/state", fixture->store_path);
	assert_int_equal(chmod(path, 0600), 0);
	flip_byte(path, 0);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	assert_non_null(strstr(a.text, "state"));
	assert_string_equal(fixture_info(fixture, "t").state, "failed");
	assert_non_null(strstr(fixture_info(fixture, "t").last_error, "state"));
	/* Soon after, the snapshot is not even looked at. */
	fixture_acquire(fixture, &a, "t", 5000);
	assert_string_equal(fixture_info(fixture, "t").state, "failed");
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	/* A set is somebody who means it: it looks. */
	assert_int_equal(fixture_set(fixture, "t", 1, text, sizeof(text)), POOL_UNAVAILABLE);
	assert_non_null(strstr(text, "state"));
	flip_byte(path, 0);
	fixture_run_ms(fixture, 450);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_null(fixture_info(fixture, "t").last_error);
}

static void running_out_of_descriptors_is_survived(void **state)
{
	struct fixture *fixture = *state;
	enum { STEPS = 12 };
	struct rlimit before, few;
	unsigned failed = 0, lowest;

	fixture_pool(fixture, 0, 1, 5000);
	for (unsigned i = 0; i < STEPS; i++) {
		char name[] = { 't', (char)('a' + i), '\0' };

		fixture_template(fixture, name, "");
		assert_int_equal(fixture_set(fixture, name, 0, NULL, 0), POOL_OK);
		fixture_until(fixture, fixture_info(fixture, name).image_complete);
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	lowest = fixture_count_entries("/proc/self/fd") - 1;
	/* Each step of a launch gets its turn to be the one that finds no descriptor. */
	for (unsigned i = 0; i < STEPS; i++) {
		char name[] = { 't', (char)('a' + i), '\0' };
		struct pool_template_info info;
		struct acquired a;

		few.rlim_cur = lowest + i;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		fixture_acquire(fixture, &a, name, 2000);
		fixture_until(fixture, a.calls > 0);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		info = fixture_info(fixture, name);
		if (a.status == POOL_OK) {
			assert_int_equal(pool_release(fixture->pool, a.id, POOL_CAUSE_RELEASED),
					 POOL_OK);
		} else {
			failed++;
			assert_int_equal(a.status, POOL_UNAVAILABLE);
			assert_int_equal(info.failed_total, 3);
			assert_non_null(strstr(info.last_error, "Too many open files"));
		}
		fixture_until(fixture, fixture_sandboxes(fixture) == 0);
		fixture_until(fixture, fixture_count_entries("/proc/self/fd") == lowest + 1);
	}
	/* It needs five, of which one may lie in a gap. */
	assert_in_range(failed, 4, STEPS - 2);
}

static void stale_sockets_are_swept(void **state)
{
	struct fixture *fixture = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fds[2];

	for (int i = 0; i < 2; i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		snprintf(address.sun_path, sizeof(address.sun_path), "%s/%032d.%s",
			 fixture->runtime_dir, i / 2, i % 2 ? "ctl" : "sock");
		assert_int_equal(bind(fds[i], (struct sockaddr *)&address, sizeof(address)), 0);
		assert_int_equal(listen(fds[i], 1), 0);
	}
	fixture_pool(fixture, 0, 1, 5000);
	assert_int_equal(fixture_sandboxes(fixture), 1);
	pool_start(fixture->pool);
	/* Whoever still listens there is none of its VMs. */
	assert_int_equal(fixture_sandboxes(fixture), 0);
	close(fds[0]);
	close(fds[1]);
}

static void wrong_configurations_are_refused(void **state)
{
	struct fixture *fixture = *state;
	char longest[200];
	struct pool_config config = {
		.store_path = fixture->store_path,
		.runtime_dir = fixture->runtime_dir,
		.vmm_path = "/nonexistent/vmm",
		.spawner_path = getenv("SPAWNER"),
		.pager_path = getenv("PAGER"),
		.identity_timeout_ms = 1000,
		.tenants = &fixture->tenants,
	};
	struct base_error error = { 0 };
	struct pool *pool;

	assert_int_equal(pool_new(&fixture->loop, &config, &pool, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/vmm"));
	config.vmm_path = getenv("FAKEVMM");
	config.runtime_dir = "/nonexistent/run";
	assert_int_equal(pool_new(&fixture->loop, &config, &pool, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/run"));
	memset(longest, 'x', sizeof(longest));
	longest[0] = '/';
	longest[199] = '\0';
	config.runtime_dir = longest;
	assert_int_equal(pool_new(&fixture->loop, &config, &pool, &error), -ENAMETOOLONG);
	config.runtime_dir = fixture->runtime_dir;
	config.spawner_path = "/nonexistent/spawner";
	assert_int_equal(pool_new(&fixture->loop, &config, &pool, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/spawner"));
	config.spawner_path = getenv("SPAWNER");
	config.pager_path = "/nonexistent/pager";
	assert_int_equal(pool_new(&fixture->loop, &config, &pool, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/pager"));
	config.pager_path = getenv("PAGER");
	/* A pool that was never used can be freed as it is. */
	assert_int_equal(pool_new(&fixture->loop, &config, &pool, &error), 0);
	pool_free(pool);
}

static void a_vmm_that_ends_at_once(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	struct base_error error = { 0 };
	struct pool_config config = {
		.store_path = fixture->store_path,
		.runtime_dir = fixture->runtime_dir,
		.vmm_path = "/bin/false",
		.spawner_path = getenv("SPAWNER"),
		.pager_path = getenv("PAGER"),
		.identity_timeout_ms = 1000,
		.tenants = &fixture->tenants,
	};

	fixture_template(fixture, "t", "");
	assert_int_equal(pool_new(&fixture->loop, &config, &fixture->pool, &error), 0);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	assert_string_equal(a.text, "a restore failed: the VMM ended with status 1");
}

static void a_vmm_that_is_no_program(void **state)
{
	struct fixture *fixture = *state;
	char path[96];
	struct acquired a;
	struct base_error error = { 0 };
	struct pool_config config = {
		.store_path = fixture->store_path,
		.runtime_dir = fixture->runtime_dir,
		.vmm_path = path,
		.spawner_path = getenv("SPAWNER"),
		.pager_path = getenv("PAGER"),
		.identity_timeout_ms = 1000,
		.tenants = &fixture->tenants,
	};

	snprintf(path, sizeof(path), "%s/vmm", fixture->root);

	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);

	assert_int_equal(base_fd_write_full(fd, "\177ELF?", 5), 0);
	close(fd);
	fixture_template(fixture, "t", "");
	assert_int_equal(pool_new(&fixture->loop, &config, &fixture->pool, &error), 0);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	assert_non_null(strstr(a.text, "executing it: Exec format error"));
}

/* Stops a pool with waiters after so many milliseconds. */
static void stop_while(struct fixture *fixture, const char *what, unsigned turns)
{
	struct acquired waiting[3], after;
	struct pool *pool;
	struct pool_lease lease;

	fixture_pool(fixture, 2, 2, 5000);
	for (unsigned i = 0; i < ARRAY_SIZE(waiting); i++) {
		fixture_acquire(fixture, &waiting[i], what, 5000);
	}
	for (unsigned i = 0; i < turns; i++) {
		fixture_run_ms(fixture, 1);
	}
	fixture->stopped = false;
	pool = fixture->pool;
	pool_stop(pool, fixture_on_stopped, fixture);
	fixture_acquire(fixture, &after, what, 5000);
	/* From here on the tear-down has nothing to stop. */
	fixture->pool = NULL;
	/* Each is answered, once: with a lease before, or told at the latest now. */
	for (unsigned i = 0; i < ARRAY_SIZE(waiting); i++) {
		assert_int_equal(waiting[i].calls, 1);
		if (waiting[i].status == POOL_OK) {
			assert_true(pool_get(pool, waiting[i].id, &lease));
			assert_string_equal(pool_cause_name(lease.cause), "shutdown");
		} else {
			assert_string_equal(waiting[i].text, "shutting down");
			assert_int_equal(waiting[i].status, POOL_UNAVAILABLE);
		}
	}
	assert_int_equal(after.calls, 0);

	uint64_t start_ns = base_clock_monotonic_ns();

	fixture_until(fixture, fixture->stopped);
	assert_true(base_clock_monotonic_ns() - start_ns < 5 * NSEC_PER_SEC);
	assert_int_equal(after.calls, 1);
	assert_int_equal(after.status, POOL_UNAVAILABLE);
	assert_string_equal(after.text, "shutting down");
	assert_int_equal(fixture_sandboxes(fixture), 0);
	pool_free(pool);
}

static void stops_in_every_state(void **state)
{
	struct fixture *fixture = *state;
	static const char *const scripts[][2] = {
		{ "quick", "" },
		{ "loading", "fault=load-silent\n" },
		{ "identifying", "fault=no-ack\n" },
		{ "pausing", "fault=pause-silent\n" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(scripts); i++) {
		fixture_template(fixture, scripts[i][0], scripts[i][1]);
		for (unsigned turns = 0; turns < 24; turns += 2) {
			stop_while(fixture, scripts[i][0], turns);
		}
	}
	/* With nothing to stop, too. */
	fixture_pool(fixture, 0, 1, 5000);
	fixture_stop(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		TEST(a_restore_that_fails_is_repeated),
		TEST(without_acknowledgement_nothing_is_parked),
		TEST(a_broken_snapshot_does_not_spin),
		TEST(a_leased_sandbox_that_dies_ends_its_lease),
		TEST(a_killed_leased_vmm_ends_its_lease),
		TEST(a_forbidden_system_call_ends_a_lease),
		TEST(a_killed_parked_vmm_is_replaced),
		TEST(a_killed_restoring_vmm_is_replaced),
		TEST(missing_templates_can_come_later),
		TEST(corrupt_templates_can_be_repaired),
		TEST(running_out_of_descriptors_is_survived),
		TEST(stale_sockets_are_swept),
		TEST(wrong_configurations_are_refused),
		TEST(a_vmm_that_ends_at_once),
		TEST(a_vmm_that_is_no_program),
		TEST(stops_in_every_state),
	};

	return cmocka_run_group_tests_name("pool-faults", tests, NULL, NULL);
}
