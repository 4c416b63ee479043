/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who waits, and whose turn it is. A queue has a lane for each tenant that waits in it; lanes take
 * turns, one waiter each, and inside a lane it is first come, first served. So a tenant's burst
 * makes that tenant wait, and everybody else no longer than one turn of each other tenant.
 *
 * Queues (one for each template) share the deadlines and the limits of a struct pool_fair. No
 * operation costs more when more wait. Nothing here calls back, or knows what is waited for.
 */

#include "pool/tenant.h"
#include "pool/wheel.h"

/* In all queues together; one more is refused. The default quota of a tenant (POOL_QUOTA_QUEUE)
 * lets four who wait without measure leave nothing to a fifth; fewer cannot. */
#define POOL_WAITERS_MAX 4096

/* Waiters are in the thousands at most, so chains are short. */
#define POOL_FAIR_BUCKETS 1024

struct pool_fair {
	unsigned n_waiting;
	struct pool_wheel deadlines;
	struct base_link lanes[POOL_FAIR_BUCKETS]; /* by queue and tenant */
};

struct pool_fair_queue {
	struct base_link lanes; /* that have waiters; the first is next */
};

/* Embedded in the one that waits. */
struct pool_waiter {
	struct base_link link;
	struct pool_lane *lane;
	struct pool_wheel_entry deadline;
};

void pool_fair_init(struct pool_fair *fair, uint64_t now_ns);
void pool_fair_queue_init(struct pool_fair_queue *queue);

/* Joins the end of the tenant's lane. The tenant is borrowed while the waiter waits. 0; -EDQUOT:
 * the tenant has as many waiting as it may; -ENOSPC: all together have; -ENOMEM. */
int pool_fair_add(struct pool_fair *fair, struct pool_fair_queue *queue, struct pool_waiter *waiter,
		  struct pool_tenant *tenant, uint64_t deadline_ns);

/* Whose turn it is; NULL: nobody waits. */
struct pool_waiter *pool_fair_first(const struct pool_fair_queue *queue);

/* Takes out the one whose turn it is, for it has got what it waited for: the others' turn now. */
void pool_fair_serve(struct pool_fair *fair, struct pool_waiter *waiter);

/* Takes out one that waits, for another reason: its lane's turn is not used up. */
void pool_fair_remove(struct pool_fair *fair, struct pool_waiter *waiter);

/* One whose deadline has passed, taken out; NULL: none. */
struct pool_waiter *pool_fair_expire(struct pool_fair *fair, uint64_t now_ns);
/* When to look again, as pool_wheel_next_ns(). */
uint64_t pool_fair_next_ns(const struct pool_fair *fair);
