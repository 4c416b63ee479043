/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A pool without processes, in simulated time: pool/policy.c decides, restores take a random time,
 * clients wait in one queue without a deadline.
 */

#include "pool/policy.h"
#include "tests/unit/pool/trace.h"

struct sim_config {
	struct pool_limits limits;
	unsigned concurrency;
	double restore_s; /* mean; the scatter is log-normal */
	double sigma;
	uint64_t seed;
	/* Called before each event, to play the host. */
	void (*before)(void *userdata, struct pool_policy *policy, uint64_t now_ns);
	void *userdata;
};

struct sim_result {
	size_t n, n_missed;
	double miss_rate;
	double p99_wait_s, max_wait_s;
	double mean_idle;     /* parked sandboxes, over the whole trace */
	unsigned max_idle;    /* parked at once */
	unsigned final_level; /* of the policy */
	unsigned final_parked;
	size_t n_ended; /* given back unused */
};

/* The pool starts with its minimum parked. */
struct sim_result sim_run(const struct trace *trace, const struct sim_config *config);

/* The least that any pool of as many restores at once can have parked, on average, if nobody is to
 * wait: it knows the arrivals beforehand and restores each sandbox as late as can be. */
double sim_oracle_idle(const struct trace *trace, const struct sim_config *config);
