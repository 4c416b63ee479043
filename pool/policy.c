/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The policy's arithmetic; pool/policy.h says what it is about.
 *
 * Nothing here fails, blocks or allocates. Figures are doubles, for they are estimates; whatever is
 * compared with a number of sandboxes is an integer.
 */

#include "pool/policy.h"

#include "base/util.h"

#include <assert.h>
#include <math.h>

/*
 * Horizons of the two rates. The short one sees a ramp within a few seconds and yet averages over
 * the tens of arrivals that make a rate worth keeping stock for. The long one remembers through
 * lulls, so that a quiet minute does not lose what a busy quarter of an hour has shown.
 */
static const double horizon_s[2] = { 20, 600 };

/* An arrival less often than this is no demand: a sandbox that is used less than once an hour costs
 * more waiting parked than its client does waiting for a restore. */
#define RATE_MIN (1.0 / 3600)

/* Headroom: so many standard deviations of the number of claims that are being made good. 2.33
 * leaves one claim in a hundred that finds nothing, as far as arrivals are independent. */
#define HEADROOM 2.33

/* Restores are taken to be no busier than this. Nearer to 1 the queue in front of them, and with it
 * the stock, grows without bound with every stray of the estimate, and no stock makes up for
 * restores that are too slow. What a busy hour needs beyond that, its misses say. */
#define UTILIZATION_MAX 0.8

/* Weight of the latest restore in the averages, as in TCP's estimate of the round trip: half of
 * what is known is of the last five. */
#define RESTORE_WEIGHT (1.0 / 8)

/* A restore that nobody has seen yet. Long enough that the first few arrivals make a stock, short
 * enough to be forgotten after a few measurements. */
#define RESTORE_GUESS_S 0.1

/* Longer than a minute, the commonest period of scheduled work: each dwell has one of its bursts in
 * it, so that what that needs is not given away between two of them. */
#define DWELL_NS (120 * NSEC_PER_SEC)

/* Of what a whole dwell did not need, a quarter goes: the level halves in some three dwells, and a
 * burst that comes back after one finds three quarters of what it would need. */
#define SHRINK_DIVISOR 4

/* --- arrivals --- */

/* Each arrival adds 1/horizon, and a sum decays by a factor e in each horizon: the mean of a steady
 * stream of arrivals is its rate. */
static double decayed(const struct pool_policy *policy, unsigned i, uint64_t now_ns)
{
	double passed_s = (double)(now_ns - policy->rated_ns) / NSEC_PER_SEC;

	return policy->rates[i] * exp(-passed_s / horizon_s[i]);
}

double pool_policy_rate(const struct pool_policy *policy, uint64_t now_ns)
{
	return fmax(decayed(policy, 0, now_ns), decayed(policy, 1, now_ns));
}

/* --- demand --- */

/*
 * Claims that are being made good are customers of a queue with `concurrency` servers. Were there
 * servers for all, their number would be Poisson, with the mean rate × restore time, whatever the
 * scatter of the restore times: only their mean is measured. With few servers some wait: the mean
 * of those is Sakasegawa's approximation, and their scatter is about as large as their mean. A
 * claim misses when as many are being made good as there is stock, so the stock is the quantile of
 * that number, plus one. The quantile is the normal one with the first term of Cornish and Fisher
 * for the skewness of a Poisson number, which matters where the mean is below one.
 */
unsigned pool_policy_demand(const struct pool_policy *policy, uint64_t now_ns)
{
	double rate = pool_policy_rate(policy, now_ns);

	if (rate < RATE_MIN) {
		return 0;
	}

	double under_way = rate * policy->restore_s;
	double servers = policy->concurrency;
	double utilization = fmin(under_way / servers, UTILIZATION_MAX);
	double queued = pow(utilization, sqrt(2 * (servers + 1))) / (1 - utilization);
	double deviation = sqrt(under_way + queued * (1 + queued));
	double skewness = (HEADROOM * HEADROOM - 1) / 6;
	double quantile = under_way + queued + HEADROOM * deviation + skewness;

	return quantile < policy->limits.max ? (unsigned)quantile + 1 : policy->limits.max;
}

uint64_t pool_policy_restore_ns(const struct pool_policy *policy)
{
	return policy->measured ? (uint64_t)(policy->restore_s * (double)NSEC_PER_SEC) : 0;
}

/* --- the level --- */

static unsigned clamp(const struct pool_policy *policy, unsigned n)
{
	return MIN(MAX(n, policy->limits.min), policy->limits.max);
}

static void raise_level(struct pool_policy *policy, unsigned level)
{
	policy->level = MAX(policy->level, clamp(policy, level));
}

void pool_policy_init(struct pool_policy *policy, struct pool_limits limits, unsigned concurrency,
		      uint64_t now_ns)
{
	*policy = (struct pool_policy){
		.rated_ns = now_ns,
		.dwell_ns = now_ns + DWELL_NS,
	};
	pool_policy_forget_restores(policy, concurrency);
	pool_policy_set_limits(policy, limits);
}

void pool_policy_set_limits(struct pool_policy *policy, struct pool_limits limits)
{
	assert(limits.min <= limits.max);
	policy->limits = limits;
	policy->level = clamp(policy, policy->level);
	policy->shelf = MIN(policy->shelf, policy->level);
}

void pool_policy_forget_restores(struct pool_policy *policy, unsigned concurrency)
{
	assert(concurrency > 0);
	policy->restore_s = RESTORE_GUESS_S;
	policy->concurrency = concurrency;
	policy->measured = false;
}

void pool_policy_arrived(struct pool_policy *policy, uint64_t now_ns)
{
	for (unsigned i = 0; i < ARRAY_SIZE(horizon_s); i++) {
		policy->rates[i] = decayed(policy, i, now_ns) + 1 / horizon_s[i];
	}
	policy->rated_ns = now_ns;
	raise_level(policy, pool_policy_demand(policy, now_ns));
}

/*
 * Had the shelf held n_short more when it was last not empty, nobody would have had to wait. That
 * is what the level becomes: not a multiple of it, for the next miss would say so again, and what a
 * multiple makes too much of a large burst stays parked for dwells. A miss under a squeeze says how
 * little there was, not how much is wanted.
 */
void pool_policy_missed(struct pool_policy *policy, unsigned n_short)
{
	assert(n_short > 0);
	policy->idle = 0;
	if (policy->squeeze == 0 && !policy->starved) {
		raise_level(policy, policy->shelf + MIN(n_short, policy->limits.max));
	}
}

void pool_policy_restored(struct pool_policy *policy, uint64_t took_ns, unsigned n_restoring,
			  bool busy, uint64_t now_ns)
{
	double took_s = (double)took_ns / NSEC_PER_SEC;

	policy->restore_s =
		policy->measured ? policy->restore_s + RESTORE_WEIGHT * (took_s - policy->restore_s)
				 : took_s;
	policy->measured = true;
	/* One that did not lack room says nothing about how much there is. */
	if (busy) {
		policy->concurrency += RESTORE_WEIGHT * (n_restoring - policy->concurrency);
	}
	raise_level(policy, pool_policy_demand(policy, now_ns));
}

void pool_policy_parked(struct pool_policy *policy, unsigned n_parked)
{
	policy->idle = MIN(policy->idle, n_parked);
	policy->shelf = MIN(MAX(policy->shelf, n_parked), policy->level);
}

/* --- time --- */

void pool_policy_advance(struct pool_policy *policy, unsigned n_parked, uint64_t now_ns)
{
	if (now_ns < policy->dwell_ns) {
		return;
	}

	unsigned idle = MIN(policy->idle, policy->level);
	unsigned level = policy->level - (idle + SHRINK_DIVISOR - 1) / SHRINK_DIVISOR;

	policy->level = clamp(policy, MAX(level, pool_policy_demand(policy, now_ns)));
	policy->shelf = MIN(policy->shelf, policy->level);
	policy->dwell_ns = now_ns + DWELL_NS;
	policy->idle = MIN(n_parked, policy->level);
}

uint64_t pool_policy_next_ns(const struct pool_policy *policy)
{
	return policy->level > policy->limits.min ? policy->dwell_ns : UINT64_MAX;
}

/* --- figures --- */

void pool_policy_squeeze(struct pool_policy *policy, unsigned step, bool starved)
{
	policy->squeeze = step;
	policy->starved = starved;
}

/*
 * Step 1 gives back what demand does not explain: bursts that may come again. Step 2 all above the
 * minimum. Each further one halves that, until nothing is left: a minimum is what somebody wants,
 * and a host that runs out of memory gives nobody anything.
 */
unsigned pool_policy_keep(const struct pool_policy *policy, uint64_t now_ns)
{
	unsigned min = policy->limits.min, beyond;

	switch (policy->squeeze) {
	case 0:
		return policy->level;
	case 1:
		return MIN(policy->level, clamp(policy, pool_policy_demand(policy, now_ns)));
	case POOL_POLICY_LAST_STEP:
		return min;
	default:
		beyond = policy->squeeze - POOL_POLICY_LAST_STEP;
		return beyond < 32 ? min >> beyond : 0;
	}
}

unsigned pool_policy_fill(const struct pool_policy *policy, uint64_t now_ns)
{
	if (policy->starved) {
		return 0;
	}
	return policy->squeeze == 0 ? policy->level
				    : MIN(policy->limits.min, pool_policy_keep(policy, now_ns));
}
