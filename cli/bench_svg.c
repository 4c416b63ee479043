/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Latency curves as inline SVG: percentile to the right, on a scale where each step is a tenth of
 * what is left (50 %, 90 %, 99 %, 99.9 % …), latency upwards, logarithmic. A curve ends at the
 * largest value measured. Colours come from the page's style sheet, so that they follow light and
 * dark. The histograms are taken as a program printed them; what is not a pair of numbers is
 * skipped. Main thread.
 */

#include "cli/bench.h"

#include <math.h>
#include <string.h>

#define WIDTH	    960.0
#define HEIGHT	    400.0
#define LEFT	    80.0
#define RIGHT	    20.0
#define TOP	    16.0
#define BOTTOM	    52.0
#define SERIES_MAX  16
#define STEP_LEAST  0.75 /* pixels: closer points are left out */
#define DECADES_MIN 2.0
#define DECADES_FEW 3.5

struct scale {
	double x_max;	     /* decades of percentile: 2 is 99 % */
	double y_min, y_max; /* decades of ns */
};

static bool is_drawn(json_t *series, const char *stop_line, bool with_rest)
{
	const char *stop = cli_bench_text(series, "stop_line");

	return json_integer_value(json_object_get(series, "n")) > 0 &&
	       (strcmp(stop, stop_line) == 0 || (with_rest && !*stop));
}

static double decades_of(double n, double seen)
{
	/* The largest of n values stands for the last n-th. */
	double left = 1.0 - seen / n, least = 0.5 / n;

	return -log10(MAX(left, least));
}

static void fit(struct scale *scale, json_t *series)
{
	double n = json_number_value(json_object_get(series, "n"));
	double low = json_number_value(json_object_get(series, "min"));
	double high = json_number_value(json_object_get(series, "max"));

	scale->x_max = MAX(scale->x_max, decades_of(n, n));
	low = log10(MAX(low, 1.0));
	high = log10(MAX(high, 1.0));
	scale->y_min = MIN(scale->y_min, low);
	scale->y_max = MAX(scale->y_max, high);
}

static double x_of(const struct scale *scale, double decades)
{
	return LEFT + decades / scale->x_max * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct scale *scale, double ns)
{
	double decades = log10(MAX(ns, 1.0));
	double part = (decades - scale->y_min) / (scale->y_max - scale->y_min);

	return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM);
}

static void write_y_tick(const struct scale *scale, double ns, bool labelled, FILE *out)
{
	static const struct {
		double unit;
		const char *name;
	} units[] = { { 1e9, "s" }, { 1e6, "ms" }, { 1e3, "\xc2\xb5s" }, { 1, "ns" } };
	double y = y_of(scale, ns);
	size_t i = 0;

	fprintf(out, "<line class=\"%s\" x1=\"%.0f\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\"/>",
		labelled ? "grid" : "grid thin", LEFT, y, WIDTH - RIGHT, y);
	if (!labelled) {
		return;
	}
	while (i + 1 < ARRAY_SIZE(units) && ns < units[i].unit) {
		i++;
	}
	fprintf(out,
		"<text class=\"tick\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%.0f %s</text>",
		LEFT - 8, y + 4, ns / units[i].unit, units[i].name);
}

/* 1, 2 and 5 of every decade; only the first has its number when there are many. */
static void write_y_axis(const struct scale *scale, FILE *out)
{
	bool few = scale->y_max - scale->y_min < DECADES_FEW;

	for (double decade = floor(scale->y_min); decade <= scale->y_max; decade++) {
		for (int i = 0; i < 3; i++) {
			static const double steps[] = { 1, 2, 5 };
			double ns = pow(10, decade) * steps[i];

			if (log10(ns) >= scale->y_min - 1e-9 && log10(ns) <= scale->y_max + 1e-9) {
				write_y_tick(scale, ns, i == 0 || few, out);
			}
		}
	}
}

static void write_x_axis(const struct scale *scale, FILE *out)
{
	static const struct {
		double percent;
		const char *text;
	} ticks[] = { { 0, "0 %" },	    { 50, "50 %" },	   { 75, "75 %" },
		      { 90, "90 %" },	    { 99, "99 %" },	   { 99.9, "99.9 %" },
		      { 99.99, "99.99 %" }, { 99.999, "99.999 %" } };

	for (size_t i = 0; i < ARRAY_SIZE(ticks); i++) {
		double decades = -log10(1 - ticks[i].percent / 100);
		double x = x_of(scale, decades);

		if (decades > scale->x_max + 1e-9) {
			break;
		}
		fprintf(out,
			"<line class=\"grid\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/>"
			"<text class=\"tick\" x=\"%.1f\" y=\"%.0f\" "
			"text-anchor=\"middle\">%s</text>",
			x, TOP, x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 18, ticks[i].text);
	}
	fprintf(out,
		"<text class=\"label\" x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">"
		"percentile: this share took no longer</text>"
		"<text class=\"label\" transform=\"translate(16 %.0f) rotate(-90)\" "
		"text-anchor=\"middle\">latency</text>",
		(LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, (TOP + HEIGHT - BOTTOM) / 2);
}

static void write_curve(const struct scale *scale, json_t *series, size_t colour, bool dashed,
			FILE *out)
{
	double n = json_number_value(json_object_get(series, "n")), seen = 0;
	double last_x = x_of(scale, 0);
	double last_y = y_of(scale, json_number_value(json_object_get(series, "min")));
	json_t *pair, *histogram = json_object_get(series, "histogram");
	size_t i, size = json_array_size(histogram);

	fprintf(out, "<path class=\"curve c%zu%s\" d=\"M%.1f %.1f", colour % CLI_BENCH_COLOURS,
		dashed ? " rest" : "", last_x, last_y);
	json_array_foreach(histogram, i, pair)
	{
		double value = json_number_value(json_array_get(pair, 0));
		double x, y = y_of(scale, value);

		seen += json_number_value(json_array_get(pair, 1));
		x = x_of(scale, decades_of(n, MIN(seen, n)));
		if (i + 1 == size || x - last_x >= STEP_LEAST || last_y - y >= STEP_LEAST) {
			/* So many took this long: to the right at the height of the value. */
			fprintf(out, "L%.1f %.1fL%.1f %.1f", last_x, y, x, y);
			last_x = x;
			last_y = y;
		}
	}
	fprintf(out, "\"><title>");
	cli_bench_write_escaped(cli_bench_text(series, "name"), out);
	fprintf(out, "</title></path>");
}

static void write_legend(json_t *const drawn[], const bool dashed[], size_t n, FILE *out)
{
	fprintf(out, "<ul class=\"legend\">");
	for (size_t i = 0; i < n; i++) {
		char buffer[CLI_BENCH_FIGURE_MAX];

		fprintf(out,
			"<li><svg viewBox=\"0 0 28 8\" width=\"28\" height=\"8\" "
			"aria-hidden=\"true\"><path class=\"curve c%zu%s\" d=\"M0 4L28 "
			"4\"/></svg> ",
			i % CLI_BENCH_COLOURS, dashed[i] ? " rest" : "");
		cli_bench_write_escaped(cli_bench_text(drawn[i], "name"), out);
		fprintf(out, " <span class=\"muted\">p50 %s</span></li>",
			cli_bench_percentile(buffer, drawn[i], "p50"));
	}
	fprintf(out, "</ul>");
}

void cli_bench_write_curves(json_t *result, const char *stop_line, bool with_rest, FILE *out)
{
	struct scale scale = { .x_max = 1, .y_min = 12, .y_max = 0 };
	json_t *drawn[SERIES_MAX], *series;
	bool dashed[SERIES_MAX];
	size_t i, n = 0;

	json_array_foreach(json_object_get(result, "series"), i, series)
	{
		if (n < SERIES_MAX && is_drawn(series, stop_line, with_rest)) {
			fit(&scale, series);
			dashed[n] = !*cli_bench_text(series, "stop_line") && *stop_line;
			drawn[n++] = series;
		}
	}
	if (n == 0) {
		return;
	}
	scale.y_min = floor(scale.y_min * 3) / 3;
	scale.y_max = ceil(scale.y_max * 3) / 3;
	scale.y_max = MAX(scale.y_max, scale.y_min + DECADES_MIN);
	fprintf(out, "<figure><figcaption>");
	if (*stop_line) {
		fprintf(out, "Until: <b>%s</b>", stop_line);
	} else {
		fprintf(out, "Latency");
	}
	fprintf(out,
		"</figcaption><div class=\"scroll\"><svg class=\"chart\" "
		"viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"latency by percentile\">",
		WIDTH, HEIGHT);
	write_y_axis(&scale, out);
	write_x_axis(&scale, out);
	for (i = 0; i < n; i++) {
		write_curve(&scale, drawn[i], i, dashed[i], out);
	}
	fprintf(out, "</svg></div>");
	write_legend(drawn, dashed, n, out);
	fprintf(out, "</figure>\n");
}
