/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How many sandboxes there are: restoring what is wanted, ending what is too much.
 *
 * Happy path: whatever changes demand or supply kicks the background, which starts one restore a
 * turn until parked and restoring ones make up target and waiters, or the bound on restores under
 * way is reached. Templates with waiters go first, then the one with the fewest restores under way.
 * A restore takes a shell if there is one; when nothing is short any more, shells are topped up.
 *
 * Failure: the first failed restore is tried again at once; from the second in a row on, a back-off
 * that doubles lies between waves of attempts. A sandbox that dies soon after it was parked counts
 * like a failed restore, or a snapshot that does not live would be restored without end. So does a
 * shell. After POOL_RESTORE_ATTEMPTS waiters are told that the template cannot be restored.
 *
 * Runs on the loop's thread.
 */

#include "base/clock.h"
#include "base/log.h"
#include "pool/internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define POOL_RESTORE_ATTEMPTS	  3
#define POOL_RESTORE_RETRY_MIN_NS (100 * NSEC_PER_MSEC)
#define POOL_RESTORE_RETRY_MAX_NS (10 * NSEC_PER_SEC)
/* Who dies sooner after parking was not restored well. */
#define POOL_EARLY_DEATH_NS NSEC_PER_SEC

/* Sandboxes are missing, and may be restored now or later. */
static bool is_short(const struct pool_template *template)
{
	return template->state == POOL_TEMPLATE_READY &&
	       template->n_parked + template->n_restoring < template->target + template->n_waiting;
}

static struct pool_template *pick(struct pool *pool, uint64_t now_ns)
{
	struct pool_template *best = NULL;
	bool best_waits = false;

	for (struct base_link *l = pool->templates.next; l != &pool->templates; l = l->next) {
		struct pool_template *template = CONTAINER_OF(l, struct pool_template, link);
		bool waits = template->n_waiting > template->n_restoring;

		if (!is_short(template) || now_ns < template->restore_retry_ns) {
			continue;
		}
		if (!best || (waits && !best_waits) ||
		    (waits == best_waits && template->n_restoring < best->n_restoring)) {
			best = template;
			best_waits = waits;
		}
	}
	return best;
}

/* Failures that come while the back-off of one before lasts belong to the same wave. */
static void count_failure(struct pool_template *template, uint64_t now_ns)
{
	if (now_ns < template->restore_retry_ns) {
		return;
	}
	template->restore_failures++;
	template->restore_retry_ns = now_ns;
	if (template->restore_failures > 1) {
		uint64_t delay_ns = POOL_RESTORE_RETRY_MIN_NS
				    << MIN(template->restore_failures - 2, 16U);

		template->restore_retry_ns += MIN(delay_ns, POOL_RESTORE_RETRY_MAX_NS);
	}
}

bool pool_refill_gives_up(const struct pool_template *template)
{
	return template->state == POOL_TEMPLATE_READY &&
	       template->restore_failures >= POOL_RESTORE_ATTEMPTS && template->n_parked == 0 &&
	       template->n_restoring == 0;
}

bool pool_refill_is_broken(const struct pool_template *template, uint64_t now_ns)
{
	return pool_refill_gives_up(template) && now_ns < template->restore_retry_ns;
}

static void restore_failed(struct pool_template *template, const char *text)
{
	char note[BASE_ERROR_TEXT_MAX];

	snprintf(note, sizeof(note), "a restore failed: %s", text);
	pool_template_note(template, note);
	template->failed_total++;
	count_failure(template, base_clock_monotonic_ns());
	if (pool_refill_gives_up(template)) {
		pool_queue_fail(template, POOL_UNAVAILABLE, note);
	}
}

/* A shell that is ready, else the one that was started first, else none. */
static struct pool_sandbox *find_shell(const struct pool_template *template)
{
	BASE_LIST_FOR_EACH(link, &template->shells)
	{
		struct pool_sandbox *sandbox = CONTAINER_OF(link, struct pool_sandbox, link);

		if (sandbox->state == POOL_SANDBOX_SHELL) {
			return sandbox;
		}
	}
	return base_list_is_empty(&template->shells)
		       ? NULL
		       : CONTAINER_OF(template->shells.next, struct pool_sandbox, link);
}

static struct pool_sandbox *start_shell(struct pool_template *template)
{
	struct base_error error = { 0 };
	struct pool_sandbox *sandbox;

	if (pool_sandbox_start(template, &sandbox, &error) < 0) {
		base_log(BASE_LOG_WARNING, "a sandbox of %s: %s", template->name, error.text);
		restore_failed(template, error.text);
		return NULL;
	}
	return sandbox;
}

static void start_restore(struct pool_template *template)
{
	bool urgent = template->n_waiting > template->n_restoring;
	struct pool_sandbox *sandbox = find_shell(template) ?: start_shell(template);

	if (!sandbox) {
		return;
	}
	if (sandbox->state == POOL_SANDBOX_SHELL) {
		template->shell_hits_total++;
	} else {
		template->shell_misses_total++;
	}
	pool_sandbox_load(sandbox, urgent);
}

/* As many of those being restored as there are waiters get their priority. */
static void hurry(struct pool_template *template)
{
	unsigned n = template->n_waiting;

	BASE_LIST_FOR_EACH(link, &template->restoring)
	{
		if (n-- == 0) {
			break;
		}
		pool_sandbox_hurry(CONTAINER_OF(link, struct pool_sandbox, link));
	}
}

static bool lacks_shells(const struct pool_template *template)
{
	/* Shells are for restores to come, so memory that is short goes elsewhere. */
	return template->state == POOL_TEMPLATE_READY &&
	       template->n_shells < template->shells_wanted &&
	       !pool_pressure_reason(&template->pool->pressure);
}

static struct pool_template *pick_for_shell(struct pool *pool, uint64_t now_ns)
{
	BASE_LIST_FOR_EACH(link, &pool->templates)
	{
		struct pool_template *template = CONTAINER_OF(link, struct pool_template, link);

		if (lacks_shells(template) && now_ns >= template->restore_retry_ns) {
			return template;
		}
	}
	return NULL;
}

/* When the back-off of what is missing ends, and who may not wait. */
static void look_after(struct pool *pool, uint64_t now_ns)
{
	BASE_LIST_FOR_EACH(link, &pool->templates)
	{
		struct pool_template *template = CONTAINER_OF(link, struct pool_template, link);

		if (template->n_waiting > 0) {
			hurry(template);
		}
		pool_template_retry(template, now_ns);
		if ((is_short(template) || lacks_shells(template)) &&
		    now_ns < template->restore_retry_ns) {
			pool_timer_need(pool, template->restore_retry_ns);
		}
	}
}

bool pool_refill_run(struct pool *pool)
{
	uint64_t now_ns = base_clock_monotonic_ns();
	struct pool_template *template = NULL;

	if (pool->n_restoring < pool->restore_concurrency && (template = pick(pool, now_ns))) {
		if (!pool_target_look(pool, now_ns) || is_short(template)) {
			start_restore(template);
		}
		return true;
	}
	if (pool->n_restoring + pool->n_starting < pool->restore_concurrency &&
	    (template = pick_for_shell(pool, now_ns))) {
		start_shell(template);
		return true;
	}
	look_after(pool, now_ns);
	return false;
}

void pool_refill_shell_ready(struct pool_sandbox *sandbox)
{
	sandbox->state = POOL_SANDBOX_SHELL;
	sandbox->pool->n_starting--;
	pool_kick(sandbox->pool);
}

void pool_refill_shells(struct pool_template *template, unsigned wanted)
{
	template->shells_wanted = MIN(wanted, (unsigned)POOL_SHELLS_MAX);
	while (template->n_shells > template->shells_wanted) {
		pool_sandbox_doom(
			CONTAINER_OF(template->shells.previous, struct pool_sandbox, link));
	}
	pool_kick(template->pool);
}

void pool_refill_claimed(struct pool_template *template)
{
	template->restore_failures = 0;
	template->unstable = false;
}

/* How long the restore took: from the start of the process, unless that was there already. */
static void tell_policy(const struct pool_sandbox *sandbox, uint64_t now_ns)
{
	const struct pool_timings *timings = &sandbox->timings;
	const struct pool *pool = sandbox->pool;
	uint64_t took_ns = timings->load_ns + timings->identity_ns + timings->park_ns;

	if (!timings->from_shell) {
		took_ns += timings->spawn_ns + timings->create_ns;
	}
	pool_policy_restored(&sandbox->template->policy, took_ns, sandbox->template->n_restoring,
			     pool->n_restoring >= pool->restore_concurrency, now_ns);
}

void pool_refill_parked(struct pool_sandbox *sandbox)
{
	struct pool_template *template = sandbox->template;
	struct pool_lease_entry *lease = sandbox->lease;
	uint64_t now_ns = base_clock_monotonic_ns();

	if (sandbox->cgroup) {
		/* Paused, it costs nobody anything, and its claim is spared the system call. */
		pool_sandbox_hurry(sandbox);
	}
	tell_policy(sandbox, now_ns);
	template->n_restoring--;
	sandbox->pool->n_restoring--;
	template->n_parked++;
	template->restored_total++;
	if (!template->unstable ||
	    now_ns > template->restore_retry_ns + POOL_RESTORE_RETRY_MAX_NS) {
		template->restore_failures = 0;
	}
	sandbox->state = POOL_SANDBOX_PARKED;
	sandbox->parked_ns = now_ns;
	base_list_remove(&sandbox->link);
	base_list_append(&template->parked, &sandbox->link);
	/* All that a claim would otherwise have to do. */
	lease->sandbox = sandbox;
	lease->pid = sandbox->launch.pid;
	lease->timings = sandbox->timings;
	strcpy(lease->template_name, template->name);
	strcpy(lease->snapshot_id, pool_image_id(sandbox->image));
	strcpy(lease->id, sandbox->launch.id);
	strcpy(lease->socket_path, sandbox->launch.socket_path);
	pool_queue_serve(template);
	pool_target_update(template);
}

/* A parked sandbox died. */
static void parked_died(struct pool_sandbox *sandbox, const char *text)
{
	struct pool_template *template = sandbox->template;
	uint64_t now_ns = base_clock_monotonic_ns();
	char note[BASE_ERROR_TEXT_MAX];

	snprintf(note, sizeof(note), "a parked sandbox died: %s", text);
	pool_template_note(template, note);
	template->died_total++;
	if (now_ns - sandbox->parked_ns < POOL_EARLY_DEATH_NS) {
		template->unstable = true;
		count_failure(template, now_ns);
	}
}

void pool_refill_lost(struct pool_sandbox *sandbox, enum pool_cause cause, const char *text)
{
	struct pool_template *template = sandbox->template;
	struct pool *pool = sandbox->pool;

	switch (sandbox->state) {
	case POOL_SANDBOX_STARTING:
	case POOL_SANDBOX_SHELL:
	case POOL_SANDBOX_LOADING:
	case POOL_SANDBOX_IDENTIFYING:
	case POOL_SANDBOX_PAUSING:
		pool_sandbox_doom(sandbox);
		restore_failed(template, text);
		break;
	case POOL_SANDBOX_PARKED:
		parked_died(sandbox, text);
		pool_sandbox_doom(sandbox);
		pool_target_update(template);
		break;
	case POOL_SANDBOX_LEASED:
		template->died_total++;
		pool_lease_end(pool, sandbox->lease, cause);
		break;
	case POOL_SANDBOX_DOOMED:
	case POOL_SANDBOX_DYING:
		return;
	}
	pool_kick(pool);
}

static void doom_all(struct base_link *sandboxes)
{
	while (!base_list_is_empty(sandboxes)) {
		pool_sandbox_doom(CONTAINER_OF(sandboxes->next, struct pool_sandbox, link));
	}
}

void pool_refill_end(struct pool_template *template)
{
	doom_all(&template->shells);
	doom_all(&template->restoring);
	doom_all(&template->parked);
}

void pool_refill_renew(struct pool_template *template)
{
	pool_refill_end(template);
	/* How the snapshot before behaved says nothing about the one to come. */
	template->restore_failures = 0;
	template->restore_retry_ns = 0;
	template->unstable = false;
	pool_policy_forget_restores(&template->policy, template->pool->restore_concurrency);
}

void pool_refill_shrink(struct pool_template *template)
{
	while (template->n_parked > template->keep) {
		pool_sandbox_doom(CONTAINER_OF(template->parked.next, struct pool_sandbox, link));
	}
}
