/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Counters of the server, and a histogram of durations.
 *
 * The histogram's buckets are powers of two, each cut into 32: a percentile is at most 1/32 above
 * the true one, in a fixed 15 KiB, and counting is a few instructions.
 */

#include <stdint.h>

#define RPC_HISTOGRAM_STEPS   32
#define RPC_HISTOGRAM_BUCKETS (RPC_HISTOGRAM_STEPS * 60)

/* Zeroed is empty. */
struct rpc_histogram {
	uint64_t count;
	uint64_t max_ns;
	uint64_t buckets[RPC_HISTOGRAM_BUCKETS];
};

void rpc_histogram_add(struct rpc_histogram *histogram, uint64_t ns);
/* The value that `permille` of a thousand do not exceed; 0 when empty. */
uint64_t rpc_histogram_percentile(const struct rpc_histogram *histogram, unsigned permille);
