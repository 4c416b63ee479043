/* SPDX-License-Identifier: Apache-2.0 */

/* The store changes under a pool that has its templates loaded: built again, spoilt, removed. */

#include "tests/unit/pool/fixture.h"

#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the name means now; overwritten by the next call. */
static const char *meaning(struct fixture *fixture, const char *name)
{
	static char id[SNAPSHOT_ID_LENGTH + 1];
	struct base_error error = { 0 };

	if (snapshot_store_lookup(fixture->store, name, id, &error) < 0) {
		fail_msg("%s", error.text);
	}
	return id;
}

static bool is_loaded(struct fixture *fixture, const char *name, const char *id)
{
	struct pool_template_info info = fixture_info(fixture, name);

	return info.snapshot_id && strcmp(info.snapshot_id, id) == 0;
}

static void park(struct fixture *fixture, const char *name, unsigned n)
{
	assert_int_equal(fixture_set(fixture, name, n, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, name).parked == n);
}

static void acquire_parked(struct fixture *fixture, struct acquired *a, const char *name)
{
	fixture_acquire(fixture, a, name, 0);
	assert_int_equal(a->calls, 1);
	assert_int_equal(a->status, POOL_OK);
}

static void assert_snapshot(struct fixture *fixture, const struct acquired *a, const char *id)
{
	struct pool_lease lease;

	assert_true(pool_get(fixture->pool, a->id, &lease));
	assert_string_equal(lease.snapshot_id, id);
	assert_string_equal(lease.template_name, "t");
}

static void release(struct fixture *fixture, const struct acquired *a)
{
	assert_int_equal(pool_release(fixture->pool, a->id, POOL_CAUSE_RELEASED), POOL_OK);
	fixture_until(fixture, kill(a->pid, 0) < 0);
}

static unsigned count_fds(void)
{
	return fixture_count_entries("/proc/self/fd");
}

/* Guest memory and saved states that are held: two an image that is complete. */
static unsigned count_memfds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		char target[64] = { 0 };

		if (readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1) > 0) {
			n += strncmp(target, "/memfd:", strlen("/memfd:")) == 0;
		}
	}
	closedir(dir);
	return n;
}

static void what_is_parked_is_replaced(void **state)
{
	struct fixture *fixture = *state;
	char old_id[SNAPSHOT_ID_LENGTH + 1], new_id[SNAPSHOT_ID_LENGTH + 1];
	struct acquired a[3];
	unsigned n_fds;

	fixture_template(fixture, "t", "");
	fixture_template(fixture, "other", "");
	fixture_pool(fixture, 0, 2, 5000);
	strcpy(old_id, meaning(fixture, "t"));
	park(fixture, "other", 1);
	park(fixture, "t", 3);
	assert_true(is_loaded(fixture, "t", old_id));
	fixture_run_ms(fixture, 50);
	n_fds = count_fds();

	fixture_template(fixture, "t", "");
	strcpy(new_id, meaning(fixture, "t"));
	assert_string_not_equal(old_id, new_id);
	fixture_until(fixture,
		      is_loaded(fixture, "t", new_id) && fixture_info(fixture, "t").parked == 3);
	assert_int_equal(fixture_info(fixture, "t").restored_total, 6);
	assert_int_equal(fixture_info(fixture, "t").died_total, 0);
	assert_int_equal(fixture_info(fixture, "other").restored_total, 1);
	assert_null(fixture_info(fixture, "t").last_error);
	/* The old ones are gone, and their image with them. */
	fixture_until(fixture, fixture_sandboxes(fixture) == 4);
	fixture_until(fixture, count_fds() == n_fds);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		acquire_parked(fixture, &a[i], "t");
		assert_snapshot(fixture, &a[i], new_id);
	}
}

static void a_lease_keeps_its_snapshot(void **state)
{
	struct fixture *fixture = *state;
	char old_id[SNAPSHOT_ID_LENGTH + 1], new_id[SNAPSHOT_ID_LENGTH + 1];
	struct acquired old, new;
	unsigned n_fds;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	strcpy(old_id, meaning(fixture, "t"));
	park(fixture, "t", 1);
	fixture_run_ms(fixture, 50);
	n_fds = count_fds();
	acquire_parked(fixture, &old, "t");
	fixture_template(fixture, "t", "");
	strcpy(new_id, meaning(fixture, "t"));
	fixture_until(fixture,
		      is_loaded(fixture, "t", new_id) && fixture_info(fixture, "t").parked == 1);
	assert_int_equal(fixture_info(fixture, "t").leased, 1);
	assert_int_equal(kill(old.pid, 0), 0);
	assert_snapshot(fixture, &old, old_id);
	acquire_parked(fixture, &new, "t");
	assert_snapshot(fixture, &new, new_id);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	release(fixture, &new);
	fixture_until(fixture, fixture_info(fixture, "t").image_complete);
	fixture_run_ms(fixture, 50);
	/* The lease alone holds the image that was. */
	assert_int_equal(count_memfds(), 4);
	release(fixture, &old);
	fixture_until(fixture, count_memfds() == 2);
	fixture_until(fixture, count_fds() == n_fds);
	/* An ended lease says what it was of. */
	assert_snapshot(fixture, &old, old_id);
	assert_int_equal(fixture_wait_ended(fixture, old.id), POOL_CAUSE_RELEASED);
	assert_int_equal(fixture_info(fixture, "t").died_total, 0);
}

/* Publishes a snapshot that cannot be loaded. */
static void break_template(struct fixture *fixture, const char *name)
{
	char path[256];

	/* The pool does not look before the loop turns. The state is one byte long. */
	fixture_template(fixture, name, "");
	snprintf(path, sizeof(path), "%s/templates/%s/state", fixture->store_path, name);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(truncate(path, 99), 0);
}

static void a_broken_new_snapshot_leaves_the_old_one(void **state)
{
	struct fixture *fixture = *state;
	char old_id[SNAPSHOT_ID_LENGTH + 1], new_id[SNAPSHOT_ID_LENGTH + 1];
	struct pool_template_info info;
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	strcpy(old_id, meaning(fixture, "t"));
	park(fixture, "t", 2);
	break_template(fixture, "t");
	fixture_until(fixture, (info = fixture_info(fixture, "t")).last_error);
	assert_non_null(strstr(info.last_error, "going on with the snapshot before: "));
	assert_non_null(strstr(info.last_error, "state"));
	assert_string_equal(info.state, "ready");
	assert_string_equal(info.snapshot_id, old_id);
	assert_int_equal(info.parked, 2);
	/* It goes on for good: what is claimed is replaced. */
	acquire_parked(fixture, &a, "t");
	fixture_until(fixture, fixture_info(fixture, "t").parked == 2);
	assert_snapshot(fixture, &a, old_id);
	acquire_parked(fixture, &a, "t");
	assert_snapshot(fixture, &a, old_id);
	/* Until there is one that can be loaded. */
	fixture_template(fixture, "t", "");
	strcpy(new_id, meaning(fixture, "t"));
	fixture_until(fixture,
		      is_loaded(fixture, "t", new_id) && fixture_info(fixture, "t").parked == 2);
	assert_null(fixture_info(fixture, "t").last_error);
}

/* A load that fails while the store changes again says nothing: the pool looks once more. */
static void a_change_during_a_load_that_fails(void **state)
{
	struct fixture *fixture = *state;
	char path[256], new_id[SNAPSHOT_ID_LENGTH + 1];
	_cleanup_fd_ int lock = -1;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	park(fixture, "t", 1);
	break_template(fixture, "t");
	strcpy(new_id, meaning(fixture, "t"));
	/* The worker waits for the store until the pool has seen the second change. */
	lock = open(fixture->store_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	fixture_run_ms(fixture, 50);
	snprintf(path, sizeof(path), "%s/templates/t", fixture->store_path);
	assert_int_equal(utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW), 0);
	fixture_run_ms(fixture, 50);
	lock = base_fd_close(lock);
	/* It finds the damage, which is repaired before the pool hears of it. */
	usleep(200 * 1000);
	snprintf(path, sizeof(path), "%s/templates/t/state", fixture->store_path);
	assert_int_equal(truncate(path, 1), 0);
	fixture_until(fixture, is_loaded(fixture, "t", new_id));
	assert_null(fixture_info(fixture, "t").last_error);
}

static void a_snapshot_that_does_not_restore_is_mended(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", "fault=load-error\n");
	fixture_pool(fixture, 2, 1, 5000);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_UNAVAILABLE);
	assert_string_equal(fixture_info(fixture, "t").state, "failed");
	fixture_template(fixture, "t", "");
	fixture_until(fixture, fixture_info(fixture, "t").parked == 2);
	assert_string_equal(fixture_info(fixture, "t").state, "ready");
}

static void a_removed_template_is_not_found(void **state)
{
	struct fixture *fixture = *state;
	char old_id[SNAPSHOT_ID_LENGTH + 1];
	struct acquired leased, a;
	unsigned n_fds;

	fixture_template(fixture, "t", "");
	fixture_template(fixture, "other", "");
	fixture_pool(fixture, 0, 2, 5000);
	park(fixture, "other", 1);
	fixture_run_ms(fixture, 50);
	n_fds = count_fds();
	strcpy(old_id, meaning(fixture, "t"));
	park(fixture, "t", 2);
	acquire_parked(fixture, &leased, "t");
	assert_int_equal(snapshot_store_remove(fixture->store, "t", NULL), 0);
	fixture_until(fixture, fixture_sandboxes(fixture) == 2);
	assert_int_equal(fixture_info(fixture, "t").leased, 1);
	assert_string_equal(fixture_info(fixture, "t").state, "failed");
	assert_int_equal(fixture_info(fixture, "t").parked, 0);
	for (unsigned i = 0; i < 2; i++) {
		fixture_acquire(fixture, &a, "t", 5000);
		fixture_until(fixture, a.calls > 0);
		assert_int_equal(a.status, POOL_NOT_FOUND);
	}
	assert_int_equal(fixture_set(fixture, "t", 1, NULL, 0), POOL_NOT_FOUND);
	/* The lease does not notice; with it the last of the template goes. */
	assert_int_equal(kill(leased.pid, 0), 0);
	assert_snapshot(fixture, &leased, old_id);
	release(fixture, &leased);
	fixture_until(fixture, strcmp(fixture_info(fixture, "t").state, "unknown") == 0);
	fixture_until(fixture, count_fds() == n_fds);
	assert_snapshot(fixture, &leased, old_id);
	assert_int_equal(fixture_info(fixture, "other").parked, 1);
	/* A name that comes back is like a new one. */
	fixture_template(fixture, "t", "");
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
}

static void waiters_of_a_removed_template_are_told(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", "slow_ms=60000\n");
	fixture_pool(fixture, 0, 1, 60000);
	fixture_acquire(fixture, &a, "t", POOL_TIMEOUT_DEFAULT);
	fixture_until(fixture, fixture_info(fixture, "t").restoring == 1);
	assert_int_equal(snapshot_store_remove(fixture->store, "t", NULL), 0);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_NOT_FOUND);
	assert_non_null(strstr(a.text, "no template t"));
	fixture_until(fixture, fixture_sandboxes(fixture) == 0);
	assert_string_equal(fixture_info(fixture, "t").state, "unknown");
}

/* At every moment of a restore, the waiter gets one of the new snapshot. */
static void built_again_during_a_restore(void **state)
{
	struct fixture *fixture = *state;
	char new_id[SNAPSHOT_ID_LENGTH + 1];
	struct acquired a;

	fixture_template(fixture, "t", "slow_ms=60000\n");
	fixture_pool(fixture, 0, 2, 60000);
	for (unsigned turns = 0; turns < 24; turns += 2) {
		fixture_acquire(fixture, &a, "t", POOL_TIMEOUT_DEFAULT);
		for (unsigned i = 0; i < turns; i++) {
			fixture_run_ms(fixture, 1);
		}
		assert_int_equal(a.calls, 0);
		fixture_template(fixture, "t", "");
		strcpy(new_id, meaning(fixture, "t"));
		fixture_until(fixture, a.calls > 0);
		assert_int_equal(a.status, POOL_OK);
		assert_snapshot(fixture, &a, new_id);
		release(fixture, &a);
		assert_int_equal(fixture_info(fixture, "t").failed_total, 0);
		fixture_template(fixture, "t", "slow_ms=60000\n");
		strcpy(new_id, meaning(fixture, "t"));
		fixture_until(fixture, is_loaded(fixture, "t", new_id));
	}
}

/* The latest counts, however fast they come. */
static void built_again_and_again(void **state)
{
	struct fixture *fixture = *state;
	char id[SNAPSHOT_ID_LENGTH + 1];

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 2, 5000);
	park(fixture, "t", 2);
	for (unsigned i = 0; i < 20; i++) {
		fixture_template(fixture, "t", "");
		if (i % 3 == 0) {
			fixture_run_ms(fixture, i / 3);
		}
	}
	strcpy(id, meaning(fixture, "t"));
	fixture_until(fixture,
		      is_loaded(fixture, "t", id) && fixture_info(fixture, "t").parked == 2);
	assert_int_equal(fixture_info(fixture, "t").target, 2);
}

static void built_again_or_removed_during_a_stop(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	for (unsigned turns = 0; turns < 16; turns++) {
		fixture_template(fixture, "t", "");
		fixture_pool(fixture, 0, 2, 5000);
		park(fixture, "t", 2);
		acquire_parked(fixture, &a, "t");
		if (turns % 4 == 3) {
			assert_int_equal(snapshot_store_remove(fixture->store, "t", NULL), 0);
		} else {
			fixture_template(fixture, "t", "");
		}
		for (unsigned i = 0; i < turns / 2; i++) {
			fixture_run_ms(fixture, 1);
		}
		fixture_stop(fixture);
		assert_int_equal(fixture_sandboxes(fixture), 0);
	}
}

/* Asked for by its id, a snapshot lasts as long as a name keeps it. */
static void a_snapshot_named_by_its_id(void **state)
{
	struct fixture *fixture = *state;
	char id[SNAPSHOT_ID_LENGTH + 1];
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_template(fixture, "other", "");
	fixture_pool(fixture, 0, 1, 5000);
	strcpy(id, meaning(fixture, "t"));
	park(fixture, id, 1);
	fixture_template(fixture, "other", "");
	fixture_run_ms(fixture, 100);
	assert_int_equal(fixture_info(fixture, id).parked, 1);
	assert_null(fixture_info(fixture, id).last_error);
	fixture_template(fixture, "t", "");
	fixture_until(fixture, strcmp(fixture_info(fixture, id).state, "unknown") == 0);
	fixture_acquire(fixture, &a, id, 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_NOT_FOUND);
}

/* Without a watch the pool goes on, with what it has. */
static void does_without_a_watch(void **state)
{
	struct fixture *fixture = *state;
	char id[SNAPSHOT_ID_LENGTH + 1];
	struct rlimit before, few;
	struct acquired a;

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 1, 5000);
	strcpy(id, meaning(fixture, "t"));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	/* The first thing asked of the pool starts the watch. */
	fixture_acquire(fixture, &a, "no name", 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_NOT_FOUND);
	park(fixture, "t", 1);
	fixture_template(fixture, "t", "");
	fixture_run_ms(fixture, 100);
	assert_true(is_loaded(fixture, "t", id));
	acquire_parked(fixture, &a, "t");
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		TEST(what_is_parked_is_replaced),
		TEST(a_lease_keeps_its_snapshot),
		TEST(a_broken_new_snapshot_leaves_the_old_one),
		TEST(a_change_during_a_load_that_fails),
		TEST(a_snapshot_that_does_not_restore_is_mended),
		TEST(a_removed_template_is_not_found),
		TEST(waiters_of_a_removed_template_are_told),
		TEST(built_again_during_a_restore),
		TEST(built_again_and_again),
		TEST(built_again_or_removed_during_a_stop),
		TEST(a_snapshot_named_by_its_id),
		TEST(does_without_a_watch),
	};

	return cmocka_run_group_tests_name("pool-follow", tests, NULL, NULL);
}
