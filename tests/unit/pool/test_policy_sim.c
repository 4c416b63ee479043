/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The policy against arrivals of several kinds, in simulated time. For each trace it says how many
 * missed, how long they waited and what was kept parked for that; beside it a fixed pool that keeps
 * as many parked on average (its size chosen with hindsight), and the least that a pool which knows
 * the future would keep for no miss at all.
 *
 * Seeds are fixed, so the figures are the same each time; the bounds leave room for changes of the
 * policy's constants, not for one of its rules to be missing.
 */

#include "tests/unit/pool/sim.h"

#include "base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Four restores at once, of half a second: a Linux guest on a small host. */
#define CONCURRENCY 4
#define RESTORE_S   0.5
#define LIMITS	    ((struct pool_limits){ .min = 2, .max = 128 })

/* What a parked sandbox is meant to cost (docs/architecture.md). */
#define SANDBOX_MIB 2.5

static struct sim_config config_of(struct pool_limits limits)
{
	return (struct sim_config){
		.limits = limits,
		.concurrency = CONCURRENCY,
		.restore_s = RESTORE_S,
		.sigma = 0.4,
		.seed = 7,
	};
}

/* The smallest fixed pool that keeps as many parked on average, or has no miss. */
static struct sim_result fixed_like(const struct trace *trace, double mean_idle, unsigned *ret_size)
{
	struct sim_result result;
	unsigned low = 0, high = LIMITS.max;

	while (low < high) {
		unsigned middle = (low + high) / 2;
		struct sim_config config = config_of((struct pool_limits){ middle, middle });

		result = sim_run(trace, &config);
		if (result.mean_idle >= mean_idle || result.n_missed == 0) {
			high = middle;
		} else {
			low = middle + 1;
		}
	}

	struct sim_config config = config_of((struct pool_limits){ low, low });

	*ret_size = low;
	return sim_run(trace, &config);
}

struct comparison {
	struct sim_result adaptive, fixed;
	unsigned fixed_size;
	double oracle_idle;
};

static struct comparison compare(struct trace *trace)
{
	struct sim_config config = config_of(LIMITS);
	struct comparison c = { .adaptive = sim_run(trace, &config) };

	c.fixed = fixed_like(trace, c.adaptive.mean_idle, &c.fixed_size);
	c.oracle_idle = sim_oracle_idle(trace, &config);
	print_message("# %-8s %6zu arrivals: missed %6.3f %%, p99 wait %5.3f s, parked %5.2f on "
		      "average (%5.1f MiB), %u at most\n",
		      trace->name, trace->n, c.adaptive.miss_rate * 100, c.adaptive.p99_wait_s,
		      c.adaptive.mean_idle, c.adaptive.mean_idle * SANDBOX_MIB,
		      c.adaptive.max_idle);
	print_message("# %-8s fixed at %u: missed %6.3f %%, p99 wait %5.3f s, parked %5.2f; with "
		      "foresight %.2f\n",
		      "", c.fixed_size, c.fixed.miss_rate * 100, c.fixed.p99_wait_s,
		      c.fixed.mean_idle, c.oracle_idle);
	/* True of every pool, or the simulation is wrong: no miss is not to be had for less. */
	assert_true(c.fixed.n_missed > 0 || c.fixed.mean_idle >= c.oracle_idle);
	assert_true(c.adaptive.max_idle <= LIMITS.max);
	trace_free(trace);
	return c;
}

#define assert_at_most(value, bound)                                                \
	do {                                                                        \
		if ((value) > (bound)) {                                            \
			fail_msg("%s is %g, more than %g", #value, (double)(value), \
				 (double)(bound));                                  \
		}                                                                   \
	} while (0)

/* A quarter of what the restores can do, and five eighths. What is kept is what the fixed pool with
 * hindsight keeps; what little misses is the time of learning and noise. */
static void steady(void **state)
{
	struct trace calm = trace_steady(2, 7200, 1), busy = trace_steady(5, 7200, 1);
	struct comparison c = compare(&calm);

	assert_at_most(c.adaptive.miss_rate, 0.005);
	assert_at_most(c.adaptive.p99_wait_s, 0);
	assert_at_most(c.adaptive.mean_idle, 7);
	c = compare(&busy);
	assert_at_most(c.adaptive.miss_rate, 0.002);
	assert_at_most(c.adaptive.mean_idle, 16);
}

/* The day's high is a hundred times its low: here following pays. */
static void diurnal(void **state)
{
	struct trace trace = trace_diurnal(0.05, 5, 86400, 2);
	struct comparison c = compare(&trace);

	assert_at_most(c.adaptive.miss_rate, 0.002);
	assert_at_most(c.adaptive.miss_rate, c.fixed.miss_rate / 4);
	assert_at_most(c.adaptive.mean_idle, 8);
	assert_at_most(c.adaptive.final_level, 4);
}

/* Bursts at random moments cannot be foreseen, so nobody beats a fixed pool of a size chosen with
 * hindsight; the policy has to find the size by itself and comes near. */
static void burst(void **state)
{
	struct trace trace = trace_bursts(0.2, 300, 20, 40, 6 * 3600, 3);
	struct comparison c = compare(&trace);

	assert_at_most(c.adaptive.miss_rate, 0.13);
	assert_at_most(c.adaptive.miss_rate, 1.6 * c.fixed.miss_rate);
	assert_at_most(c.adaptive.mean_idle, 28);
}

static void on_off(void **state)
{
	struct trace trace = trace_on_off(4, 60, 240, 4 * 3600, 4);
	struct comparison c = compare(&trace);

	assert_at_most(c.adaptive.miss_rate, 0.03);
	assert_at_most(c.adaptive.p99_wait_s, RESTORE_S);
	assert_at_most(c.adaptive.mean_idle, 10);
}

/* Ten at the beginning of each minute: kept over the minute, because the dwell is longer. */
static void periodic(void **state)
{
	struct trace trace = trace_periodic(10, 60, 7200, 5);
	struct comparison c = compare(&trace);

	assert_at_most(c.adaptive.miss_rate, 0.04);
	assert_at_most(c.adaptive.mean_idle, 9);
}

/* Busy for ten minutes, then not wanted for hours: it ends at the minimum, and gets there soon. */
static void idle(void **state)
{
	struct trace trace = trace_spell(4, 600, 4 * 3600, 6);
	struct comparison c = compare(&trace);

	assert_at_most(c.adaptive.miss_rate, 0.01);
	assert_at_most(c.adaptive.mean_idle, LIMITS.min + 1.0);
	assert_int_equal(c.adaptive.final_level, LIMITS.min);
	assert_int_equal(c.adaptive.final_parked, LIMITS.min);
}

/* A template that nobody wants any more holds nothing, if its minimum allows that. */
static void scales_to_zero(void **state)
{
	struct trace trace = trace_spell(4, 600, 4 * 3600, 6);
	struct sim_config config = config_of((struct pool_limits){ .min = 0, .max = 128 });
	struct sim_result result = sim_run(&trace, &config);

	assert_int_equal(result.final_parked, 0);
	assert_at_most(result.miss_rate, 0.01);
	trace_free(&trace);
}

/* The jobs of a build, three builds with a minute between: all at once in places, and the first
 * build finds two sandboxes parked. */
static void recorded(void **state)
{
	struct trace first = trace_read(TRACE_BUILD, 1, 60), all = trace_read(TRACE_BUILD, 3, 60);
	struct comparison once = compare(&first), thrice = compare(&all);

	/* The later builds find what the first has taught. */
	assert_at_most(once.adaptive.miss_rate, 0.3);
	assert_at_most(thrice.adaptive.miss_rate, 0.5 * once.adaptive.miss_rate);
	assert_at_most(thrice.adaptive.mean_idle, 40);
}

/* --- memory wanted elsewhere --- */

#define SQUEEZE_BEGIN_NS (1800 * NSEC_PER_SEC)

static void squeeze_host(void *userdata, struct pool_policy *policy, uint64_t now_ns)
{
	const unsigned *step = userdata;
	bool on = now_ns >= SQUEEZE_BEGIN_NS;

	pool_policy_squeeze(policy, on ? *step : 0, false);
}

/* Half an hour under each step: the further, the less is kept, and nobody waits without
 * end. The first two differ only in how fast they give back. */
static void squeezed(void **state)
{
	double idle[5];

	for (unsigned step = 0; step < ARRAY_SIZE(idle); step++) {
		struct trace trace = trace_on_off(4, 60, 60, 3600, 8);
		struct sim_config config = config_of((struct pool_limits){ .min = 8, .max = 128 });
		struct sim_result result;

		config.before = squeeze_host;
		config.userdata = &step;
		result = sim_run(&trace, &config);
		print_message("# squeezed to step %u: missed %6.3f %%, longest wait %5.3f s, "
			      "parked %5.2f\n",
			      step, result.miss_rate * 100, result.max_wait_s, result.mean_idle);
		idle[step] = result.mean_idle;
		assert_true(step == 0 || idle[step] <= idle[step - 1]);
		assert_at_most(result.max_wait_s, 10);
		trace_free(&trace);
	}
	assert_true(idle[1] < idle[0] && idle[3] < idle[2] && idle[4] < idle[3]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(steady),	  cmocka_unit_test(diurnal),
		cmocka_unit_test(burst),	  cmocka_unit_test(on_off),
		cmocka_unit_test(periodic),	  cmocka_unit_test(idle),
		cmocka_unit_test(scales_to_zero), cmocka_unit_test(recorded),
		cmocka_unit_test(squeezed),
	};

	return cmocka_run_group_tests_name("pool-policy-sim", tests, NULL, NULL);
}
