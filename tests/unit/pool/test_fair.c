/* SPDX-License-Identifier: Apache-2.0 */

/* Turns, limits and deadlines of those who wait; and random operations against a simple model. */

#include "pool/fair.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NEVER UINT64_MAX

/* One more than the tests' numbers; that one is for UINT64_MAX. */
#define TENANTS_MAX 2000

static struct pool_fair fair;
static struct pool_tenant_config config = { .quotas = { .queue = POOL_QUOTA_QUEUE } };
static struct pool_tenant tenants[TENANTS_MAX + 1];

static struct pool_tenant *tenant_of(uint64_t number)
{
	return &tenants[MIN(number, (uint64_t)TENANTS_MAX)];
}

static int setup(void **state)
{
	pool_fair_init(&fair, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(tenants); i++) {
		tenants[i].config = &config;
	}
	return 0;
}

/* Nothing is left of anybody who waited. */
static int teardown(void **state)
{
	assert_int_equal(fair.n_waiting, 0);
	for (unsigned i = 0; i < POOL_FAIR_BUCKETS; i++) {
		assert_true(base_list_is_empty(&fair.lanes[i]));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(tenants); i++) {
		assert_int_equal(tenants[i].n_waiting, 0);
	}
	for (unsigned i = 0; i < POOL_WHEEL_LEVELS; i++) {
		assert_true(fair.deadlines.occupied[i] == 0);
	}
	return 0;
}

static void add(struct pool_fair_queue *queue, struct pool_waiter *waiter, uint64_t tenant)
{
	assert_int_equal(pool_fair_add(&fair, queue, waiter, tenant_of(tenant), NEVER), 0);
}

static struct pool_waiter *serve(struct pool_fair_queue *queue)
{
	struct pool_waiter *waiter = pool_fair_first(queue);

	if (waiter) {
		pool_fair_serve(&fair, waiter);
	}
	return waiter;
}

static void one_tenant_is_first_come_first_served(void **state)
{
	struct pool_fair_queue queue;
	struct pool_waiter w[100];

	pool_fair_queue_init(&queue);
	assert_null(pool_fair_first(&queue));
	for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
		add(&queue, &w[i], 1000);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
		assert_ptr_equal(serve(&queue), &w[i]);
	}
	assert_null(serve(&queue));
}

static void tenants_take_turns(void **state)
{
	struct pool_fair_queue queue;
	struct pool_waiter a[6], b[2], c[1], late;
	struct pool_waiter *const order[] = { &a[0], &b[0], &c[0], &a[1], &b[1],
					      &a[2], &late, &a[3], &a[4], &a[5] };

	pool_fair_queue_init(&queue);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		add(&queue, &a[i], 0);
	}
	add(&queue, &b[0], 1);
	add(&queue, &b[1], 1);
	add(&queue, &c[0], UINT64_MAX);
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		if (i == 5) {
			/* A new one waits one turn, not behind all of the burst. */
			add(&queue, &late, 7);
		}
		assert_ptr_equal(serve(&queue), order[i]);
	}
	assert_null(serve(&queue));
}

/* A thousand of one tenant came first, then one each of fifty: all of these are among the first
 * hundred that are served. */
static void a_burst_starves_nobody(void **state)
{
	static struct pool_waiter burst[1000], single[50];
	struct pool_fair_queue queue;
	unsigned position[ARRAY_SIZE(single)] = { 0 }, n = 0;

	pool_fair_queue_init(&queue);
	for (unsigned i = 0; i < ARRAY_SIZE(burst); i++) {
		add(&queue, &burst[i], 33);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(single); i++) {
		add(&queue, &single[i], 100 + i);
	}
	for (struct pool_waiter *waiter; (waiter = serve(&queue)); n++) {
		if (waiter >= single && waiter < single + ARRAY_SIZE(single)) {
			position[waiter - single] = n;
		}
	}
	assert_int_equal(n, ARRAY_SIZE(burst) + ARRAY_SIZE(single));
	for (unsigned i = 0; i < ARRAY_SIZE(single); i++) {
		assert_int_equal(position[i], i + 1);
	}
}

static void giving_up_does_not_use_up_the_turn(void **state)
{
	struct pool_fair_queue queue;
	struct pool_waiter a[3], b[3];

	pool_fair_queue_init(&queue);
	for (unsigned i = 0; i < ARRAY_SIZE(a); i++) {
		add(&queue, &a[i], 1);
		add(&queue, &b[i], 2);
	}
	pool_fair_remove(&fair, &a[0]);
	assert_ptr_equal(serve(&queue), &a[1]);
	pool_fair_remove(&fair, &a[2]);
	assert_ptr_equal(serve(&queue), &b[0]);
	assert_ptr_equal(serve(&queue), &b[1]);
	pool_fair_remove(&fair, &b[2]);
	assert_null(serve(&queue));
}

static void queues_do_not_mix(void **state)
{
	struct pool_fair_queue x, y;
	struct pool_waiter a[2], b[2];

	pool_fair_queue_init(&x);
	pool_fair_queue_init(&y);
	add(&x, &a[0], 1);
	add(&y, &b[0], 1);
	add(&y, &b[1], 1);
	add(&x, &a[1], 1);
	assert_ptr_equal(serve(&y), &b[0]);
	assert_ptr_equal(serve(&y), &b[1]);
	assert_null(serve(&y));
	assert_ptr_equal(serve(&x), &a[0]);
	assert_ptr_equal(serve(&x), &a[1]);
}

static void limits_hold(void **state)
{
	static struct pool_waiter w[POOL_WAITERS_MAX], more;
	struct pool_fair_queue x, y;

	pool_fair_queue_init(&x);
	pool_fair_queue_init(&y);
	/* A tenant's limit is over all queues. */
	for (unsigned i = 0; i < POOL_QUOTA_QUEUE; i++) {
		add(i % 2 ? &x : &y, &w[i], 0);
	}
	assert_int_equal(pool_fair_add(&fair, &x, &more, tenant_of(0), NEVER), -EDQUOT);
	assert_int_equal(pool_fair_add(&fair, &x, &more, tenant_of(1), NEVER), 0);
	pool_fair_remove(&fair, &more);
	for (unsigned i = POOL_QUOTA_QUEUE; i < POOL_WAITERS_MAX; i++) {
		add(&x, &w[i], i % 100 + 1);
	}
	assert_int_equal(pool_fair_add(&fair, &x, &more, tenant_of(1000), NEVER), -ENOSPC);
	assert_int_equal(pool_fair_add(&fair, &x, &more, tenant_of(0), NEVER), -EDQUOT);
	/* Both recover. */
	pool_fair_remove(&fair, &w[0]);
	add(&y, &w[0], 0);
	while (serve(&x) || serve(&y)) {
	}
}

static void deadlines_are_exact(void **state)
{
	static const uint64_t at_ns[] = { 1,	      999999,	    1000000,	   1000001,
					  63999999,   64000000,	    64000001,	   4096000000,
					  4095000001, 262144000000, 86400000000000 };
	struct pool_fair_queue queue;
	struct pool_waiter w[ARRAY_SIZE(at_ns)];

	pool_fair_queue_init(&queue);
	for (unsigned i = 0; i < ARRAY_SIZE(at_ns); i++) {
		assert_int_equal(pool_fair_add(&fair, &queue, &w[i], tenant_of(i), at_ns[i]), 0);
	}

	unsigned n = 0, wakes = 0;

	for (uint64_t now_ns; (now_ns = pool_fair_next_ns(&fair)) != UINT64_MAX; wakes++) {
		for (struct pool_waiter *waiter; (waiter = pool_fair_expire(&fair, now_ns)); n++) {
			uint64_t late_ns = now_ns - at_ns[waiter - w];

			/* Not before, and at the next millisecond. */
			assert_true(late_ns < NSEC_PER_MSEC);
		}
		assert_true(wakes < 100);
	}
	assert_int_equal(n, ARRAY_SIZE(at_ns));
	assert_null(pool_fair_first(&queue));
}

/* --- random operations --- */

#define QUEUES	3
#define TENANTS 9
#define WAITERS 300
#define ROUNDS	200000

struct model {
	bool waits;
	unsigned queue, tenant;
	uint64_t deadline_ns, joined; /* joined: a counter */
};

static struct model model[WAITERS];
static struct pool_waiter waiters[WAITERS];
static struct pool_fair_queue queues[QUEUES];
/* When each lane was served last, or came to be: the least recent is next. */
static uint64_t turn[QUEUES][TENANTS];
static uint64_t counter;

static unsigned lane_size(unsigned queue, unsigned tenant)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WAITERS; i++) {
		n += model[i].waits && model[i].queue == queue && model[i].tenant == tenant;
	}
	return n;
}

static int model_first(unsigned queue)
{
	unsigned tenant = TENANTS;
	int first = -1;

	for (unsigned t = 0; t < TENANTS; t++) {
		if (lane_size(queue, t) > 0 &&
		    (tenant == TENANTS || turn[queue][t] < turn[queue][tenant])) {
			tenant = t;
		}
	}
	for (unsigned i = 0; i < WAITERS; i++) {
		if (model[i].waits && model[i].queue == queue && model[i].tenant == tenant &&
		    (first < 0 || model[i].joined < model[first].joined)) {
			first = (int)i;
		}
	}
	return first;
}

static void join(unsigned i, uint64_t now_ns)
{
	struct model *m = &model[i];
	uint64_t delay_ns = (uint64_t)random() % (UINT64_C(1) << (random() % 40));

	m->queue = (unsigned)random() % QUEUES;
	/* The first tenant is the one with the bursts. */
	m->tenant = random() % 2 ? 0 : (unsigned)random() % TENANTS;
	m->deadline_ns = now_ns + delay_ns;
	m->joined = ++counter;
	if (lane_size(m->queue, m->tenant) == 0) {
		turn[m->queue][m->tenant] = ++counter;
	}
	m->waits = true;
	assert_int_equal(pool_fair_add(&fair, &queues[m->queue], &waiters[i], tenant_of(m->tenant),
				       m->deadline_ns),
			 0);
}

static void serve_one(unsigned queue)
{
	struct pool_waiter *waiter = pool_fair_first(&queues[queue]);
	int expected = model_first(queue);

	if (expected < 0) {
		assert_null(waiter);
		return;
	}
	assert_ptr_equal(waiter, &waiters[expected]);
	pool_fair_serve(&fair, waiter);
	model[expected].waits = false;
	turn[queue][model[expected].tenant] = ++counter;
}

static void expire_all(uint64_t now_ns)
{
	for (struct pool_waiter *waiter; (waiter = pool_fair_expire(&fair, now_ns));) {
		struct model *m = &model[waiter - waiters];

		assert_true(m->waits);
		assert_true(m->deadline_ns <= now_ns);
		m->waits = false;
	}
	/* Who asks when told to does not ask again and again. */
	assert_true(pool_fair_next_ns(&fair) > now_ns);
	for (unsigned i = 0; i < WAITERS; i++) {
		/* Rounded up to a millisecond. */
		assert_true(!model[i].waits || model[i].deadline_ns + NSEC_PER_MSEC > now_ns);
		assert_true(!model[i].waits ||
			    pool_fair_next_ns(&fair) < model[i].deadline_ns + NSEC_PER_MSEC);
	}
}

static void random_operations_agree_with_the_model(void **state)
{
	uint64_t now_ns = 0;
	unsigned n_waiting = 0;

	srandom(42);
	for (unsigned i = 0; i < QUEUES; i++) {
		pool_fair_queue_init(&queues[i]);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned i = (unsigned)random() % WAITERS;

		switch (random() % 8) {
		case 0 ... 3:
			if (!model[i].waits) {
				join(i, now_ns);
			}
			break;
		case 4 ... 5:
			serve_one((unsigned)random() % QUEUES);
			break;
		case 6:
			if (model[i].waits) {
				pool_fair_remove(&fair, &waiters[i]);
				model[i].waits = false;
			}
			break;
		case 7:
			now_ns += (uint64_t)random() % (UINT64_C(1) << (random() % 30));
			expire_all(now_ns);
			break;
		}
	}
	for (unsigned i = 0; i < WAITERS; i++) {
		n_waiting += model[i].waits;
	}
	assert_int_equal(fair.n_waiting, n_waiting);
	assert_true(n_waiting > 0);
	expire_all(now_ns + (UINT64_C(1) << 41));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_tenant_is_first_come_first_served, setup,
						teardown),
		cmocka_unit_test_setup_teardown(tenants_take_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(a_burst_starves_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(giving_up_does_not_use_up_the_turn, setup,
						teardown),
		cmocka_unit_test_setup_teardown(queues_do_not_mix, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_hold, setup, teardown),
		cmocka_unit_test_setup_teardown(deadlines_are_exact, setup, teardown),
		cmocka_unit_test_setup_teardown(random_operations_agree_with_the_model, setup,
						teardown),
	};

	return cmocka_run_group_tests_name("pool-fair", tests, NULL, NULL);
}
