/* SPDX-License-Identifier: Apache-2.0 */

/* The policy at work in a pool: growing on misses, yielding to memory pressure, limits. The dwell
 * is too long to be waited for; what time does is tested with the policy. */

#include "tests/unit/pool/fixture.h"

#include "base/clock.h"
#include "pool/internal.h"

#include <string.h>

static enum pool_status set(struct fixture *fixture, unsigned min, unsigned max, char *ret_text,
			    size_t size)
{
	struct pool_set_params params = {
		.template_name = "t",
		.min = min,
		.max = max,
		.shells = POOL_UNCHANGED,
	};

	return fixture_set_params(fixture, &params, ret_text, size);
}

static void a_miss_raises_the_target(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a[6];

	fixture_template(fixture, "t", "slow_ms=10\n");
	fixture_pool(fixture, 0, 2, 5000);
	assert_int_equal(set(fixture, 1, 5, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 1);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.target, 1);
	assert_int_equal(info.limits.min, 1);
	assert_int_equal(info.limits.max, 5);
	assert_int_equal(info.arrivals_per_hour, 0);
	assert_true(info.restore_ns > 0 && info.restore_ns < 10 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 3; i++) {
		fixture_acquire(fixture, &a[i], "t", 10000);
	}
	/* One was there, two were lacking. */
	info = fixture_info(fixture, "t");
	assert_int_equal(info.missed_total, 2);
	assert_int_equal(info.target, 3);
	assert_true(info.arrivals_per_hour > 0);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 3);
	/* It is there for the next burst, and a larger one stops at the maximum. */
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		fixture_acquire(fixture, &a[i], "t", 10000);
		assert_int_equal(a[i].calls, i < 3);
	}
	assert_int_equal(fixture_info(fixture, "t").target, 5);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 5);
	/* The timer for giving back is armed. */
	assert_true(fixture->pool->timer_ns != 0);
}

static void limits_are_checked_and_changed(void **state)
{
	struct fixture *fixture = *state;
	char text[128];

	fixture_template(fixture, "t", "");
	fixture_pool(fixture, 0, 2, 5000);
	assert_int_equal(set(fixture, 2, 4, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 2);
	assert_int_equal(set(fixture, 5, POOL_UNCHANGED, text, sizeof(text)), POOL_INVALID);
	assert_string_equal(text, "min: more than max is");
	assert_int_equal(set(fixture, POOL_UNCHANGED, 1, text, sizeof(text)), POOL_INVALID);
	assert_string_equal(text, "max: less than min is");
	assert_int_equal(set(fixture, 3, 2, text, sizeof(text)), POOL_INVALID);
	assert_string_equal(text, "min: more than max");
	assert_int_equal(set(fixture, 0, POOL_TARGET_MAX + 1, text, sizeof(text)), POOL_INVALID);
	/* Nothing has changed by that. */
	assert_int_equal(fixture_info(fixture, "t").limits.min, 2);
	assert_int_equal(fixture_info(fixture, "t").limits.max, 4);
	assert_int_equal(set(fixture, 4, POOL_UNCHANGED, NULL, 0), POOL_OK);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 4);
	assert_int_equal(set(fixture, 0, 1, NULL, 0), POOL_OK);
	assert_int_equal(fixture_info(fixture, "t").parked, 1);
}

static const char *trouble(struct fixture *fixture, bool expect_below_min)
{
	bool below_min;
	const char *text = pool_memory_trouble(fixture->pool, &below_min);

	assert_int_equal(below_min, expect_below_min);
	return text;
}

/* Ids of the parked ones, oldest first. */
static unsigned parked_ids(struct fixture *fixture, char ids[][POOL_LEASE_ID_LENGTH + 1])
{
	struct pool_template *template =
		CONTAINER_OF(fixture->pool->templates.next, struct pool_template, link);
	unsigned n = 0;

	BASE_LIST_FOR_EACH(link, &template->parked)
	{
		strcpy(ids[n++], CONTAINER_OF(link, struct pool_sandbox, link)->launch.id);
	}
	return n;
}

/* As if the kernel had said so, long enough after the last time. */
static void news(struct fixture *fixture)
{
	struct pool_pressure *pressure = &fixture->pool->pressure;

	pressure->stepped_ns = 0;
	assert_true(pool_pressure_news(pressure, "the host", base_clock_monotonic_ns()));
	pressure->on_change(pressure);
}

static void memory_pressure_ends_the_oldest(void **state)
{
	struct fixture *fixture = *state;
	char before[8][POOL_LEASE_ID_LENGTH + 1], after[8][POOL_LEASE_ID_LENGTH + 1];
	struct acquired a[8], waits;

	fixture_template(fixture, "t", "slow_ms=5\n");
	fixture_pool(fixture, 0, 4, 5000);
	assert_int_equal(set(fixture, 4, 8, NULL, 0), POOL_OK);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		fixture_acquire(fixture, &a[i], "t", 10000);
	}
	fixture_until(fixture, fixture_info(fixture, "t").parked == 8);
	assert_int_equal(parked_ids(fixture, before), 8);
	assert_null(trouble(fixture, false));

	news(fixture);
	assert_non_null(trouble(fixture, false));
	assert_int_equal(fixture_info(fixture, "t").target, 4);
	news(fixture);
	/* Down to the minimum, at once, and the youngest stay. */
	assert_int_equal(fixture_info(fixture, "t").parked, 4);
	assert_int_equal(parked_ids(fixture, after), 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_string_equal(after[i], before[i + 4]);
	}
	assert_non_null(trouble(fixture, false));
	news(fixture);
	assert_int_equal(fixture_info(fixture, "t").parked, 2);
	assert_non_null(trouble(fixture, true));
	news(fixture);
	news(fixture);
	assert_int_equal(fixture_info(fixture, "t").parked, 0);
	/* Nothing is restored for the stock, but for whoever waits. */
	fixture_run_ms(fixture, 100);
	assert_int_equal(fixture_info(fixture, "t").parked, 0);
	fixture_acquire(fixture, &waits, "t", 10000);
	fixture_until(fixture, waits.calls > 0);
	assert_int_equal(waits.status, POOL_OK);

	/* Dwells without news give it back, up to what was learned. */
	for (unsigned step = 5; step > 0; step /= 2) {
		uint64_t at_ns = pool_pressure_next_ns(&fixture->pool->pressure);

		assert_int_equal(fixture->pool->pressure.step, step);
		pool_target_advance(fixture->pool, at_ns);
	}
	assert_null(trouble(fixture, false));
	assert_int_equal(fixture_info(fixture, "t").target, 8);
	fixture_until(fixture, fixture_info(fixture, "t").parked == 8);
}

static void below_the_floor_nothing_is_restored_that_nobody_waits_for(void **state)
{
	struct fixture *fixture = *state;
	struct pool_template_info info;
	struct acquired a;

	fixture_template(fixture, "t", "");
	/* More than there is: some of the host's memory is always in use. */
	fixture->memory_floor_percent = 100;
	fixture->shells = 1;
	fixture_pool(fixture, 0, 2, 5000);
	assert_int_equal(set(fixture, 3, 3, NULL, 0), POOL_OK);
	fixture_run_ms(fixture, 200);
	info = fixture_info(fixture, "t");
	assert_int_equal(info.parked + info.restoring, 0);
	assert_int_equal(info.shells, 0);
	assert_int_equal(info.target, 0);
	assert_non_null(strstr(trouble(fixture, true), "the floor is"));
	fixture_acquire(fixture, &a, "t", 10000);
	fixture_until(fixture, a.calls > 0);
	assert_int_equal(a.status, POOL_OK);
	fixture_run_ms(fixture, 50);
	assert_int_equal(fixture_info(fixture, "t").parked, 0);
	/* It is looked again, and when there is enough the pool fills. */
	fixture->pool->pressure.floor_bytes = 1;
	pool_target_advance(fixture->pool,
			    fixture->pool->pressure.looked_ns + POOL_PRESSURE_LOOK_NS);
	assert_false(fixture->pool->pressure.starved);
	assert_true(fixture->pool->pressure.step > 0);
	pool_target_advance(fixture->pool, pool_pressure_next_ns(&fixture->pool->pressure));
	fixture_until(fixture, fixture_info(fixture, "t").parked == 3);
}

/* More parked would not have helped. */
static void what_cannot_be_restored_does_not_raise_the_target(void **state)
{
	struct fixture *fixture = *state;
	struct acquired a[5];

	fixture_template(fixture, "t", "fault=create-die\n");
	fixture_pool(fixture, 0, 2, 5000);
	assert_int_equal(set(fixture, 0, 50, NULL, 0), POOL_OK);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		fixture_acquire(fixture, &a[i], "t", 5000);
		fixture_until(fixture, a[i].calls > 0);
		assert_int_equal(a[i].status, POOL_UNAVAILABLE);
	}
	assert_in_range(fixture_info(fixture, "t").target, 0, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
		TEST(a_miss_raises_the_target),
		TEST(limits_are_checked_and_changed),
		TEST(memory_pressure_ends_the_oldest),
		TEST(below_the_floor_nothing_is_restored_that_nobody_waits_for),
		TEST(what_cannot_be_restored_does_not_raise_the_target),
	};

	return cmocka_run_group_tests_name("pool-adaptive", tests, NULL, NULL);
}
