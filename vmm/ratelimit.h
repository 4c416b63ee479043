/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A token bucket: `rate` tokens a second flow in, `burst` of them are kept at the most, and what is
 * done takes as many as it costs.
 *
 * The arithmetic is exact: fractions of a token are carried along in billionths, so that no rate
 * drifts however often it is asked. What costs more than the bucket holds is let pass when the
 * bucket is full and leaves it in debt, so that the rate holds in the long run.
 *
 * Times are CLOCK_MONOTONIC nanoseconds and are given by the caller; one that lies before the last
 * counts as the last. Whoever owns the bucket locks it.
 */

#include "vmm/control.h"

/* Of a rate, a burst and a cost: with more the arithmetic would leave 64 bits. */
#define VMM_RATELIMIT_MAX VMM_LIMIT_RATE_MAX

struct vmm_ratelimit {
	uint64_t rate; /* 0: no limit */
	uint64_t burst;
	int64_t level;	   /* -VMM_RATELIMIT_MAX to burst */
	uint64_t fraction; /* of a token, in billionths */
	uint64_t then_ns;  /* when the level was true */
};

/* Starts with a full bucket. burst 0: what flows in within a second. Both VMM_RATELIMIT_MAX at the
 * most. */
void vmm_ratelimit_set(struct vmm_ratelimit *limit, uint64_t rate, uint64_t burst, uint64_t now_ns);

/* Nanoseconds until there is enough for what costs so much; 0: now. Takes nothing. With a debt even
 * what costs nothing waits until it is paid. */
uint64_t vmm_ratelimit_wait_ns(struct vmm_ratelimit *limit, uint64_t cost, uint64_t now_ns);

/* Takes the tokens, whether they are there or not. A debt stops growing at VMM_RATELIMIT_MAX. */
void vmm_ratelimit_take(struct vmm_ratelimit *limit, uint64_t cost);
