/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Cgroups of sandboxes, from the loop; see cgroup.h.
 *
 * Happy path: what is wanted of a cgroup is noted as steps. A worker takes those that wait, all at
 * once, does their steps in order, and comes back to the loop, where the owners are told. Steps
 * that are wanted meanwhile are taken by the next one. Removals have a worker of their own.
 *
 * Failure: making, entering and setting are the owner's to judge. A removal that is refused, since
 * the process has not quite ended, is tried again; after REMOVE_TRIES it is given up and logged,
 * and the next manager's sweep finds it.
 *
 * Shut-down: pool_cgroups_stop() waits until all are removed. Everything here is on the loop's
 * thread but run_steps() and what it calls.
 */

#include "pool/cgroup.h"

#include "base/fd.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LANE_CHANGES  0
#define LANE_REMOVALS 1
/* Done by a worker before it comes back: it bounds how long the first has to wait for the last. */
#define BATCH_MAX	16
#define REMOVE_RETRY_MS 20
#define REMOVE_TRIES	500
#define RECORD_MAX	KIB(64)
#define SWEEP_WAIT_MS	5000
/* KVM's page tables and the process's, for each byte of guest memory. */
#define KVM_SHARE 32

/* --- limits --- */

struct pool_cgroup_limits pool_cgroup_limits_of(const struct pool_cgroup_config *config,
						uint64_t memory_bytes, uint64_t zero_bytes,
						unsigned n_vcpus)
{
	struct pool_cgroup_limits limits = {
		.memory_bytes = MIB(config->memory_mib),
		.swap_bytes = MIB(config->swap_mib),
		.cpu_weight = config->cpu_weight ?: POOL_CGROUP_WEIGHT_DEFAULT,
		.cpu_percent = config->cpu_percent,
		.pids = config->pids > 0 ? config->pids + n_vcpus : 0,
		.io_weight = config->io_weight,
	};

	/* Whoever is the first to touch a page of zeros of the image is charged for it, and for the
	 * copy that a write makes of it. */
	if (limits.memory_bytes == 0) {
		limits.memory_bytes = memory_bytes + memory_bytes / KVM_SHARE + zero_bytes +
				      MIB(config->memory_overhead_mib);
	}
	return limits;
}

unsigned pool_cgroup_weight_of_nice(unsigned weight, int nice)
{
	double w = weight;

	for (; nice > 0; nice--) {
		w /= 1.25; /* what a step of nice values is worth to the scheduler */
	}
	return MAX((unsigned)w, 1U);
}

/* --- on the worker's thread --- */

static int run_step(struct pool_cgroup *cgroup, enum pool_cgroup_step step)
{
	const struct pool_cgroups *cgroups = cgroup->cgroups;
	const struct pool_cgroup_tree *tree = &cgroups->tree;
	int r;

	switch (step) {
	case POOL_CGROUP_MAKE:
		return pool_cgroup_tree_make(tree, cgroup->id, &cgroup->running_limits,
					     &cgroup->fd);
	case POOL_CGROUP_ENTER:
		return pool_cgroup_tree_enter(tree, cgroup->id, cgroup->pid);
	case POOL_CGROUP_SET:
		return pool_cgroup_tree_set(tree, cgroup->id, &cgroup->running_limits);
	case POOL_CGROUP_LOOK:
		pool_cgroup_tree_events(tree, cgroup->id, &cgroup->events);
		return 0;
	case POOL_CGROUP_REMOVE:
		break;
	}
	r = pool_cgroup_tree_remove(tree, cgroup->id);
	for (size_t i = 0; r == 0 && i < cgroups->n_former; i++) {
		r = pool_cgroup_tree_remove(&cgroups->former[i], cgroup->id);
	}
	return r;
}

static void run_steps(uv_work_t *work)
{
	struct pool_cgroup_lane *lane = CONTAINER_OF(work, struct pool_cgroup_lane, work);

	BASE_LIST_FOR_EACH(link, &lane->batch)
	{
		struct pool_cgroup *cgroup = CONTAINER_OF(link, struct pool_cgroup, link);

		cgroup->result = 0;
		cgroup->done = 0;
		for (unsigned step = POOL_CGROUP_MAKE; step <= POOL_CGROUP_REMOVE; step <<= 1) {
			if ((cgroup->running & step) && cgroup->result == 0) {
				cgroup->result = run_step(cgroup, (enum pool_cgroup_step)step);
				cgroup->done |= cgroup->result == 0 ? step : 0;
			}
		}
	}
}

/* --- lanes --- */

static void lane_start(struct pool_cgroup_lane *lane);

static void check_idle(struct pool_cgroups *cgroups)
{
	void (*on_idle)(struct pool_cgroups *) = cgroups->on_idle;

	if (on_idle && cgroups->n_cgroups == 0 && !cgroups->has_retry) {
		cgroups->on_idle = NULL;
		on_idle(cgroups);
	}
}

static void on_retry_closed(uv_handle_t *handle)
{
	struct pool_cgroups *cgroups = handle->data;

	cgroups->has_retry = false;
	check_idle(cgroups);
}

static void forget(struct pool_cgroup *cgroup)
{
	struct pool_cgroups *cgroups = cgroup->cgroups;

	base_list_remove(&cgroup->link);
	base_fd_close(cgroup->fd);
	free(cgroup);
	cgroups->n_cgroups--;
	if (cgroups->n_cgroups == 0 && cgroups->on_idle && cgroups->has_retry &&
	    !uv_is_closing((uv_handle_t *)&cgroups->retry)) {
		uv_close((uv_handle_t *)&cgroups->retry, on_retry_closed);
	}
}

/* Into the lane of what is wanted of it. */
static void queue(struct pool_cgroup *cgroup)
{
	struct pool_cgroups *cgroups = cgroup->cgroups;
	unsigned n = cgroup->wanted & POOL_CGROUP_REMOVE ? LANE_REMOVALS : LANE_CHANGES;
	struct pool_cgroup_lane *lane = &cgroups->lanes[n];

	if (cgroup->running != 0) {
		return; /* it comes by here when that is done */
	}
	base_list_remove(&cgroup->link);
	base_list_append(&lane->waiting, &cgroup->link);
	lane_start(lane);
}

static void on_retry(uv_timer_t *timer)
{
	struct pool_cgroups *cgroups = timer->data;

	while (!base_list_is_empty(&cgroups->refused)) {
		queue(CONTAINER_OF(cgroups->refused.next, struct pool_cgroup, link));
	}
}

static void removed(struct pool_cgroup *cgroup)
{
	struct pool_cgroups *cgroups = cgroup->cgroups;

	if (cgroup->result == -EBUSY && ++cgroup->tries < REMOVE_TRIES) {
		cgroup->wanted = POOL_CGROUP_REMOVE;
		base_list_append(&cgroups->refused, &cgroup->link);
		if (!uv_is_active((uv_handle_t *)&cgroups->retry)) {
			uv_timer_start(&cgroups->retry, on_retry, REMOVE_RETRY_MS, 0);
		}
		return;
	}
	if (cgroup->result < 0) {
		base_log(BASE_LOG_WARNING, "sandbox %s: its cgroup cannot be removed: %s",
			 cgroup->id, strerrordesc_np(-cgroup->result));
	}
	forget(cgroup);
}

/* Tells the owner last: it may free the cgroup. */
static void changed(struct pool_cgroup *cgroup, unsigned steps)
{
	int result = cgroup->result;

	cgroup->made |= (cgroup->done & POOL_CGROUP_MAKE) != 0;
	cgroup->entered |= (cgroup->done & POOL_CGROUP_ENTER) != 0;
	if (cgroup->wanted & POOL_CGROUP_REMOVE && !cgroup->made) {
		forget(cgroup);
		return;
	}
	if (cgroup->wanted != 0) {
		queue(cgroup);
	}
	if (cgroup->fn) {
		cgroup->fn(cgroup, steps, result);
	}
}

static void on_done(uv_work_t *work, int status)
{
	struct pool_cgroup_lane *lane = CONTAINER_OF(work, struct pool_cgroup_lane, work);
	struct pool_cgroups *cgroups = lane->cgroups;

	while (!base_list_is_empty(&lane->batch)) {
		struct pool_cgroup *cgroup =
			CONTAINER_OF(lane->batch.next, struct pool_cgroup, link);
		unsigned steps = cgroup->running;

		base_list_remove(&cgroup->link);
		cgroup->running = 0;
		if (steps & POOL_CGROUP_REMOVE) {
			removed(cgroup);
		} else {
			changed(cgroup, steps);
		}
	}
	lane->busy = false;
	lane_start(lane);
	check_idle(cgroups);
}

static void lane_start(struct pool_cgroup_lane *lane)
{
	if (lane->busy || base_list_is_empty(&lane->waiting)) {
		return;
	}
	for (unsigned i = 0; i < BATCH_MAX && !base_list_is_empty(&lane->waiting); i++) {
		struct pool_cgroup *cgroup =
			CONTAINER_OF(lane->waiting.next, struct pool_cgroup, link);

		base_list_remove(&cgroup->link);
		base_list_append(&lane->batch, &cgroup->link);
		cgroup->running = cgroup->wanted;
		cgroup->running_limits = cgroup->limits;
		cgroup->wanted = 0;
	}
	lane->busy = true;
	uv_queue_work(lane->cgroups->loop, &lane->work, run_steps, on_done);
}

/* --- one --- */

static struct pool_cgroup *
new_cgroup(struct pool_cgroups *cgroups, const char *id, const struct pool_cgroup_limits *limits,
	   void (*fn)(struct pool_cgroup *cgroup, unsigned steps, int result), void *userdata)
{
	struct pool_cgroup *cgroup = calloc(1, sizeof(*cgroup));

	if (!cgroup) {
		return NULL;
	}
	if (!cgroups->has_retry) {
		uv_timer_init(cgroups->loop, &cgroups->retry);
		uv_unref((uv_handle_t *)&cgroups->retry);
		cgroups->retry.data = cgroups;
		cgroups->has_retry = true;
	}
	base_list_init(&cgroup->link);
	cgroup->cgroups = cgroups;
	snprintf(cgroup->id, sizeof(cgroup->id), "%s", id);
	cgroup->limits = *limits;
	cgroup->fd = -1;
	cgroup->fn = fn;
	cgroup->userdata = userdata;
	cgroups->n_cgroups++;
	return cgroup;
}

struct pool_cgroup *
pool_cgroup_new(struct pool_cgroups *cgroups, const char *id,
		const struct pool_cgroup_limits *limits,
		void (*fn)(struct pool_cgroup *cgroup, unsigned steps, int result), void *userdata)
{
	struct pool_cgroup *cgroup = new_cgroup(cgroups, id, limits, fn, userdata);

	if (cgroup) {
		cgroup->wanted = POOL_CGROUP_MAKE;
		queue(cgroup);
	}
	return cgroup;
}

struct pool_cgroup *pool_cgroup_adopt(
	struct pool_cgroups *cgroups, const char *id, const struct pool_cgroup_limits *limits,
	void (*fn)(struct pool_cgroup *cgroup, unsigned steps, int result), void *userdata)
{
	struct pool_cgroup *cgroup = new_cgroup(cgroups, id, limits, fn, userdata);

	if (cgroup) {
		cgroup->made = cgroup->entered = true;
	}
	return cgroup;
}

static void want(struct pool_cgroup *cgroup, enum pool_cgroup_step step)
{
	cgroup->wanted |= step;
	queue(cgroup);
}

void pool_cgroup_enter(struct pool_cgroup *cgroup, pid_t pid)
{
	assert(cgroup->pid == 0);
	cgroup->pid = pid;
	want(cgroup, POOL_CGROUP_ENTER);
}

void pool_cgroup_set(struct pool_cgroup *cgroup, const struct pool_cgroup_limits *limits)
{
	cgroup->limits = *limits;
	want(cgroup, POOL_CGROUP_SET);
}

void pool_cgroup_look(struct pool_cgroup *cgroup)
{
	want(cgroup, POOL_CGROUP_LOOK);
}

void pool_cgroup_free(struct pool_cgroup *cgroup)
{
	if (!cgroup) {
		return;
	}
	cgroup->fn = NULL;
	cgroup->wanted = POOL_CGROUP_REMOVE;
	if (cgroup->running == 0 && !cgroup->made) {
		forget(cgroup);
		return;
	}
	queue(cgroup);
}

/* --- all --- */

/* So that two pools on a host do not take each other's for what was left behind. */
static void name_of(const char *runtime_dir, char *out, size_t size)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (const char *p = runtime_dir; *p; p++) {
		hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
	}
	snprintf(out, size, "%016" PRIx64, hash);
}

/* Where the manager before had its cgroups. What cannot be opened is gone. */
static int read_record(struct pool_cgroups *cgroups)
{
	_cleanup_fd_ int fd = open(cgroups->record, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	char *save;
	size_t size;

	if (fd < 0 || base_fd_read_file(fd, RECORD_MAX, &text, &size) < 0) {
		return 0;
	}
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct pool_cgroup_tree tree, *former;

		if (pool_cgroup_tree_reopen(&tree, line) < 0) {
			continue;
		}
		former = reallocarray(cgroups->former, cgroups->n_former + 1, sizeof(*former));
		if (!former) {
			pool_cgroup_tree_close(&tree, false);
			return -ENOMEM;
		}
		cgroups->former = former;
		former[cgroups->n_former++] = tree;
	}
	return 0;
}

static int append_record(FILE *file, const struct pool_cgroup_tree *tree)
{
	_cleanup_free_ char *text = pool_cgroup_tree_save(tree);

	return !text || fputs(text, file) < 0 ? -ENOMEM : 0;
}

static int write_record(const struct pool_cgroups *cgroups)
{
	FILE *file;
	int r;

	if (cgroups->tree.version == 0 && cgroups->n_former == 0) {
		return unlink(cgroups->record) < 0 && errno != ENOENT ? -errno : 0;
	}
	file = fopen(cgroups->record, "we");
	if (!file) {
		return -errno;
	}
	r = append_record(file, &cgroups->tree);
	for (size_t i = 0; r == 0 && i < cgroups->n_former; i++) {
		r = append_record(file, &cgroups->former[i]);
	}
	if (fclose(file) != 0 && r == 0) {
		r = -errno;
	}
	return r;
}

/* The present directories are in the record as well when they have not changed. */
static void drop_present(struct pool_cgroups *cgroups)
{
	size_t kept = 0;

	for (size_t i = 0; i < cgroups->n_former; i++) {
		bool present = false;

		for (unsigned k = 0; k < cgroups->tree.n_roots; k++) {
			present |= strcmp(cgroups->tree.roots[k].path,
					  cgroups->former[i].roots[0].path) == 0;
		}
		if (present) {
			pool_cgroup_tree_close(&cgroups->former[i], false);
		} else {
			cgroups->former[kept++] = cgroups->former[i];
		}
	}
	cgroups->n_former = kept;
}

int pool_cgroups_init(struct pool_cgroups *cgroups, uv_loop_t *loop, enum pool_cgroups_use use,
		      bool with_io, const char *runtime_dir, struct base_error *error)
{
	static const struct pool_cgroup_source source = { NULL, NULL };
	struct base_error reason = { 0 };
	char name[32];
	unsigned wanted = POOL_CGROUP_ALWAYS | (with_io ? POOL_CGROUP_IO : 0);
	int r = 0;

	*cgroups = (struct pool_cgroups){ .loop = loop, .use = use };
	base_list_init(&cgroups->refused);
	for (size_t i = 0; i < ARRAY_SIZE(cgroups->lanes); i++) {
		cgroups->lanes[i].cgroups = cgroups;
		base_list_init(&cgroups->lanes[i].waiting);
		base_list_init(&cgroups->lanes[i].batch);
	}
	if (asprintf(&cgroups->record, "%s/cgroups", runtime_dir) < 0) {
		cgroups->record = NULL;
		return base_error_set_errno(error, -ENOMEM, "cgroups");
	}
	name_of(runtime_dir, name, sizeof(name));
	if (use != POOL_CGROUPS_OFF) {
		r = pool_cgroup_tree_open(&cgroups->tree, &source, name, wanted, &reason);
	}
	if (r < 0 && use == POOL_CGROUPS_REQUIRED) {
		base_error_set(error, r, "no limits by cgroups: %s", reason.text);
		pool_cgroups_deinit(cgroups);
		return r;
	}
	if (r < 0) {
		pool_cgroups_say_trouble(cgroups, reason.text);
	}
	r = read_record(cgroups);
	if (r == 0) {
		drop_present(cgroups);
		r = write_record(cgroups);
	}
	if (r < 0) {
		base_error_set_errno(error, r, "writing %s", cgroups->record);
		pool_cgroups_deinit(cgroups);
	}
	return r;
}

void pool_cgroups_say_trouble(struct pool_cgroups *cgroups, const char *text)
{
	if (!cgroups->is_trouble) {
		base_log(BASE_LOG_WARNING, "sandboxes run without limits by cgroups: %s", text);
	}
	cgroups->is_trouble = true;
	snprintf(cgroups->trouble, sizeof(cgroups->trouble), "%s", text);
}

void pool_cgroups_sweep(struct pool_cgroups *cgroups, bool (*keep)(void *userdata, const char *id),
			void *userdata)
{
	int left = pool_cgroup_tree_sweep(&cgroups->tree, keep, userdata, SWEEP_WAIT_MS);

	for (size_t i = 0; i < cgroups->n_former; i++) {
		int n = pool_cgroup_tree_sweep(&cgroups->former[i], keep, userdata, SWEEP_WAIT_MS);

		left = n < 0 ? n : left + n;
	}
	if (left != 0) {
		base_log(BASE_LOG_WARNING,
			 "cgroups of a manager before this one could not all be removed");
	}
}

void pool_cgroups_stop(struct pool_cgroups *cgroups, void (*on_idle)(struct pool_cgroups *cgroups))
{
	cgroups->on_idle = on_idle;
	if (cgroups->n_cgroups == 0 && cgroups->has_retry) {
		uv_close((uv_handle_t *)&cgroups->retry, on_retry_closed);
		return;
	}
	check_idle(cgroups);
}

void pool_cgroups_deinit(struct pool_cgroups *cgroups)
{
	unsigned left = pool_cgroup_tree_close(&cgroups->tree, true);

	assert(cgroups->n_cgroups == 0);
	for (size_t i = 0; i < cgroups->n_former; i++) {
		left += pool_cgroup_tree_close(&cgroups->former[i], true);
	}
	free(cgroups->former);
	if (cgroups->record && left == 0) {
		unlink(cgroups->record);
	}
	free(cgroups->record);
	*cgroups = (struct pool_cgroups){ 0 };
}
