/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The simulated pool; see sim.h. Its rules are those of pool/refill.c: waiters first, then restores
 * up to the policy's figure, as many at once as the bound allows.
 */

#include "tests/unit/pool/sim.h"

#include "base/util.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct restore {
	uint64_t began_ns, ends_ns;
};

struct sim {
	const struct sim_config *config;
	struct trace_random random;
	struct pool_policy policy;
	struct restore *restores; /* config->concurrency of them, the first n_restoring in use */
	unsigned n_restoring, n_parked;
	const uint64_t *waiting; /* arrival times: those who wait are neighbours in the trace */
	size_t n_waiting;
	uint64_t now_ns;
	double idle_ns;
	double *waits_s;
	struct sim_result result;
};

static void parked(struct sim *sim)
{
	pool_policy_parked(&sim->policy, sim->n_parked);
}

static void start_restores(struct sim *sim)
{
	const struct sim_config *config = sim->config;
	unsigned fill = pool_policy_fill(&sim->policy, sim->now_ns);

	while (sim->n_restoring < config->concurrency &&
	       sim->n_parked + sim->n_restoring < fill + sim->n_waiting) {
		double normal = trace_random_normal(&sim->random);
		double took_s = config->restore_s *
				exp(config->sigma * normal - config->sigma * config->sigma / 2);

		sim->restores[sim->n_restoring++] = (struct restore){
			.began_ns = sim->now_ns,
			.ends_ns = sim->now_ns + (uint64_t)(took_s * (double)NSEC_PER_SEC) + 1,
		};
	}
}

static void settle(struct sim *sim)
{
	unsigned keep;

	pool_policy_advance(&sim->policy, sim->n_parked, sim->now_ns);
	keep = pool_policy_keep(&sim->policy, sim->now_ns);
	if (sim->n_parked > keep) {
		sim->result.n_ended += sim->n_parked - keep;
		sim->n_parked = keep;
		parked(sim);
	}
	sim->result.max_idle = MAX(sim->result.max_idle, sim->n_parked);
	start_restores(sim);
}

static void arrive(struct sim *sim, const uint64_t *at_ns)
{
	pool_policy_arrived(&sim->policy, sim->now_ns);
	if (sim->n_parked > 0) {
		sim->n_parked--;
		sim->waits_s[sim->result.n++] = 0;
		parked(sim);
		return;
	}
	if (sim->n_waiting++ == 0) {
		sim->waiting = at_ns;
	}
	sim->result.n_missed++;
	pool_policy_missed(&sim->policy, (unsigned)sim->n_waiting);
}

static void restored(struct sim *sim, unsigned i)
{
	uint64_t took_ns = sim->now_ns - sim->restores[i].began_ns;
	bool busy = sim->n_restoring == sim->config->concurrency;

	pool_policy_restored(&sim->policy, took_ns, sim->n_restoring, busy, sim->now_ns);
	sim->restores[i] = sim->restores[--sim->n_restoring];
	if (sim->n_waiting > 0) {
		double wait_s = (double)(sim->now_ns - *sim->waiting) / NSEC_PER_SEC;

		sim->waiting++;
		sim->n_waiting--;
		sim->waits_s[sim->result.n++] = wait_s;
		return;
	}
	sim->n_parked++;
	parked(sim);
}

/* The restore that ends first, or n_restoring. */
static unsigned next_restore(const struct sim *sim)
{
	unsigned best = sim->n_restoring;

	for (unsigned i = 0; i < sim->n_restoring; i++) {
		if (best == sim->n_restoring ||
		    sim->restores[i].ends_ns < sim->restores[best].ends_ns) {
			best = i;
		}
	}
	return best;
}

static void pass_to(struct sim *sim, uint64_t at_ns)
{
	sim->idle_ns += (double)sim->n_parked * (double)(at_ns - sim->now_ns);
	sim->now_ns = at_ns;
	if (sim->config->before) {
		sim->config->before(sim->config->userdata, &sim->policy, at_ns);
	}
}

/* One event. False: the trace is over, and nobody waits. */
static bool step(struct sim *sim, const struct trace *trace, size_t *i)
{
	unsigned restore = next_restore(sim);
	uint64_t arrival_ns = *i < trace->n ? trace->at_ns[*i] : UINT64_MAX;
	uint64_t entry_ns =
		restore < sim->n_restoring ? sim->restores[restore].ends_ns : UINT64_MAX;
	uint64_t timer_ns = MAX(pool_policy_next_ns(&sim->policy), sim->now_ns);
	uint64_t at_ns = MIN(arrival_ns, entry_ns);

	at_ns = MIN(at_ns, timer_ns);

	if (at_ns >= trace->end_ns && sim->n_waiting == 0) {
		pass_to(sim, MAX(trace->end_ns, sim->now_ns));
		return false;
	}
	assert(at_ns != UINT64_MAX);
	pass_to(sim, at_ns);
	if (at_ns == arrival_ns) {
		arrive(sim, &trace->at_ns[(*i)++]);
	} else if (at_ns == entry_ns) {
		restored(sim, restore);
	}
	settle(sim);
	return true;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void sum_up(struct sim *sim)
{
	struct sim_result *result = &sim->result;

	qsort(sim->waits_s, result->n, sizeof(*sim->waits_s), compare);
	result->miss_rate = (double)result->n_missed / (double)result->n;
	result->p99_wait_s = sim->waits_s[(result->n - 1) * 99 / 100];
	result->max_wait_s = sim->waits_s[result->n - 1];
	result->mean_idle = sim->idle_ns / (double)sim->now_ns;
	result->final_level = sim->policy.level;
	result->final_parked = sim->n_parked;
}

struct sim_result sim_run(const struct trace *trace, const struct sim_config *config)
{
	struct sim sim = { .config = config, .random = { config->seed } };
	size_t i = 0;

	sim.restores = calloc(config->concurrency, sizeof(*sim.restores));
	sim.waits_s = calloc(trace->n, sizeof(*sim.waits_s));
	assert(sim.restores && sim.waits_s);
	pool_policy_init(&sim.policy, config->limits, config->concurrency, 0);
	sim.n_parked = config->limits.min;
	parked(&sim);
	while (step(&sim, trace, &i)) {
	}
	assert(sim.result.n == trace->n);
	sum_up(&sim);
	free(sim.restores);
	free(sim.waits_s);
	return sim.result;
}

/* From the last arrival to the first: each is given the worker that can begin last. */
double sim_oracle_idle(const struct trace *trace, const struct sim_config *config)
{
	uint64_t entry_ns = (uint64_t)(config->restore_s * (double)NSEC_PER_SEC);
	int64_t *free_ns = calloc(config->concurrency, sizeof(*free_ns));
	double idle_ns = 0;

	assert(free_ns);
	for (unsigned w = 0; w < config->concurrency; w++) {
		free_ns[w] = (int64_t)trace->end_ns;
	}
	for (size_t i = trace->n; i > 0; i--) {
		int64_t at_ns = (int64_t)trace->at_ns[i - 1];
		unsigned best = 0;

		for (unsigned w = 1; w < config->concurrency; w++) {
			best = free_ns[w] > free_ns[best] ? w : best;
		}

		int64_t ready_ns = MIN(at_ns, free_ns[best]);

		/* What would have to be ready before the trace begins is there from then on. */
		idle_ns += (double)(at_ns - MAX(ready_ns, 0));
		free_ns[best] = ready_ns - (int64_t)entry_ns;
	}
	free(free_ns);
	return idle_ns / (double)trace->end_ns;
}
