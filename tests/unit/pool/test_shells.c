/* SPDX-License-Identifier: Apache-2.0 */

/* Shells, and the spawner that starts them: what is kept, what is taken, what happens when the
 * spawner is killed. */

#include "tests/unit/pool/fixture.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void set_shells(struct fixture *fixture, unsigned shells)
{
	struct pool_set_params params = {
		.template_name = "t",
		.min = POOL_UNCHANGED,
		.max = POOL_UNCHANGED,
		.shells = shells,
	};

	assert_int_equal(fixture_set_params(fixture, &params, NULL, 0), POOL_OK);
}

static void fill(struct fixture *fixture, unsigned target, unsigned shells)
{
	struct pool_template_info info;

	assert_int_equal(fixture_set(fixture, "t", target, NULL, 0), POOL_OK);
	set_shells(fixture, shells);
	fixture_until(fixture, ({
			      info = fixture_info(fixture, "t");
			      info.parked == target &&info.shells == shells;
		      }));
	fixture_until(fixture, fixture_vmms(NULL, 0) == target + shells);
	/* Until they are ready. */
	fixture_run_ms(fixture, 50);
}

static void shells_are_kept_and_taken(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a, b;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 4, 5000);
	fill(fixture, 0, 2);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.shells_wanted, 2);
	assert_int_equal(info.parked + info.restoring, 0);
	assert_int_equal(info.restored_total, 0);
	/* A miss takes one, and another takes its place. */
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_true(a.timings.from_shell);
	assert_true(a.timings.entry_ns > 0 && a.timings.create_ns > 0);
	fixture_until(fixture, fixture_info(fixture, "t").shells == 2);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.shell_hits_total, 1);
	assert_int_equal(info.shell_misses_total, 0);
	/* Without any, the restore starts its own process. */
	set_shells(fixture, 0);
	assert_int_equal(fixture_info(fixture, "t").shells, 0);
	fixture_until(fixture, fixture_vmms(NULL, 0) == 1);
	fixture_acquire(fixture, &b, "t", 5000);
	fixture_until(fixture, b.calls > 0);
	assert_int_equal(b.status, POOL_OK);
	assert_false(b.timings.from_shell);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.shell_hits_total, 1);
	assert_int_equal(info.shell_misses_total, 1);
}

static void refilling_takes_shells_and_tops_them_up(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;

	fixture_template(fixture, "t", "");
	fixture->shells = 3;
	fixture_pool(fixture, 0, 2, 5000);
	fill(fixture, 0, 3);
	fill(fixture, 5, 3);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.shell_hits_total + info.shell_misses_total, 5);
	assert_true(info.shell_hits_total >= 3);
	assert_int_equal(info.failed_total, 0);
}

static void a_shell_that_is_not_ready_is_taken_too(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	fill(fixture, 0, 0);
	set_shells(fixture, 1);
	fixture_bound_start(fixture);
	while (fixture_info(fixture, "t").shells == 0) {
		fixture_turn(fixture);
	}
	fixture_bound_stop(fixture);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	/* One process for the lease, one for the shell that was topped up. */
	fixture_until(fixture, fixture_info(fixture, "t").shells == 1);
	fixture_until(fixture, fixture_vmms(NULL, 0) == 2);
}

static void a_killed_shell_is_replaced(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	int pid;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	fill(fixture, 0, 1);
	assert_int_equal(fixture_vmms(&pid, 1), 1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	fixture_until(fixture, fixture_info(fixture, "t").failed_total == 1);
	fixture_until(fixture, fixture_info(fixture, "t").shells == 1);
	info = fixture_info(fixture, "t");
	assert_non_null(strstr(info.last_error, "killed by signal 9"));
	assert_string_equal(info.state, "ready");
}

static void shells_go_with_their_snapshot(void **state)
{
	struct fixture *fixture = *state;
	int before[2], after[2];

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 2, 5000);
	fill(fixture, 0, 2);
	assert_int_equal(fixture_vmms(before, 2), 2);
	fixture_template(fixture, "t", "");
	fixture_until(fixture, kill(before[0], 0) < 0 && kill(before[1], 0) < 0);
	fixture_until(fixture, fixture_info(fixture, "t").shells == 2);
	fixture_until(fixture, fixture_vmms(after, 2) == 2);
}

static int nice_of(int pid)
{
	return getpriority(PRIO_PROCESS, (id_t)pid);
}

static void priority_follows_demand(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a, b;
	int pid;

	if (geteuid() != 0) {
		skip();
	}
	fixture_template(fixture, "t", "slow_ms=100\n");
	fixture_pool(fixture, 0, 1, 5000);
	fill(fixture, 0, 1);
	assert_int_equal(fixture_vmms(&pid, 1), 1);
	assert_int_equal(nice_of(pid), 1);
	/* Somebody waits for it. */
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, nice_of(pid) == 0);
	assert_int_equal(a.calls, 0);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.pid, pid);
	/* Nobody does until it is claimed. */
	assert_int_equal(pool_release(fixture->pool, a.id, POOL_CAUSE_RELEASED), POOL_OK);
	fill(fixture, 1, 0);
	assert_int_equal(fixture_vmms(&pid, 1), 1);
	assert_int_equal(nice_of(pid), 1);
	fixture_acquire(fixture, &b, "t", 0);
	assert_int_equal(b.calls, 1);
	assert_int_equal(b.pid, pid);
	assert_int_equal(nice_of(pid), 0);
}

static void a_killed_spawner_loses_nothing(void **state)
{
	struct fixture *fixture = *state;
	enum { SANDBOXES = 40 };
	struct acquired a[SANDBOXES];
	struct pool_template_info info;
	unsigned kills = 0;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 8, 10000);
	for (unsigned i = 0; i < SANDBOXES; i++) {
		fixture_acquire(fixture, &a[i], "t", 15000);
	}
	/* In the midst of it, more than once, whatever it is doing. */
	fixture_bound_start(fixture);
	while (fixture_info(fixture, "t").leased < SANDBOXES) {
		int pid = fixture_helper("warmbox-spawner");

		if (pid > 0 && kills < 4 && fixture_info(fixture, "t").leased >= kills * 8) {
			assert_int_equal(kill(pid, SIGKILL), 0);
			kills++;
		}
		fixture_turn(fixture);
		assert_false(fixture->timed_out);
	}
	fixture_bound_stop(fixture);
	assert_int_equal(kills, 4);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.failed_total, 0);
	assert_int_equal(fixture_vmms(NULL, 0), SANDBOXES);
}

/* With nothing to do it is there again at once, too. */
static void an_idle_spawner_that_dies_is_back(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	int pid;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	pool_start(fixture->pool);
	fixture_until(fixture, (pid = fixture_helper("warmbox-spawner")) > 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	fixture_until(fixture, fixture_helper("warmbox-spawner") > 0 &&
				       fixture_helper("warmbox-spawner") != pid);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
}

static void stops_while_the_spawner_is_dead(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a[4];

	fixture_template(fixture, "t", "");
	for (unsigned turns = 0; turns < 8; turns++) {
		fixture_pool(fixture, 0, 4, 5000);
		assert_int_equal(fixture_set(fixture, "t", 0, NULL, 0), POOL_OK);
		for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
			fixture_acquire(fixture, &a[i], "t", 5000);
		}
		for (unsigned i = 0; i < turns; i++) {
			fixture_run_ms(fixture, 1);
		}

		int pid;

		fixture_until(fixture, (pid = fixture_helper("warmbox-spawner")) > 0);
		assert_int_equal(kill(pid, SIGKILL), 0);
		fixture_stop(fixture);
		for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
			assert_int_equal(a[i].calls, 1);
		}
	}
}

/* Claims what is parked until something is being restored or `limit` have been claimed. Returns how
 * many; *ret_gap_ns is the longest time between two. */
static unsigned claim_on(struct fixture *fixture, struct acquired *acquired, unsigned limit,
			 uint64_t *ret_gap_ns)
{
	uint64_t before_ns = base_clock_monotonic_ns(), gap_ns = 0;
	unsigned n = 0;

	while (n < limit && fixture_info(fixture, "t").restoring == 0) {
		fixture_acquire(fixture, &acquired[n], "t", 0);
		assert_int_equal(acquired[n].status, POOL_OK);
		uv_run(&fixture->loop, UV_RUN_NOWAIT);

		uint64_t now_ns = base_clock_monotonic_ns();

		gap_ns = MAX(gap_ns, now_ns - before_ns);
		before_ns = now_ns;
		n++;
	}
	*ret_gap_ns = gap_ns;
	return n;
}

static void restores_wait_for_a_pause_between_claims(void **state)
{
	static struct acquired acquired[64];
	struct fixture *fixture = *state;
	unsigned attempts = 0, n;
	uint64_t gap_ns;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 4, 5000);
	do {
		assert_true(attempts++ < 50);
		fill(fixture, 8, 0);
		n = claim_on(fixture, acquired, 8, &gap_ns);
		/* Where this process was kept waiting, there was a pause. */
	} while (gap_ns >= NSEC_PER_MSEC);
	assert_int_equal(n, 8);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 8);
}

static void restores_do_not_wait_for_ever(void **state)
{
	static struct acquired acquired[64];
	struct fixture *fixture = *state;
	uint64_t start_ns, gap_ns;
	unsigned n = 0;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 4, 5000);
	fill(fixture, 60, 0);
	start_ns = base_clock_monotonic_ns();
	while (fixture_info(fixture, "t").restoring == 0) {
		assert_true(n < 60);
		n += claim_on(fixture, acquired + n, 1, &gap_ns);
		while (base_clock_monotonic_ns() - start_ns < n * NSEC_PER_MSEC / 2) {
			uv_run(&fixture->loop, UV_RUN_NOWAIT);
		}
	}
	fixture_until(fixture, fixture_info(fixture, "t").parked == 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		TEST(shells_are_kept_and_taken),
		TEST(refilling_takes_shells_and_tops_them_up),
		TEST(a_shell_that_is_not_ready_is_taken_too),
		TEST(a_killed_shell_is_replaced),
		TEST(shells_go_with_their_snapshot),
		TEST(priority_follows_demand),
		TEST(a_killed_spawner_loses_nothing),
		TEST(an_idle_spawner_that_dies_is_back),
		TEST(stops_while_the_spawner_is_dead),
		TEST(restores_wait_for_a_pause_between_claims),
		TEST(restores_do_not_wait_for_ever),
	};

	return cmocka_run_group_tests_name("pool-shells", tests, NULL, NULL);
}
