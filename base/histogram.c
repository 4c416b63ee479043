/* SPDX-License-Identifier: Apache-2.0 */

/* A log-linear histogram. One thread. Cannot fail: what is too large goes to the last bucket. */

#include "base/histogram.h"

#include "base/util.h"

#define STEP_BITS 10

_Static_assert(BASE_HISTOGRAM_STEPS == 1 << STEP_BITS, "the steps of a power of two");

static unsigned bucket_of(uint64_t value)
{
	unsigned shift;

	if (value < BASE_HISTOGRAM_STEPS) {
		return (unsigned)value;
	}
	shift = 63u - (unsigned)__builtin_clzll(value) - STEP_BITS;
	return MIN((shift + 1) * BASE_HISTOGRAM_STEPS +
			   (unsigned)((value >> shift) & (BASE_HISTOGRAM_STEPS - 1)),
		   BASE_HISTOGRAM_BUCKETS - 1u);
}

uint64_t base_histogram_bucket_end(unsigned bucket)
{
	unsigned shift = bucket / BASE_HISTOGRAM_STEPS;
	uint64_t step = bucket % BASE_HISTOGRAM_STEPS;

	if (shift == 0) {
		return step;
	}
	if (bucket >= BASE_HISTOGRAM_BUCKETS - 1) {
		return UINT64_MAX;
	}
	return ((BASE_HISTOGRAM_STEPS + step + 1) << (shift - 1)) - 1;
}

void base_histogram_add(struct base_histogram *histogram, uint64_t value)
{
	histogram->min = histogram->count ? MIN(histogram->min, value) : value;
	histogram->max = MAX(histogram->max, value);
	histogram->sum += value;
	histogram->count++;
	histogram->buckets[bucket_of(value)]++;
}

void base_histogram_merge(struct base_histogram *histogram, const struct base_histogram *from)
{
	if (from->count == 0) {
		return;
	}
	histogram->min = histogram->count ? MIN(histogram->min, from->min) : from->min;
	histogram->max = MAX(histogram->max, from->max);
	histogram->sum += from->sum;
	histogram->count += from->count;
	for (unsigned i = 0; i < BASE_HISTOGRAM_BUCKETS; i++) {
		histogram->buckets[i] += from->buckets[i];
	}
}

/* ceil(count * per_million / 10^6), without overflow. */
static uint64_t rank_of(uint64_t count, uint32_t per_million)
{
	uint64_t rest = count % 1000000 * per_million;

	return count / 1000000 * per_million + (rest + 999999) / 1000000;
}

uint64_t base_histogram_percentile(const struct base_histogram *histogram, uint32_t per_million)
{
	uint64_t rank = MAX(rank_of(histogram->count, per_million), UINT64_C(1));
	uint64_t seen = 0;

	for (unsigned i = 0; i < BASE_HISTOGRAM_BUCKETS && histogram->count > 0; i++) {
		seen += histogram->buckets[i];
		if (seen >= rank) {
			return MIN(base_histogram_bucket_end(i), histogram->max);
		}
	}
	return histogram->max;
}
