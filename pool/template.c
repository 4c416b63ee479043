/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Templates: finding them by name and loading their snapshots.
 *
 * Happy path: the first request that names a template makes it and queues the load; a worker opens
 * the snapshot, fills its memory image and opens its disks; back on the loop the template is ready,
 * sets are answered and restores begin.
 *
 * Failure: the template is FAILED with the reason. Who waits is told, and the next request for it
 * loads again, at most as often as the back-off allows. A name that does not exist is told so and
 * forgotten, so that clients cannot fill the table with guesses.
 *
 * Shut-down: a load that has not begun is cancelled; one that runs is waited for.
 *
 * Runs on the loop's thread but for load_work().
 */

#include "pool/template.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/internal.h"
#include "uffd/uffd.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void image_init(struct pool_image *image)
{
	*image = (struct pool_image){ .memory_fd = -1, .disk_fds = { -1, -1, -1, -1 } };
	_Static_assert(SNAPSHOT_DISKS_MAX == 4, "as many initialisers as disks");
}

static void image_deinit(struct pool_image *image)
{
	for (unsigned i = 0; i < SNAPSHOT_DISKS_MAX; i++) {
		base_fd_close(image->disk_fds[i]);
	}
	base_fd_close(image->memory_fd);
	if (image->snapshot) {
		snapshot_free(image->snapshot);
	}
	image_init(image);
}

static int image_load(struct pool_image *image, struct snapshot_store *store, const char *name,
		      struct base_error *error)
{
	_cleanup_fd_ int memory = -1;
	int r;

	r = snapshot_open(store, name, &image->snapshot, error);
	if (r < 0) {
		return r;
	}

	const struct snapshot_manifest *manifest = snapshot_manifest(image->snapshot);

	for (; image->n_disks < manifest->n_disks; image->n_disks++) {
		r = snapshot_store_open_image(store, &manifest->disks[image->n_disks],
					      &image->disk_fds[image->n_disks], error);
		if (r < 0) {
			/* A missing disk is not a missing template. */
			return r == -ENOENT ? -EBADMSG : r;
		}
	}
	r = uffd_image_load(image->snapshot, 0, &memory, NULL, error);
	if (r < 0) {
		return r == -ENOENT ? -EIO : r;
	}
	r = base_fd_reopen_readonly(memory, &image->memory_fd);
	if (r < 0) {
		return base_error_set_errno(error, r, "reopening the memory image read-only");
	}
	return 0;
}

static void load_work(uv_work_t *work)
{
	struct pool_template *template = CONTAINER_OF(work, struct pool_template, work);
	uint64_t start_ns = base_clock_monotonic_ns();

	template->load_result = image_load(&template->image, template->pool->store, template->name,
					   &template->error);
	template->image.load_ns = base_clock_monotonic_ns() - start_ns;
}

void pool_template_note(struct pool_template *template, const char *text)
{
	snprintf(template->last_error, sizeof(template->last_error), "%s", text);
}

static void load_failed(struct pool_template *template, int r)
{
	const char *text = template->error.text;

	image_deinit(&template->image);
	template->state = POOL_TEMPLATE_FAILED;
	template->failure = r == -ENOENT ? POOL_NOT_FOUND : POOL_UNAVAILABLE;
	template->told = false;
	pool_template_note(template, text[0] ? text : strerrordesc_np(-r));
	if (r != -ENOENT) {
		uint64_t delay_ns = POOL_LOAD_RETRY_MIN_NS << MIN(template->load_failures, 16U);

		template->load_failures++;
		template->load_retry_ns =
			base_clock_monotonic_ns() + MIN(delay_ns, POOL_LOAD_RETRY_MAX_NS);
	}
	log_debug("template %s: %s", template->name, template->last_error);
}

static void load_done(uv_work_t *work, int status)
{
	struct pool_template *template = CONTAINER_OF(work, struct pool_template, work);
	struct pool *pool = template->pool;

	pool->n_loading--;
	if (status < 0 || template->load_result < 0) {
		load_failed(template, status < 0 ? status : template->load_result);
	} else {
		template->state = POOL_TEMPLATE_READY;
		template->load_failures = 0;
		template->last_error[0] = '\0';
		pool_set_tell(template, POOL_OK, NULL);
	}
	pool_kick(pool);
}

static int load_start(struct pool_template *template)
{
	struct pool *pool = template->pool;
	int r;

	template->state = POOL_TEMPLATE_LOADING;
	template->error.text[0] = '\0';
	template->load_result = 0;
	image_init(&template->image);
	r = uv_queue_work(pool->loop, &template->work, load_work, load_done);
	if (r == 0) {
		pool->n_loading++;
	}
	return r;
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
	template->target = pool->default_target;
	base_list_init(&template->parked);
	base_list_init(&template->restoring);
	if (load_start(template) < 0) {
		free(template);
		*ret_status = POOL_FAILED;
		*ret_text = "cannot queue the loading of the template";
		return NULL;
	}
	base_list_append(&pool->templates, &template->link);
	pool->n_templates++;
	return template;
}

bool pool_template_tell_failure(struct pool_template *template)
{
	char text[BASE_ERROR_TEXT_MAX];

	if (template->state != POOL_TEMPLATE_FAILED || template->told) {
		return false;
	}
	template->told = true;
	/* Callbacks may ask for the template again, which changes its text. */
	snprintf(text, sizeof(text), "%s", template->last_error);
	pool_set_tell(template, template->failure, text);
	pool_queue_fail(template, template->failure, text);
	if (template->state == POOL_TEMPLATE_FAILED && template->failure == POOL_NOT_FOUND &&
	    !template->waiting_first && !template->sets) {
		pool_template_free(template);
	}
	return true;
}

void pool_template_cancel(struct pool_template *template)
{
	if (template->state == POOL_TEMPLATE_LOADING) {
		uv_cancel((uv_req_t *)&template->work);
	}
}

void pool_template_free(struct pool_template *template)
{
	assert(template->state != POOL_TEMPLATE_LOADING);
	assert(base_list_is_empty(&template->parked) && base_list_is_empty(&template->restoring));
	image_deinit(&template->image);
	base_list_remove(&template->link);
	template->pool->n_templates--;
	free(template);
}
