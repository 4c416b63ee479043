/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Targets: how many sandboxes to keep parked; and what there is.
 *
 * Every event that the policy looks at (an arrival, a miss, a restore, a death, other limits, news
 * of memory, the end of a dwell) ends in pool_target_update(), which asks the policy for its
 * figures and lets the refill follow them. There is no cadence: the pool's timer is armed for the
 * end of a dwell only while there is something to give back.
 *
 * A pool_set holds from the call on. The answer waits for nothing but the template's load: its
 * success is told when it is there, a refusal or a failure from the background. Runs on the loop's
 * thread.
 */

#include "base/clock.h"
#include "base/log.h"
#include "pool/internal.h"

#include <string.h>

/* --- the policy's figures --- */

void pool_target_update(struct pool_template *template)
{
	struct pool *pool = template->pool;
	struct pool_policy *policy = &template->policy;
	uint64_t now_ns = base_clock_monotonic_ns();

	if (pool->stopping) {
		return;
	}
	pool_policy_squeeze(policy, pool->pressure.step, pool->pressure.starved);
	pool_policy_parked(policy, template->n_parked);
	pool_policy_advance(policy, template->n_parked, now_ns);
	template->target = pool_policy_fill(policy, now_ns);
	template->keep = pool_policy_keep(policy, now_ns);
	pool_refill_shrink(template);
	pool_timer_need(pool, pool_policy_next_ns(policy));
	pool_kick(pool);
}

void pool_target_update_all(struct pool *pool)
{
	BASE_LIST_FOR_EACH(link, &pool->templates)
	{
		pool_target_update(CONTAINER_OF(link, struct pool_template, link));
	}
}

/* --- memory --- */

static void follow_pressure(struct pool *pool)
{
	const char *reason = pool_pressure_reason(&pool->pressure);

	if (!reason) {
		base_log(BASE_LOG_INFO, "memory is not short any more");
	} else if (!pool->squeezed) {
		base_log(BASE_LOG_INFO, "memory is short: %s", reason);
	}
	pool->squeezed = reason != NULL;
	pool_target_update_all(pool);
	pool_timer_need(pool, pool_pressure_next_ns(&pool->pressure));
}

void pool_target_on_pressure(struct pool_pressure *pressure)
{
	follow_pressure(CONTAINER_OF(pressure, struct pool, pressure));
}

bool pool_target_look(struct pool *pool, uint64_t now_ns)
{
	bool changed = pool_pressure_look(&pool->pressure, now_ns);

	if (changed) {
		follow_pressure(pool);
	}
	return changed;
}

void pool_target_advance(struct pool *pool, uint64_t now_ns)
{
	struct pool_pressure *pressure = &pool->pressure;

	if (pool_pressure_advance(pressure, now_ns)) {
		follow_pressure(pool);
	} else if (!pressure->starved || !pool_target_look(pool, now_ns)) {
		pool_target_update_all(pool);
		pool_timer_need(pool, pool_pressure_next_ns(pressure));
	}
}

const char *pool_memory_trouble(const struct pool *pool, bool *ret_below_min)
{
	*ret_below_min = pool->pressure.starved || pool->pressure.step > POOL_POLICY_LAST_STEP;
	return pool_pressure_reason(&pool->pressure);
}

/* --- setting --- */

static void refuse_set(struct pool *pool, struct pool_set *request, enum pool_status status,
		       const char *text)
{
	request->status = status;
	request->text = text;
	request->next = pool->refused_sets;
	pool->refused_sets = request;
	pool_kick(pool);
}

bool pool_set_tell_refused(struct pool *pool)
{
	struct pool_set *set = pool->refused_sets;

	if (!set) {
		return false;
	}
	pool->refused_sets = set->next;
	set->pending = false;
	set->fn(set, set->status, set->text);
	return true;
}

void pool_set_tell(struct pool_template *template, enum pool_status status, const char *text)
{
	unsigned n = 0;

	for (struct pool_set *set = template->sets; set; set = set->next) {
		n++;
	}
	for (; n > 0 && template->sets; n--) {
		struct pool_set *set = template->sets;

		template->sets = set->next;
		set->pending = false;
		set->fn(set, status, text);
	}
}

/* NULL, or what is wrong with the limits once they are set. */
static const char *find_fault(const struct pool_set_params *params, struct pool_limits limits)
{
	if (params->min != POOL_UNCHANGED && limits.min > POOL_TARGET_MAX) {
		return "min: above the limit";
	}
	if (params->max != POOL_UNCHANGED && limits.max > POOL_TARGET_MAX) {
		return "max: above the limit";
	}
	if (params->shells != POOL_UNCHANGED && params->shells > POOL_SHELLS_MAX) {
		return "shells: above the limit";
	}
	if (limits.min > limits.max) {
		return params->max == POOL_UNCHANGED   ? "min: more than max is"
		       : params->min == POOL_UNCHANGED ? "max: less than min is"
						       : "min: more than max";
	}
	return NULL;
}

/* Sets what is to be set. NULL, or why nothing was. */
static const char *apply(struct pool_template *template, const struct pool_set_params *params)
{
	struct pool_limits limits = template->policy.limits;
	const char *fault;

	limits.min = params->min == POOL_UNCHANGED ? limits.min : params->min;
	limits.max = params->max == POOL_UNCHANGED ? limits.max : params->max;
	fault = find_fault(params, limits);
	if (fault) {
		return fault;
	}
	pool_policy_set_limits(&template->policy, limits);
	if (params->shells != POOL_UNCHANGED) {
		pool_refill_shells(template, params->shells);
	}
	pool_target_update(template);
	return NULL;
}

void pool_set(struct pool *pool, struct pool_set *request, const struct pool_set_params *params)
{
	struct pool_template *template;
	enum pool_status status;
	const char *text;

	request->pool = pool;
	request->template = NULL;
	request->pending = true;
	if (pool->stopping) {
		refuse_set(pool, request, POOL_UNAVAILABLE, "shutting down");
		return;
	}
	template = pool_template_get(pool, params->template_name, &status, &text);
	if (!template) {
		refuse_set(pool, request, status, text);
		return;
	}
	text = apply(template, params);
	if (text) {
		refuse_set(pool, request, POOL_INVALID, text);
		return;
	}
	if (template->state == POOL_TEMPLATE_READY) {
		request->pending = false;
		request->fn(request, POOL_OK, NULL);
		return;
	}
	if (template->state == POOL_TEMPLATE_FAILED && template->told) {
		pool_template_reload(template);
	}
	request->template = template;
	request->next = template->sets;
	template->sets = request;
}

void pool_set_cancel(struct pool_set *request)
{
	if (!request->pending) {
		return;
	}

	struct pool_set **p =
		request->template ? &request->template->sets : &request->pool->refused_sets;

	while (*p != request) {
		p = &(*p)->next;
	}
	*p = request->next;
	request->pending = false;
}

/* --- what there is --- */

static const char *state_name(const struct pool_template *template)
{
	switch (template->state) {
	case POOL_TEMPLATE_LOADING:
		return "loading";
	case POOL_TEMPLATE_READY:
		return pool_refill_gives_up(template) ? "failed" : "ready";
	case POOL_TEMPLATE_FAILED:
		return "failed";
	}
	return NULL;
}

const char *pool_trouble(const struct pool *pool)
{
	if (pool_helper_is_trouble(&pool->pager.helper)) {
		return "the pager dies again and again: sandboxes of images that are not complete "
		       "wait";
	}
	if (pool_helper_is_trouble(&pool->spawner.helper)) {
		return "the spawner dies again and again: no sandbox can be started";
	}
	return pool->journal.trouble[0] ? pool->journal.trouble : NULL;
}

void pool_info(struct pool *pool, const char *name,
	       void (*fn)(void *userdata, const struct pool_template_info *info), void *userdata)
{
	uint64_t now_ns = base_clock_monotonic_ns();

	for (struct base_link *l = pool->templates.next, *next; l != &pool->templates; l = next) {
		struct pool_template *template = CONTAINER_OF(l, struct pool_template, link);
		const struct snapshot_manifest *manifest = NULL;

		next = l->next;
		if (name && strcmp(name, template->name) != 0) {
			continue;
		}
		if (template->state == POOL_TEMPLATE_READY) {
			manifest = snapshot_manifest(template->image->snapshot);
			pool_pager_ask(&pool->pager, template->image);
		}

		struct pool_template_info info = {
			.name = template->name,
			.snapshot_id = manifest ? manifest->id : NULL,
			.state = state_name(template),
			.limits = template->policy.limits,
			.target = template->target,
			.arrivals_per_hour =
				(uint64_t)(pool_policy_rate(&template->policy, now_ns) * 3600),
			.restore_ns = pool_policy_restore_ns(&template->policy),
			.parked = template->n_parked,
			.restoring = template->n_restoring,
			.leased = template->n_leased,
			.waiting = template->n_waiting,
			.claimed_total = template->claimed_total,
			.missed_total = template->missed_total,
			.restored_total = template->restored_total,
			.failed_total = template->failed_total,
			.died_total = template->died_total,
			.forbidden_total = template->forbidden_total,
			.shells = template->n_shells,
			.shells_wanted = template->shells_wanted,
			.shell_hits_total = template->shell_hits_total,
			.shell_misses_total = template->shell_misses_total,
			.image_complete = manifest && template->image->pager.complete,
			.image_filled_bytes = manifest ? template->image->pager.filled_bytes : 0,
			.faults_total = manifest ? template->image->pager.faults_total : 0,
			.image_bytes = manifest ? manifest->memory_bytes : 0,
			.load_ns = manifest ? template->image->load_ns : 0,
			.last_error = template->last_error[0] ? template->last_error : NULL,
		};

		memcpy(info.limited_total, template->limited_total, sizeof(info.limited_total));
		fn(userdata, &info);
	}
}
