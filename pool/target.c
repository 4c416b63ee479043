/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Targets: how many sandboxes to keep parked; and what there is.
 *
 * A target holds from the call on. The answer waits for nothing but the template's load: its
 * success is told when it is there, a refusal or a failure from the background. Runs on the loop's
 * thread.
 */

#include "pool/internal.h"

#include <errno.h>
#include <string.h>

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

void pool_set_target(struct pool *pool, struct pool_set *request, const char *template_name,
		     unsigned target)
{
	struct pool_template *template;
	enum pool_status status;
	const char *text;

	request->pool = pool;
	request->template = NULL;
	request->target = target;
	request->pending = true;
	if (pool->stopping) {
		refuse_set(pool, request, POOL_UNAVAILABLE, "shutting down");
		return;
	}
	if (target > POOL_TARGET_MAX) {
		refuse_set(pool, request, POOL_FAILED, "the target is above the limit");
		return;
	}
	template = pool_template_get(pool, template_name, &status, &text);
	if (!template) {
		refuse_set(pool, request, status, text);
		return;
	}
	template->target = target;
	pool_refill_shrink(template);
	pool_kick(pool);
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

int pool_set_shells(struct pool *pool, const char *template_name, unsigned shells)
{
	BASE_LIST_FOR_EACH(link, &pool->templates)
	{
		struct pool_template *template = CONTAINER_OF(link, struct pool_template, link);

		if (strcmp(template->name, template_name) == 0) {
			pool_refill_shells(template, shells);
			return 0;
		}
	}
	return -ENOENT;
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

void pool_info(struct pool *pool, const char *name,
	       void (*fn)(void *userdata, const struct pool_template_info *info), void *userdata)
{
	for (struct base_link *l = pool->templates.next, *next; l != &pool->templates; l = next) {
		struct pool_template *template = CONTAINER_OF(l, struct pool_template, link);
		const struct snapshot_manifest *manifest = NULL;

		next = l->next;
		if (name && strcmp(name, template->name) != 0) {
			continue;
		}
		if (template->state == POOL_TEMPLATE_READY) {
			manifest = snapshot_manifest(template->image->snapshot);
		}

		struct pool_template_info info = {
			.name = template->name,
			.snapshot_id = manifest ? manifest->id : NULL,
			.state = state_name(template),
			.target = template->target,
			.parked = template->n_parked,
			.restoring = template->n_restoring,
			.leased = template->n_leased,
			.waiting = template->n_waiting,
			.claimed_total = template->claimed_total,
			.missed_total = template->missed_total,
			.restored_total = template->restored_total,
			.failed_total = template->failed_total,
			.died_total = template->died_total,
			.shells = template->n_shells,
			.shells_wanted = template->shells_wanted,
			.shell_hits_total = template->shell_hits_total,
			.shell_misses_total = template->shell_misses_total,
			.image_bytes = manifest ? manifest->memory_bytes : 0,
			.load_ns = manifest ? template->image->load_ns : 0,
			.last_error = template->last_error[0] ? template->last_error : NULL,
		};

		fn(userdata, &info);
	}
}
