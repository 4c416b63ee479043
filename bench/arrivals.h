/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Arrivals at random, at a mean rate: the gaps of a Poisson process. */

#include "base/util.h"

#include <math.h>

struct bench_arrivals {
	uint64_t state;
	double mean_ns;
	double due_ns;
};

/* Every run has the same arrivals, so that runs can be compared. */
static inline struct bench_arrivals bench_arrivals(double per_s)
{
	return (struct bench_arrivals){ .mean_ns = (double)NSEC_PER_SEC / per_s };
}

/* When the next one is due, in ns since the start. */
static inline uint64_t bench_arrivals_next(struct bench_arrivals *arrivals)
{
	/* splitmix64 */
	uint64_t x = arrivals->state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	x ^= x >> 31;
	arrivals->due_ns -= log(1.0 - (double)(x >> 11) / 0x1p53) * arrivals->mean_ns;
	return (uint64_t)arrivals->due_ns;
}
