/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Arrival times for the simulation of the pool's policy: made from a seed, or read from a file.
 */

#include <stddef.h>
#include <stdint.h>

struct trace {
	const char *name;
	uint64_t *at_ns; /* ascending */
	size_t n;
	uint64_t end_ns;
};

/* Numbers that are the same on every machine (xorshift64*). Not 0. */
struct trace_random {
	uint64_t state;
};
double trace_random_uniform(struct trace_random *random);     /* in (0, 1] */
double trace_random_exponential(struct trace_random *random); /* mean 1 */
double trace_random_normal(struct trace_random *random);

/* All of these allocate; trace_free(). Seconds and arrivals a second. */
struct trace trace_steady(double rate, double seconds, uint64_t seed);
/* A sine with one period a day, from its low at the beginning to its high after half a day. */
struct trace trace_diurnal(double low, double high, double seconds, uint64_t seed);
/* n_low to n_high at once, on average every gap_s; between them a steady trickle. */
struct trace trace_bursts(double trickle, double gap_s, unsigned n_low, unsigned n_high,
			  double seconds, uint64_t seed);
/* rate for on_s, nothing for off_s, and again. */
struct trace trace_on_off(double rate, double on_s, double off_s, double seconds, uint64_t seed);
/* n at once every period_s, within a second. */
struct trace trace_periodic(unsigned n, double period_s, double seconds, uint64_t seed);
/* A busy spell, then nothing. */
struct trace trace_spell(double rate, double busy_s, double seconds, uint64_t seed);
/* A CSV of ascending milliseconds, one a line, after a line of heading and comments in '#'; several
 * times over, with a pause between. */
struct trace trace_read(const char *path, unsigned times, double pause_s);

void trace_free(struct trace *trace);
