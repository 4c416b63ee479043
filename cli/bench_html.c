/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The page: one file, no script, nothing fetched. It begins with what a reader wants first, which
 * targets are met, and then has a section for each measurement, what the host is, and how to read
 * and repeat it. All text from programs and from the host is escaped. Main thread; output errors
 * are found by whoever closes the file.
 */

#include "cli/bench.h"

#include <string.h>

static const char style[] =
	":root{color-scheme:light dark;--bg:#fff;--fg:#1a1c20;--muted:#5f6672;--line:#d9dde3;"
	"--card:#f6f7f9;--ok:#176f3a;--okbg:#e2f4e8;--bad:#a11622;--badbg:#fbe6e7;--warn:#fff5d6;"
	"--k0:#1f66d1;--k1:#c2410c;--k2:#15803d;--k3:#8b2fc9;--k4:#b8860b;--k5:#0e7490;--k6:#"
	"be185d;"
	"--k7:#525a66}"
	"@media(prefers-color-scheme:dark){:root{--bg:#14161a;--fg:#e6e8ec;--muted:#9aa2ae;"
	"--line:#343a43;--card:#1c1f25;--ok:#7fd69b;--okbg:#173324;--bad:#ff9aa2;--badbg:#3d191d;"
	"--warn:#3a3114;--k0:#6ea8ff;--k1:#ff9a62;--k2:#62d08a;--k3:#c79bff;--k4:#e8c25a;"
	"--k5:#5cc8dd;--k6:#ff8ac0;--k7:#aab2be}}"
	"*{box-sizing:border-box}"
	"body{margin:0;background:var(--bg);color:var(--fg);"
	"font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif}"
	"main{max-width:1080px;margin:0 auto;padding:24px 20px 80px}"
	"h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3em}h2{font-size:1.35rem;margin:2.4em 0 "
	".3em;"
	"padding-top:.8em;border-top:1px solid var(--line)}h3{font-size:1rem;margin:1.6em 0 .4em}"
	"p{margin:.5em 0}.muted{color:var(--muted)}.lead{font-size:1.05rem}"
	"code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
	"pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px "
	"12px;"
	"overflow-x:auto;margin:.6em 0;white-space:pre-wrap;overflow-wrap:anywhere}"
	"table.short{width:auto;min-width:50%}.scroll{overflow-x:auto}table{border-collapse:"
	"collapse;width:100%;font-size:.9rem}"
	"th{text-align:left;font-weight:600;color:var(--muted);white-space:nowrap}"
	"th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}"
	"td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
	"td.name{min-width:11em}td.fail{color:var(--bad);font-weight:600}"
	".chip{display:inline-block;padding:1px 9px;border-radius:99px;font-size:.82rem;"
	"font-weight:600;white-space:nowrap}.met{color:var(--ok);background:var(--okbg)}"
	".not{color:var(--bad);background:var(--badbg)}.none{color:var(--muted);background:var(--"
	"card)}"
	".box{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px "
	"16px;"
	"margin:1em 0}.warn{background:var(--warn)}.box ul{margin:.3em 0;padding-left:1.2em}"
	".big{font-size:1.5rem;font-weight:650}"
	"figure{margin:1.2em 0}figcaption{font-size:.92rem;margin-bottom:.3em}"
	"svg.chart{display:block;width:100%;min-width:640px;height:auto}"
	".grid{stroke:var(--line);stroke-width:1}.thin{stroke-width:.5;stroke-dasharray:2 3}"
	".tick{fill:var(--muted);font-size:12px}.label{fill:var(--fg);font-size:13px}"
	".curve{fill:none;stroke-width:2;stroke-linejoin:round}.rest{stroke-dasharray:6 4}"
	".legend{list-style:none;margin:.4em 0;padding:0;display:flex;flex-wrap:wrap;gap:2px 22px;"
	"font-size:.88rem}.legend svg{vertical-align:middle}"
	".bar{display:flex;height:26px;border-radius:4px;overflow:hidden;min-width:1px}"
	".bar span{display:block;min-width:1px}.swatch{display:inline-block;width:11px;height:11px;"
	"border-radius:2px;margin-right:5px}"
	".cols{columns:2;column-gap:40px}.cols>*{break-inside:avoid}"
	"nav{display:flex;flex-wrap:wrap;gap:4px 16px}a{color:var(--k0)}"
	"@media(max-width:640px){main{padding:16px 14px 60px}.cols{columns:1}h1{font-size:1.5rem}}"
	"@media print{.scroll{overflow:visible}svg.chart{min-width:0}}";

void cli_bench_write_escaped(const char *text, FILE *out)
{
	for (; *text; text++) {
		switch (*text) {
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '&':
			fputs("&amp;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		case '\'':
			fputs("&#39;", out);
			break;
		default:
			putc(*text, out);
		}
	}
}

static void text_of(json_t *object, const char *key, FILE *out)
{
	cli_bench_write_escaped(cli_bench_text(object, key), out);
}

static void write_figure(json_t *value, const char *unit, FILE *out)
{
	char buffer[CLI_BENCH_FIGURE_MAX];

	cli_bench_write_escaped(cli_bench_figure(buffer, value, unit), out);
}

static void write_title(json_t *result, FILE *out)
{
	text_of(result, "bench", out);
	if (*cli_bench_text(result, "template")) {
		fprintf(out, ", ");
		text_of(result, "template", out);
	}
}

/* --- targets --- */

static void write_verdict(json_t *target, FILE *out)
{
	const char *verdict = cli_bench_verdict(target);

	fprintf(out, "<span class=\"chip %s\">%s</span>",
		strcmp(verdict, "met") == 0	  ? "met"
		: strcmp(verdict, "not met") == 0 ? "not"
						  : "none",
		verdict);
}

static void write_target_cells(json_t *target, FILE *out)
{
	json_t *most = json_object_get(target, "at_most");
	const char *unit = cli_bench_text(target, "unit");

	fprintf(out, "<td class=\"name\">");
	text_of(target, "name", out);
	fprintf(out, "</td><td class=\"n\">%s ", most ? "at most" : "at least");
	write_figure(most ?: json_object_get(target, "at_least"), unit, out);
	fprintf(out, "</td><td class=\"n\">");
	write_figure(json_object_get(target, "value"), unit, out);
	fprintf(out, "</td></tr>\n");
}

static void write_all_targets(json_t *document, FILE *out)
{
	json_t *result, *target;
	size_t i, j, met = 0, n = 0, failed = 0;

	json_array_foreach(json_object_get(document, "results"), i, result)
	{
		failed += strcmp(cli_bench_text(result, "status"), "failed") == 0;
		json_array_foreach(json_object_get(result, "targets"), j, target)
		{
			n++;
			met += strcmp(cli_bench_verdict(target), "met") == 0;
		}
	}
	fprintf(out, "<h2 id=\"targets\">Targets</h2>\n");
	fprintf(out, "<p><span class=\"big\">%zu of %zu met</span>", met, n);
	if (failed > 0) {
		fprintf(out, " <span class=\"chip not\">%zu measurement%s failed</span>", failed,
			failed == 1 ? "" : "s");
	}
	fprintf(out, "</p>\n");
	if (n == 0) {
		return;
	}
	fprintf(out, "<div class=\"scroll\"><table><tr><th></th><th>measurement</th><th>target</th>"
		     "<th class=\"n\">should be</th><th class=\"n\">measured</th></tr>\n");
	json_array_foreach(json_object_get(document, "results"), i, result)
	{
		json_array_foreach(json_object_get(result, "targets"), j, target)
		{
			fprintf(out, "<tr><td>");
			write_verdict(target, out);
			fprintf(out, "</td><td><a href=\"#r%zu\">", i);
			write_title(result, out);
			fprintf(out, "</a></td>");
			write_target_cells(target, out);
		}
	}
	fprintf(out, "</table></div>\n");
}

/* --- one measurement --- */

static void write_series_row(json_t *series, FILE *out)
{
	static const char *const keys[] = { "p50", "p90", "p99", "p999", "max" };
	json_int_t failed = json_integer_value(json_object_get(series, "failed"));
	const char *stop = cli_bench_text(series, "stop_line");

	fprintf(out, "<tr><td>");
	text_of(series, "name", out);
	fprintf(out, "</td><td>");
	cli_bench_write_escaped(*stop ? stop : "\xe2\x80\x93", out);
	fprintf(out,
		"</td><td class=\"n\">%" JSON_INTEGER_FORMAT
		"</td><td class=\"n%s\">%" JSON_INTEGER_FORMAT "</td>",
		json_integer_value(json_object_get(series, "n")), failed ? " fail" : "", failed);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		char buffer[CLI_BENCH_FIGURE_MAX];

		fprintf(out, "<td class=\"n\">");
		cli_bench_write_escaped(cli_bench_percentile(buffer, series, keys[i]), out);
		fprintf(out, "</td>");
	}
	fprintf(out, "</tr>\n");
}

static void write_series(json_t *result, FILE *out)
{
	json_t *series, *all = json_object_get(result, "series");
	const char *seen[8];
	size_t i, n_seen = 0;
	bool first = true;

	if (json_array_size(all) == 0) {
		return;
	}
	json_array_foreach(all, i, series)
	{
		const char *stop = cli_bench_text(series, "stop_line");
		size_t j = 0;

		while (j < n_seen && strcmp(seen[j], stop) != 0) {
			j++;
		}
		if (*stop && j == n_seen && n_seen < ARRAY_SIZE(seen)) {
			seen[n_seen++] = stop;
			cli_bench_write_curves(result, stop, first, out);
			first = false;
		}
	}
	if (first) {
		cli_bench_write_curves(result, "", true, out);
	}
	fprintf(out, "<div class=\"scroll\"><table><tr><th>latency</th><th>until</th>"
		     "<th class=\"n\">n</th><th class=\"n\">failed</th><th class=\"n\">p50</th>"
		     "<th class=\"n\">p90</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th>"
		     "<th class=\"n\">max</th></tr>\n");
	json_array_foreach(all, i, series)
	{
		write_series_row(series, out);
	}
	fprintf(out, "</table></div>\n");
}

static double total_of(json_t *bar)
{
	double total = 0;
	json_t *part;
	size_t i;

	json_array_foreach(json_object_get(bar, "parts"), i, part)
	{
		total += json_number_value(json_object_get(part, "value"));
	}
	return total;
}

static void write_bar(json_t *bar, double longest, FILE *out)
{
	double total = total_of(bar);
	json_t *part, *sum = json_real(total);
	size_t i;

	fprintf(out, "<h3>");
	text_of(bar, "name", out);
	fprintf(out, ": ");
	write_figure(sum, "ns", out);
	fprintf(out, "</h3><div class=\"bar\" style=\"width:%.2f%%\">",
		longest > 0 ? 100 * total / longest : 0);
	json_array_foreach(json_object_get(bar, "parts"), i, part)
	{
		double value = json_number_value(json_object_get(part, "value"));

		fprintf(out, "<span class=\"b%zu\" style=\"width:%.2f%%\" title=\"",
			i % CLI_BENCH_COLOURS, total > 0 ? 100 * value / total : 0);
		text_of(part, "name", out);
		fprintf(out, "\"></span>");
	}
	fprintf(out, "</div><ul class=\"legend\">");
	json_array_foreach(json_object_get(bar, "parts"), i, part)
	{
		fprintf(out, "<li><span class=\"swatch b%zu\"></span>", i % CLI_BENCH_COLOURS);
		text_of(part, "name", out);
		fprintf(out, " <span class=\"muted\">");
		write_figure(json_object_get(part, "value"), "ns", out);
		fprintf(out, "</span></li>");
	}
	fprintf(out, "</ul>\n");
	json_decref(sum);
}

static void write_phases(json_t *result, FILE *out)
{
	json_t *bar, *bars = json_object_get(result, "phases");
	double longest = 0;
	size_t i;

	json_array_foreach(bars, i, bar)
	{
		longest = MAX(longest, total_of(bar));
	}
	json_array_foreach(bars, i, bar)
	{
		write_bar(bar, longest, out);
	}
	if (i > 0) {
		fprintf(out, "<p class=\"muted\">Bars are on one scale.</p>\n");
	}
}

static void write_values(json_t *result, FILE *out)
{
	json_t *value, *values = json_object_get(result, "values");
	size_t i;

	if (json_array_size(values) == 0) {
		return;
	}
	fprintf(out, "<h3>Figures</h3><div class=\"scroll\"><table class=\"short\">");
	json_array_foreach(values, i, value)
	{
		fprintf(out, "<tr><td>");
		text_of(value, "name", out);
		fprintf(out, "</td><td class=\"n\">");
		write_figure(json_object_get(value, "value"), cli_bench_text(value, "unit"), out);
		fprintf(out, "</td></tr>\n");
	}
	fprintf(out, "</table></div>\n");
}

static void write_notes(json_t *result, FILE *out)
{
	json_t *note;
	size_t i;

	json_array_foreach(json_object_get(result, "notes"), i, note)
	{
		fprintf(out, "<p class=\"muted\">");
		cli_bench_write_escaped(json_string_value(note) ?: "", out);
		fprintf(out, "</p>\n");
	}
}

static void write_own_targets(json_t *result, FILE *out)
{
	json_t *target, *targets = json_object_get(result, "targets");
	size_t i;

	if (json_array_size(targets) == 0) {
		return;
	}
	fprintf(out, "<h3>Targets</h3><div class=\"scroll\"><table>");
	json_array_foreach(targets, i, target)
	{
		fprintf(out, "<tr><td>");
		write_verdict(target, out);
		fprintf(out, "</td>");
		write_target_cells(target, out);
	}
	fprintf(out, "</table></div>\n");
}

static void write_result(json_t *result, size_t i, FILE *out)
{
	const char *status = cli_bench_text(result, "status");

	fprintf(out, "<section id=\"r%zu\"><h2>", i);
	text_of(result, "title", out);
	fprintf(out, "</h2><p class=\"muted\">");
	write_title(result, out);
	fprintf(out, " \xc2\xb7 took %.0f s</p>\n",
		json_number_value(json_object_get(result, "seconds")));
	if (strcmp(status, "measured") != 0) {
		fprintf(out, "<p><span class=\"chip %s\">%s</span> ",
			strcmp(status, "failed") == 0 ? "not" : "none", status);
		text_of(result, "reason", out);
		fprintf(out, "</p>\n");
	} else {
		write_own_targets(result, out);
		write_series(result, out);
		write_phases(result, out);
		write_values(result, out);
		write_notes(result, out);
	}
	fprintf(out, "<p class=\"muted\">Again, just this:</p><pre>");
	text_of(result, "command", out);
	fprintf(out, "</pre></section>\n");
}

/* --- around them --- */

static void write_host(json_t *host, FILE *out)
{
	static const struct {
		const char *key, *name, *unit;
	} rows[] = {
		{ "cpu", "processor", "text" },
		{ "cores", "cores online", "count" },
		{ "cores_allowed", "cores this may use", "count" },
		{ "governor", "frequency governor", "text" },
		{ "virtual_machine", "is itself a virtual machine", "bool" },
		{ "host_kind", "kind of KVM", "text" },
		{ "kernel", "kernel", "text" },
		{ "hz", "timer ticks a second (HZ)", "count" },
		{ "clocksource", "clock source", "text" },
		{ "memory_bytes", "memory", "bytes" },
		{ "available_bytes", "memory available at the start", "bytes" },
		{ "load_average", "load average at the start", "count" },
		{ "mounts", "mounts", "count" },
		{ "cgroup", "cgroup version", "count" },
		{ "thp", "transparent huge pages", "text" },
		{ "thp_shmem", "transparent huge pages, shared memory", "text" },
		{ "ksm", "kernel samepage merging", "text" },
		{ "nx_huge_pages", "kvm.nx_huge_pages", "text" },
		{ "version", "warmbox", "text" },
		{ "git", "commit", "text" },
		{ "build", "build type", "text" },
	};

	fprintf(out, "<h2 id=\"host\">This host</h2><p>Figures are worth nothing without it: "
		     "compare runs on one host, and ratios between hosts.</p>"
		     "<div class=\"scroll\"><table class=\"short\">");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_t *value = json_object_get(host, rows[i].key);

		if (!value) {
			continue;
		}
		fprintf(out, "<tr><td>%s</td><td>", rows[i].name);
		if (json_is_boolean(value)) {
			fprintf(out, "%s", json_is_true(value) ? "yes" : "no");
		} else {
			write_figure(value, rows[i].unit, out);
		}
		fprintf(out, "</td></tr>\n");
	}
	fprintf(out, "</table></div>\n");
}

static void write_reading(FILE *out)
{
	fputs("<h2 id=\"read\">How to read this</h2>\n"
	      "<p>warmbox keeps virtual machines that have booted already, <i>parked</i>, and "
	      "hands "
	      "each out once. What it takes depends on where one stops the clock, so every latency "
	      "says until when it counts, and these are never mixed:</p>\n"
	      "<div class=\"box\"><p><b>claim returned</b>: the client has the answer to its "
	      "request, "
	      "with the sandbox's address.</p>"
	      "<p><b>first vCPU entry</b>: the sandbox's processor runs again. Up to here all work "
	      "is "
	      "the host's.</p>"
	      "<p><b>agent replied</b>: the guest has answered a first message. From here on the "
	      "guest's kernel is in the figure, and on hosts of the kind \"pvm\" it is "
	      "interpreted, "
	      "many times slower than on hardware.</p>"
	      "<p><b>first exec finished</b>: a program has run in the sandbox and its exit status "
	      "is "
	      "here.</p></div>\n"
	      "<p><b>Percentiles.</b> p99 is what 99 of 100 did not exceed. One is shown only if "
	      "at "
	      "least five values lie beyond it; the curves and the largest value always have "
	      "everything. To the right, every step of a curve's scale is a tenth of what is left; "
	      "upwards, latency is logarithmic. Dashed curves stop their clock elsewhere and are "
	      "there to compare.</p>\n"
	      "<p><b>Failed</b> attempts are counted and are in no percentile. A claim that found "
	      "nothing parked is a miss, and never counts as a fast claim.</p>\n"
	      "<p><b>Open loop</b>: requests come at times that were fixed before, and are timed "
	      "from "
	      "then, so that one slow answer counts against all that had to wait behind it.</p>\n",
	      out);
}

static void write_head(json_t *document, FILE *out)
{
	json_t *host = json_object_get(document, "host"), *warning;
	size_t i;

	fprintf(out,
		"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
		"<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
		"<title>warmbox bench</title><style>%s",
		style);
	for (int colour = 0; colour < CLI_BENCH_COLOURS; colour++) {
		fprintf(out, ".c%d{stroke:var(--k%d)}.b%d{background:var(--k%d)}", colour, colour,
			colour, colour);
	}
	fprintf(out, "</style></head><body><main>\n<h1>How fast, how dense, how steady: warmbox on "
		     "this host</h1>\n<p class=\"lead muted\">");
	text_of(document, "started", out);
	fprintf(out, " \xc2\xb7 warmbox ");
	text_of(host, "version", out);
	fprintf(out, " (");
	text_of(host, "git", out);
	fprintf(out, ", ");
	text_of(host, "build", out);
	fprintf(out, ") \xc2\xb7 ");
	text_of(host, "kernel", out);
	fprintf(out, " \xc2\xb7 ");
	write_figure(json_object_get(host, "cores"), "count", out);
	fprintf(out, " cores \xc2\xb7 KVM kind \"");
	text_of(host, "host_kind", out);
	fprintf(out, "\"</p>\n");
	if (json_array_size(json_object_get(document, "warnings")) > 0) {
		fprintf(out, "<div class=\"box warn\"><b>Read these figures with care</b><ul>");
		json_array_foreach(json_object_get(document, "warnings"), i, warning)
		{
			fprintf(out, "<li>");
			cli_bench_write_escaped(json_string_value(warning) ?: "", out);
			fprintf(out, "</li>");
		}
		fprintf(out, "</ul></div>\n");
	}
}

static void write_contents(json_t *results, FILE *out)
{
	json_t *result;
	size_t i;

	fprintf(out, "<nav>");
	json_array_foreach(results, i, result)
	{
		fprintf(out, "<a href=\"#r%zu\">", i);
		write_title(result, out);
		fprintf(out, "</a>");
	}
	fprintf(out, "<a href=\"#host\">this host</a><a href=\"#read\">how to read this</a>"
		     "<a href=\"#again\">how to repeat it</a></nav>\n");
}

void cli_bench_write_html(json_t *document, FILE *out)
{
	json_t *result, *results = json_object_get(document, "results");
	size_t i;

	write_head(document, out);
	write_contents(results, out);
	write_all_targets(document, out);
	json_array_foreach(results, i, result)
	{
		write_result(result, i, out);
	}
	write_host(json_object_get(document, "host"), out);
	write_reading(out);
	fprintf(out,
		"<h2 id=\"again\">How to repeat it</h2><p>All of this page, in %.0f s:</p><pre>",
		json_number_value(json_object_get(document, "seconds")));
	text_of(document, "command", out);
	fprintf(out, "</pre></main></body></html>\n");
}
