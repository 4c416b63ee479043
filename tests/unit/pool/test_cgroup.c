/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sandboxes in cgroups: that they are in one before they are parked, what their limits do, that
 * nothing is left. Skipped where this user may make no cgroups.
 */

#include "base/fd.h"
#include "pool/internal.h"
#include "tests/unit/pool/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int setup(void **state)
{
	struct fixture *fixture;

	fixture_setup(state);
	fixture = *state;
	fixture->cgroups = POOL_CGROUPS_AUTO;
	return 0;
}

static void make_pool(struct fixture *fixture, unsigned target)
{
	fixture_pool(fixture, target, 4, 5000);
	if (!pool_cgroups_are_there(&fixture->pool->cgroups)) {
		print_message("# %s\n", fixture->pool->cgroups.trouble);
		skip();
	}
}

/* The directory of the first root, and the number of sandboxes in it. */
static void root_path(struct fixture *fixture, char *out, size_t size)
{
	snprintf(out, size, "%s", fixture->pool->cgroups.tree.roots[0].path);
}

static unsigned count_cgroups(const char *root)
{
	char path[POOL_CGROUP_PATH_MAX + 1];
	struct stat status;

	snprintf(path, sizeof(path), "%s/.", root);
	return stat(path, &status) < 0 ? 0 : (unsigned)status.st_nlink - 2;
}

static bool is_in(const char *root, const char *id, int pid)
{
	char path[POOL_CGROUP_PATH_MAX + 64], content[256] = "";
	_cleanup_fd_ int fd = -1;

	snprintf(path, sizeof(path), "%s/%s/cgroup.procs", root, id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, content, sizeof(content) - 1) > 0 && atoi(content) == pid;
}

static void each_has_its_own_and_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	char root[POOL_CGROUP_PATH_MAX];
	struct acquired a[8];

	fixture_template(fixture, "t", "");
	make_pool(fixture, 4);
	root_path(fixture, root, sizeof(root));
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		fixture_acquire(fixture, &a[i], "t", POOL_TIMEOUT_DEFAULT);
		fixture_until(fixture, a[i].calls > 0);
		assert_int_equal(a[i].status, POOL_OK);
		assert_true(is_in(root, a[i].id, a[i].pid));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		assert_int_equal(pool_release(fixture->pool, a[i].id, POOL_CAUSE_RELEASED),
				 POOL_OK);
	}
	fixture_until(fixture, fixture_info(fixture, "t").parked == 4);
	fixture_until(fixture, count_cgroups(root) == 4);
	fixture_stop(fixture);
	assert_int_equal(access(root, F_OK), -1);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		close(a[i].stream);
	}
}

/* Some of them before they have a cgroup, some before they are in it. */
static void stopping_early_leaves_nothing(void **state)
{
	struct fixture *fixture = *state;
	char root[POOL_CGROUP_PATH_MAX];

	fixture_template(fixture, "t", "slow_ms=5\n");
	make_pool(fixture, 8);
	root_path(fixture, root, sizeof(root));
	assert_int_equal(fixture_set(fixture, "t", 8, NULL, 0), POOL_OK);
	for (unsigned i = 0; i < 4; i++) {
		fixture_turn(fixture);
	}
	assert_int_equal(fixture_set(fixture, "t", 0, NULL, 0), POOL_OK);
	assert_int_equal(fixture_set(fixture, "t", 8, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").restoring > 0);
	fixture_stop(fixture);
	assert_int_equal(access(root, F_OK), -1);
}

static void too_much_memory_ends_one(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a, b;

	fixture->limits.memory_mib = 24;
	fixture_template(fixture, "eater", "eat_mib=64\n");
	fixture_template(fixture, "neighbour", "eat_mib=2\n");
	make_pool(fixture, 1);
	if (!(fixture->pool->cgroups.tree.controllers & POOL_CGROUP_MEMORY)) {
		skip();
	}
	fixture_acquire(fixture, &b, "neighbour", POOL_TIMEOUT_DEFAULT);
	fixture_until(fixture, b.calls > 0);
	fixture_acquire(fixture, &a, "eater", POOL_TIMEOUT_DEFAULT);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_int_equal(fixture_wait_ended(fixture, a.id), POOL_CAUSE_LIMIT);
	assert_int_equal(b.status, POOL_OK);
	assert_int_equal(kill(b.pid, 0), 0);
}

static void a_kill_is_no_limit(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", "");
	make_pool(fixture, 1);
	fixture_acquire(fixture, &a, "t", POOL_TIMEOUT_DEFAULT);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(kill(a.pid, SIGKILL), 0);
	assert_int_equal(fixture_wait_ended(fixture, a.id), POOL_CAUSE_VMM_DIED);
}

/* The manager before was killed: its VMMs may live, and its cgroups are there. */
static void a_successor_sweeps(void **state)
{
	struct fixture *fixture = *state;
	static const char id[] = "00112233445566778899aabbccddeeff";
	struct pool_cgroup_limits limits = { 0 };
	char root[POOL_CGROUP_PATH_MAX];
	int status;
	pid_t pid;

	fixture_template(fixture, "t", "");
	make_pool(fixture, 0);
	root_path(fixture, root, sizeof(root));
	assert_int_equal(pool_cgroup_tree_make(&fixture->pool->cgroups.tree, id, &limits, NULL), 0);
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	assert_int_equal(pool_cgroup_tree_enter(&fixture->pool->cgroups.tree, id, pid), 0);
	fixture_stop(fixture);
	/* What is not the pool's own it does not remove, and so it leaves word where that is. */
	assert_int_equal(count_cgroups(root), 1);
	assert_int_equal(fixture_count_entries(fixture->runtime_dir), 1);
	make_pool(fixture, 0);
	pool_start(fixture->pool);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(count_cgroups(root), 0);
}

static void required_and_refused(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture->cgroups = POOL_CGROUPS_REQUIRED;
	fixture->limits.pids = 100;
	fixture_template(fixture, "t", "");
	make_pool(fixture, 0);

	/* A root without room: the directory that the pool has open is gone. */
	struct pool_cgroup_tree *tree = &fixture->pool->cgroups.tree;

	for (unsigned i = 0; i < tree->n_roots; i++) {
		assert_int_equal(rmdir(tree->roots[i].path), 0);
	}
	fixture_acquire(fixture, &a, "t", POOL_TIMEOUT_DEFAULT);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	assert_non_null(strstr(a.text, "cgroup"));
}

static void refused_but_not_required(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", "");
	make_pool(fixture, 0);

	struct pool_cgroup_tree *tree = &fixture->pool->cgroups.tree;

	for (unsigned i = 0; i < tree->n_roots; i++) {
		assert_int_equal(rmdir(tree->roots[i].path), 0);
	}
	fixture_acquire(fixture, &a, "t", POOL_TIMEOUT_DEFAULT);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_true(fixture->pool->cgroups.is_trouble);
}

static void weights_follow_nice_values(void **state)
{
	assert_int_equal(pool_cgroup_weight_of_nice(100, 0), 100);
	assert_int_equal(pool_cgroup_weight_of_nice(100, 10), 10);
	assert_int_equal(pool_cgroup_weight_of_nice(100, 19), 1);
	assert_int_equal(pool_cgroup_weight_of_nice(1, 19), 1);
}

static void limits_hold_what_a_guest_may_have(void **state)
{
	struct pool_cgroup_config config = { .memory_overhead_mib = 64, .pids = 10 };
	struct pool_cgroup_limits limits = pool_cgroup_limits_of(&config, MIB(256), MIB(100), 2);

	/* Each page of it, a copy of those that are first touched here, and the kernel's share. */
	assert_int_equal(limits.memory_bytes, MIB(256 + 100 + 8 + 64));
	assert_int_equal(limits.pids, 12);
	assert_int_equal(limits.cpu_weight, POOL_CGROUP_WEIGHT_DEFAULT);
	config.memory_mib = 200;
	config.pids = 0;
	limits = pool_cgroup_limits_of(&config, MIB(256), MIB(100), 2);
	assert_int_equal(limits.memory_bytes, MIB(200));
	assert_int_equal(limits.pids, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_has_its_own_and_leaves_nothing, setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(stopping_early_leaves_nothing, setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(too_much_memory_ends_one, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_kill_is_no_limit, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_successor_sweeps, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(required_and_refused, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(refused_but_not_required, setup, fixture_teardown),
		cmocka_unit_test(weights_follow_nice_values),
		cmocka_unit_test(limits_hold_what_a_guest_may_have),
	};

	return cmocka_run_group_tests_name("pool cgroup", tests, NULL, NULL);
}
