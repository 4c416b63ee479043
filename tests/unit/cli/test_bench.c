/* SPDX-License-Identifier: Apache-2.0 */

/* The views of `warmbox bench`: figures in words, verdicts, CSV, page and curves. */

#include "cli/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void check_figure(json_t *value, const char *unit, const char *wanted)
{
	char buffer[CLI_BENCH_FIGURE_MAX];

	assert_string_equal(cli_bench_figure(buffer, value, unit), wanted);
	json_decref(value);
}

static void says_figures(void **state)
{
	check_figure(json_integer(0), "ns", "0 ns");
	check_figure(json_integer(999), "ns", "999 ns");
	check_figure(json_integer(1000), "ns", "1.00 \xc2\xb5s");
	check_figure(json_integer(47900), "ns", "47.9 \xc2\xb5s");
	check_figure(json_integer(123456789), "ns", "123 ms");
	check_figure(json_real(2.5e9), "ns", "2.50 s");
	check_figure(json_integer(-5000), "ns", "-5.00 \xc2\xb5s");
	check_figure(json_integer(1023), "bytes", "1023 B");
	check_figure(json_integer(2621440), "bytes", "2.50 MiB");
	check_figure(json_real(312.4), "per_s", "312 /s");
	check_figure(json_real(1.784), "ratio", "1.78\xc3\x97");
	check_figure(json_real(61.2), "percent", "61 %");
	check_figure(json_integer(3), "count", "3");
	check_figure(json_real(2.905), "count", "2.90");
	check_figure(json_string("words"), "text", "words");
	check_figure(json_null(), "ns", "\xe2\x80\x93");
}

static json_t *series_of(json_int_t n)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:[[I,I],[I,I]]}",
			 "name", "a, \"b\" <c>", "unit", "ns", "stop_line", "claim returned", "n",
			 n, "failed", (json_int_t)2, "min", (json_int_t)20000, "p50",
			 (json_int_t)30000, "p90", (json_int_t)40000, "p99", (json_int_t)50000,
			 "max", (json_int_t)60000, "histogram", (json_int_t)30000, n - 1,
			 (json_int_t)60000, (json_int_t)1);
}

static void check_percentile(json_int_t n, const char *key, const char *wanted)
{
	json_t *series = series_of(n);
	char buffer[CLI_BENCH_FIGURE_MAX];

	assert_string_equal(cli_bench_percentile(buffer, series, key), wanted);
	json_decref(series);
}

/* Five values must lie beyond one. */
static void holds_back_percentiles_of_few(void **state)
{
	check_percentile(2, "p50", "30.0 \xc2\xb5s");
	check_percentile(49, "p90", "\xe2\x80\x93");
	check_percentile(50, "p90", "40.0 \xc2\xb5s");
	check_percentile(499, "p99", "\xe2\x80\x93");
	check_percentile(500, "p99", "50.0 \xc2\xb5s");
	check_percentile(2, "max", "60.0 \xc2\xb5s");
	check_percentile(0, "max", "\xe2\x80\x93");
}

static void check_verdict(json_t *target, const char *wanted)
{
	assert_non_null(target);
	assert_string_equal(cli_bench_verdict(target), wanted);
	json_decref(target);
}

static void judges_targets(void **state)
{
	check_verdict(json_pack("{s:i, s:i}", "value", 60, "at_most", 60), "met");
	check_verdict(json_pack("{s:f, s:i}", "value", 60.1, "at_most", 60), "not met");
	check_verdict(json_pack("{s:i, s:i}", "value", 300, "at_least", 300), "met");
	check_verdict(json_pack("{s:i, s:i}", "value", 299, "at_least", 300), "not met");
	check_verdict(json_pack("{s:n, s:i}", "value", "at_most", 60), "no figure");
	check_verdict(json_pack("{s:i}", "at_most", 60), "no figure");
}

static json_t *document_of(json_t *result)
{
	return json_pack("{s:s, s:s, s:f, s:{s:s}, s:[s], s:[o]}", "command",
			 "warmbox bench 'a b' <&>", "started", "now", "seconds", 1.5, "host", "cpu",
			 "<cpu>", "warnings", "slow & old", "results", result);
}

static json_t *measured(void)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:f, s:s, s:[o], s:[{s:s, s:s, s:i}], "
			 "s:[{s:s, s:s, s:i, s:i}], s:[{s:s, s:s, s:[{s:s, s:i}]}]}",
			 "bench", "claim", "title", "why?", "template", "t", "status", "measured",
			 "seconds", 1.0, "command", "warmbox bench claim", "series",
			 series_of(1000), "values", "name", "v", "unit", "count", "value", 7,
			 "targets", "name", "goal", "unit", "ns", "value", 5, "at_most", 4,
			 "phases", "name", "bar", "unit", "ns", "parts", "name", "create", "value",
			 300);
}

static char *written(json_t *document, void (*write)(json_t *document, FILE *out))
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(document);
	write(document, out);
	fclose(out);
	json_decref(document);
	return text;
}

static void writes_csv(void **state)
{
	_cleanup_free_ char *text = written(document_of(measured()), cli_bench_write_csv);

	assert_non_null(strstr(text, "\r\nclaim,t,series,\"a, \"\"b\"\" <c>\",claim returned,ns,"
				     "1000,2,20000,,30000,40000,50000,,60000,,,,\r\n"));
	assert_non_null(strstr(text, "\r\nclaim,t,value,v,,count,,,,,,,,,,7,,,\r\n"));
	assert_non_null(strstr(text, "\r\nclaim,t,target,goal,,ns,,,,,,,,,,5,4,,not met\r\n"));
	assert_non_null(strstr(text, "\r\nclaim,t,phase,bar: create,,ns,,,,,,,,,,300,,,\r\n"));
}

static void writes_a_page(void **state)
{
	_cleanup_free_ char *text = written(document_of(measured()), cli_bench_write_html);

	assert_non_null(strstr(text, "a, &quot;b&quot; &lt;c&gt;"));
	assert_non_null(strstr(text, "warmbox bench &#39;a b&#39; &lt;&amp;&gt;"));
	assert_non_null(strstr(text, "slow &amp; old"));
	assert_non_null(strstr(text, "0 of 1 met"));
	assert_non_null(strstr(text, "<svg class=\"chart\""));
	assert_null(strstr(text, "<c>"));
	assert_null(strstr(text, "nan"));
	assert_null(strstr(text, "inf"));
}

static void writes_a_failure(void **state)
{
	json_t *failed = json_pack("{s:s, s:s, s:s, s:s}", "bench", "soak", "title", "why?",
				   "status", "failed", "reason", "it <broke>");
	_cleanup_free_ char *page = written(document_of(json_incref(failed)), cli_bench_write_html);
	_cleanup_free_ char *rows = written(document_of(json_incref(failed)), cli_bench_write_csv);
	_cleanup_free_ char *table = written(failed, cli_bench_print_result);

	assert_non_null(strstr(page, "1 measurement failed"));
	assert_non_null(strstr(page, "it &lt;broke&gt;"));
	assert_non_null(strstr(rows, "soak,,status,failed,,text,,,,,,,,,,it <broke>,,,\r\n"));
	assert_non_null(strstr(table, "failed: it <broke>"));
}

/* A curve goes to the right and never down, and stays inside. */
static void draws_curves(void **state)
{
	json_t *result = json_pack("{s:[o]}", "series", series_of(100));
	_cleanup_free_ char *text = NULL;
	double x, y, last_x = 0, last_y = 1e9;
	size_t size = 0, n = 0;
	FILE *out = open_memstream(&text, &size);
	char *at;
	int used;

	cli_bench_write_curves(result, "first vCPU entry", true, out);
	fflush(out);
	assert_int_equal(size, 0);
	cli_bench_write_curves(result, "claim returned", false, out);
	fclose(out);
	json_decref(result);
	at = strstr(text, "d=\"M");
	assert_non_null(at);
	for (at += 4; sscanf(at, "%lf %lf%n", &x, &y, &used) == 2; at += used + (at[used] == 'L')) {
		assert_true(x >= last_x && y <= last_y);
		assert_true(x > 0 && x < 960 && y > 0 && y < 400);
		last_x = x;
		last_y = y;
		n++;
	}
	assert_int_equal(n, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_figures),	  cmocka_unit_test(holds_back_percentiles_of_few),
		cmocka_unit_test(judges_targets), cmocka_unit_test(writes_csv),
		cmocka_unit_test(writes_a_page),  cmocka_unit_test(writes_a_failure),
		cmocka_unit_test(draws_curves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
