/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A histogram of durations (or other amounts) with three significant digits.
 *
 * Log-linear: a value below 1024 has a bucket of its own, and from there on every power of two is
 * cut into 1024. So a percentile is at most 1/1024 above the true one, whatever its size; adding is
 * a few instructions and never allocates. Values of 2^43 (2.4 hours in ns) and more share the last
 * bucket. Most of its 274 KiB are never touched; keep it in zeroed memory, not on the stack.
 */

#include <stdint.h>

#define BASE_HISTOGRAM_STEPS   1024
#define BASE_HISTOGRAM_BUCKETS (BASE_HISTOGRAM_STEPS * 34)

/* Zeroed is empty. */
struct base_histogram {
	uint64_t count;
	uint64_t sum;
	uint64_t min, max; /* exact; 0 when empty */
	uint64_t buckets[BASE_HISTOGRAM_BUCKETS];
};

void base_histogram_add(struct base_histogram *histogram, uint64_t value);

/* Adds everything that was added to from. */
void base_histogram_merge(struct base_histogram *histogram, const struct base_histogram *from);

/* The smallest recorded value, rounded up to its bucket's end, that `per_million` of a million
 * values do not exceed (nearest rank); never more than max. 0 when empty. */
uint64_t base_histogram_percentile(const struct base_histogram *histogram, uint32_t per_million);

/* The largest value of a bucket; UINT64_MAX of the last one. */
uint64_t base_histogram_bucket_end(unsigned bucket);
