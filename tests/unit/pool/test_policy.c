/* SPDX-License-Identifier: Apache-2.0 */

/* The policy's rules, one by one. How they work together is tested in test_policy_sim.c. */

#include "pool/policy.h"

#include "base/util.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HOUR_NS	    (3600 * NSEC_PER_SEC)
#define CONCURRENCY 4

static struct pool_policy policy_of(unsigned min, unsigned max)
{
	struct pool_policy policy;

	pool_policy_init(&policy, (struct pool_limits){ min, max }, CONCURRENCY, NSEC_PER_SEC);
	return policy;
}

/* n arrivals, evenly, at so many a second; n are then parked. Returns the time of the last. */
static uint64_t arrive(struct pool_policy *policy, unsigned n, double rate, uint64_t now_ns)
{
	for (unsigned i = 0; i < n; i++) {
		now_ns += (uint64_t)(NSEC_PER_SEC / rate);
		pool_policy_arrived(policy, now_ns);
	}
	return now_ns;
}

static unsigned fill(const struct pool_policy *policy, uint64_t now_ns)
{
	assert_int_equal(pool_policy_fill(policy, now_ns), pool_policy_keep(policy, now_ns));
	return pool_policy_fill(policy, now_ns);
}

static void begins_at_its_minimum(void **state)
{
	struct pool_policy policy = policy_of(3, 10);

	assert_int_equal(fill(&policy, NSEC_PER_SEC), 3);
	assert_int_equal(pool_policy_demand(&policy, NSEC_PER_SEC), 0);
	assert_true(pool_policy_next_ns(&policy) == UINT64_MAX);
	assert_true(pool_policy_rate(&policy, NSEC_PER_SEC) == 0);
}

static void fixed_limits_are_a_fixed_stock(void **state)
{
	struct pool_policy policy = policy_of(5, 5);
	uint64_t now_ns = arrive(&policy, 1000, 100, NSEC_PER_SEC);

	pool_policy_missed(&policy, 50);
	assert_int_equal(fill(&policy, now_ns), 5);
	pool_policy_parked(&policy, 5);
	pool_policy_advance(&policy, 5, now_ns + HOUR_NS);
	assert_int_equal(fill(&policy, now_ns + HOUR_NS), 5);
	assert_true(pool_policy_next_ns(&policy) == UINT64_MAX);
}

static void rates_see_what_is_and_forget_what_was(void **state)
{
	struct pool_policy policy = policy_of(0, 100);
	uint64_t now_ns = arrive(&policy, 2000, 10, NSEC_PER_SEC);

	assert_true(fabs(pool_policy_rate(&policy, now_ns) - 10) < 0.5);
	/* A lull: the short horizon forgets within a minute, the long one does not. */
	assert_true(pool_policy_rate(&policy, now_ns + 100 * NSEC_PER_SEC) < 5);
	assert_true(pool_policy_rate(&policy, now_ns + 100 * NSEC_PER_SEC) > 1);
	assert_true(pool_policy_rate(&policy, now_ns + 3 * HOUR_NS) < 1e-6);
	assert_int_equal(pool_policy_demand(&policy, now_ns + 3 * HOUR_NS), 0);
}

static void demand_follows_rate_and_restores(void **state)
{
	struct pool_policy slow = policy_of(0, 1000), fast = policy_of(0, 1000);
	struct pool_policy narrow = policy_of(0, 1000), wide = policy_of(0, 1000);
	uint64_t now_ns = NSEC_PER_SEC;
	struct pool_policy *all[] = { &slow, &fast, &narrow, &wide };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		now_ns = arrive(all[i], 2000, 10, NSEC_PER_SEC);
	}
	pool_policy_forget_restores(&wide, 64);
	for (unsigned i = 0; i < 100; i++) {
		pool_policy_restored(&slow, 300 * NSEC_PER_MSEC, 1, false, now_ns);
		pool_policy_restored(&fast, 10 * NSEC_PER_MSEC, 1, false, now_ns);
		pool_policy_restored(&narrow, 300 * NSEC_PER_MSEC, 2, true, now_ns);
		pool_policy_restored(&wide, 300 * NSEC_PER_MSEC, 64, true, now_ns);
	}

	/* Poisson with mean 3: nine or more in one of a hundred cases at most. */
	assert_in_range(pool_policy_demand(&wide, now_ns), 8, 10);
	/* With mean 0.1: two or more. */
	assert_int_equal(pool_policy_demand(&fast, now_ns), 2);
	/* Three restores' worth of work on four at once queues up; two at once cannot even do it.
	 */
	assert_true(pool_policy_demand(&slow, now_ns) > pool_policy_demand(&wide, now_ns));
	assert_true(pool_policy_demand(&narrow, now_ns) >= pool_policy_demand(&slow, now_ns));
	/* Too slow is no reason for a stock without bound. */
	assert_true(pool_policy_demand(&narrow, now_ns) < 30);
	assert_int_equal(fill(&wide, now_ns), MAX(wide.level, pool_policy_demand(&wide, now_ns)));
}

static void a_new_snapshot_is_measured_anew(void **state)
{
	struct pool_policy policy = policy_of(0, 100);

	pool_policy_restored(&policy, NSEC_PER_SEC, 1, false, NSEC_PER_SEC);
	assert_true(policy.restore_s == 1);
	pool_policy_restored(&policy, 2 * NSEC_PER_SEC, 1, false, NSEC_PER_SEC);
	assert_true(policy.restore_s > 1 && policy.restore_s < 1.5);
	pool_policy_forget_restores(&policy, CONCURRENCY);
	pool_policy_restored(&policy, NSEC_PER_MSEC, 1, false, NSEC_PER_SEC);
	assert_true(policy.restore_s == 0.001);
}

static void a_miss_raises_by_what_was_lacking(void **state)
{
	struct pool_policy policy = policy_of(4, 20);

	/* Five who find nothing where four were: one after the other, or at once, is the same. */
	pool_policy_parked(&policy, 4);
	pool_policy_parked(&policy, 0);
	for (unsigned i = 1; i <= 5; i++) {
		pool_policy_missed(&policy, i);
		assert_int_equal(fill(&policy, NSEC_PER_SEC), 4 + i);
	}
	/* The same again before the stock has come: nothing new. */
	pool_policy_parked(&policy, 1);
	pool_policy_parked(&policy, 0);
	pool_policy_missed(&policy, 5);
	assert_int_equal(fill(&policy, NSEC_PER_SEC), 9);
	/* And once it has. */
	pool_policy_parked(&policy, 9);
	pool_policy_parked(&policy, 0);
	pool_policy_missed(&policy, 2);
	assert_int_equal(fill(&policy, NSEC_PER_SEC), 11);
	/* Never above the maximum, whatever is lacking. */
	pool_policy_missed(&policy, UINT32_MAX);
	assert_int_equal(fill(&policy, NSEC_PER_SEC), 20);
}

/* At a level of n, all parked and nobody there, at the beginning of a dwell. */
static uint64_t raised_to(struct pool_policy *policy, unsigned n)
{
	pool_policy_missed(policy, n - policy->shelf);
	assert_int_equal(policy->level, n);
	pool_policy_parked(policy, n);
	pool_policy_advance(policy, n, pool_policy_next_ns(policy));
	return policy->dwell_ns;
}

static void shrinks_gently_after_a_dwell(void **state)
{
	struct pool_policy policy = policy_of(2, 100);
	uint64_t dwell_ns = raised_to(&policy, 40);

	/* The dwell that saw the miss gives nothing back. */
	assert_int_equal(fill(&policy, dwell_ns - 1), 40);
	pool_policy_advance(&policy, 40, dwell_ns - 1);
	assert_int_equal(fill(&policy, dwell_ns - 1), 40);
	pool_policy_advance(&policy, 40, dwell_ns);
	assert_int_equal(fill(&policy, dwell_ns), 30);

	/* Down to the minimum in the end, and then there is no timer any more. */
	unsigned dwells = 0;

	while ((dwell_ns = pool_policy_next_ns(&policy)) != UINT64_MAX) {
		unsigned before = policy.level;

		pool_policy_parked(&policy, before);
		pool_policy_advance(&policy, before, dwell_ns);
		assert_true(policy.level < before && before - policy.level <= before / 4 + 1);
		assert_true(++dwells < 40);
	}
	assert_int_equal(policy.level, 2);
	assert_true(dwells > 5);
}

static void keeps_what_the_dwell_needed(void **state)
{
	struct pool_policy policy = policy_of(2, 100);
	uint64_t dwell_ns = raised_to(&policy, 40);

	/* Down to eight for a moment: a quarter of eight goes. */
	pool_policy_parked(&policy, 8);
	pool_policy_parked(&policy, 40);
	pool_policy_advance(&policy, 40, dwell_ns);
	assert_int_equal(fill(&policy, dwell_ns), 38);
	/* All were needed: none goes. */
	pool_policy_parked(&policy, 0);
	pool_policy_parked(&policy, 38);
	dwell_ns = pool_policy_next_ns(&policy);
	pool_policy_advance(&policy, 38, dwell_ns);
	assert_int_equal(fill(&policy, dwell_ns), 38);
}

static void does_not_shrink_below_demand(void **state)
{
	struct pool_policy policy = policy_of(0, 100);
	uint64_t now_ns = raised_to(&policy, 10);

	for (unsigned i = 0; i < 20; i++) {
		pool_policy_restored(&policy, 500 * NSEC_PER_MSEC, 1, false, now_ns);
		now_ns = arrive(&policy, 600, 4, now_ns);
		pool_policy_parked(&policy, 50);
		pool_policy_advance(&policy, 50, now_ns);
		assert_true(policy.level >= pool_policy_demand(&policy, now_ns));
	}
	assert_in_range(pool_policy_demand(&policy, now_ns), 5, 12);
}

static void limits_can_change(void **state)
{
	struct pool_policy policy = policy_of(2, 100);

	raised_to(&policy, 40);
	pool_policy_set_limits(&policy, (struct pool_limits){ 0, 10 });
	assert_int_equal(fill(&policy, NSEC_PER_SEC), 10);
	pool_policy_set_limits(&policy, (struct pool_limits){ 20, 30 });
	assert_int_equal(fill(&policy, NSEC_PER_SEC), 20);
	pool_policy_set_limits(&policy, (struct pool_limits){ 0, 0 });
	assert_int_equal(fill(&policy, NSEC_PER_SEC), 0);
	pool_policy_missed(&policy, 3);
	assert_int_equal(fill(&policy, NSEC_PER_SEC), 0);
}

static void yields_step_by_step(void **state)
{
	struct pool_policy policy = policy_of(8, 100);
	unsigned demand;
	uint64_t now_ns;

	raised_to(&policy, 40);
	now_ns = arrive(&policy, 1000, 10, policy.dwell_ns);
	for (unsigned i = 0; i < 50; i++) {
		pool_policy_restored(&policy, NSEC_PER_SEC, 20, true, now_ns);
	}
	demand = pool_policy_demand(&policy, now_ns);
	assert_in_range(demand, 12, 39);

	/* What demand needs stays, but is not replaced above the minimum. */
	pool_policy_squeeze(&policy, 1, false);
	assert_int_equal(pool_policy_keep(&policy, now_ns), demand);
	assert_int_equal(pool_policy_fill(&policy, now_ns), 8);
	/* Without demand it is the minimum. */
	assert_int_equal(pool_policy_keep(&policy, now_ns + 5 * HOUR_NS), 8);

	static const unsigned keep[] = { 8, 4, 2, 1, 0, 0 };

	for (unsigned i = 0; i < ARRAY_SIZE(keep); i++) {
		pool_policy_squeeze(&policy, i + 2, false);
		assert_int_equal(pool_policy_keep(&policy, now_ns), keep[i]);
		assert_int_equal(pool_policy_fill(&policy, now_ns), keep[i]);
	}
	pool_policy_squeeze(&policy, 1000, false);
	assert_int_equal(pool_policy_keep(&policy, now_ns), 0);
	pool_policy_squeeze(&policy, 1, true);
	assert_int_equal(pool_policy_fill(&policy, now_ns), 0);
	assert_int_equal(pool_policy_keep(&policy, now_ns), demand);
	/* That nothing was there is no news. */
	pool_policy_parked(&policy, 0);
	pool_policy_missed(&policy, 60);
	/* Over: what was learned is still known. */
	pool_policy_squeeze(&policy, 0, false);
	assert_int_equal(fill(&policy, now_ns), policy.level);
	assert_int_equal(policy.level, 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(begins_at_its_minimum),
		cmocka_unit_test(fixed_limits_are_a_fixed_stock),
		cmocka_unit_test(rates_see_what_is_and_forget_what_was),
		cmocka_unit_test(demand_follows_rate_and_restores),
		cmocka_unit_test(a_new_snapshot_is_measured_anew),
		cmocka_unit_test(a_miss_raises_by_what_was_lacking),
		cmocka_unit_test(shrinks_gently_after_a_dwell),
		cmocka_unit_test(keeps_what_the_dwell_needed),
		cmocka_unit_test(does_not_shrink_below_demand),
		cmocka_unit_test(limits_can_change),
		cmocka_unit_test(yields_step_by_step),
	};

	return cmocka_run_group_tests_name("pool-policy", tests, NULL, NULL);
}
