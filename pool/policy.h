/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How many sandboxes of one template to keep parked. Arithmetic only: no loop, no clock, no pool;
 * every call is told the time, which never goes back.
 *
 * The stock is run as a shop runs a shelf: each claim takes one and orders one, which comes a
 * restore later. Whoever finds the shelf empty has to wait, and that is a miss. So the stock has to
 * cover what is claimed while one claim is being made good.
 *
 *   demand   what the measured arrival rate and the measured time to refill make of that: the
 *            claims that are being made good at once, on average, and headroom for their scatter
 *   level    what is aimed at. Rises to demand at once. Rises on a miss by what was lacking: an
 *            averaged rate does not see a burst, a miss does. Falls after a dwell, by a part of
 *            what was parked and not needed in all of it, never below demand
 *   squeeze  how hard memory is wanted elsewhere; takes from the level's effect, not from the level
 *
 * What comes out of it are two figures. Sandboxes are restored up to `fill`, and what is parked
 * above `keep` is ended. They are the same but under a squeeze, when what demand needs is kept
 * while it is there, but not replaced above the minimum. Waiters are nobody's stock: they are
 * served on top of both.
 */

#include <stdbool.h>
#include <stdint.h>

/* The last step of a squeeze that leaves the minimum alone. */
#define POOL_POLICY_LAST_STEP 2

/* The stock is never below min or above max, but for a squeeze. Equal: a fixed stock. */
struct pool_limits {
	unsigned min, max;
};

struct pool_policy {
	struct pool_limits limits;
	unsigned level;

	/* Arrivals a second over the short and the long horizon, as they were at rated_ns. */
	double rates[2];
	uint64_t rated_ns;
	/* Of a restore, from its start to a parked sandbox; and how many get on at once. */
	double restore_s, concurrency;
	bool measured;

	unsigned shelf; /* the most that has been parked at this level: what misses are on top of */
	unsigned idle;	/* the least that has been parked since the dwell began */
	uint64_t dwell_ns; /* when it ends */

	unsigned squeeze;
	bool starved;
};

/* A template that nothing is known of. concurrency (not 0) is the bound on restores at once. */
void pool_policy_init(struct pool_policy *policy, struct pool_limits limits, unsigned concurrency,
		      uint64_t now_ns);

/* min <= max. What was learned stays. */
void pool_policy_set_limits(struct pool_policy *policy, struct pool_limits limits);

/* Another snapshot: its restores take a time of their own. */
void pool_policy_forget_restores(struct pool_policy *policy, unsigned concurrency);

/* Somebody wants a sandbox. Before pool_policy_missed() when there is none. */
void pool_policy_arrived(struct pool_policy *policy, uint64_t now_ns);

/* There was none parked, and one would have helped. n_short, at least 1: how many are lacking now,
 * this one included. */
void pool_policy_missed(struct pool_policy *policy, unsigned n_short);

/* A restore has ended well. n_restoring: how many were under way when it did, it included;
 * busy: more would have been, but for the bound. */
void pool_policy_restored(struct pool_policy *policy, uint64_t took_ns, unsigned n_restoring,
			  bool busy, uint64_t now_ns);

/* So many are parked now. To be told after each change. */
void pool_policy_parked(struct pool_policy *policy, unsigned n_parked);

/* Memory is wanted elsewhere: the number of the step, 0 when that is over (see policy.c).
 * starved: nothing may be restored that nobody waits for. */
void pool_policy_squeeze(struct pool_policy *policy, unsigned step, bool starved);

/* Lets time pass. Changes the figures when a dwell has ended. */
void pool_policy_advance(struct pool_policy *policy, unsigned n_parked, uint64_t now_ns);

/* When pool_policy_advance() can next do something, if nothing else happens; UINT64_MAX: never. */
uint64_t pool_policy_next_ns(const struct pool_policy *policy);

unsigned pool_policy_fill(const struct pool_policy *policy, uint64_t now_ns);
unsigned pool_policy_keep(const struct pool_policy *policy, uint64_t now_ns);

/* The mean time of a restore; 0: none was seen. */
uint64_t pool_policy_restore_ns(const struct pool_policy *policy);

/* Arrivals a second, of the horizon that sees more of them. */
double pool_policy_rate(const struct pool_policy *policy, uint64_t now_ns);
/* What the rate and the restores alone ask for, without limits. */
unsigned pool_policy_demand(const struct pool_policy *policy, uint64_t now_ns);
