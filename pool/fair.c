/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The queues of those who wait; see pool/fair.h.
 *
 * Lanes are made with their first waiter and freed with their last, so nothing is left
 * of clients that have gone. Only that can fail. Runs on the loop's thread.
 */

#include "pool/fair.h"

#include <assert.h>
#include <errno.h>

struct pool_lane {
	struct base_link bucket;
	struct base_link turn; /* queue->lanes */
	struct base_link waiters;
	struct pool_fair_queue *queue;
	struct pool_tenant *tenant;
};

void pool_fair_init(struct pool_fair *fair, uint64_t now_ns)
{
	fair->n_waiting = 0;
	pool_wheel_init(&fair->deadlines, now_ns);
	for (unsigned i = 0; i < POOL_FAIR_BUCKETS; i++) {
		base_list_init(&fair->lanes[i]);
	}
}

void pool_fair_queue_init(struct pool_fair_queue *queue)
{
	base_list_init(&queue->lanes);
}

/* --- lanes --- */

/* Fibonacci hashing: ids that are near each other go far apart. */
static unsigned bucket_of(uint64_t key)
{
	return (unsigned)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) % POOL_FAIR_BUCKETS;
}

static struct base_link *lane_bucket(struct pool_fair *fair, const struct pool_fair_queue *queue,
				     const struct pool_tenant *tenant)
{
	return &fair->lanes[bucket_of((uintptr_t)queue ^ (uintptr_t)tenant << 16)];
}

static struct pool_lane *lane_find(struct pool_fair *fair, const struct pool_fair_queue *queue,
				   const struct pool_tenant *tenant)
{
	struct base_link *bucket = lane_bucket(fair, queue, tenant);

	BASE_LIST_FOR_EACH(link, bucket)
	{
		struct pool_lane *lane = CONTAINER_OF(link, struct pool_lane, bucket);

		if (lane->queue == queue && lane->tenant == tenant) {
			return lane;
		}
	}
	return NULL;
}

/* The tenant's lane, its turn after all others, or NULL. */
static struct pool_lane *lane_new(struct pool_fair *fair, struct pool_fair_queue *queue,
				  struct pool_tenant *tenant)
{
	struct pool_lane *lane = malloc(sizeof(*lane));

	if (!lane) {
		return NULL;
	}
	lane->queue = queue;
	lane->tenant = tenant;
	base_list_init(&lane->waiters);
	base_list_append(lane_bucket(fair, queue, tenant), &lane->bucket);
	base_list_append(&queue->lanes, &lane->turn);
	return lane;
}

static void lane_free_unused(struct pool_lane *lane)
{
	if (base_list_is_empty(&lane->waiters)) {
		base_list_remove(&lane->bucket);
		base_list_remove(&lane->turn);
		free(lane);
	}
}

/* --- waiters --- */

int pool_fair_add(struct pool_fair *fair, struct pool_fair_queue *queue, struct pool_waiter *waiter,
		  struct pool_tenant *tenant, uint64_t deadline_ns)
{
	struct pool_lane *lane;

	if (tenant->n_waiting >= tenant->config->quotas.queue) {
		return -EDQUOT;
	}
	if (fair->n_waiting >= POOL_WAITERS_MAX) {
		return -ENOSPC;
	}
	lane = lane_find(fair, queue, tenant) ?: lane_new(fair, queue, tenant);
	if (!lane) {
		return -ENOMEM;
	}
	waiter->lane = lane;
	base_list_append(&lane->waiters, &waiter->link);
	pool_wheel_add(&fair->deadlines, &waiter->deadline, deadline_ns);
	tenant->n_waiting++;
	fair->n_waiting++;
	return 0;
}

struct pool_waiter *pool_fair_first(const struct pool_fair_queue *queue)
{
	struct pool_lane *lane;

	if (base_list_is_empty(&queue->lanes)) {
		return NULL;
	}
	lane = CONTAINER_OF(queue->lanes.next, struct pool_lane, turn);
	return CONTAINER_OF(lane->waiters.next, struct pool_waiter, link);
}

/* All but the deadline. */
static void leave(struct pool_fair *fair, struct pool_waiter *waiter)
{
	struct pool_lane *lane = TAKE_PTR(waiter->lane);

	base_list_remove(&waiter->link);
	lane->tenant->n_waiting--;
	fair->n_waiting--;
	lane_free_unused(lane);
}

void pool_fair_remove(struct pool_fair *fair, struct pool_waiter *waiter)
{
	pool_wheel_remove(&fair->deadlines, &waiter->deadline);
	leave(fair, waiter);
}

void pool_fair_serve(struct pool_fair *fair, struct pool_waiter *waiter)
{
	struct pool_lane *lane = waiter->lane;
	struct base_link *lanes = &lane->queue->lanes;

	assert(lanes->next == &lane->turn && lane->waiters.next == &waiter->link);
	base_list_remove(&lane->turn);
	base_list_append(lanes, &lane->turn);
	pool_fair_remove(fair, waiter);
}

struct pool_waiter *pool_fair_expire(struct pool_fair *fair, uint64_t now_ns)
{
	struct pool_wheel_entry *entry = pool_wheel_take_due(&fair->deadlines, now_ns);
	struct pool_waiter *waiter;

	if (!entry) {
		return NULL;
	}
	waiter = CONTAINER_OF(entry, struct pool_waiter, deadline);
	leave(fair, waiter);
	return waiter;
}

uint64_t pool_fair_next_ns(const struct pool_fair *fair)
{
	return pool_wheel_next_ns(&fair->deadlines);
}
