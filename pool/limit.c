/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A sandbox and its cgroup: what has to wait for what.
 *
 * Happy path: a sandbox that starts asks for a cgroup. With version 2 the process is asked for when
 * there is one; with version 1 at once, and it is moved when both are there. A sandbox that is
 * restored before it is moved is parked when it is. From then on it has the weight of those in use:
 * it is paused, so that costs nobody anything, and a claim has nothing to do.
 *
 * Failure: where limits are required the sandbox is lost. Where they are not it goes on without,
 * and the pool's trouble says why. A VMM that was killed may have used up its memory: its cgroup is
 * asked, and until it has answered the sandbox stays in the state in which it died.
 *
 * Shut-down: freeing the sandbox gives the cgroup up. Runs on the loop's thread.
 */

#include "base/fd.h"
#include "pool/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

const char *pool_cgroups_state(const struct pool *pool)
{
	static char text[BASE_ERROR_TEXT_MAX + 8];

	if (pool->cgroups.use == POOL_CGROUPS_OFF) {
		return "off";
	}
	if (pool->cgroups.is_trouble) {
		snprintf(text, sizeof(text), "none: %s", pool->cgroups.trouble);
		return text;
	}
	return pool->cgroups.tree.version == 2 ? "version 2" : "version 1";
}

static bool has(const struct pool_sandbox *sandbox, enum pool_cgroup_controller controller)
{
	return sandbox->cgroup && (sandbox->pool->cgroups.tree.controllers & controller);
}

/* The sandbox goes on without, or does not. */
static void do_without(struct pool_sandbox *sandbox, int r)
{
	struct pool_cgroups *cgroups = &sandbox->pool->cgroups;
	struct base_error error = { 0 };

	base_error_set_errno(&error, r, "a cgroup could not be made or entered");
	if (cgroups->use == POOL_CGROUPS_REQUIRED) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_LIMIT, "%s", error.text);
		return;
	}
	pool_cgroups_say_trouble(cgroups, error.text);
	pool_cgroup_free(TAKE_PTR(sandbox->cgroup));
}

static void tell_death(struct pool_sandbox *sandbox)
{
	const struct pool_cgroup_events *events = &sandbox->cgroup->events;

	if (events->oom_kills > 0) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_LIMIT,
				  "the VMM was killed: it needed more memory than its limit of "
				  "%" PRIu64 " MiB",
				  events->memory_limit >> 20);
	} else {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
				  "the VMM was killed by signal %d (%s)", SIGKILL,
				  strsignal(SIGKILL));
	}
}

/* Whatever waited for the cgroup goes on. */
static void go_on(struct pool_sandbox *sandbox)
{
	if (sandbox->unasked) {
		sandbox->unasked = false;
		pool_sandbox_spawn(sandbox);
	}
	if (sandbox->restored && !pool_limit_holds(sandbox)) {
		sandbox->restored = false;
		pool_refill_parked(sandbox);
	}
}

static void on_cgroup(struct pool_cgroup *cgroup, unsigned steps, int result)
{
	struct pool_sandbox *sandbox = cgroup->userdata;
	bool ended = sandbox->ended && !pool_cgroup_is_entering(cgroup);

	if (result < 0 && result != -ESRCH && (steps & (POOL_CGROUP_MAKE | POOL_CGROUP_ENTER)) &&
	    sandbox->state < POOL_SANDBOX_DOOMED) {
		do_without(sandbox, result);
	} else if (result == 0 && (steps & POOL_CGROUP_MAKE)) {
		sandbox->pool->cgroups.is_trouble = false;
	}
	if (ended) {
		sandbox->ended = false;
		pool_sandbox_ended(sandbox);
	}
	if (sandbox->state >= POOL_SANDBOX_DOOMED) {
		return;
	}
	if (steps & POOL_CGROUP_LOOK) {
		tell_death(sandbox);
	} else {
		go_on(sandbox);
	}
}

static struct pool_cgroup_limits limits_of(const struct pool_sandbox *sandbox)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(sandbox->image->snapshot);
	uint64_t zero_bytes =
		MIN(manifest->zero_chunks, manifest->memory_bytes / SNAPSHOT_CHUNK_BYTES) *
		SNAPSHOT_CHUNK_BYTES;

	return pool_cgroup_limits_of(&sandbox->template->config.cgroup, manifest->memory_bytes,
				     zero_bytes, manifest->n_vcpus);
}

bool pool_limit_start(struct pool_sandbox *sandbox)
{
	struct pool *pool = sandbox->pool;
	struct pool_cgroup_limits limits;

	if (!pool_cgroups_are_there(&pool->cgroups)) {
		return false;
	}
	limits = limits_of(sandbox);
	/* Nice values have no say between cgroups. */
	limits.cpu_weight = pool_cgroup_weight_of_nice(limits.cpu_weight, pool->restore_nice);
	sandbox->cgroup =
		pool_cgroup_new(&pool->cgroups, sandbox->launch.id, &limits, on_cgroup, sandbox);
	if (!sandbox->cgroup) {
		do_without(sandbox, -ENOMEM);
	}
	return sandbox->cgroup && pool->cgroups.tree.version == 2;
}

void pool_limit_adopt(struct pool_sandbox *sandbox)
{
	struct pool *pool = sandbox->pool;
	/* It has what the former manager gave it, and keeps that. */
	struct pool_cgroup_limits limits = { 0 };

	if (pool_cgroups_are_there(&pool->cgroups) && sandbox->state == POOL_SANDBOX_LEASED) {
		sandbox->cgroup = pool_cgroup_adopt(&pool->cgroups, sandbox->launch.id, &limits,
						    on_cgroup, sandbox);
	}
}

void pool_limit_process(struct pool_sandbox *sandbox)
{
	if (sandbox->cgroup && sandbox->spawn.cgroup < 0) {
		pool_cgroup_enter(sandbox->cgroup, sandbox->launch.pid);
	}
}

bool pool_limit_holds(const struct pool_sandbox *sandbox)
{
	return sandbox->cgroup && sandbox->spawn.cgroup < 0 && !sandbox->cgroup->entered;
}

void pool_limit_raise(struct pool_sandbox *sandbox)
{
	struct pool_cgroup_limits limits;

	if (sandbox->pool->restore_nice == 0) {
		return; /* it has been as urgent as any from the start */
	}
	if (has(sandbox, POOL_CGROUP_CPU)) {
		limits = limits_of(sandbox);
		pool_cgroup_set(sandbox->cgroup, &limits);
	}
	if (sandbox->launch.pid > 0) {
		(void)setpriority(PRIO_PGRP, (id_t)sandbox->launch.pid, 0);
	}
}

bool pool_limit_keeps(struct pool_sandbox *sandbox)
{
	if (sandbox->cgroup && pool_cgroup_is_entering(sandbox->cgroup)) {
		sandbox->ended = true;
		return true;
	}
	return false;
}

bool pool_limit_killed(struct pool_sandbox *sandbox)
{
	if (sandbox->state >= POOL_SANDBOX_DOOMED || !has(sandbox, POOL_CGROUP_MEMORY) ||
	    !sandbox->cgroup->made) {
		return false;
	}
	pool_cgroup_look(sandbox->cgroup);
	return true;
}
