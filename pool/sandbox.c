/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sandboxes: from the request for a process to the last closed handle.
 *
 * Happy path: the spawner is asked for a process, which finds CREATE in its socket and becomes a
 * shell; pool/talk.c converses with it until it is parked, a claim leases it, and it is doomed.
 *
 * Failure: pool_sandbox_lose() with the reason, from here when the process could not be started or
 * has ended, from pool/talk.c otherwise; the pool decides what that means and dooms the sandbox.
 *
 * Shut-down: doomed, killed from the background, reaped when the pidfd says so, freed when its
 * handles are closed. One that is doomed before the spawner has answered is killed afterwards.
 *
 * Priority: a VMM starts below everything that serves a claim (pool_config.restore_nice). When
 * somebody waits for it, and when it is claimed, it gets nice 0. One call does that for all of its
 * threads: it is alone in its process group. With cgroups (pool/limit.c) it gets weight, and no
 * later than when it is parked.
 *
 * Runs on the loop's thread.
 */

#include "pool/sandbox.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/random.h"
#include "pool/internal.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* --- user ids --- */

static int take_uid(struct pool *pool, struct pool_launch *launch, struct base_error *error)
{
	int r = pool->uids.n > 0 ? pool_jail_uids_take(&pool->uids, &launch->uid) : 0;

	return r < 0 ? base_error_set(error, r, "all %u user ids of the jail are taken",
				      pool->uids.n)
		     : 0;
}

/* It has one of an earlier manager, which is nobody else's then. */
static void keep_uid(struct pool *pool, struct pool_launch *launch)
{
	struct stat status;
	char path[32];

	/* The directory belongs to the user that the process is, also when nothing in it does. */
	snprintf(path, sizeof(path), "/proc/%d", (int)launch->pid);
	if (pool->uids.n > 0 && stat(path, &status) == 0 &&
	    pool_jail_uids_claim(&pool->uids, status.st_uid) == 0) {
		launch->uid = status.st_uid;
	}
}

static void give_uid(struct pool *pool, struct pool_launch *launch)
{
	if (launch->uid > 0) {
		pool_jail_uids_give(&pool->uids, launch->uid);
		launch->uid = 0;
	}
}

/* --- end --- */

static void sandbox_free(struct pool_sandbox *sandbox)
{
	struct pool *pool = sandbox->pool;

	base_list_remove(&sandbox->image_link);
	base_list_remove(&sandbox->pool_link);
	give_uid(pool, &sandbox->launch);
	pool_launch_deinit(&sandbox->launch);
	pool_cgroup_free(sandbox->cgroup);
	pool_lease_entry_free(sandbox->lease);
	pool_image_unref(sandbox->image);
	free(sandbox);
	pool->n_sandboxes--;
	if (pool->stopping) {
		pool_kick(pool);
	}
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct pool_sandbox *sandbox = handle->data;

	if (--sandbox->n_handles == 0) {
		sandbox_free(sandbox);
	}
}

void pool_sandbox_close(struct pool_sandbox *sandbox, void *handle)
{
	uv_handle_t *h = handle;

	if (h->type != UV_UNKNOWN_HANDLE && !uv_is_closing(h)) {
		uv_close(h, on_handle_closed);
	}
}

/* Everything but waiting for the process. */
static void close_links(struct pool_sandbox *sandbox)
{
	pool_sandbox_close(sandbox, &sandbox->control);
	pool_sandbox_close(sandbox, &sandbox->stream);
	pool_sandbox_close(sandbox, &sandbox->timer);
	sandbox->launch.control = base_fd_close(sandbox->launch.control);
	sandbox->launch.stream = base_fd_close(sandbox->launch.stream);
	sandbox->launch.stream_peer = base_fd_close(sandbox->launch.stream_peer);
	sandbox->launch.control_peer = base_fd_close(sandbox->launch.control_peer);
}

void pool_sandbox_doom(struct pool_sandbox *sandbox)
{
	struct pool_template *template = sandbox->template;

	switch (sandbox->state) {
	case POOL_SANDBOX_STARTING:
		sandbox->pool->n_starting--;
		template->n_shells--;
		break;
	case POOL_SANDBOX_SHELL:
		template->n_shells--;
		break;
	case POOL_SANDBOX_LOADING:
	case POOL_SANDBOX_IDENTIFYING:
	case POOL_SANDBOX_PAUSING:
		template->n_restoring--;
		sandbox->pool->n_restoring--;
		break;
	case POOL_SANDBOX_PARKED:
		template->n_parked--;
		break;
	case POOL_SANDBOX_LEASED:
		template->n_leased--;
		break;
	case POOL_SANDBOX_DOOMED:
	case POOL_SANDBOX_DYING:
		return;
	}
	base_list_remove(&sandbox->link);
	sandbox->state = POOL_SANDBOX_DOOMED;
	if (sandbox->spawning && pool_spawn_cancel(&sandbox->pool->spawner, &sandbox->spawn)) {
		sandbox->spawning = false;
	}
	if (!sandbox->spawning) {
		base_list_append(&sandbox->pool->doomed, &sandbox->link);
		pool_kick(sandbox->pool);
	}
}

void pool_sandbox_kill(struct pool_sandbox *sandbox)
{
	assert(sandbox->state == POOL_SANDBOX_DOOMED && !sandbox->spawning);
	base_list_remove(&sandbox->link);
	sandbox->state = POOL_SANDBOX_DYING;
	pool_launch_kill(&sandbox->launch);
	pool_launch_unlink(&sandbox->launch);
	pool_pager_remove_vm(sandbox);
	close_links(sandbox);
	if (sandbox->launch.pidfd < 0) {
		/* There is no process, or it has been reaped. */
		pool_sandbox_close(sandbox, &sandbox->process);
	}
}

void pool_sandbox_lose(struct pool_sandbox *sandbox, enum pool_cause cause, const char *format, ...)
{
	char text[BASE_ERROR_TEXT_MAX];
	va_list args;

	if (sandbox->state >= POOL_SANDBOX_DOOMED) {
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* Said once, here, where it is decided: nobody else knows why. */
	base_log(cause == POOL_CAUSE_GUEST_EXITED ? BASE_LOG_INFO : BASE_LOG_WARNING,
		 "sandbox %s of %s: %s", sandbox->launch.id, sandbox->template->name, text);
	pool_refill_lost(sandbox, cause, text);
}

int pool_sandbox_poll(struct pool_sandbox *sandbox, uv_poll_t *poll, int fd, uv_poll_cb callback)
{
	int r = uv_poll_init(sandbox->pool->loop, poll, fd);

	if (r < 0) {
		poll->type = UV_UNKNOWN_HANDLE;
		return r;
	}
	poll->data = sandbox;
	sandbox->n_handles++;
	return uv_poll_start(poll, UV_READABLE, callback);
}

/* --- restore --- */

/* Said by the spawner's child, in a message before it ended. */
static void lose_not_executed(struct pool_sandbox *sandbox)
{
	struct pool *pool = sandbox->pool;

	pool_helper_drain(&pool->spawner.helper);
	pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "starting %s: %s", pool->vmm_path,
			  pool->spawner.not_executed.text[0] ? pool->spawner.not_executed.text
							     : "it cannot be executed");
}

/* The end of one that has not yet been taken over is a lease that was lost. */
static enum pool_cause cause_of_end(const struct pool_sandbox *sandbox)
{
	return sandbox->adoption == POOL_ADOPTION_ASKED ||
			       sandbox->adoption == POOL_ADOPTION_ASKED_LAST
		       ? POOL_CAUSE_LOST
		       : POOL_CAUSE_VMM_DIED;
}

void pool_sandbox_ended(struct pool_sandbox *sandbox)
{
	bool asks = false;
	int code, killed_by;

	if (!pool_launch_reap(&sandbox->launch, &code, &killed_by)) {
		return;
	}
	if (sandbox->state < POOL_SANDBOX_DOOMED) {
		/* What it said last may tell why. */
		pool_talk_drain(sandbox);
	}
	if (code == POOL_SPAWN_NOT_EXECUTED && sandbox->state < POOL_SANDBOX_DOOMED) {
		lose_not_executed(sandbox);
	}
	if (killed_by == SIGKILL) {
		asks = pool_limit_killed(sandbox);
	}
	if (asks) {
		/* Lost when the answer is there. */
	} else if (killed_by == SIGSYS) {
		sandbox->template->forbidden_total++;
		pool_sandbox_lose(sandbox, POOL_CAUSE_FORBIDDEN,
				  "the VMM made a system call that is forbidden to it: its guest "
				  "may have taken it over");
	} else if (killed_by > 0) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
				  "the VMM was killed by signal %d (%s)", killed_by,
				  strsignal(killed_by));
	} else if (sandbox->adoption != POOL_ADOPTION_NONE) {
		/* No child of this process, so there is no status. */
		pool_sandbox_lose(sandbox, cause_of_end(sandbox), "the VMM has ended");
	} else {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "the VMM ended with status %d",
				  code);
	}
	sandbox->launch.pidfd = base_fd_close(sandbox->launch.pidfd);
	pool_sandbox_close(sandbox, &sandbox->process);
	if (sandbox->state == POOL_SANDBOX_DOOMED) {
		pool_sandbox_kill(sandbox);
	}
}

static void on_process(uv_poll_t *poll, int status, int events)
{
	struct pool_sandbox *sandbox = poll->data;

	if (pool_limit_keeps(sandbox)) {
		uv_poll_stop(poll);
		return;
	}
	pool_sandbox_ended(sandbox);
}

/* The process is there, or will not be. */
static void on_spawned(struct pool_spawn *spawn, int result, pid_t pid, int pidfd,
		       uint64_t started_ns)
{
	struct pool_sandbox *sandbox = CONTAINER_OF(spawn, struct pool_sandbox, spawn);
	struct pool_launch *launch = &sandbox->launch;
	int r = result;

	sandbox->spawning = false;
	launch->control_peer = base_fd_close(launch->control_peer);
	launch->pidfd = pidfd;
	if (r == 0) {
		launch->pid = pid;
		sandbox->mark_ns = launch->started_ns = started_ns;
		/* Whatever comes next, a process that is there has to be waited for. */
		r = pool_sandbox_poll(sandbox, &sandbox->process, pidfd, on_process);
		if (r < 0) {
			/* It cannot be waited for, so wait: it is being killed. */
			pool_launch_kill(launch);
			pool_launch_wait(launch);
		} else {
			pool_limit_process(sandbox);
		}
	}
	if (sandbox->state == POOL_SANDBOX_DOOMED) {
		base_list_append(&sandbox->pool->doomed, &sandbox->link);
		pool_kick(sandbox->pool);
		return;
	}
	if (r == 0) {
		r = pool_talk_start(sandbox);
	}
	if (r == 0 && sandbox->urgent) {
		pool_limit_raise(sandbox);
	}
	if (r == 0) {
		r = pool_record_started(sandbox);
	}
	if (r < 0 && sandbox->pool->journal.trouble[0]) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "%s",
				  sandbox->pool->journal.trouble);
	} else if (r < 0) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "starting %s: %s",
				  sandbox->pool->vmm_path, strerrordesc_np(-r));
	}
}

static int draw_token(char token[POOL_TOKEN_LENGTH + 1])
{
	uint8_t bytes[POOL_TOKEN_LENGTH / 2];
	int r = base_random(bytes, sizeof(bytes));

	if (r == 0) {
		base_hex(bytes, sizeof(bytes), token);
	}
	return r;
}

void pool_sandbox_spawn(struct pool_sandbox *sandbox)
{
	struct pool *pool = sandbox->pool;

	sandbox->spawning = true;
	sandbox->spawn.control = sandbox->launch.control_peer;
	sandbox->spawn.cgroup = sandbox->cgroup ? sandbox->cgroup->fd : -1;
	sandbox->spawn.nice = pool->restore_nice;
	sandbox->spawn.uid = sandbox->launch.uid;
	sandbox->spawn.fn = on_spawned;
	pool_spawn_start(&pool->spawner, &sandbox->spawn);
}

int pool_sandbox_start(struct pool_template *template, struct pool_sandbox **ret_sandbox,
		       struct base_error *error)
{
	struct pool *pool = template->pool;
	_cleanup_free_ struct pool_lease_entry *lease = calloc(1, sizeof(*lease));
	_cleanup_free_ struct pool_sandbox *sandbox = calloc(1, sizeof(*sandbox));
	int r;

	if (!lease || !sandbox) {
		return base_error_set_errno(error, -ENOMEM, "sandbox");
	}
	sandbox->pool = pool;
	sandbox->template = template;
	sandbox->generation = ++pool->generation;
	r = draw_token(lease->token);
	if (r < 0) {
		return base_error_set_errno(error, r, "drawing a token");
	}
	sandbox->spawn.cgroup = -1;
	pool_launch_init(&sandbox->launch);
	r = take_uid(pool, &sandbox->launch, error);
	if (r == 0) {
		r = pool_launch_prepare(&sandbox->launch, pool, template->image, error);
	}
	if (r == 0) {
		r = pool_launch_limit(&sandbox->launch, &template->config.limits);
		if (r < 0) {
			base_error_set_errno(error, r, "sending the limits");
		}
	}
	if (r < 0) {
		give_uid(pool, &sandbox->launch);
		pool_launch_unlink(&sandbox->launch);
		pool_launch_deinit(&sandbox->launch);
		return r;
	}
	uv_timer_init(pool->loop, &sandbox->timer);
	sandbox->timer.data = sandbox;
	sandbox->n_handles = 1;
	sandbox->lease = TAKE_PTR(lease);
	sandbox->image = pool_image_ref(template->image);
	sandbox->lazy = !template->image->pager.complete;
	base_list_init(&sandbox->image_link);
	base_list_append(&template->image->sandboxes, &sandbox->image_link);
	base_list_init(&sandbox->pool_link);
	base_list_append(&pool->sandboxes, &sandbox->pool_link);
	base_list_init(&sandbox->link);
	base_list_append(&template->shells, &sandbox->link);
	template->n_shells++;
	pool->n_starting++;
	pool->n_sandboxes++;
	pool_talk_begin(sandbox);
	sandbox->unasked = pool_limit_start(sandbox);
	if (!sandbox->unasked) {
		pool_sandbox_spawn(sandbox);
	}
	*ret_sandbox = TAKE_PTR(sandbox);
	return 0;
}

/* --- restore --- */

void pool_sandbox_hurry(struct pool_sandbox *sandbox)
{
	if (!sandbox->urgent) {
		sandbox->urgent = true;
		pool_limit_raise(sandbox);
	}
}

void pool_sandbox_load(struct pool_sandbox *sandbox, bool urgent)
{
	struct pool_template *template = sandbox->template;
	struct pool *pool = sandbox->pool;
	int r;

	assert(sandbox->state <= POOL_SANDBOX_SHELL);
	sandbox->timings.from_shell = sandbox->state == POOL_SANDBOX_SHELL;
	if (!sandbox->timings.from_shell) {
		pool->n_starting--;
	}
	template->n_shells--;
	template->n_restoring++;
	pool->n_restoring++;
	base_list_remove(&sandbox->link);
	base_list_append(&template->restoring, &sandbox->link);
	sandbox->state = POOL_SANDBOX_LOADING;
	if (urgent) {
		pool_sandbox_hurry(sandbox);
	}
	r = pool_talk_load(sandbox);
	if (r < 0) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "loading the state: %s",
				  strerrordesc_np(-r));
	}
}

/* --- claim --- */

static void on_ttl(uv_timer_t *timer)
{
	struct pool_sandbox *sandbox = timer->data;

	pool_release(sandbox->pool, sandbox->launch.id, POOL_CAUSE_EXPIRED);
}

void pool_sandbox_set_ttl(struct pool_sandbox *sandbox, uint64_t ttl_ms)
{
	assert(sandbox->state == POOL_SANDBOX_LEASED);
	if (ttl_ms == 0) {
		uv_timer_stop(&sandbox->timer);
		return;
	}
	uv_update_time(sandbox->pool->loop);
	uv_timer_start(&sandbox->timer, on_ttl, ttl_ms, 0);
}

static uint64_t left_ms(const struct pool_lease_entry *lease)
{
	uint64_t now_ns = base_clock_realtime_ns();

	return lease->expires_realtime_ns > now_ns
		       ? (lease->expires_realtime_ns - now_ns) / NSEC_PER_MSEC + 1
		       : 0;
}

int pool_sandbox_adopt(struct pool *pool, struct pool_lease_entry *lease, int pidfd,
		       uint64_t start_ticks)
{
	_cleanup_free_ struct pool_sandbox *sandbox = calloc(1, sizeof(*sandbox));
	struct pool_template *template;
	enum pool_status status;
	const char *text;
	int r;

	if (!sandbox) {
		return -ENOMEM;
	}
	pool_launch_init(&sandbox->launch);
	r = pool_launch_adopt(&sandbox->launch, pool, lease->id);
	template = r == 0 ? pool_template_get(pool, lease->template_name, &status, &text) : NULL;
	if (!template) {
		pool_launch_deinit(&sandbox->launch);
		return r < 0 ? r : -ENOENT;
	}
	sandbox->pool = pool;
	sandbox->spawn.cgroup = -1;
	sandbox->template = template;
	sandbox->state = POOL_SANDBOX_LEASED;
	sandbox->adoption = POOL_ADOPTION_ASKED;
	sandbox->urgent = true;
	sandbox->launch.pid = lease->pid;
	keep_uid(pool, &sandbox->launch);
	sandbox->launch.start_ticks = start_ticks;
	sandbox->claimed_ns = sandbox->claim_received_ns = base_clock_monotonic_ns();
	base_list_init(&sandbox->link);
	base_list_init(&sandbox->image_link);
	base_list_init(&sandbox->pool_link);
	uv_timer_init(pool->loop, &sandbox->timer);
	sandbox->timer.data = sandbox;
	sandbox->n_handles = 1;
	pool->n_sandboxes++;
	template->n_leased++;
	base_list_append(&pool->sandboxes, &sandbox->pool_link);
	sandbox->launch.pidfd = pidfd;
	lease->sandbox = sandbox;
	sandbox->lease = lease;
	pool_lease_table_add(&pool->leases, lease);
	r = pool_sandbox_poll(sandbox, &sandbox->process, pidfd, on_process);
	if (r == 0) {
		r = pool_talk_start(sandbox);
	}
	if (lease->expires_realtime_ns > 0) {
		uv_timer_start(&sandbox->timer, on_ttl, left_ms(lease), 0);
	}
	if (r < 0) {
		pool_launch_kill(&sandbox->launch);
		pool_launch_wait(&sandbox->launch);
		pool_sandbox_lose(sandbox, POOL_CAUSE_LOST, "it cannot be watched");
	}
	(void)TAKE_PTR(sandbox);
	return 0;
}

int pool_sandbox_claim(struct pool_sandbox *sandbox, uint64_t received_ns, uint64_t ttl_ms)
{
	assert(sandbox->state == POOL_SANDBOX_PARKED);
	sandbox->claim_received_ns = received_ns;
	sandbox->claimed_ns = sandbox->pool->claimed_ns = base_clock_monotonic_ns();

	int r = pool_talk_claim(sandbox);

	if (r < 0) {
		return r;
	}
	pool_sandbox_hurry(sandbox);
	base_list_remove(&sandbox->link);
	sandbox->state = POOL_SANDBOX_LEASED;
	sandbox->template->n_parked--;
	sandbox->template->n_leased++;
	if (ttl_ms > 0) {
		pool_sandbox_set_ttl(sandbox, ttl_ms);
	}
	return 0;
}

int pool_sandbox_take_stream(struct pool_sandbox *sandbox)
{
	return TAKE_FD(sandbox->launch.stream);
}
