/* SPDX-License-Identifier: Apache-2.0 */

/* The histogram against exact percentiles. */

#include "rpc/stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void test_empty(void **state)
{
	static struct rpc_histogram histogram;

	assert_int_equal(rpc_histogram_percentile(&histogram, 500), 0);
}

static void test_small_values_are_exact(void **state)
{
	static struct rpc_histogram histogram;

	for (uint64_t ns = 0; ns < 20; ns++) {
		rpc_histogram_add(&histogram, ns);
	}
	assert_int_equal(rpc_histogram_percentile(&histogram, 500), 9);
	assert_int_equal(rpc_histogram_percentile(&histogram, 1000), 19);
	assert_int_equal(rpc_histogram_percentile(&histogram, 0), 0);
}

/* 1..n in ns times a scale: the true percentile is known. */
static void test_error_is_bounded(void **state)
{
	static const uint64_t scales[] = { 1, 7, 1000, 33333, 1000000, 10000000000 };

	for (size_t i = 0; i < sizeof(scales) / sizeof(scales[0]); i++) {
		struct rpc_histogram histogram = { 0 };

		for (uint64_t n = 1; n <= 10000; n++) {
			rpc_histogram_add(&histogram, n * scales[i]);
		}
		for (unsigned permille = 1; permille <= 1000; permille += 37) {
			uint64_t wanted = 10 * permille * scales[i];
			uint64_t got = rpc_histogram_percentile(&histogram, permille);

			assert_true(got >= wanted);
			assert_true(got <= wanted + wanted / 32 + 1);
		}
		assert_int_equal(histogram.max_ns, 10000 * scales[i]);
		assert_int_equal(rpc_histogram_percentile(&histogram, 1000), histogram.max_ns);
	}
}

static void test_largest(void **state)
{
	static struct rpc_histogram histogram;

	rpc_histogram_add(&histogram, UINT64_MAX);
	assert_int_equal(histogram.count, 1);
	assert_int_equal(rpc_histogram_percentile(&histogram, 990), UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_small_values_are_exact),
		cmocka_unit_test(test_error_is_bounded),
		cmocka_unit_test(test_largest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
