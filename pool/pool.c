/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The pool's facade: making and stopping it, leases by id, and the background.
 *
 * Work that no request waits for (kills, failures to tell, restores to start) is done by an idle
 * handle that runs while there is any: a little each turn of the loop, so that requests come first.
 * One timer serves all deadlines of waiters, ends of back-offs and dwells of the policy.
 *
 * A watch on the store's names tells when one of them changes; nothing is ever polled.
 *
 * Shut-down: pool_stop() ends leases, waiters and sandboxes; when the last process is reaped and no
 * worker runs, the helpers are ended, the three handles are closed and `done` is called.
 *
 * Runs on the loop's thread.
 */

#include "pool/pool.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define USERFAULTFD_DEVICE "/dev/userfaultfd"

/* A pause between claims, and how long one is waited for. */
#define POOL_PAUSE_NS	 NSEC_PER_MSEC
#define POOL_HOLD_MAX_NS (10 * NSEC_PER_MSEC)

/* --- background --- */

/* One of the handles is closed or one of the helpers reaped. */
static void on_part_ended(struct pool *pool)
{
	if (--pool->n_parts == 0) {
		/* What was refused when the background had ended already. */
		while (pool_queue_tell_refused(pool) || pool_set_tell_refused(pool) ||
		       pool_account_run(pool)) {
		}
		pool->stopped = true;
		pool_journal_remove(&pool->journal);
		pool->on_stopped(pool->on_stopped_userdata);
	}
}

static void on_pool_handle_closed(uv_handle_t *handle)
{
	on_part_ended(handle->data);
}

static bool kill_one(struct pool *pool)
{
	if (base_list_is_empty(&pool->doomed)) {
		return false;
	}
	pool_sandbox_kill(CONTAINER_OF(pool->doomed.next, struct pool_sandbox, link));
	return true;
}

static bool tell_failed_loads(struct pool *pool)
{
	bool told = false;

	for (struct base_link *l = pool->templates.next, *next; l != &pool->templates; l = next) {
		next = l->next;
		told |= pool_template_tell_failure(CONTAINER_OF(l, struct pool_template, link));
	}
	return told;
}

static void on_spawner_stopped(struct pool_helper *helper)
{
	on_part_ended(CONTAINER_OF(helper, struct pool, spawner.helper));
}

static void on_pressure_closed(struct pool_pressure *pressure)
{
	on_part_ended(CONTAINER_OF(pressure, struct pool, pressure));
}

static void on_pager_stopped(struct pool_helper *helper)
{
	on_part_ended(CONTAINER_OF(helper, struct pool, pager.helper));
}

static void on_cgroups_idle(struct pool_cgroups *cgroups)
{
	on_part_ended(CONTAINER_OF(cgroups, struct pool, cgroups));
}

static void on_adoption_closed(struct pool_adoption *adoption)
{
	on_part_ended(CONTAINER_OF(adoption, struct pool, adoption));
}

static void finish_stop(struct pool *pool)
{
	pool->n_parts += pool_adopt_stop(pool, on_adoption_closed);
	pool->n_parts += pool_pressure_stop(&pool->pressure, on_pressure_closed);
	pool_helper_stop(&pool->pager.helper, on_pager_stopped);
	pool_helper_stop(&pool->spawner.helper, on_spawner_stopped);
	uv_close((uv_handle_t *)&pool->background, on_pool_handle_closed);
	uv_close((uv_handle_t *)&pool->timer, on_pool_handle_closed);
	uv_close((uv_handle_t *)&pool->watch, on_pool_handle_closed);
	pool_cgroups_stop(&pool->cgroups, on_cgroups_idle);
}

/*
 * Claims come in bursts, and each start or kill in between costs the next claim what it takes. So
 * these wait until claims pause, but not for long, and not while anybody waits for a sandbox: then
 * they are what is urgent. Held back for too long, all of it is done before it is held back again.
 */
static bool holds_back(struct pool *pool)
{
	uint64_t now_ns = base_clock_monotonic_ns();

	if (pool->stopping || pool->fair.n_waiting > 0) {
		return false;
	}
	if (now_ns - pool->claimed_ns >= POOL_PAUSE_NS) {
		pool->held_ns = 0;
		return false;
	}
	if (pool->held_ns == 0) {
		pool->held_ns = now_ns;
	}
	if (now_ns - pool->held_ns >= POOL_HOLD_MAX_NS) {
		return false;
	}
	pool_timer_need(pool, now_ns + POOL_PAUSE_NS);
	return true;
}

static bool run_held(struct pool *pool)
{
	bool more = kill_one(pool);

	if (!pool->stopping) {
		more |= pool_refill_run(pool);
		pool_record_run(pool);
	}
	if (!more) {
		pool->held_ns = 0;
	}
	return more;
}

static void on_background(uv_idle_t *idle)
{
	struct pool *pool = idle->data;
	bool more = false;

	pool->kicked = false;
	more |= pool_queue_tell_refused(pool);
	more |= pool_set_tell_refused(pool);
	more |= tell_failed_loads(pool);
	more |= pool_account_run(pool);
	more |= !holds_back(pool) && run_held(pool);
	if (more || pool->kicked) {
		return;
	}
	if (pool->stopping && pool->n_sandboxes == 0 && pool->n_working == 0) {
		finish_stop(pool);
		return;
	}
	uv_idle_stop(idle);
	pool->background_runs = false;
}

static void on_store_change(uv_fs_event_t *watch, const char *entry, int events, int status)
{
	pool_template_follow(watch->data, entry);
}

/* The pool is of use without, so a refusal (there is a limit on watches) is no more than said. */
static void watch_store(struct pool *pool)
{
	int r;

	uv_fs_event_init(pool->loop, &pool->watch);
	uv_unref((uv_handle_t *)&pool->watch); /* like the other two, it keeps no loop running */
	r = uv_fs_event_start(&pool->watch, on_store_change, pool->templates_path, 0);
	if (r < 0) {
		base_log(BASE_LOG_WARNING,
			 "cannot watch %s (%s): templates that are built again or removed are "
			 "noticed only by a restart",
			 pool->templates_path, uv_strerror(r));
	}
}

static void make_handles(struct pool *pool)
{
	if (pool->has_handles) {
		return;
	}
	uv_idle_init(pool->loop, &pool->background);
	uv_timer_init(pool->loop, &pool->timer);
	watch_store(pool);
	pool_pressure_start(&pool->pressure, pool->loop, pool_target_on_pressure);
	pool->background.data = pool->timer.data = pool->watch.data = pool;
	pool->n_parts = 6; /* and the helpers and cgroups */
	pool->has_handles = true;
	if (!pool->stopping) {
		pool_adopt(pool);
		pool_helper_start(&pool->spawner.helper);
		pool_helper_start(&pool->pager.helper);
	}
}

void pool_kick(struct pool *pool)
{
	make_handles(pool);
	pool->kicked = true;
	if (!pool->background_runs) {
		pool->background_runs = true;
		uv_idle_start(&pool->background, on_background);
	}
}

static void on_timer(uv_timer_t *timer)
{
	struct pool *pool = timer->data;
	uint64_t now_ns = base_clock_monotonic_ns();

	pool->timer_ns = 0;
	pool_queue_expire(pool, now_ns);
	pool_target_advance(pool, now_ns);
	pool_adopt_advance(pool, now_ns);
	pool_kick(pool);
}

void pool_timer_need(struct pool *pool, uint64_t at_ns)
{
	uint64_t now_ns, delay_ms = 0;

	if (at_ns == UINT64_MAX || pool->stopping ||
	    (pool->timer_ns != 0 && pool->timer_ns <= at_ns)) {
		return;
	}
	make_handles(pool);
	uv_update_time(pool->loop);
	now_ns = base_clock_monotonic_ns();
	if (at_ns > now_ns) {
		delay_ms = (at_ns - now_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
	}
	uv_timer_start(&pool->timer, on_timer, delay_ms, 0);
	pool->timer_ns = at_ns;
}

/* --- making and stopping --- */

/* Whether a process that was started nicer can be made as urgent as others. */
static bool may_raise_priority(void)
{
	int nice;

	errno = 0;
	nice = getpriority(PRIO_PROCESS, 0);
	return errno == 0 && setpriority(PRIO_PROCESS, 0, nice - 1) == 0 &&
	       setpriority(PRIO_PROCESS, 0, nice) == 0;
}

static int copy_configs(struct pool *pool, const struct pool_config *config)
{
	pool->default_config = config->default_template;
	pool->default_config.name = NULL;
	pool->configs = calloc(config->n_templates + 1, sizeof(*pool->configs));
	if (!pool->configs) {
		return -ENOMEM;
	}
	for (size_t i = 0; i < config->n_templates; i++) {
		pool->configs[i] = config->templates[i];
		pool->configs[i].name = strdup(config->templates[i].name);
		pool->n_configs++;
		if (!pool->configs[i].name) {
			return -ENOMEM;
		}
	}
	return 0;
}

static bool wants_io_weight(const struct pool *pool)
{
	bool wants = pool->default_config.cgroup.io_weight > 0;

	for (size_t i = 0; i < pool->n_configs; i++) {
		wants |= pool->configs[i].cgroup.io_weight > 0;
	}
	return wants;
}

struct pool_template_config pool_template_config_of(const struct pool *pool, const char *name)
{
	for (size_t i = 0; i < pool->n_configs; i++) {
		if (strcmp(pool->configs[i].name, name) == 0) {
			return pool->configs[i];
		}
	}
	return pool->default_config;
}

static int init_journal(struct pool *pool, const char *path, struct base_error *error)
{
	_cleanup_free_ char *own = NULL;

	if (!path && asprintf(&own, "%s/journal", pool->runtime_dir) < 0) {
		own = NULL;
		return base_error_set_errno(error, -ENOMEM, "journal");
	}
	return pool_journal_init(&pool->journal, path ?: own, pool_record_fill, error);
}

int pool_new(uv_loop_t *loop, const struct pool_config *config, struct pool **ret_pool,
	     struct base_error *error)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	int r;

	if (!pool) {
		return base_error_set(error, -ENOMEM, "out of memory");
	}
	pool->loop = loop;
	pool->devnull = pool->userfaultfd_fd = -1;
	pool->default_limits.max = MIN(config->default_limits.max, (unsigned)POOL_TARGET_MAX);
	pool->default_limits.min = MIN(config->default_limits.min, pool->default_limits.max);
	pool->restore_concurrency = config->restore_concurrency > 0 ? config->restore_concurrency
								    : uv_available_parallelism();
	pool->default_shells = MIN(config->default_shells, (unsigned)POOL_SHELLS_MAX);
	pool->restore_nice = may_raise_priority() ? config->restore_nice : 0;
	pool->touch = config->touch;
	pool->identity_timeout_ms = config->identity_timeout_ms;
	pool->acquire_timeout_ms = config->acquire_timeout_ms;
	base_list_init(&pool->templates);
	base_list_init(&pool->doomed);
	base_list_init(&pool->sandboxes);
	pool->adoption.pager_pidfd = -1;
	pool->orphan_timeout_ms = config->death.orphan_timeout_ms ?: POOL_ORPHAN_TIMEOUT_MS;
	base_list_init(&pool->refused);
	pool_fair_init(&pool->fair, base_clock_monotonic_ns());
	pool_pressure_init(&pool->pressure, config->memory_floor_percent);
	pool_lease_table_init(&pool->leases);
	r = pool_tenants_init(&pool->tenants, config->tenants);
	if (r < 0) {
		base_error_set(error, r, "out of memory");
		goto fail;
	}
	pool->runtime_dir = strdup(config->runtime_dir);
	pool->vmm_path = strdup(config->vmm_path);
	if (asprintf(&pool->templates_path, "%s/templates", config->store_path) < 0) {
		pool->templates_path = NULL;
	}
	if (!pool->runtime_dir || !pool->vmm_path || !pool->templates_path) {
		r = base_error_set(error, -ENOMEM, "out of memory");
		goto fail;
	}
	r = pool_launch_check_dir(pool->runtime_dir, error);
	if (r < 0) {
		goto fail;
	}
	r = init_journal(pool, config->death.journal_path, error);
	if (r < 0) {
		goto fail;
	}
	if (access(pool->vmm_path, X_OK) < 0) {
		r = base_error_set_errno(error, -errno, "VMM program %s", pool->vmm_path);
		goto fail;
	}
	if (access(config->spawner_path, X_OK) < 0) {
		r = base_error_set_errno(error, -errno, "spawner program %s", config->spawner_path);
		goto fail;
	}
	if (access(config->pager_path, X_OK) < 0) {
		r = base_error_set_errno(error, -errno, "pager program %s", config->pager_path);
		goto fail;
	}
	r = pool_pager_init(&pool->pager, loop, config->pager_path, config->fill_limit_bytes);
	if (r < 0) {
		r = base_error_set(error, r, "out of memory");
		goto fail;
	}
	r = pool_spawner_init(&pool->spawner, loop, config->spawner_path, pool->vmm_path,
			      &config->jail);
	if (r == 0 && config->jail.level == POOL_JAIL_FULL) {
		r = pool_jail_uids_init(&pool->uids, config->jail.uid_first, config->jail.uid_last);
	}
	if (r < 0) {
		r = base_error_set(error, r, "out of memory");
		goto fail;
	}
	pool->devnull = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (pool->devnull < 0) {
		r = base_error_set_errno(error, -errno, "opening /dev/null");
		goto fail;
	}
	pool->userfaultfd_fd = open(USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	r = snapshot_store_open(config->store_path, true, &pool->store, error);
	if (r < 0) {
		goto fail;
	}
	r = copy_configs(pool, config);
	if (r < 0) {
		r = base_error_set(error, r, "out of memory");
		goto fail;
	}
	r = pool_cgroups_init(&pool->cgroups, loop, config->cgroups, wants_io_weight(pool),
			      pool->runtime_dir, error);
	if (r < 0) {
		goto fail;
	}
	*ret_pool = pool;
	return 0;

fail:
	pool_free(pool);
	return r;
}

void pool_lease_end(struct pool *pool, struct pool_lease_entry *entry, enum pool_cause cause)
{
	struct pool_sandbox *sandbox = entry->sandbox;

	sandbox->lease = NULL;
	/* Whatever becomes of the record, nobody can adopt the VM after this. */
	if (pool_record_ended(pool, entry->id, cause) < 0) {
		pool_launch_kill(&sandbox->launch);
	}
	pool_lease_table_end(&pool->leases, entry, cause);
	pool_sandbox_doom(sandbox);
}

static void stop_template(struct pool_template *template)
{
	template->target = template->keep = 0;
	pool_template_cancel(template);
	pool_refill_end(template);
	pool_set_tell(template, POOL_UNAVAILABLE, "shutting down");
	pool_queue_fail(template, POOL_UNAVAILABLE, "shutting down");
}

void pool_start(struct pool *pool)
{
	make_handles(pool);
}

void pool_stop(struct pool *pool, void (*done)(void *userdata), void *userdata)
{
	assert(!pool->stopping);
	pool->stopping = true;
	pool->on_stopped = done;
	pool->on_stopped_userdata = userdata;
	make_handles(pool);
	uv_timer_stop(&pool->timer);
	uv_fs_event_stop(&pool->watch);
	while (!base_list_is_empty(&pool->leases.active)) {
		pool_lease_end(
			pool, CONTAINER_OF(pool->leases.active.next, struct pool_lease_entry, link),
			POOL_CAUSE_SHUTDOWN);
	}
	for (struct base_link *l = pool->templates.next; l != &pool->templates; l = l->next) {
		stop_template(CONTAINER_OF(l, struct pool_template, link));
	}
	pool_kick(pool);
}

void pool_free(struct pool *pool)
{
	if (!pool) {
		return;
	}
	assert(!pool->has_handles || pool->stopped);
	while (!base_list_is_empty(&pool->templates)) {
		pool_template_free(CONTAINER_OF(pool->templates.next, struct pool_template, link));
	}
	pool_lease_table_deinit(&pool->leases);
	pool_tenants_deinit(&pool->tenants);
	if (pool->store) {
		snapshot_store_free(pool->store);
	}
	base_fd_close(pool->devnull);
	base_fd_close(pool->userfaultfd_fd);
	free(pool->runtime_dir);
	free(pool->vmm_path);
	free(pool->templates_path);
	for (size_t i = 0; i < pool->n_configs; i++) {
		free((char *)pool->configs[i].name);
	}
	free(pool->configs);
	pool_cgroups_deinit(&pool->cgroups);
	pool_spawner_deinit(&pool->spawner);
	pool_jail_uids_deinit(&pool->uids);
	pool_pressure_deinit(&pool->pressure);
	pool_pager_deinit(&pool->pager);
	pool_journal_deinit(&pool->journal);
	free(pool);
}

struct pool_tenants *pool_tenants(struct pool *pool)
{
	return &pool->tenants;
}

/* --- leases --- */

/* Whether a lease that ends so much later would last longer than its template allows. */
static bool goes_too_far(const struct pool_lease_entry *entry, uint64_t ttl_ms)
{
	const struct pool_template *template = entry->sandbox->template;
	uint64_t max_ms = template ? template->config.limits.ttl_max_ms : 0;
	uint64_t now_ns = base_clock_realtime_ns();
	uint64_t lasted_ns = now_ns - MIN(entry->acquired_realtime_ns, now_ns);

	return max_ms > 0 &&
	       (ttl_ms == 0 || ttl_ms > max_ms || lasted_ns / NSEC_PER_MSEC > max_ms - ttl_ms);
}

enum pool_status pool_renew(struct pool *pool, const char *lease_id, uint64_t ttl_ms)
{
	struct pool_lease_entry *entry = pool_lease_table_find(&pool->leases, lease_id);

	if (!entry || entry->cause != POOL_CAUSE_NONE) {
		return POOL_NOT_FOUND;
	}
	if (goes_too_far(entry, ttl_ms)) {
		return POOL_INVALID;
	}
	pool_lease_entry_set_ttl(entry, ttl_ms);
	pool_sandbox_set_ttl(entry->sandbox, ttl_ms);
	/* The time counts from now on; a successor that does not know would end it early. */
	return pool_record_renewed(entry->sandbox) < 0 ? POOL_UNAVAILABLE : POOL_OK;
}

enum pool_status pool_release(struct pool *pool, const char *lease_id, enum pool_cause cause)
{
	struct pool_lease_entry *entry = pool_lease_table_find(&pool->leases, lease_id);

	if (!entry) {
		return POOL_NOT_FOUND;
	}
	if (entry->cause == POOL_CAUSE_NONE) {
		pool_lease_end(pool, entry, cause);
	}
	return POOL_OK;
}

bool pool_get(struct pool *pool, const char *lease_id, struct pool_lease *ret_lease)
{
	struct pool_lease_entry *entry = pool_lease_table_find(&pool->leases, lease_id);

	if (entry) {
		pool_lease_entry_show(entry, ret_lease);
	}
	return entry != NULL;
}

static void list_ring(const struct base_link *head,
		      void (*fn)(void *userdata, const struct pool_lease *lease), void *userdata)
{
	for (struct base_link *l = head->next, *next; l != head; l = next) {
		struct pool_lease lease;

		next = l->next;
		pool_lease_entry_show(CONTAINER_OF(l, struct pool_lease_entry, link), &lease);
		fn(userdata, &lease);
	}
}

void pool_list(struct pool *pool, unsigned which,
	       void (*fn)(void *userdata, const struct pool_lease *lease), void *userdata)
{
	if (which & POOL_LIST_ENDED) {
		list_ring(&pool->leases.ended, fn, userdata);
	}
	if (which & POOL_LIST_ACTIVE) {
		list_ring(&pool->leases.active, fn, userdata);
	}
}
