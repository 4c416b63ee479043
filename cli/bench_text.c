/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Figures in words, the tables on the terminal, and CSV. What a program printed is shown as it is:
 * what is absent or null is "–", never 0. Main thread; cannot fail but for output, which whoever
 * closes the file checks.
 */

#include "cli/bench.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define NONE "\xe2\x80\x93"
/* A percentile with fewer values beyond it says more about luck. */
#define BEYOND_LEAST 5.0

const char *cli_bench_text(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static void format_ns(char buffer[CLI_BENCH_FIGURE_MAX], double ns)
{
	static const struct {
		double from, unit;
		const char *name;
	} units[] = { { 1e9, 1e9, "s" }, { 1e6, 1e6, "ms" }, { 1e3, 1e3, "\xc2\xb5s" } };

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (fabs(ns) >= units[i].from) {
			double value = ns / units[i].unit;

			snprintf(buffer, CLI_BENCH_FIGURE_MAX, "%.*f %s",
				 fabs(value) < 10    ? 2
				 : fabs(value) < 100 ? 1
						     : 0,
				 value, units[i].name);
			return;
		}
	}
	snprintf(buffer, CLI_BENCH_FIGURE_MAX, "%.0f ns", ns);
}

static void format_bytes(char buffer[CLI_BENCH_FIGURE_MAX], double bytes)
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	size_t i = 0;

	while (fabs(bytes) >= 1024 && i + 1 < ARRAY_SIZE(names)) {
		bytes /= 1024;
		i++;
	}
	snprintf(buffer, CLI_BENCH_FIGURE_MAX, "%.*f %s",
		 i == 0		     ? 0
		 : fabs(bytes) < 10  ? 2
		 : fabs(bytes) < 100 ? 1
				     : 0,
		 bytes, names[i]);
}

const char *cli_bench_figure(char buffer[CLI_BENCH_FIGURE_MAX], json_t *value, const char *unit)
{
	double number = json_number_value(value);

	if (json_is_string(value)) {
		return json_string_value(value);
	}
	if (!json_is_number(value)) {
		return NONE;
	}
	if (strcmp(unit, "ns") == 0) {
		format_ns(buffer, number);
	} else if (strcmp(unit, "bytes") == 0) {
		format_bytes(buffer, number);
	} else if (strcmp(unit, "per_s") == 0) {
		snprintf(buffer, CLI_BENCH_FIGURE_MAX, "%.*f /s", number < 100 ? 1 : 0, number);
	} else if (strcmp(unit, "ratio") == 0) {
		snprintf(buffer, CLI_BENCH_FIGURE_MAX, "%.2f\xc3\x97", number);
	} else if (strcmp(unit, "percent") == 0) {
		snprintf(buffer, CLI_BENCH_FIGURE_MAX, "%.0f %%", number);
	} else {
		snprintf(buffer, CLI_BENCH_FIGURE_MAX, "%.*f", number == rint(number) ? 0 : 2,
			 number);
	}
	return buffer;
}

const char *cli_bench_percentile(char buffer[CLI_BENCH_FIGURE_MAX], json_t *series, const char *key)
{
	static const struct {
		const char *key;
		double beyond;
	} percentiles[] = { { "p90", 0.1 }, { "p99", 0.01 }, { "p999", 0.001 } };
	double n = (double)json_integer_value(json_object_get(series, "n"));

	if (n == 0) {
		return NONE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(percentiles); i++) {
		if (strcmp(key, percentiles[i].key) == 0 &&
		    n * percentiles[i].beyond < BEYOND_LEAST) {
			return NONE;
		}
	}
	return cli_bench_figure(buffer, json_object_get(series, key),
				cli_bench_text(series, "unit"));
}

const char *cli_bench_verdict(json_t *target)
{
	json_t *value = json_object_get(target, "value");
	json_t *most = json_object_get(target, "at_most");
	json_t *least = json_object_get(target, "at_least");
	bool met = true;

	if (!json_is_number(value)) {
		return "no figure";
	}
	if (json_is_number(most)) {
		met = json_number_value(value) <= json_number_value(most);
	}
	if (json_is_number(least)) {
		met = met && json_number_value(value) >= json_number_value(least);
	}
	return met ? "met" : "not met";
}

/* --- the terminal --- */

/* Characters, not bytes: the table counts bytes. */
static void cell(struct cli_table *table, const char *text)
{
	cli_table_cell(table, "%s", text);
}

static void print_series(json_t *all, FILE *out)
{
	static const char *const header[] = { "LATENCY", "STOP-LINE", "N",     "FAILED", "P50",
					      "P90",	 "P99",	      "P99.9", "MAX" };
	static const char *const keys[] = { "p50", "p90", "p99", "p999", "max" };
	struct cli_table *table = NULL;
	json_t *series;
	size_t i;

	if (cli_table_new(ARRAY_SIZE(header), &table) < 0) {
		return;
	}
	for (i = 0; i < ARRAY_SIZE(header); i++) {
		cell(table, header[i]);
	}
	json_array_foreach(all, i, series)
	{
		char buffer[CLI_BENCH_FIGURE_MAX];
		const char *stop = cli_bench_text(series, "stop_line");

		cell(table, cli_bench_text(series, "name"));
		cell(table, *stop ? stop : NONE);
		cli_table_cell(table, "%" JSON_INTEGER_FORMAT,
			       json_integer_value(json_object_get(series, "n")));
		cli_table_cell(table, "%" JSON_INTEGER_FORMAT,
			       json_integer_value(json_object_get(series, "failed")));
		for (size_t j = 0; j < ARRAY_SIZE(keys); j++) {
			cell(table, cli_bench_percentile(buffer, series, keys[j]));
		}
	}
	cli_table_print(table, out);
	cli_table_free(table);
}

static void print_targets(json_t *targets, FILE *out)
{
	json_t *target;
	size_t i;

	json_array_foreach(targets, i, target)
	{
		char value[CLI_BENCH_FIGURE_MAX], limit[CLI_BENCH_FIGURE_MAX];
		json_t *most = json_object_get(target, "at_most");
		const char *unit = cli_bench_text(target, "unit");

		fprintf(out, "  target %s: %s, is %s: %s\n", cli_bench_text(target, "name"),
			cli_bench_figure(limit, most ?: json_object_get(target, "at_least"), unit),
			cli_bench_figure(value, json_object_get(target, "value"), unit),
			cli_bench_verdict(target));
	}
}

static void print_phases(json_t *phases, FILE *out)
{
	json_t *bar, *part;
	size_t i, j;

	json_array_foreach(phases, i, bar)
	{
		fprintf(out, "  %s:", cli_bench_text(bar, "name"));
		json_array_foreach(json_object_get(bar, "parts"), j, part)
		{
			char value[CLI_BENCH_FIGURE_MAX];

			fprintf(out, "%s %s %s", j ? "," : "", cli_bench_text(part, "name"),
				cli_bench_figure(value, json_object_get(part, "value"), "ns"));
		}
		fprintf(out, "\n");
	}
}

void cli_bench_print_result(json_t *result, FILE *out)
{
	const char *template_name = cli_bench_text(result, "template");
	const char *status = cli_bench_text(result, "status");
	json_t *value, *series = json_object_get(result, "series");
	size_t i;

	fprintf(out, "\n%s%s%s: %s (%.0f s)\n", cli_bench_text(result, "bench"),
		*template_name ? ", " : "", template_name, cli_bench_text(result, "title"),
		json_number_value(json_object_get(result, "seconds")));
	if (strcmp(status, "measured") != 0) {
		fprintf(out, "  %s: %s\n", status, cli_bench_text(result, "reason"));
		return;
	}
	if (json_array_size(series) > 0) {
		print_series(series, out);
	}
	json_array_foreach(json_object_get(result, "values"), i, value)
	{
		char buffer[CLI_BENCH_FIGURE_MAX];

		fprintf(out, "  %s: %s\n", cli_bench_text(value, "name"),
			cli_bench_figure(buffer, json_object_get(value, "value"),
					 cli_bench_text(value, "unit")));
	}
	print_phases(json_object_get(result, "phases"), out);
	print_targets(json_object_get(result, "targets"), out);
}

void cli_bench_print_summary(json_t *document, FILE *out)
{
	size_t met = 0, targets = 0, i, j;
	json_t *result, *target, *warning;

	json_array_foreach(json_object_get(document, "results"), i, result)
	{
		json_array_foreach(json_object_get(result, "targets"), j, target)
		{
			targets++;
			met += strcmp(cli_bench_verdict(target), "met") == 0;
		}
	}
	fprintf(out, "\n%zu of %zu targets met.\n", met, targets);
	json_array_foreach(json_object_get(document, "warnings"), i, warning)
	{
		fprintf(out, "warning: %s\n", json_string_value(warning));
	}
}

/* --- CSV (RFC 4180) --- */

static void csv_text(const char *text, FILE *out)
{
	if (!strpbrk(text, ",\"\r\n")) {
		fputs(text, out);
		return;
	}
	putc('"', out);
	for (; *text; text++) {
		if (*text == '"') {
			putc('"', out);
		}
		putc(*text, out);
	}
	putc('"', out);
}

static void csv_value(json_t *value, FILE *out)
{
	if (json_is_string(value)) {
		csv_text(json_string_value(value), out);
	} else if (json_is_integer(value)) {
		fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	} else if (json_is_real(value)) {
		fprintf(out, "%.9g", json_real_value(value));
	}
}

static void csv_row(json_t *result, const char *kind, json_t *item, FILE *out)
{
	static const char *const keys[] = { "name", "stop_line", "unit",  "n",	     "failed",
					    "min",  "mean",	 "p50",	  "p90",     "p99",
					    "p999", "max",	 "value", "at_most", "at_least" };

	csv_text(cli_bench_text(result, "bench"), out);
	putc(',', out);
	csv_text(cli_bench_text(result, "template"), out);
	fprintf(out, ",%s", kind);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		putc(',', out);
		csv_value(json_object_get(item, keys[i]), out);
	}
	fprintf(out, ",%s\r\n", strcmp(kind, "target") == 0 ? cli_bench_verdict(item) : "");
}

/* The parts of a bar become values named "bar: part". */
static void csv_phases(json_t *result, FILE *out)
{
	json_t *bar, *part;
	size_t i, j;

	json_array_foreach(json_object_get(result, "phases"), i, bar)
	{
		json_array_foreach(json_object_get(bar, "parts"), j, part)
		{
			json_t *row =
				json_pack("{s:o, s:s, s:O}", "name",
					  json_sprintf("%s: %s", cli_bench_text(bar, "name"),
						       cli_bench_text(part, "name")),
					  "unit", "ns", "value", json_object_get(part, "value"));

			csv_row(result, "phase", row, out);
			json_decref(row);
		}
	}
}

void cli_bench_write_csv(json_t *document, FILE *out)
{
	static const struct {
		const char *list, *kind;
	} lists[] = { { "series", "series" }, { "values", "value" }, { "targets", "target" } };
	json_t *result, *item;
	size_t i, j;

	fprintf(out, "bench,template,kind,name,stop_line,unit,n,failed,min,mean,p50,p90,p99,p999,"
		     "max,value,at_most,at_least,verdict\r\n");
	json_array_foreach(json_object_get(document, "results"), i, result)
	{
		for (size_t list = 0; list < ARRAY_SIZE(lists); list++) {
			json_array_foreach(json_object_get(result, lists[list].list), j, item)
			{
				csv_row(result, lists[list].kind, item, out);
			}
		}
		csv_phases(result, out);
		if (strcmp(cli_bench_text(result, "status"), "measured") != 0) {
			json_t *row = json_pack("{s:s, s:s, s:s}", "name",
						cli_bench_text(result, "status"), "unit", "text",
						"value", cli_bench_text(result, "reason"));

			csv_row(result, "status", row, out);
			json_decref(row);
		}
	}
}
