/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether memory is wanted elsewhere, so that parked sandboxes should yield.
 *
 * Two ways to know. The kernel tells that somebody waits for memory (PSI, of the host and, in a
 * cgroup of version 2, of one's own): nothing is asked, it wakes the loop. And before memory is
 * taken it is looked how much there is, for a host that still has some but not enough to go on.
 *
 * What comes out is a number of steps, which pool/policy.h makes figures of: one more each time
 * that memory is short for as long as POOL_PRESSURE_STEP_NS, half as many after each
 * POOL_PRESSURE_DWELL_NS of quiet. And whether the host is starved: below the floor.
 */

#include "base/error.h"

#include <stdbool.h>
#include <uv.h>

/* Time for what was given back to be felt, before more is: the window of the kernel's measurement.
 */
#define POOL_PRESSURE_STEP_NS (2 * NSEC_PER_SEC)
/* Without news for so long, the pool may grow again, by half of the steps. */
#define POOL_PRESSURE_DWELL_NS	(30 * NSEC_PER_SEC)
#define POOL_PRESSURE_STEPS_MAX 16
/* While memory is below the floor it is looked again so often: nobody tells when it is not. */
#define POOL_PRESSURE_LOOK_NS (5 * NSEC_PER_SEC)

struct pool_pressure_watch {
	uv_poll_t poll;
	const char *of; /* "the host" */
	int fd;		/* -1: not watched */
};

struct pool_pressure {
	struct pool_pressure_watch watches[2];
	unsigned n_open; /* handles */
	void (*on_change)(struct pool_pressure *pressure);
	void (*on_closed)(struct pool_pressure *pressure);

	int meminfo_fd;		  /* -1: there is none, so no floor */
	uint64_t floor_bytes;	  /* 0: no floor */
	uint64_t available_bytes; /* when it was looked last */
	uint64_t looked_ns;

	unsigned step;
	bool starved;
	uint64_t stepped_ns, quiet_ns; /* the last step up; the latest news or step down */
	char reason[BASE_ERROR_TEXT_MAX];
};

/* floor_percent: of the host's memory, 0 to 100; 0: no floor. Says once, in the log, what cannot be
 * had. */
void pool_pressure_init(struct pool_pressure *pressure, unsigned floor_percent);

/* Watches; on_change is called when step or starved have changed. */
void pool_pressure_start(struct pool_pressure *pressure, uv_loop_t *loop,
			 void (*on_change)(struct pool_pressure *pressure));
/* Stops watching; on_closed is called when that is done, not from inside. Returns false when there
 * is nothing to wait for: then it is not. */
bool pool_pressure_stop(struct pool_pressure *pressure,
			void (*on_closed)(struct pool_pressure *pressure));
void pool_pressure_deinit(struct pool_pressure *pressure);

/* Memory is short: whose, for the reason. What the kernel's news comes down to. Returns true when
 * it is a step. */
bool pool_pressure_news(struct pool_pressure *pressure, const char *of, uint64_t now_ns);

/* Looks how much memory there is, unless it was looked within a moment. To be called before memory
 * is taken, and at pool_pressure_next_ns(). Returns true when step or starved have changed. */
bool pool_pressure_look(struct pool_pressure *pressure, uint64_t now_ns);

/* The same with what there is. */
bool pool_pressure_available(struct pool_pressure *pressure, uint64_t available_bytes,
			     uint64_t now_ns);

/* Lets time pass. Returns true when a quiet dwell has taken steps back. */
bool pool_pressure_advance(struct pool_pressure *pressure, uint64_t now_ns);

/* When to look and to advance; UINT64_MAX: not before there is news. */
uint64_t pool_pressure_next_ns(const struct pool_pressure *pressure);

/* Why, for a person; NULL: memory is not short. */
const char *pool_pressure_reason(const struct pool_pressure *pressure);
