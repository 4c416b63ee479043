/* SPDX-License-Identifier: Apache-2.0 */

/* What a bench program prints, read back. */

#include "bench/report.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

/* Runs print with standard output in a file, and reads that. */
static json_t *printed(int (*print)(struct bench_report *report), struct bench_report *report,
		       int want_status)
{
	FILE *file = tmpfile();
	int saved = dup(STDOUT_FILENO);
	json_error_t error;
	json_t *object;
	int status;

	assert_non_null(file);
	assert_true(saved >= 0);
	fflush(stdout);
	assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0);
	status = print(report);
	assert_true(dup2(saved, STDOUT_FILENO) >= 0);
	close(saved);
	assert_int_equal(status, want_status);
	rewind(file);
	object = json_loadf(file, JSON_DISABLE_EOF_CHECK, &error);
	assert_non_null(object);
	fclose(file);
	return object;
}

static json_int_t integer(json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	assert_true(json_is_integer(value));
	return json_integer_value(value);
}

static void test_series(void **state)
{
	struct base_histogram *histogram = calloc(1, sizeof(*histogram));
	struct bench_report *report = bench_report_new("x", "why");
	json_int_t total = 0, last = -1;
	json_t *object, *series, *pair;
	size_t i;

	for (uint64_t ns = 1; ns <= 10000; ns++) {
		base_histogram_add(histogram, ns * 1000);
	}
	bench_report_series(report, "s", BENCH_STOP_CLAIM, histogram, 7);
	object = printed(bench_report_print, report, 0);
	assert_string_equal(json_string_value(json_object_get(object, "bench")), "x");
	assert_int_equal(integer(object, "n"), 10000);
	series = json_array_get(json_object_get(object, "series"), 0);
	assert_int_equal(integer(series, "failed"), 7);
	assert_int_equal(integer(series, "min"), 1000);
	assert_int_equal(integer(series, "max"), 10000000);
	assert_int_equal(integer(series, "mean"), 5000500);
	assert_in_range(integer(series, "p50"), 5000000, 5000000 + 5000000 / 1024);
	assert_in_range(integer(series, "p999"), 9990000, 9990000 + 9990000 / 1024);
	json_array_foreach(json_object_get(series, "histogram"), i, pair)
	{
		assert_true(json_integer_value(json_array_get(pair, 0)) > last);
		last = json_integer_value(json_array_get(pair, 0));
		total += json_integer_value(json_array_get(pair, 1));
	}
	assert_int_equal(total, 10000);
	assert_int_equal(last, 10000000);
	json_decref(object);
	free(histogram);
}

static void test_values(void **state)
{
	struct bench_report *report = bench_report_new("x", "why");
	const char *const names[] = { "create", "load" };
	const double ns[] = { 300000, 200000.5 };
	json_t *object, *values, *targets, *parts;

	bench_report_value(report, "whole", BENCH_COUNT, 3);
	bench_report_value(report, "none", BENCH_RATIO, NAN);
	bench_report_text(report, "words", "%s \"%d\"", "some", 1);
	bench_report_phases(report, "restore", 2, names, ns);
	bench_report_target_at_most(report, "p50", BENCH_NS, 5, 6);
	bench_report_target_at_least(report, "rate", BENCH_PER_S, 5.5, 6);
	bench_report_note(report, "n %d", 2);
	object = printed(bench_report_print, report, 0);
	values = json_object_get(object, "values");
	assert_int_equal(json_array_size(values), 3);
	assert_int_equal(integer(json_array_get(values, 0), "value"), 3);
	assert_true(json_is_null(json_object_get(json_array_get(values, 1), "value")));
	assert_string_equal(json_string_value(json_object_get(json_array_get(values, 2), "value")),
			    "some \"1\"");
	parts = json_object_get(json_array_get(json_object_get(object, "phases"), 0), "parts");
	assert_int_equal(json_array_size(parts), 2);
	assert_int_equal(integer(json_array_get(parts, 0), "value"), 300000);
	targets = json_object_get(object, "targets");
	assert_int_equal(integer(json_array_get(targets, 0), "at_most"), 6);
	assert_int_equal(integer(json_array_get(targets, 1), "at_least"), 6);
	assert_string_equal(json_string_value(json_array_get(json_object_get(object, "notes"), 0)),
			    "n 2");
	json_decref(object);
}

static int print_skip(struct bench_report *report)
{
	return bench_report_skip(report, "no %s", "guest");
}

static void test_skipped(void **state)
{
	json_t *object = printed(print_skip, bench_report_new("x", "why"), BENCH_EXIT_SKIPPED);

	assert_string_equal(json_string_value(json_object_get(object, "skipped")), "no guest");
	json_decref(object);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_series),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_skipped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
