/* SPDX-License-Identifier: Apache-2.0 */

/* Images with holes: restores before they are filled, a pager that is killed, memory that cannot be
 * filled. The pager is the real one. */

#include "tests/unit/pool/fixture.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The fake VMM looks for FIXTURE_BYTE at FIXTURE_BYTE_OFFSET when it loads the state. */
#define EXPECT "expect=7864320:170\n"

/* So slow that after its first read nothing is filled but what is asked for. */
#define SLOWLY 1

static void slow_pool(struct fixture *fixture, unsigned concurrency)
{
	fixture->fill_limit_bytes = SLOWLY;
	fixture_pool(fixture, 0, concurrency, 5000);
}

static void restores_begin_before_the_image_is_there(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a, b;

	fixture_template(fixture, "t", EXPECT);
	slow_pool(fixture, 2);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	info = fixture_info(fixture, "t");
	assert_false(info.image_complete);
	assert_int_equal(info.failed_total, 0);
	/* The counts are brought up to date by asking. */
	fixture_until(fixture, (info = fixture_info(fixture, "t")).faults_total > 0);
	assert_true(info.image_filled_bytes > 0);
	/* What the first has had loaded costs the second no fault. */
	uint64_t faults = info.faults_total;

	fixture_acquire(fixture, &b, "t", 5000);
	fixture_until(fixture, b.calls > 0);
	assert_int_equal(b.status, POOL_OK);
	fixture_run_ms(fixture, 50);
	fixture_info(fixture, "t");
	fixture_run_ms(fixture, 50);
	assert_int_equal(fixture_info(fixture, "t").faults_total, faults);
}

static void a_complete_image_needs_no_pager(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	int pid;

	fixture_template(fixture, "t", EXPECT);
	fixture_pool(fixture, 0, 1, 5000);
	assert_int_equal(fixture_set(fixture, "t", 0, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").image_complete);
	assert_true(fixture_info(fixture, "t").image_filled_bytes > 0);
	fixture_until(fixture, (pid = fixture_helper("warmbox-pager")) > 0);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
}

static void shells_outlive_the_filling(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;

	fixture_template(fixture, "t", EXPECT);
	fixture->shells = 2;
	fixture_pool(fixture, 0, 2, 5000);
	for (unsigned i = 0; i < 4; i++) {
		fixture_acquire(fixture, &a, "t", 5000);
		fixture_until(fixture, a.calls > 0);
		assert_int_equal(a.status, POOL_OK);
	}
	fixture_until(fixture, fixture_info(fixture, "t").image_complete);
}

/* Whatever the pager was doing; all get the right bytes. */
static void a_killed_pager_loses_nothing(void **state)
{
	struct fixture *fixture = *state;
	enum { SANDBOXES = 24, KILLS = 3, WAVE = SANDBOXES / KILLS };
	struct acquired a[SANDBOXES];
	unsigned n = 0;
	int pid;

	fixture_template(fixture, "t", EXPECT);
	slow_pool(fixture, 4);
	for (unsigned kills = 0; kills < KILLS; kills++) {
		if (n > 0) {
			fixture_until(fixture, fixture_helper("warmbox-pager") > 0);
		}
		while (n < (kills + 1) * WAVE) {
			fixture_acquire(fixture, &a[n++], "t", 15000);
		}
		fixture_until(fixture, fixture_info(fixture, "t").restoring > 0);
		assert_false(fixture_info(fixture, "t").image_complete);
		pid = fixture_helper("warmbox-pager");
		assert_true(pid > 0);
		assert_int_equal(kill(pid, SIGKILL), 0);
		fixture_until(fixture, fixture_info(fixture, "t").leased == n);
	}
	assert_int_equal(fixture_info(fixture, "t").failed_total, 0);
	assert_int_equal(fixture_info(fixture, "t").died_total, 0);
	assert_int_equal(fixture_vmms(NULL, 0), SANDBOXES);
}

/* Killed before a restore, and stopped during one: who waits gets its page from the next. */
static void waiting_faults_are_taken_again(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	int pid;

	fixture_template(fixture, "t", EXPECT);
	slow_pool(fixture, 1);
	assert_int_equal(fixture_set(fixture, "t", 0, NULL, 0), POOL_OK);
	fixture_until(fixture, (pid = fixture_helper("warmbox-pager")) > 0);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_run_ms(fixture, 200);
	assert_int_equal(a.calls, 0);
	assert_int_equal(fixture_info(fixture, "t").restoring, 1);
	assert_int_equal(kill(pid, SIGKILL), 0);

	uint64_t start_ns = base_clock_monotonic_ns();

	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	assert_true(base_clock_monotonic_ns() - start_ns < 2 * NSEC_PER_SEC);
}

/* Changes a byte in the midst of the noise in the last chunk. */
static void damage(struct fixture *fixture, const char *name)
{
	char path[256];
	struct stat status;
	uint8_t byte;

	snprintf(path, sizeof(path), "%s/templates/%s/memory", fixture->store_path, name);
	assert_int_equal(chmod(path, 0600), 0);

	_cleanup_fd_ int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(pread(fd, &byte, 1, status.st_size - 2048), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, status.st_size - 2048), 1);
}

static void damaged_memory_ends_whoever_uses_it(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a;

	/* It does not look at its memory, so it gets to be leased. */
	fixture_template(fixture, "t", "");
	damage(fixture, "t");
	fixture->fill_limit_bytes = MIB(8);
	fixture_pool(fixture, 1, 2, 5000);
	fixture_acquire(fixture, &a, "t", 5000);
	fixture_until(fixture, a.calls > 0);
	if (a.status == POOL_OK) {
		enum pool_cause cause = fixture_wait_ended(fixture, a.id);

		assert_string_equal(pool_cause_name(cause), "image_failed");
	}
	info = fixture_info(fixture, "t");
	assert_string_equal(info.state, "failed");
	assert_non_null(info.last_error);
	assert_int_equal(info.parked + info.restoring + info.shells, 0);
	/* The pool lives on, and other templates do. */
	fixture_template(fixture, "u", EXPECT);
	fixture_acquire(fixture, &a, "u", 5000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	/* Built again, it is found without being asked for. */
	fixture_template(fixture, "t", EXPECT);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	assert_null(fixture_info(fixture, "t").last_error);
}

/* A pager that cannot live is said, and tried ever more rarely. */
static void a_pager_that_dies_again_and_again(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a;
	struct base_error error = { 0 };
	struct pool_config config = {
		.store_path = fixture->store_path,
		.runtime_dir = fixture->runtime_dir,
		.vmm_path = getenv("FAKEVMM"),
		.spawner_path = getenv("SPAWNER"),
		.pager_path = "/bin/false",
		.identity_timeout_ms = 1000,
		.tenants = &fixture->tenants,
	};

	fixture_template(fixture, "t", "");
	assert_int_equal(pool_new(&fixture->loop, &config, &fixture->pool, &error), 0);
	assert_null(pool_trouble(fixture->pool));
	fixture_acquire(fixture, &a, "t", 600);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_DEADLINE_EXCEEDED);
	assert_non_null(pool_trouble(fixture->pool));
	assert_non_null(strstr(pool_trouble(fixture->pool), "pager"));
}

static void stops_while_images_are_filled(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a[4];

	fixture_template(fixture, "t", EXPECT);
	for (unsigned turns = 0; turns < 16; turns++) {
		int pid;

		slow_pool(fixture, 4);
		for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
			fixture_acquire(fixture, &a[i], "t", 5000);
		}
		fixture_until(fixture, (pid = fixture_helper("warmbox-pager")) > 0);
		if (turns % 2) {
			/* So that it is asked for the image, and does not answer. */
			assert_int_equal(kill(pid, SIGSTOP), 0);
		}
		for (unsigned i = 0; i < turns; i++) {
			fixture_run_ms(fixture, 1);
		}
		fixture_stop(fixture);
		for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
			assert_int_equal(a[i].calls, 1);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		TEST(restores_begin_before_the_image_is_there),
		TEST(a_complete_image_needs_no_pager),
		TEST(shells_outlive_the_filling),
		TEST(a_killed_pager_loses_nothing),
		TEST(waiting_faults_are_taken_again),
		TEST(damaged_memory_ends_whoever_uses_it),
		TEST(a_pager_that_dies_again_and_again),
		TEST(stops_while_images_are_filled),
	};

	return cmocka_run_group_tests_name("pool-lazy", tests, NULL, NULL);
}
