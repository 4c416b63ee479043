/* SPDX-License-Identifier: Apache-2.0 */

/* Arrival times; see trace.h. A failure is the end of the test. */

#include "tests/unit/pool/trace.h"

#include "base/util.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#define DAY_S 86400.0

double trace_random_uniform(struct trace_random *random)
{
	uint64_t x = random->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	random->state = x;
	x *= UINT64_C(2685821657736338717);
	return ((double)(x >> 11) + 1) / (double)(UINT64_C(1) << 53);
}

double trace_random_exponential(struct trace_random *random)
{
	return -log(trace_random_uniform(random));
}

double trace_random_normal(struct trace_random *random)
{
	double radius = sqrt(2 * trace_random_exponential(random));

	return radius * cos(2 * M_PI * trace_random_uniform(random));
}

static void add(struct trace *trace, double at_s)
{
	if ((trace->n & (trace->n - 1)) == 0) {
		trace->at_ns = reallocarray(trace->at_ns, trace->n ? 2 * trace->n : 1,
					    sizeof(*trace->at_ns));
		assert(trace->at_ns);
	}
	trace->at_ns[trace->n++] = (uint64_t)(at_s * (double)NSEC_PER_SEC);
}

static struct trace begin(const char *name, double seconds)
{
	return (struct trace){ .name = name, .end_ns = (uint64_t)(seconds * (double)NSEC_PER_SEC) };
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Poisson arrivals in [from_s, to_s). */
static void add_poisson(struct trace *trace, double rate, double from_s, double to_s,
			struct trace_random *random)
{
	double at_s = from_s + trace_random_exponential(random) / rate;

	for (; at_s < to_s; at_s += trace_random_exponential(random) / rate) {
		add(trace, at_s);
	}
}

struct trace trace_steady(double rate, double seconds, uint64_t seed)
{
	struct trace trace = begin("steady", seconds);
	struct trace_random random = { seed };

	add_poisson(&trace, rate, 0, seconds, &random);
	return trace;
}

struct trace trace_diurnal(double low, double high, double seconds, uint64_t seed)
{
	struct trace trace = begin("diurnal", seconds);
	struct trace_random random = { seed };
	double at_s = 0;

	/* Thinned from the highest rate. */
	while ((at_s += trace_random_exponential(&random) / high) < seconds) {
		double rate = low + (high - low) * (1 - cos(2 * M_PI * at_s / DAY_S)) / 2;

		if (trace_random_uniform(&random) * high <= rate) {
			add(&trace, at_s);
		}
	}
	return trace;
}

struct trace trace_bursts(double trickle, double gap_s, unsigned n_low, unsigned n_high,
			  double seconds, uint64_t seed)
{
	struct trace trace = begin("burst", seconds);
	struct trace_random random = { seed };
	double at_s = 0;

	add_poisson(&trace, trickle, 0, seconds, &random);
	while ((at_s += trace_random_exponential(&random) * gap_s) < seconds) {
		unsigned n = n_low + (unsigned)(trace_random_uniform(&random) * (n_high - n_low));

		for (unsigned i = 0; i < n; i++) {
			add(&trace, at_s);
		}
	}
	qsort(trace.at_ns, trace.n, sizeof(*trace.at_ns), compare);
	return trace;
}

struct trace trace_on_off(double rate, double on_s, double off_s, double seconds, uint64_t seed)
{
	struct trace trace = begin("on/off", seconds);
	struct trace_random random = { seed };

	for (double at_s = 0; at_s < seconds; at_s += on_s + off_s) {
		add_poisson(&trace, rate, at_s, fmin(at_s + on_s, seconds), &random);
	}
	return trace;
}

struct trace trace_periodic(unsigned n, double period_s, double seconds, uint64_t seed)
{
	struct trace trace = begin("periodic", seconds);
	struct trace_random random = { seed };

	for (double at_s = 0; at_s + 1 < seconds; at_s += period_s) {
		for (unsigned i = 0; i < n; i++) {
			add(&trace, at_s + trace_random_uniform(&random));
		}
	}
	qsort(trace.at_ns, trace.n, sizeof(*trace.at_ns), compare);
	return trace;
}

struct trace trace_spell(double rate, double busy_s, double seconds, uint64_t seed)
{
	struct trace trace = begin("idle", seconds);
	struct trace_random random = { seed };

	add_poisson(&trace, rate, 0, busy_s, &random);
	return trace;
}

/* The numbers of the file, in its own order. */
static struct trace read_once(const char *path)
{
	struct trace trace = begin("recorded", 0);
	FILE *file = fopen(path, "re");
	char line[256];
	bool heading = true;

	if (!file) {
		perror(path);
		abort();
	}
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == '#') {
			continue;
		}
		if (!heading) {
			add(&trace, strtod(line, NULL) / 1000);
		}
		heading = false;
	}
	fclose(file);
	assert(trace.n > 0);
	return trace;
}

struct trace trace_read(const char *path, unsigned times, double pause_s)
{
	struct trace once = read_once(path);
	double length_s = (double)once.at_ns[once.n - 1] / NSEC_PER_SEC + pause_s;
	struct trace trace = begin(once.name, length_s * times);

	for (unsigned i = 0; i < times; i++) {
		for (size_t j = 0; j < once.n; j++) {
			assert(j == 0 || once.at_ns[j] >= once.at_ns[j - 1]);
			add(&trace, i * length_s + (double)once.at_ns[j] / NSEC_PER_SEC);
		}
	}
	trace_free(&once);
	return trace;
}

void trace_free(struct trace *trace)
{
	free(trace->at_ns);
	*trace = (struct trace){ 0 };
}
