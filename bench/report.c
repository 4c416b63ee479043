/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Puts a bench program's object together and prints it. What cannot be added for want of memory
 * makes printing fail. One thread.
 */

#include "bench/report.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct bench_report {
	json_t *object;
	uint64_t n; /* recorded in all series */
	int failed;
};

static void add(struct bench_report *report, const char *list, json_t *value)
{
	json_t *array = json_object_get(report->object, list);

	if (!array) {
		array = json_array();
		report->failed |= json_object_set_new(report->object, list, array) < 0;
	}
	report->failed |= json_array_append_new(array, value) < 0;
}

/* A ratio of nothing is not a number, and JSON has none of those: null. */
static json_t *number(double value)
{
	return !isfinite(value)				    ? json_null()
	       : value == rint(value) && fabs(value) < 1e15 ? json_integer((json_int_t)value)
							    : json_real(value);
}

struct bench_report *bench_report_new(const char *bench, const char *title)
{
	struct bench_report *report = calloc(1, sizeof(*report));

	if (!report) {
		fprintf(stderr, "bench-%s: out of memory\n", bench);
		exit(EXIT_FAILURE);
	}
	report->object = json_pack("{s:s, s:s}", "bench", bench, "title", title);
	report->failed = !report->object;
	return report;
}

static json_t *histogram_buckets(const struct base_histogram *histogram)
{
	json_t *buckets = json_array();

	for (unsigned i = 0; i < BASE_HISTOGRAM_BUCKETS; i++) {
		uint64_t count = histogram->buckets[i];

		if (count > 0) {
			uint64_t end = MIN(base_histogram_bucket_end(i), histogram->max);

			json_array_append_new(
				buckets, json_pack("[I, I]", (json_int_t)end, (json_int_t)count));
		}
	}
	return buckets;
}

void bench_report_series(struct bench_report *report, const char *name, const char *stop_line,
			 const struct base_histogram *histogram, uint64_t failed)
{
	static const struct {
		const char *key;
		uint32_t per_million;
	} percentiles[] = {
		{ "p50", 500000 }, { "p90", 900000 }, { "p99", 990000 }, { "p999", 999000 }
	};
	uint64_t mean = histogram->count ? histogram->sum / histogram->count : 0;
	json_t *series = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "name", name, "unit",
				   BENCH_NS, "n", (json_int_t)histogram->count, "failed",
				   (json_int_t)failed, "min", (json_int_t)histogram->min, "mean",
				   (json_int_t)mean, "max", (json_int_t)histogram->max);

	if (stop_line) {
		json_object_set_new(series, "stop_line", json_string(stop_line));
	}
	for (size_t i = 0; i < ARRAY_SIZE(percentiles); i++) {
		uint64_t value = base_histogram_percentile(histogram, percentiles[i].per_million);

		json_object_set_new(series, percentiles[i].key, json_integer((json_int_t)value));
	}
	report->failed |=
		json_object_set_new(series, "histogram", histogram_buckets(histogram)) < 0;
	report->n += histogram->count;
	add(report, "series", series);
}

void bench_report_value(struct bench_report *report, const char *name, const char *unit,
			double value)
{
	add(report, "values",
	    json_pack("{s:s, s:s, s:o}", "name", name, "unit", unit, "value", number(value)));
}

void bench_report_text(struct bench_report *report, const char *name, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	add(report, "values",
	    json_pack("{s:s, s:s, s:s}", "name", name, "unit", "text", "value", text));
}

void bench_report_phases(struct bench_report *report, const char *name, size_t n,
			 const char *const names[], const double values_ns[])
{
	json_t *parts = json_array();

	for (size_t i = 0; i < n; i++) {
		report->failed |=
			json_array_append_new(parts, json_pack("{s:s, s:o}", "name", names[i],
							       "value", number(values_ns[i]))) < 0;
	}
	add(report, "phases",
	    json_pack("{s:s, s:s, s:o}", "name", name, "unit", BENCH_NS, "parts", parts));
}

static void add_target(struct bench_report *report, const char *name, const char *unit,
		       double value, const char *key, double limit)
{
	add(report, "targets",
	    json_pack("{s:s, s:s, s:o, s:o}", "name", name, "unit", unit, "value", number(value),
		      key, number(limit)));
}

void bench_report_target_at_most(struct bench_report *report, const char *name, const char *unit,
				 double value, double limit)
{
	add_target(report, name, unit, value, "at_most", limit);
}

void bench_report_target_at_least(struct bench_report *report, const char *name, const char *unit,
				  double value, double limit)
{
	add_target(report, name, unit, value, "at_least", limit);
}

void bench_report_note(struct bench_report *report, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	add(report, "notes", json_string(text));
}

static int print(struct bench_report *report, int status)
{
	int failed = report->failed;

	failed |= json_object_set_new(report->object, "n", json_integer((json_int_t)report->n)) < 0;
	failed |= json_dumpf(report->object, stdout, JSON_COMPACT) < 0;
	failed |= putchar('\n') == EOF || fflush(stdout) == EOF;
	json_decref(report->object);
	free(report);
	if (failed) {
		fprintf(stderr, "the report could not be made or written\n");
		return EXIT_FAILURE;
	}
	return status;
}

int bench_report_print(struct bench_report *report)
{
	return print(report, EXIT_SUCCESS);
}

int bench_report_skip(struct bench_report *report, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	report->failed |= json_object_set_new(report->object, "skipped", json_string(text)) < 0;
	return print(report, BENCH_EXIT_SKIPPED);
}
