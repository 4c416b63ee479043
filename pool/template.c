/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Templates: finding them by name, loading their snapshots, and following the store.
 *
 * Happy path: the first request that names a template makes it and queues the load; a worker opens
 * the snapshot; back on the loop the pager takes its memory, and as soon as it has, the template is
 * ready, sets are answered and restores begin. When the store says that the name has changed, a
 * worker looks what it means now and loads that if it is another snapshot; back on the loop the
 * images are swapped, and what was parked or being restored is ended and restored anew.
 *
 * Failure: the template is FAILED with the reason. Who waits is told, and the next request for it
 * loads again, at most as often as the back-off allows. A name that does not exist is told so and
 * forgotten, so that clients cannot fill the table with guesses. Nor is one remembered that is
 * removed, once its leases have ended. A new snapshot that cannot be loaded leaves the old one.
 *
 * Shut-down: a load that has not begun is cancelled; one that runs is waited for.
 *
 * Runs on the loop's thread but for load() and load_work().
 */

#include "pool/template.h"

#include "base/clock.h"
#include "base/log.h"
#include "pool/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* In a reload, what is loaded already is not loaded again: `loading` stays empty. */
static int load(struct pool_template *template)
{
	struct snapshot_store *store = template->pool->store;
	char id[SNAPSHOT_ID_LENGTH + 1];

	if (template->image) {
		int r = snapshot_store_lookup(store, template->name, id, &template->error);

		if (r < 0 || strcmp(id, pool_image_id(template->image)) == 0) {
			return r;
		}
	}
	return pool_image_load(template->loading, store, template->name, &template->error);
}

static void load_work(uv_work_t *work)
{
	struct pool_template *template = CONTAINER_OF(work, struct pool_template, work);

	template->load_result = load(template);
}

void pool_template_note(struct pool_template *template, const char *text)
{
	snprintf(template->last_error, sizeof(template->last_error), "%s", text);
}

/* The name means something else now, which is of no use: better what was there before. */
static void reload_failed(struct pool_template *template, const char *text)
{
	char note[BASE_ERROR_TEXT_MAX];

	snprintf(note, sizeof(note), "going on with the snapshot before: %s", text);
	/* The same trouble is found again by each change that follows. */
	if (strcmp(note, template->last_error) != 0) {
		base_log(BASE_LOG_WARNING, "template %s: %s", template->name, note);
		pool_template_note(template, note);
	}
}

/* Its sandboxes may go on. */
static void forget_image(struct pool_image *image)
{
	image->template = NULL;
	pool_image_unref(image);
}

static void fail(struct pool_template *template, int r, const char *text)
{
	if (template->image) {
		pool_refill_renew(template);
		forget_image(TAKE_PTR(template->image));
	}
	template->state = POOL_TEMPLATE_FAILED;
	template->failure = r == -ENOENT ? POOL_NOT_FOUND : POOL_UNAVAILABLE;
	template->told = false;
	pool_template_note(template, text);
	if (r != -ENOENT) {
		uint64_t delay_ns = POOL_LOAD_RETRY_MIN_NS << MIN(template->load_failures, 16U);

		template->load_failures++;
		template->load_retry_ns =
			base_clock_monotonic_ns() + MIN(delay_ns, POOL_LOAD_RETRY_MAX_NS);
	}
	log_debug("template %s: %s", template->name, template->last_error);
}

static void load_failed(struct pool_template *template, int r)
{
	const char *text = template->error.text;

	if (template->image && r != -ENOENT) {
		reload_failed(template, text[0] ? text : strerrordesc_np(-r));
		return;
	}
	fail(template, r, text[0] ? text : strerrordesc_np(-r));
}

static void load_done(uv_work_t *work, int status);

static int load_start(struct pool_template *template)
{
	struct pool *pool = template->pool;
	int r;

	/* This also sees to it that the store is watched before it is looked at. */
	pool_kick(pool);
	template->stale = false;
	template->error.text[0] = '\0';
	template->load_result = 0;
	template->loading = pool_image_new(pool);
	if (!template->loading) {
		return -ENOMEM;
	}
	template->loading->template = template;
	r = uv_queue_work(pool->loop, &template->work, load_work, load_done);
	if (r < 0) {
		pool_image_unref(TAKE_PTR(template->loading));
		return r;
	}
	if (!template->image) {
		template->state = POOL_TEMPLATE_LOADING;
	}
	pool->n_working++;
	return 0;
}

/* Looks at the store again if that has changed and nobody is looking. */
static void follow(struct pool_template *template)
{
	int r;

	if (!template->stale || template->loading || template->state != POOL_TEMPLATE_READY) {
		return;
	}
	r = load_start(template);
	if (r < 0) {
		load_failed(template, r);
	}
}

/* Restores use the image from now on. */
static void adopt(struct pool_template *template, struct pool_image *image)
{
	if (template->image) {
		base_log(BASE_LOG_INFO, "template %s: snapshot %s replaces %s", template->name,
			 pool_image_id(image), pool_image_id(template->image));
		pool_refill_renew(template);
		forget_image(template->image);
	}
	template->image = pool_image_ref(image);
	template->state = POOL_TEMPLATE_READY;
	template->load_retries = false;
	template->last_error[0] = '\0';
}

/* The load is over, one way or the other. */
static void load_finish(struct pool_template *template, int r)
{
	struct pool_image *loaded = TAKE_PTR(template->loading);

	template->opening = false;
	if (r < 0) {
		loaded->template = NULL;
		/* A failure counts only if the store has not changed under it. */
		if (!template->stale || load_start(template) < 0) {
			load_failed(template, r);
		}
	} else {
		if (loaded->snapshot) {
			adopt(template, loaded);
		}
		follow(template);
		pool_set_tell(template, POOL_OK, NULL);
	}
	pool_image_unref(loaded);
	pool_kick(template->pool);
}

static void load_done(uv_work_t *work, int status)
{
	struct pool_template *template = CONTAINER_OF(work, struct pool_template, work);
	struct pool *pool = template->pool;
	int r = status < 0 ? status : template->load_result;

	pool->n_working--;
	pool_kick(pool);
	if (pool->stopping) {
		/* Everybody has been told and nothing must start. */
		forget_image(TAKE_PTR(template->loading));
	} else if (r == 0 && template->loading->snapshot) {
		template->opening = true;
		pool_pager_add(&pool->pager, template->loading);
	} else {
		load_finish(template, r);
	}
}

void pool_template_opened(struct pool_template *template, int r, const char *text)
{
	assert(template->opening);
	if (r < 0) {
		base_error_set(&template->error, r, "snapshot %s: %s",
			       pool_image_id(template->loading), text);
	}
	load_finish(template, r == -ENOENT ? -EIO : r);
}

void pool_template_image_failed(struct pool_template *template, const char *text)
{
	char note[BASE_ERROR_TEXT_MAX];

	snprintf(note, sizeof(note), "snapshot %s: %s", pool_image_id(template->image), text);
	fail(template, -EIO, note);
	template->load_retries = true;
	pool_timer_need(template->pool, template->load_retry_ns);
	pool_kick(template->pool);
}

void pool_template_retry(struct pool_template *template, uint64_t now_ns)
{
	if (template->state != POOL_TEMPLATE_FAILED || !template->load_retries || !template->told) {
		return;
	}
	if (now_ns < template->load_retry_ns) {
		pool_timer_need(template->pool, template->load_retry_ns);
	} else {
		pool_template_reload(template);
	}
}

void pool_template_follow(struct pool *pool, const char *entry)
{
	for (struct base_link *l = pool->templates.next; l != &pool->templates; l = l->next) {
		struct pool_template *template = CONTAINER_OF(l, struct pool_template, link);

		/* A snapshot that was asked for by its id may go with any name. */
		if (!entry || strcmp(entry, template->name) == 0 ||
		    (template->image &&
		     strcmp(template->name, pool_image_id(template->image)) == 0)) {
			template->stale = true;
			follow(template);
		}
	}
}

void pool_template_reload(struct pool_template *template)
{
	int r;

	assert(template->state == POOL_TEMPLATE_FAILED);
	r = load_start(template);
	if (r < 0) {
		load_failed(template, r);
		pool_kick(template->pool);
	}
}

static struct pool_template *find(struct pool *pool, const char *name)
{
	for (struct base_link *l = pool->templates.next; l != &pool->templates; l = l->next) {
		struct pool_template *template = CONTAINER_OF(l, struct pool_template, link);

		if (strcmp(template->name, name) == 0) {
			return template;
		}
	}
	return NULL;
}

struct pool_template *pool_template_get(struct pool *pool, const char *name,
					enum pool_status *ret_status, const char **ret_text)
{
	struct pool_template *template = find(pool, name);

	if (template) {
		return template;
	}
	if (!snapshot_name_is_valid(name)) {
		*ret_status = POOL_NOT_FOUND;
		*ret_text = "no such template: this is not a name that a template can have";
		return NULL;
	}
	if (pool->n_templates >= POOL_TEMPLATES_MAX) {
		*ret_status = POOL_EXHAUSTED;
		*ret_text = "too many templates are in use";
		return NULL;
	}
	template = calloc(1, sizeof(*template));
	if (!template) {
		*ret_status = POOL_FAILED;
		*ret_text = "out of memory";
		return NULL;
	}
	template->pool = pool;
	strcpy(template->name, name);
	template->config = pool_template_config_of(pool, name);
	pool_policy_init(&template->policy, pool->default_limits, pool->restore_concurrency,
			 base_clock_monotonic_ns());
	template->shells_wanted = pool->default_shells;
	base_list_init(&template->parked);
	base_list_init(&template->restoring);
	pool_fair_queue_init(&template->queue);
	base_list_init(&template->shells);
	if (load_start(template) < 0) {
		free(template);
		*ret_status = POOL_FAILED;
		*ret_text = "cannot queue the loading of the template";
		return NULL;
	}
	base_list_append(&pool->templates, &template->link);
	pool->n_templates++;
	pool_target_update(template);
	return template;
}

bool pool_template_tell_failure(struct pool_template *template)
{
	char text[BASE_ERROR_TEXT_MAX];

	bool telling = template->state == POOL_TEMPLATE_FAILED && !template->told;

	if (telling) {
		template->told = true;
		/* Callbacks may ask for the template again, which changes its text. */
		snprintf(text, sizeof(text), "%s", template->last_error);
		pool_set_tell(template, template->failure, text);
		pool_queue_fail(template, template->failure, text);
	}
	if (template->state == POOL_TEMPLATE_FAILED && template->failure == POOL_NOT_FOUND &&
	    template->n_waiting == 0 && !template->sets && template->n_leased == 0) {
		pool_template_free(template);
	}
	return telling;
}

void pool_template_cancel(struct pool_template *template)
{
	if (template->opening) {
		template->opening = false;
		pool_pager_remove(&template->pool->pager, template->loading);
		forget_image(TAKE_PTR(template->loading));
	} else if (template->loading) {
		uv_cancel((uv_req_t *)&template->work);
	}
}

void pool_template_free(struct pool_template *template)
{
	assert(!template->loading && template->n_leased == 0);
	assert(base_list_is_empty(&template->parked) && base_list_is_empty(&template->restoring) &&
	       base_list_is_empty(&template->shells));
	if (template->image) {
		forget_image(template->image);
	}
	base_list_remove(&template->link);
	template->pool->n_templates--;
	free(template);
}
