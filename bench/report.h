/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a bench program prints: one JSON object on standard output, which `warmbox bench` collects.
 * The format is described in bench/README.md.
 *
 * A report is filled by one thread. Running out of memory while it is filled is remembered, and
 * bench_report_print() then fails: nothing is lost silently. Text and names are copied.
 */

#include "base/histogram.h"
#include "base/util.h"

#include <stddef.h>

/* Units of values and series. */
#define BENCH_NS      "ns"
#define BENCH_BYTES   "bytes"
#define BENCH_COUNT   "count"
#define BENCH_RATIO   "ratio"
#define BENCH_PER_S   "per_s"
#define BENCH_PERCENT "percent"

/* Where a series' clock stops. Never mix them in one series. */
#define BENCH_STOP_CLAIM "claim returned"
#define BENCH_STOP_ENTRY "first vCPU entry"
#define BENCH_STOP_AGENT "agent replied"
#define BENCH_STOP_EXEC	 "first exec finished"

#define BENCH_EXIT_SKIPPED 77

struct bench_report;

/* bench: the program's name without "bench-". title: the question, in one line. */
struct bench_report *bench_report_new(const char *bench, const char *title);

/* stop_line may be NULL. failed: attempts that gave no figure. An empty histogram is reported too.
 */
void bench_report_series(struct bench_report *report, const char *name, const char *stop_line,
			 const struct base_histogram *histogram, uint64_t failed);
void bench_report_value(struct bench_report *report, const char *name, const char *unit,
			double value);
void bench_report_text(struct bench_report *report, const char *name, const char *format, ...)
	_printf_(3, 4);

/* One bar: n parts that follow each other, in ns. */
void bench_report_phases(struct bench_report *report, const char *name, size_t n,
			 const char *const names[], const double values_ns[]);

/* What the value should be; the reader is shown whether it is. */
void bench_report_target_at_most(struct bench_report *report, const char *name, const char *unit,
				 double value, double limit);
void bench_report_target_at_least(struct bench_report *report, const char *name, const char *unit,
				  double value, double limit);

void bench_report_note(struct bench_report *report, const char *format, ...) _printf_(2, 3);

/* Prints it, frees it, and returns the program's exit status. */
int bench_report_print(struct bench_report *report);

/* Prints why there is nothing to measure here, frees the report, and returns the exit status. */
int bench_report_skip(struct bench_report *report, const char *format, ...) _printf_(2, 3);
