/* SPDX-License-Identifier: Apache-2.0 */

/* Steps, dwells and the floor of memory pressure; and the kernel's real trigger. */

#include "pool/pressure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define START_NS (100 * NSEC_PER_SEC)

static void news_are_steps_but_not_all_at_once(void **state)
{
	struct pool_pressure p;
	uint64_t now_ns = START_NS;

	pool_pressure_init(&p, 0);
	assert_null(pool_pressure_reason(&p));
	assert_true(pool_pressure_next_ns(&p) == UINT64_MAX);
	assert_true(pool_pressure_news(&p, "the host", now_ns));
	assert_int_equal(p.step, 1);
	assert_non_null(strstr(pool_pressure_reason(&p), "the host"));
	assert_false(pool_pressure_news(&p, "the host", now_ns + POOL_PRESSURE_STEP_NS - 1));
	assert_int_equal(p.step, 1);
	now_ns += POOL_PRESSURE_STEP_NS;
	assert_true(pool_pressure_news(&p, "the service", now_ns));
	assert_int_equal(p.step, 2);
	assert_non_null(strstr(pool_pressure_reason(&p), "the service"));
	for (unsigned i = 0; i < 100; i++) {
		now_ns += POOL_PRESSURE_STEP_NS;
		pool_pressure_news(&p, "the host", now_ns);
	}
	assert_int_equal(p.step, POOL_PRESSURE_STEPS_MAX);
	pool_pressure_deinit(&p);
}

static void quiet_dwells_take_the_steps_back(void **state)
{
	struct pool_pressure p;
	uint64_t now_ns = START_NS;

	pool_pressure_init(&p, 0);
	pool_pressure_news(&p, "the host", now_ns);
	pool_pressure_news(&p, "the host", now_ns + POOL_PRESSURE_STEP_NS);
	/* News that are no step lengthen the dwell all the same. */
	now_ns += POOL_PRESSURE_STEP_NS + 1;
	pool_pressure_news(&p, "the host", now_ns);
	assert_true(pool_pressure_next_ns(&p) == now_ns + POOL_PRESSURE_DWELL_NS);
	assert_false(pool_pressure_advance(&p, now_ns + POOL_PRESSURE_DWELL_NS - 1));
	for (unsigned step = 2; step > 0; step--) {
		assert_int_equal(p.step, step);
		now_ns = pool_pressure_next_ns(&p);
		assert_true(pool_pressure_advance(&p, now_ns));
	}
	assert_int_equal(p.step, 0);
	assert_null(pool_pressure_reason(&p));
	assert_true(pool_pressure_next_ns(&p) == UINT64_MAX);
	pool_pressure_deinit(&p);
}

static void the_floor_starves_until_there_is_more(void **state)
{
	struct pool_pressure p;
	uint64_t now_ns = START_NS, total;

	pool_pressure_init(&p, 10);
	assert_true(p.floor_bytes > MIB(1));
	total = p.floor_bytes * 10;
	assert_true(total <= (uint64_t)sysconf(_SC_PHYS_PAGES) * 4096 + GIB(1));
	assert_false(pool_pressure_available(&p, p.floor_bytes, now_ns));
	assert_null(pool_pressure_reason(&p));
	assert_true(pool_pressure_available(&p, p.floor_bytes - 1, now_ns));
	assert_true(p.starved);
	assert_int_equal(p.step, 1);
	assert_non_null(strstr(pool_pressure_reason(&p), "the floor is"));
	assert_true(pool_pressure_next_ns(&p) == now_ns + POOL_PRESSURE_LOOK_NS);
	/* No dwell passes meanwhile. */
	assert_false(pool_pressure_advance(&p, now_ns + 2 * POOL_PRESSURE_DWELL_NS));
	/* Still: a step. A little more than the floor is not enough. */
	now_ns += POOL_PRESSURE_LOOK_NS;
	assert_true(pool_pressure_available(&p, p.floor_bytes + 1, now_ns));
	assert_true(p.starved);
	assert_int_equal(p.step, 2);
	now_ns += POOL_PRESSURE_LOOK_NS;
	assert_true(pool_pressure_available(&p, p.floor_bytes * 5 / 4, now_ns));
	assert_false(p.starved);
	assert_int_equal(p.step, 2);
	assert_true(pool_pressure_next_ns(&p) < now_ns + POOL_PRESSURE_DWELL_NS);
	pool_pressure_deinit(&p);
}

static void looks_at_the_real_memory(void **state)
{
	struct pool_pressure all, none, low;

	/* All of it cannot be available: this program has some. */
	pool_pressure_init(&all, 100);
	assert_true(pool_pressure_look(&all, START_NS));
	assert_true(all.starved);
	assert_true(all.available_bytes > 0 && all.available_bytes < all.floor_bytes);
	/* Not again within a moment. */
	assert_false(pool_pressure_look(&all, START_NS + 1));
	pool_pressure_deinit(&all);
	pool_pressure_init(&none, 0);
	assert_false(pool_pressure_look(&none, START_NS));
	assert_int_equal(none.looked_ns, 0);
	pool_pressure_deinit(&none);
	pool_pressure_init(&low, 1);
	low.floor_bytes = 1;
	assert_false(pool_pressure_look(&low, START_NS));
	assert_true(low.looked_ns == START_NS && !low.starved);
	pool_pressure_deinit(&low);
}

static bool changed, closed;

static void on_change(struct pool_pressure *pressure)
{
	changed = true;
}

static void on_closed(struct pool_pressure *pressure)
{
	closed = true;
}

static void the_kernel_takes_the_trigger(void **state)
{
	struct pool_pressure p;
	uv_loop_t loop;

	if (access("/proc/pressure/memory", W_OK) < 0) {
		print_message("# this kernel has no PSI\n");
		skip();
	}
	assert_int_equal(uv_loop_init(&loop), 0);
	pool_pressure_init(&p, 0);
	pool_pressure_start(&p, &loop, on_change);
	assert_true(p.n_open >= 1);
	assert_true(p.watches[0].fd >= 0);
	assert_int_equal(uv_is_active((uv_handle_t *)&p.watches[0].poll), 1);
	/* It keeps no loop running, and says nothing while nothing is short. */
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	assert_true(pool_pressure_stop(&p, on_closed));
	assert_false(closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(closed);
	assert_int_equal(uv_loop_close(&loop), 0);
	pool_pressure_deinit(&p);
}

static void without_watches_there_is_nothing_to_wait_for(void **state)
{
	struct pool_pressure p;

	pool_pressure_init(&p, 5);
	assert_false(pool_pressure_stop(&p, on_closed));
	pool_pressure_deinit(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(news_are_steps_but_not_all_at_once),
		cmocka_unit_test(quiet_dwells_take_the_steps_back),
		cmocka_unit_test(the_floor_starves_until_there_is_more),
		cmocka_unit_test(looks_at_the_real_memory),
		cmocka_unit_test(the_kernel_takes_the_trigger),
		cmocka_unit_test(without_watches_there_is_nothing_to_wait_for),
	};

	return cmocka_run_group_tests_name("pool-pressure", tests, NULL, NULL);
}
