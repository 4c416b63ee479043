/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Accounts: who is to be measured, a worker that measures, and who is told.
 *
 * Happy path: a request joins the pool's list. The background takes the first, lists the sandboxes
 * that it is about, takes a reference to their images and hands the lot to a worker; when that is
 * back, every request of the same scope is told.
 *
 * Failure: a sandbox that has ended meanwhile, or cannot be read, is counted but not measured.
 *
 * Shut-down: requests that wait are refused from the background; a running measurement ends by
 * itself and the pool waits for it.
 *
 * Runs on the loop's thread but for survey_work(), which owns the survey meanwhile.
 */

#include "pool/account.h"

#include "base/clock.h"
#include "pool/internal.h"
#include "pool/measure.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The sandboxes of one image. */
struct group {
	struct pool_image *image;	  /* a reference */
	char name[SNAPSHOT_NAME_MAX + 1]; /* of a template that may be gone when it is shown */
};

struct pool_survey {
	struct pool *pool;
	uv_work_t work;
	char template_name[SNAPSHOT_NAME_MAX + 1], lease[POOL_LEASE_ID_LENGTH + 1];
	size_t n_found; /* sandboxes it is about */
	size_t n_seen;

	struct group *groups;
	struct pool_account_template *templates; /* as many */
	size_t n_groups, groups_room;

	struct pool_account_sandbox *sandboxes;
	char (*leases)[POOL_LEASE_ID_LENGTH + 1]; /* as many */
	size_t *group_of;
	size_t n_sandboxes;

	struct pool_account_report report;
	int result;
};

static void survey_free(struct pool_survey *survey)
{
	for (size_t i = 0; i < survey->n_groups; i++) {
		pool_image_unref(survey->groups[i].image);
	}
	free(survey->groups);
	free(survey->templates);
	free(survey->sandboxes);
	free(survey->leases);
	free(survey->group_of);
	free(survey);
}
BASE_DEFINE_CLEANUP(struct pool_survey *, survey_free)

/* --- on the worker --- */

static void add(struct pool_memory *sum, const struct pool_memory *memory)
{
	sum->image_shared += memory->image_shared;
	sum->program_shared += memory->program_shared;
	sum->guest_private += memory->guest_private;
	sum->vmm_heap += memory->vmm_heap;
	sum->vmm_data += memory->vmm_data;
	sum->vmm_other += memory->vmm_other;
	sum->page_tables += memory->page_tables;
	sum->kernel_stacks += memory->kernel_stacks;
	sum->pss += memory->pss;
}

static void measure_sandboxes(struct pool_survey *survey, const struct stat *images)
{
	size_t n = 0;

	for (size_t i = 0; i < survey->n_sandboxes; i++) {
		struct pool_account_sandbox *sandbox = &survey->sandboxes[i];
		size_t group = survey->group_of[i];
		struct pool_account_template *template = &survey->templates[group];

		if (pool_measure_process(sandbox->pid, images[group].st_dev, images[group].st_ino,
					 &sandbox->memory) < 0) {
			continue;
		}
		sandbox->template = template;
		sandbox->lease = survey->leases[i][0] ? survey->leases[i] : NULL;
		template->measured++;
		add(&template->sum, &sandbox->memory);
		survey->sandboxes[n++] = *sandbox;
	}
	survey->n_sandboxes = n;
}

static int survey_run(struct pool_survey *survey)
{
	_cleanup_free_ struct stat *images =
		calloc(MAX(survey->n_groups, (size_t)1), sizeof(*images));

	if (!images) {
		return -ENOMEM;
	}
	for (size_t i = 0; i < survey->n_groups; i++) {
		if (fstat(survey->groups[i].image->memory_fd, &images[i]) < 0) {
			return -errno;
		}
		/* Blocks of 512 bytes, whatever the file system: stat(2). */
		survey->templates[i].image_resident = (uint64_t)images[i].st_blocks * 512;
	}
	measure_sandboxes(survey, images);
	return pool_measure_host(&survey->report.host);
}

static void survey_work(uv_work_t *work)
{
	struct pool_survey *survey = CONTAINER_OF(work, struct pool_survey, work);
	uint64_t start_ns = base_clock_monotonic_ns();

	survey->result = survey_run(survey);
	survey->report.elapsed_ns = base_clock_monotonic_ns() - start_ns;
}

/* --- telling --- */

static struct pool_account *take_out(struct pool_account **at)
{
	struct pool_account *request = *at;

	*at = request->next;
	request->pending = false;
	return request;
}

/* Only those there are now: who is told may ask again. */
static void tell_all(struct pool_survey *survey)
{
	struct pool *pool = survey->pool;
	struct pool_account *mine = NULL, **end = &mine, **at = &pool->accounts;

	while (*at) {
		if (strcmp((*at)->template_name, survey->template_name) == 0 &&
		    strcmp((*at)->lease, survey->lease) == 0) {
			*end = *at;
			*at = (*at)->next;
			end = &(*end)->next;
		} else {
			at = &(*at)->next;
		}
	}
	*end = NULL;
	/* Reachable for pool_account_cancel() from inside a callback. */
	pool->accounts_told = mine;
	while (pool->accounts_told) {
		struct pool_account *request = take_out(&pool->accounts_told);

		if (survey->result < 0) {
			request->fn(request, POOL_FAILED, NULL, strerrordesc_np(-survey->result));
		} else {
			request->fn(request, POOL_OK, &survey->report, NULL);
		}
	}
}

static void survey_done(uv_work_t *work, int status)
{
	struct pool_survey *survey = CONTAINER_OF(work, struct pool_survey, work);
	struct pool *pool = survey->pool;

	survey->report.templates = survey->templates;
	survey->report.n_templates = survey->n_groups;
	survey->report.sandboxes = survey->sandboxes;
	survey->report.n_sandboxes = survey->n_sandboxes;
	tell_all(survey);
	survey_free(survey);
	pool->survey = NULL;
	pool->n_working--;
	pool_kick(pool);
}

/* --- who is to be measured --- */

static bool is_about(const struct pool_survey *survey, const char *template_name,
		     const struct pool_lease_entry *lease)
{
	if (survey->lease[0]) {
		return lease && strcmp(lease->id, survey->lease) == 0;
	}
	return !survey->template_name[0] || strcmp(survey->template_name, template_name) == 0;
}

static void each_sandbox(struct pool_survey *survey,
			 void (*fn)(struct pool_survey *survey, const struct pool_sandbox *sandbox,
				    const char *template_name,
				    const struct pool_lease_entry *lease))
{
	struct pool *pool = survey->pool;

	for (struct base_link *t = pool->templates.next; t != &pool->templates; t = t->next) {
		struct pool_template *template = CONTAINER_OF(t, struct pool_template, link);

		if (!is_about(survey, template->name, NULL)) {
			continue;
		}
		for (struct base_link *l = template->parked.next; l != &template->parked;
		     l = l->next) {
			fn(survey, CONTAINER_OF(l, struct pool_sandbox, link), template->name,
			   NULL);
		}
	}
	for (struct base_link *l = pool->leases.active.next; l != &pool->leases.active;
	     l = l->next) {
		struct pool_lease_entry *lease = CONTAINER_OF(l, struct pool_lease_entry, link);

		/* One that was adopted has no image to compare its pages with. */
		if (lease->sandbox->image && is_about(survey, lease->template_name, lease)) {
			fn(survey, lease->sandbox, lease->template_name, lease);
		}
	}
}

static void count_one(struct pool_survey *survey, const struct pool_sandbox *sandbox,
		      const char *template_name, const struct pool_lease_entry *lease)
{
	survey->n_found++;
}

/* The group of an image. The latest first: sandboxes come template by template. */
static int find_group(struct pool_survey *survey, struct pool_image *image,
		      const char *template_name, size_t *ret_group)
{
	for (size_t i = survey->n_groups; i-- > 0;) {
		if (survey->groups[i].image == image) {
			*ret_group = i;
			return 0;
		}
	}
	if (survey->n_groups == survey->groups_room) {
		size_t room = survey->groups_room ? 2 * survey->groups_room : 8;
		struct group *groups = reallocarray(survey->groups, room, sizeof(*groups));
		struct pool_account_template *templates = NULL;

		if (groups) {
			survey->groups = groups;
			templates = reallocarray(survey->templates, room, sizeof(*templates));
		}
		if (!templates) {
			return -ENOMEM;
		}
		survey->templates = templates;
		survey->groups_room = room;
	}

	struct group *group = &survey->groups[survey->n_groups];

	group->image = pool_image_ref(image);
	strcpy(group->name, template_name);
	survey->templates[survey->n_groups] = (struct pool_account_template){
		.snapshot_id = pool_image_id(image),
		.image_bytes = snapshot_manifest(image->snapshot)->memory_bytes,
	};
	*ret_group = survey->n_groups++;
	return 0;
}

static void list_one(struct pool_survey *survey, const struct pool_sandbox *sandbox,
		     const char *template_name, const struct pool_lease_entry *lease)
{
	size_t number = survey->n_seen++;
	size_t group;

	if (find_group(survey, sandbox->image, template_name, &group) < 0) {
		survey->result = -ENOMEM;
		return;
	}
	survey->templates[group].parked += !lease;
	survey->templates[group].leased += lease != NULL;
	/* Every so manieth, when they are more than may be measured. */
	if (survey->n_found > POOL_ACCOUNT_MEASURED_MAX &&
	    number * POOL_ACCOUNT_MEASURED_MAX / survey->n_found < survey->n_sandboxes) {
		return;
	}
	survey->sandboxes[survey->n_sandboxes].pid = sandbox->launch.pid;
	strcpy(survey->leases[survey->n_sandboxes], lease ? lease->id : "");
	survey->group_of[survey->n_sandboxes++] = group;
}

static int survey_list(struct pool_survey *survey)
{
	size_t room;

	each_sandbox(survey, count_one);
	room = MAX(MIN(survey->n_found, (size_t)POOL_ACCOUNT_MEASURED_MAX), (size_t)1);
	survey->sandboxes = calloc(room, sizeof(*survey->sandboxes));
	survey->leases = calloc(room, sizeof(*survey->leases));
	survey->group_of = calloc(room, sizeof(*survey->group_of));
	if (!survey->sandboxes || !survey->leases || !survey->group_of) {
		return -ENOMEM;
	}
	each_sandbox(survey, list_one);
	/* The room for them does not move any more. */
	for (size_t i = 0; i < survey->n_groups; i++) {
		survey->templates[i].name = survey->groups[i].name;
	}
	return survey->result;
}

/* --- requests --- */

static bool is_known(const struct pool *pool, const struct pool_account *request)
{
	if (request->lease[0]) {
		const struct pool_lease_entry *lease = pool_lease_table_find(
			(struct pool_lease_table *)&pool->leases, request->lease);

		return lease && lease->sandbox;
	}
	for (struct base_link *l = pool->templates.next;
	     request->template_name[0] && l != &pool->templates; l = l->next) {
		if (strcmp(CONTAINER_OF(l, struct pool_template, link)->name,
			   request->template_name) == 0) {
			return true;
		}
	}
	return !request->template_name[0];
}

static int survey_start(struct pool *pool, const struct pool_account *request)
{
	_cleanup_(survey_freep) struct pool_survey *survey = calloc(1, sizeof(*survey));
	int r;

	if (!survey) {
		return -ENOMEM;
	}
	survey->pool = pool;
	strcpy(survey->template_name, request->template_name);
	strcpy(survey->lease, request->lease);
	r = survey_list(survey);
	if (r < 0) {
		return r;
	}
	r = uv_queue_work(pool->loop, &survey->work, survey_work, survey_done);
	if (r < 0) {
		return r;
	}
	pool->survey = TAKE_PTR(survey);
	pool->n_working++;
	return 0;
}

bool pool_account_run(struct pool *pool)
{
	struct pool_account *request = pool->accounts;
	enum pool_status status;
	const char *text;
	int r;

	if (!request || pool->survey) {
		return false;
	}
	if (pool->stopping) {
		status = POOL_UNAVAILABLE;
		text = "shutting down";
	} else if (!is_known(pool, request)) {
		status = POOL_NOT_FOUND;
		text = request->lease[0] ? "no active lease of this id"
					 : "no pool of this template";
	} else {
		r = survey_start(pool, request);
		if (r == 0) {
			return false;
		}
		status = POOL_FAILED;
		text = strerrordesc_np(-r);
	}
	take_out(&pool->accounts);
	request->fn(request, status, NULL, text);
	return true;
}

void pool_account(struct pool *pool, struct pool_account *request, const char *template_name,
		  const char *lease)
{
	struct pool_account **end = &pool->accounts;

	request->pool = pool;
	request->next = NULL;
	request->pending = true;
	snprintf(request->template_name, sizeof(request->template_name), "%s", template_name ?: "");
	snprintf(request->lease, sizeof(request->lease), "%s", lease ?: "");
	while (*end) {
		end = &(*end)->next;
	}
	*end = request;
	pool_kick(pool);
}

static bool remove_from(struct pool_account **at, const struct pool_account *request)
{
	while (*at && *at != request) {
		at = &(*at)->next;
	}
	if (!*at) {
		return false;
	}
	take_out(at);
	return true;
}

void pool_account_cancel(struct pool_account *request)
{
	if (request->pending && !remove_from(&request->pool->accounts, request)) {
		remove_from(&request->pool->accounts_told, request);
	}
}
