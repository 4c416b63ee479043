/* SPDX-License-Identifier: Apache-2.0 */

/* A log-linear histogram. One thread. Cannot fail: what is too large goes to the last bucket. */

#include "rpc/stats.h"

#include "base/util.h"

/* Values below 32 have a bucket each; from there on, 32 for each power of two. */
static unsigned bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < RPC_HISTOGRAM_STEPS) {
		return (unsigned)ns;
	}
	shift = 63u - (unsigned)__builtin_clzll(ns) - 5;
	return MIN((shift + 1) * RPC_HISTOGRAM_STEPS +
			   (unsigned)((ns >> shift) & (RPC_HISTOGRAM_STEPS - 1)),
		   RPC_HISTOGRAM_BUCKETS - 1u);
}

/* The largest value of a bucket. */
static uint64_t bucket_end(unsigned bucket)
{
	unsigned shift = bucket / RPC_HISTOGRAM_STEPS;
	uint64_t step = bucket % RPC_HISTOGRAM_STEPS;

	if (shift == 0) {
		return step;
	}
	return ((RPC_HISTOGRAM_STEPS + step + 1) << (shift - 1)) - 1;
}

void rpc_histogram_add(struct rpc_histogram *histogram, uint64_t ns)
{
	histogram->count++;
	histogram->max_ns = MAX(histogram->max_ns, ns);
	histogram->buckets[bucket_of(ns)]++;
}

uint64_t rpc_histogram_percentile(const struct rpc_histogram *histogram, unsigned permille)
{
	uint64_t wanted = (histogram->count * permille + 999) / 1000;
	uint64_t seen = 0;

	if (histogram->count == 0) {
		return 0;
	}
	for (unsigned i = 0; i < RPC_HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= MAX(wanted, UINT64_C(1))) {
			return MIN(bucket_end(i), histogram->max_ns);
		}
	}
	return histogram->max_ns;
}
