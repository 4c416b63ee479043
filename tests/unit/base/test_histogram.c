/* SPDX-License-Identifier: Apache-2.0 */

/* The histogram against exact percentiles. */

#include "base/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 10000

static int setup(void **state)
{
	*state = calloc(2, sizeof(struct base_histogram));
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void test_empty(void **state)
{
	struct base_histogram *histogram = *state;

	assert_int_equal(base_histogram_percentile(histogram, 500000), 0);
	base_histogram_merge(histogram, &histogram[1]);
	assert_int_equal(histogram->count, 0);
	assert_int_equal(histogram->min, 0);
	assert_int_equal(histogram->max, 0);
}

static void test_small_values_are_exact(void **state)
{
	struct base_histogram *histogram = *state;

	for (uint64_t value = 1; value < 2048; value++) {
		base_histogram_add(histogram, value);
	}
	assert_int_equal(base_histogram_percentile(histogram, 0), 1);
	assert_int_equal(base_histogram_percentile(histogram, 500000), 1024);
	assert_int_equal(base_histogram_percentile(histogram, 1000000), 2047);
	assert_int_equal(histogram->min, 1);
	assert_int_equal(histogram->max, 2047);
	assert_int_equal(histogram->sum, 2047 * 2048 / 2);
}

static void check_percentiles(const struct base_histogram *histogram, const uint64_t *sorted,
			      uint64_t n)
{
	for (uint32_t per_million = 1; per_million <= 1000000; per_million += 9973) {
		uint64_t rank = (n * per_million + 999999) / 1000000;
		uint64_t wanted = sorted[rank - 1];
		uint64_t got = base_histogram_percentile(histogram, per_million);

		assert_true(got >= wanted);
		assert_true(got - wanted <= wanted / 1024);
	}
	assert_int_equal(base_histogram_percentile(histogram, 1000000), sorted[n - 1]);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Values over nine powers of ten, in no order. */
static void test_three_digits(void **state)
{
	struct base_histogram *histogram = *state;
	static uint64_t values[N];
	uint64_t seed = 1, scale = 1;

	for (size_t i = 0; i < N; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
		scale = i % 10 == 0 ? 1 : scale * 10;
		values[i] = (seed >> 33) % 900 * scale + (seed >> 40) % scale;
		base_histogram_add(histogram, values[i]);
	}
	qsort(values, N, sizeof(values[0]), compare);
	check_percentiles(histogram, values, N);
	assert_int_equal(histogram->min, values[0]);
	assert_int_equal(histogram->count, N);
}

/* Two that are merged are one that got everything. */
static void test_merge(void **state)
{
	struct base_histogram *histogram = *state, *whole = calloc(1, sizeof(*whole));

	assert_non_null(whole);
	for (uint64_t i = 0; i < N; i++) {
		base_histogram_add(&histogram[i % 3 == 0], i * i);
		base_histogram_add(whole, i * i);
	}
	base_histogram_merge(&histogram[0], &histogram[1]);
	assert_memory_equal(&histogram[0], whole, sizeof(*whole));
	free(whole);
}

/* Every value lies in the bucket whose end is the first that is not below it. */
static void test_bucket_ends(void **state)
{
	struct base_histogram *histogram = *state;

	for (unsigned bucket = 0; bucket < BASE_HISTOGRAM_BUCKETS - 1; bucket++) {
		uint64_t end = base_histogram_bucket_end(bucket);

		assert_true(end < base_histogram_bucket_end(bucket + 1));
		base_histogram_add(histogram, end);
		assert_int_equal(histogram->buckets[bucket], bucket == 0 ? 1 : 2);
		base_histogram_add(histogram, end + 1);
		assert_int_equal(histogram->buckets[bucket + 1], 1);
	}
}

static void test_largest(void **state)
{
	struct base_histogram *histogram = *state;

	base_histogram_add(histogram, UINT64_MAX);
	base_histogram_add(histogram, UINT64_C(1) << 43);
	assert_int_equal(histogram->count, 2);
	assert_int_equal(histogram->buckets[BASE_HISTOGRAM_BUCKETS - 1], 2);
	assert_int_equal(base_histogram_percentile(histogram, 990000), UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_values_are_exact, setup, teardown),
		cmocka_unit_test_setup_teardown(test_three_digits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_merge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bucket_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_largest, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
