/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The token bucket of vmm/ratelimit.h.
 *
 * Every intermediate value fits 64 bits: a second has less than 2^30 nanoseconds and nothing here
 * has more than 2^33 tokens (2^34 with a debt). Nothing fails; no lock, no clock of its own.
 */

#include "vmm/ratelimit.h"

#include <assert.h>

_Static_assert(VMM_RATELIMIT_MAX * 2 <= UINT64_MAX / NSEC_PER_SEC - 1, "no overflow");

void vmm_ratelimit_set(struct vmm_ratelimit *limit, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
	assert(rate <= VMM_RATELIMIT_MAX && burst <= VMM_RATELIMIT_MAX);
	*limit = (struct vmm_ratelimit){
		.rate = rate,
		.burst = burst > 0 ? burst : rate,
		.then_ns = now_ns,
	};
	limit->level = (int64_t)limit->burst;
}

/* Lets in what has come since. */
static void fill(struct vmm_ratelimit *limit, uint64_t now_ns)
{
	uint64_t room = (uint64_t)((int64_t)limit->burst - limit->level);
	uint64_t elapsed_ns, seconds, part, gain;

	if (now_ns <= limit->then_ns) {
		return;
	}
	elapsed_ns = now_ns - limit->then_ns;
	limit->then_ns = now_ns;
	seconds = elapsed_ns / NSEC_PER_SEC;
	part = elapsed_ns % NSEC_PER_SEC * limit->rate + limit->fraction;
	/* Of many seconds it is enough to know that they fill the bucket. */
	gain = MIN(seconds, room / limit->rate + 1) * limit->rate + part / NSEC_PER_SEC;
	if (gain >= room) {
		limit->level = (int64_t)limit->burst;
		limit->fraction = 0;
	} else {
		limit->level += (int64_t)gain;
		limit->fraction = part % NSEC_PER_SEC;
	}
}

uint64_t vmm_ratelimit_wait_ns(struct vmm_ratelimit *limit, uint64_t cost, uint64_t now_ns)
{
	int64_t lacking;
	uint64_t seconds, rest;

	if (limit->rate == 0) {
		return 0;
	}
	fill(limit, now_ns);
	lacking = (int64_t)MIN(cost, limit->burst) - limit->level;
	if (lacking <= 0) {
		return 0;
	}
	/* The last of them may need less than a second, but at least a nanosecond. */
	seconds = ((uint64_t)lacking - 1) / limit->rate;
	rest = ((uint64_t)lacking - 1) % limit->rate + 1;
	return seconds * NSEC_PER_SEC +
	       (rest * NSEC_PER_SEC - limit->fraction + limit->rate - 1) / limit->rate;
}

void vmm_ratelimit_take(struct vmm_ratelimit *limit, uint64_t cost)
{
	if (limit->rate > 0) {
		limit->level -= (int64_t)MIN(cost, VMM_RATELIMIT_MAX);
		limit->level = MAX(limit->level, -(int64_t)VMM_RATELIMIT_MAX);
	}
}
