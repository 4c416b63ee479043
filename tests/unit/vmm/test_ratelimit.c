/* SPDX-License-Identifier: Apache-2.0 */

/* The token bucket, to the token and the nanosecond. */

#include "vmm/ratelimit.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define START_NS (UINT64_C(77) * NSEC_PER_SEC + 5)

static void without_a_rate_nothing_waits(void **state)
{
	struct vmm_ratelimit limit = { 0 };

	assert_int_equal(vmm_ratelimit_wait_ns(&limit, UINT64_MAX, 0), 0);
	vmm_ratelimit_take(&limit, UINT64_MAX);
	vmm_ratelimit_set(&limit, 0, 100, START_NS);
	vmm_ratelimit_take(&limit, 1000);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1000, START_NS), 0);
}

static void a_full_bucket_gives_its_burst_and_no_more(void **state)
{
	struct vmm_ratelimit limit;

	vmm_ratelimit_set(&limit, 10, 3, START_NS);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, START_NS), 0);
		vmm_ratelimit_take(&limit, 1);
	}
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, START_NS), NSEC_PER_SEC / 10);
	/* An hour later it holds three, not an hour's worth. */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, START_NS + 3600 * NSEC_PER_SEC),
				 0);
		vmm_ratelimit_take(&limit, 1);
	}
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, START_NS + 3600 * NSEC_PER_SEC),
			 NSEC_PER_SEC / 10);
}

static void without_a_burst_it_is_a_second(void **state)
{
	struct vmm_ratelimit limit;

	vmm_ratelimit_set(&limit, 4096, 0, START_NS);
	assert_int_equal(limit.burst, 4096);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 4096, START_NS), 0);
}

/* The wait is the exact one: a nanosecond less is not enough. */
static void waits_to_the_nanosecond(void **state)
{
	static const uint64_t rates[] = { 1,	 3,	  7,	  1000,		  44101,
					  99991, 1 << 20, GIB(1), GIB(1) + 12345, GIB(4) - 1,
					  GIB(5) };

	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		uint64_t now_ns = START_NS;
		struct vmm_ratelimit limit;

		vmm_ratelimit_set(&limit, rates[i], 50, now_ns);
		vmm_ratelimit_take(&limit, 50);
		for (uint64_t round = 0; round < 1000; round++) {
			uint64_t cost = 1 + round * 7 % 50;
			uint64_t wait_ns = vmm_ratelimit_wait_ns(&limit, cost, now_ns);

			if (wait_ns > 0) {
				struct vmm_ratelimit early = limit;

				assert_true(vmm_ratelimit_wait_ns(&early, cost,
								  now_ns + wait_ns - 1) > 0);
			}
			now_ns += wait_ns;
			assert_int_equal(vmm_ratelimit_wait_ns(&limit, cost, now_ns), 0);
			vmm_ratelimit_take(&limit, cost);
		}
	}
}

/* Asked every few nanoseconds or once, the sum is the same. */
static void does_not_drift(void **state)
{
	struct vmm_ratelimit often, once;
	uint64_t end_ns = START_NS;

	vmm_ratelimit_set(&often, 999983, 1000000, START_NS);
	vmm_ratelimit_take(&often, 1000000);
	once = often;
	for (int i = 0; i < 1000000; i++) {
		end_ns += 1 + (uint64_t)i % 101;
		(void)vmm_ratelimit_wait_ns(&often, 1000000, end_ns);
	}
	(void)vmm_ratelimit_wait_ns(&once, 1000000, end_ns);
	assert_int_equal(often.level, once.level);
	assert_int_equal(often.fraction, once.fraction);
	/* By hand: what flows in within that time. */
	assert_int_equal(often.level, (end_ns - START_NS) * 999983 / NSEC_PER_SEC);
}

/* What is larger than the bucket passes when it is full, and is paid for afterwards. */
static void large_costs_leave_a_debt(void **state)
{
	struct vmm_ratelimit limit;
	uint64_t now_ns = START_NS;

	vmm_ratelimit_set(&limit, 1000, 500, now_ns);
	vmm_ratelimit_take(&limit, 1);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 8500, now_ns), NSEC_PER_MSEC);
	now_ns += NSEC_PER_MSEC;
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 8500, now_ns), 0);
	vmm_ratelimit_take(&limit, 8500);
	assert_int_equal(limit.level, -8000);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, now_ns), 8001 * NSEC_PER_MSEC);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 0, now_ns), 8000 * NSEC_PER_MSEC);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 0, now_ns + 8 * NSEC_PER_SEC), 0);
}

static void a_debt_is_bounded(void **state)
{
	struct vmm_ratelimit limit;

	vmm_ratelimit_set(&limit, 1, 1, START_NS);
	for (int i = 0; i < 10; i++) {
		vmm_ratelimit_take(&limit, UINT64_MAX);
	}
	assert_int_equal(limit.level, -(int64_t)VMM_RATELIMIT_MAX);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, START_NS),
			 (VMM_RATELIMIT_MAX + 1) * NSEC_PER_SEC);
}

static void survives_the_extremes(void **state)
{
	struct vmm_ratelimit limit;

	vmm_ratelimit_set(&limit, VMM_RATELIMIT_MAX, VMM_RATELIMIT_MAX, 0);
	vmm_ratelimit_take(&limit, VMM_RATELIMIT_MAX);
	vmm_ratelimit_take(&limit, VMM_RATELIMIT_MAX);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, UINT64_MAX, 0), 2 * NSEC_PER_SEC);
	/* A clock at its end fills it, and so does one nanosecond short of two seconds, nearly. */
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, UINT64_MAX, 2 * NSEC_PER_SEC - 1), 1);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, UINT64_MAX, UINT64_MAX), 0);
	assert_int_equal(limit.level, VMM_RATELIMIT_MAX);
	vmm_ratelimit_set(&limit, 1, VMM_RATELIMIT_MAX, 0);
	vmm_ratelimit_take(&limit, VMM_RATELIMIT_MAX);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, VMM_RATELIMIT_MAX, 0),
			 VMM_RATELIMIT_MAX * NSEC_PER_SEC);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, VMM_RATELIMIT_MAX, UINT64_MAX), 0);
}

static void a_clock_that_stands_or_goes_back_gives_nothing(void **state)
{
	struct vmm_ratelimit limit;

	vmm_ratelimit_set(&limit, 1000, 1, START_NS);
	vmm_ratelimit_take(&limit, 1);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, START_NS), NSEC_PER_MSEC);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, 0), NSEC_PER_MSEC);
	assert_int_equal(vmm_ratelimit_wait_ns(&limit, 1, START_NS + NSEC_PER_MSEC), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_rate_nothing_waits),
		cmocka_unit_test(a_full_bucket_gives_its_burst_and_no_more),
		cmocka_unit_test(without_a_burst_it_is_a_second),
		cmocka_unit_test(waits_to_the_nanosecond),
		cmocka_unit_test(does_not_drift),
		cmocka_unit_test(large_costs_leave_a_debt),
		cmocka_unit_test(a_debt_is_bounded),
		cmocka_unit_test(survives_the_extremes),
		cmocka_unit_test(a_clock_that_stands_or_goes_back_gives_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
