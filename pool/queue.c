/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Acquires: handing out what is parked, and the queues of those who wait.
 *
 * Happy path: pool_acquire() finds a parked sandbox and claims it with one sendmsg(); nothing is
 * allocated but room for labels. On a miss the request joins its template's queue (pool/fair.h) and
 * is served when a sandbox is parked and its turn has come; that is done where the sandbox is
 * parked, before any restore is started for the stock.
 *
 * Failure: requests end with a status and a text. Those that fail at once are kept and told from
 * the background, but for those of a tenant that is past a quota.
 *
 * A callback may do anything but stop the loop: acquire, cancel, release. No pointer to a request
 * is used after its callback, and every loop over requests starts again at the head.
 */

#include "base/clock.h"
#include "base/log.h"
#include "pool/internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The request joins the queue of its template. 0, or why it may not (pool/fair.h). */
static int wait_add(struct pool_template *template, struct pool_acquire *request)
{
	int r = pool_fair_add(&template->pool->fair, &template->queue, &request->waiter,
			      request->tenant, request->deadline_ns);

	if (r == 0) {
		request->template = template;
		template->n_waiting++;
	}
	return r;
}

static void wait_remove(struct pool_template *template, struct pool_acquire *request)
{
	pool_fair_remove(&template->pool->fair, &request->waiter);
	template->n_waiting--;
}

/* Whose turn it is; NULL: nobody waits. */
static struct pool_acquire *wait_first(struct pool_template *template)
{
	struct pool_waiter *waiter = pool_fair_first(&template->queue);

	return waiter ? CONTAINER_OF(waiter, struct pool_acquire, waiter) : NULL;
}

/* Ends a request that is in no list, without a lease. */
static void finish(struct pool_acquire *request, enum pool_status status, const char *text)
{
	free(TAKE_PTR(request->labels));
	request->pending = false;
	request->fn(request, status, NULL, -1, text);
}

/* --- refused --- */

void pool_queue_refuse(struct pool *pool, struct pool_acquire *request, enum pool_status status,
		       const char *text)
{
	request->template = NULL;
	request->status = status;
	request->text = text;
	base_list_append(&pool->refused, &request->waiter.link);
	pool_kick(pool);
}

bool pool_queue_tell_refused(struct pool *pool)
{
	struct pool_acquire *request;

	if (base_list_is_empty(&pool->refused)) {
		return false;
	}
	/* One a turn: what the callback refuses anew does not keep the loop from turning. */
	request = CONTAINER_OF(pool->refused.next, struct pool_acquire, waiter.link);
	base_list_remove(&request->waiter.link);
	finish(request, request->status, request->text);
	return true;
}

/* --- claim --- */

/* The superuser's, and this process's own, may open it as it is. */
static bool give_socket(const struct pool_sandbox *sandbox, const struct pool_acquire *request)
{
	if (request->gid == POOL_GROUP_NONE &&
	    (request->uid == 0 || request->uid == sandbox->pool->tenants.uid)) {
		return true;
	}
	return pool_launch_give(&sandbox->launch, request->uid, request->gid) == 0;
}

static void deliver(struct pool_sandbox *sandbox, struct pool_acquire *request, uint64_t at_hand_ns)
{
	struct pool_template *template = sandbox->template;
	struct pool *pool = template->pool;
	struct pool_lease_entry *entry = sandbox->lease;
	struct pool_lease lease;
	int stream = request->want_stream ? pool_sandbox_take_stream(sandbox) : -1;

	if (!give_socket(sandbox, request)) {
		entry->socket_path[0] = '\0';
	}
	entry->timings.wait_ns = at_hand_ns - request->received_ns;
	pool_lease_table_add(&pool->leases, entry);
	template->claimed_total++;
	pool_refill_claimed(template);
	pool_target_update(template);
	entry->timings.claim_ns = base_clock_monotonic_ns() - at_hand_ns;
	pool_lease_entry_show(entry, &lease);
	request->pending = false;
	request->fn(request, POOL_OK, &lease, stream, NULL);
}

/* The labels stay with the request. */
static void take_back(struct pool_lease_entry *entry)
{
	entry->labels = NULL;
	entry->n_labels = 0;
	pool_tenant_unref(TAKE_PTR(entry->tenant));
}

/* Writes into the journal that the sandbox is leased. 0, or -errno: then it is not. */
static int record_lease(struct pool_sandbox *sandbox, struct pool_acquire *request)
{
	struct pool_lease_entry *entry = sandbox->lease;
	int r;

	entry->acquired_realtime_ns = base_clock_realtime_ns();
	pool_lease_entry_set_ttl(entry, request->ttl_ms);
	entry->tenant = pool_tenant_ref(request->tenant);
	entry->bound = request->bound;
	entry->labels = request->labels;
	entry->n_labels = request->n_labels;
	r = pool_record_leased(sandbox);
	if (r < 0) {
		take_back(entry);
	}
	return r;
}

static void unrecord_lease(struct pool_sandbox *sandbox)
{
	take_back(sandbox->lease);
	(void)pool_record_ended(sandbox->pool, sandbox->lease->id, POOL_CAUSE_VMM_DIED);
}

/* Lets a parked sandbox that still lives run for the request. 0 and *ret_sandbox (NULL: there is
 * none), or -errno: what is parked stays so, since a lease could not be recorded. */
static int claim(struct pool_template *template, struct pool_acquire *request,
		 struct pool_sandbox **ret_sandbox)
{
	*ret_sandbox = NULL;
	while (!base_list_is_empty(&template->parked)) {
		struct pool_sandbox *sandbox =
			CONTAINER_OF(template->parked.next, struct pool_sandbox, link);
		int r = record_lease(sandbox, request);

		if (r < 0) {
			return r;
		}
		if (pool_sandbox_claim(sandbox, request->received_ns, request->ttl_ms) == 0) {
			request->labels = NULL;
			*ret_sandbox = sandbox;
			return 0;
		}
		unrecord_lease(sandbox);
		pool_refill_lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM was gone when claimed");
	}
	return 0;
}

void pool_queue_serve(struct pool_template *template)
{
	struct pool_acquire *request;

	while (template->n_parked > 0 && (request = wait_first(template))) {
		uint64_t now_ns = base_clock_monotonic_ns();
		struct pool_sandbox *sandbox;

		if (claim(template, request, &sandbox) < 0) {
			wait_remove(template, request);
			finish(request, POOL_UNAVAILABLE, template->pool->journal.trouble);
		} else if (sandbox) {
			pool_fair_serve(&template->pool->fair, &request->waiter);
			template->n_waiting--;
			deliver(sandbox, request, now_ns);
		}
	}
}

void pool_queue_fail(struct pool_template *template, enum pool_status status, const char *text)
{
	struct pool_acquire *request;

	/* Counted, so that a callback that asks again does not go round for ever. */
	for (unsigned n = template->n_waiting; n > 0 && (request = wait_first(template)); n--) {
		wait_remove(template, request);
		finish(request, status, text);
	}
}

static void finish_late(struct pool_acquire *request)
{
	struct pool_template *template = request->template;
	const char *trouble = template->last_error;
	char text[BASE_ERROR_TEXT_MAX];

	snprintf(text, sizeof(text),
		 "no sandbox of %s within %" PRIu64 " ms (%s, %u being restored, %u waiting)%s%s",
		 template->name, (request->deadline_ns - request->received_ns) / NSEC_PER_MSEC,
		 template->state == POOL_TEMPLATE_LOADING ? "being loaded" : "loaded",
		 template->n_restoring, template->n_waiting, trouble[0] ? "; last error: " : "",
		 trouble);
	template->n_waiting--;
	finish(request, POOL_DEADLINE_EXCEEDED, text);
}

void pool_queue_expire(struct pool *pool, uint64_t now_ns)
{
	struct pool_waiter *waiter;

	while ((waiter = pool_fair_expire(&pool->fair, now_ns))) {
		finish_late(CONTAINER_OF(waiter, struct pool_acquire, waiter));
	}
	pool_timer_need(pool, pool_fair_next_ns(&pool->fair));
}

/* --- the facade's part --- */

static uint64_t deadline_of(uint64_t received_ns, uint64_t timeout_ms)
{
	if (timeout_ms > (UINT64_MAX - received_ns) / NSEC_PER_MSEC) {
		return UINT64_MAX;
	}
	return received_ns + timeout_ms * NSEC_PER_MSEC;
}

static void refuse_quota(struct pool_acquire *request, enum pool_quota quota, uint64_t retry_ns)
{
	const struct pool_tenant *tenant = request->tenant;
	const struct pool_quotas *quotas = &tenant->config->quotas;
	char *text = request->text_room;
	size_t size = sizeof(request->text_room);

	request->quota = quota;
	request->retry_ns = retry_ns;
	switch (quota) {
	case POOL_QUOTA_OF_LEASES:
		snprintf(text, size,
			 "tenant %s has %u leases and %u acquires that wait, of the %u in all that "
			 "it may have",
			 tenant->name, tenant->n_leases, tenant->n_waiting, quotas->leases);
		break;
	case POOL_QUOTA_OF_RATE:
		snprintf(text, size, "tenant %s acquires more than %u sandboxes a second",
			 tenant->name, quotas->rate);
		break;
	default:
		snprintf(text, size,
			 "%u acquires of tenant %s wait already, as many as it may have",
			 tenant->n_waiting, tenant->name);
		break;
	}
	finish(request, POOL_QUOTA_EXCEEDED, text);
}

/* Nothing is parked, so wait. */
static void wait(struct pool_template *template, struct pool_acquire *request, uint64_t timeout_ms)
{
	struct pool *pool = template->pool;

	request->deadline_ns = deadline_of(request->received_ns, timeout_ms);
	switch (wait_add(template, request)) {
	case 0:
		pool_timer_need(pool, pool_fair_next_ns(&pool->fair));
		pool_kick(pool);
		return;
	case -EDQUOT:
		refuse_quota(request, POOL_QUOTA_OF_QUEUE, 0);
		return;
	case -ENOSPC:
		snprintf(request->text_room, sizeof(request->text_room),
			 "%u acquires of all tenants wait already", POOL_WAITERS_MAX);
		pool_queue_refuse(pool, request, POOL_EXHAUSTED, request->text_room);
		return;
	default:
		pool_queue_refuse(pool, request, POOL_FAILED, "out of memory");
	}
}

/* Nothing is parked: wait, or say at once why waiting is no use. */
static void miss(struct pool_template *template, struct pool_acquire *request, uint64_t timeout_ms)
{
	struct pool *pool = template->pool;

	template->missed_total++;
	if (template->state == POOL_TEMPLATE_FAILED && template->told) {
		if (template->failure != POOL_NOT_FOUND &&
		    request->received_ns < template->load_retry_ns) {
			pool_queue_refuse(pool, request, POOL_UNAVAILABLE, template->last_error);
			return;
		}
		pool_template_reload(template);
	}
	if (template->state == POOL_TEMPLATE_READY && !pool_refill_gives_up(template)) {
		/* One more parked would have helped; a template that cannot be loaded or restored
		 * needs something else. */
		pool_policy_missed(&template->policy, template->n_waiting + 1);
	}
	pool_target_update(template);
	if (pool_refill_is_broken(template, request->received_ns)) {
		pool_queue_refuse(pool, request, POOL_UNAVAILABLE, template->last_error);
	} else if (timeout_ms == 0) {
		pool_queue_refuse(pool, request, POOL_DEADLINE_EXCEEDED,
				  template->state == POOL_TEMPLATE_LOADING
					  ? "nothing is parked: the template is being loaded"
					  : "nothing is parked");
	} else {
		wait(template, request, timeout_ms);
	}
}

/* True when the tenant may not have what it asks for; the request has ended then. At once: were it
 * kept with those that are told one a turn, one tenant's would delay all others'. */
static bool is_denied(struct pool_acquire *request, const char *template_name)
{
	enum pool_quota quota;
	uint64_t retry_ns;

	if (!pool_tenant_may_use(request->tenant, template_name)) {
		snprintf(request->text_room, sizeof(request->text_room),
			 "tenant %s may not use template %s", request->tenant->name, template_name);
		finish(request, POOL_DENIED, request->text_room);
		return true;
	}
	quota = pool_tenant_admit(request->tenant, request->received_ns, &retry_ns);
	if (quota != POOL_QUOTA_NONE) {
		refuse_quota(request, quota, retry_ns);
	}
	return quota != POOL_QUOTA_NONE;
}

/* How long the lease may last: the template's limit, unless less is asked for. True: it was more,
 * and is refused. */
static bool is_too_long(struct pool_acquire *request, const struct pool_limits_config *limits)
{
	if (limits->ttl_max_ms == 0) {
		return false;
	}
	if (request->ttl_ms > limits->ttl_max_ms) {
		snprintf(request->text_room, sizeof(request->text_room),
			 "ttl_ms: a lease of this template lasts %" PRIu64 " ms at the most",
			 limits->ttl_max_ms);
		pool_queue_refuse(request->pool, request, POOL_INVALID, request->text_room);
		return true;
	}
	if (request->ttl_ms == 0) {
		request->ttl_ms = limits->ttl_max_ms;
	}
	return false;
}

void pool_acquire(struct pool *pool, struct pool_acquire *request,
		  const struct pool_acquire_params *params)
{
	uint64_t timeout_ms = params->timeout_ms == POOL_TIMEOUT_DEFAULT ? pool->acquire_timeout_ms
									 : params->timeout_ms;
	struct pool_template *template;
	struct pool_sandbox *sandbox;
	enum pool_status status;
	const char *text;
	uint64_t now_ns;
	int r;

	request->pool = pool;
	request->template = NULL;
	request->tenant = params->tenant;
	request->uid = params->uid;
	request->gid = params->gid;
	request->received_ns = base_clock_monotonic_ns();
	request->ttl_ms = params->ttl_ms;
	request->want_stream = params->want_stream;
	request->bound = params->bound;
	request->pending = true;
	request->labels = NULL;
	request->n_labels = params->n_labels;
	if (pool->stopping) {
		pool_queue_refuse(pool, request, POOL_UNAVAILABLE, "shutting down");
		return;
	}
	if (is_denied(request, params->template_name)) {
		return;
	}
	r = pool_labels_copy(params->labels, params->n_labels, &request->labels);
	if (r < 0) {
		pool_queue_refuse(pool, request, POOL_FAILED,
				  r == -E2BIG ? "too many labels, or one is too long"
					      : "out of memory");
		return;
	}
	template = pool_template_get(pool, params->template_name, &status, &text);
	if (!template) {
		pool_queue_refuse(pool, request, status, text);
		return;
	}
	if (is_too_long(request, &template->config.limits)) {
		return;
	}
	/* Not received_ns: the template may be younger. */
	now_ns = base_clock_monotonic_ns();
	pool_policy_arrived(&template->policy, now_ns);
	sandbox = NULL;
	r = template->n_waiting == 0 ? claim(template, request, &sandbox) : 0;
	if (r < 0) {
		pool_queue_refuse(pool, request, POOL_UNAVAILABLE, pool->journal.trouble);
	} else if (sandbox) {
		deliver(sandbox, request, now_ns);
	} else {
		miss(template, request, timeout_ms);
	}
}

void pool_acquire_cancel(struct pool_acquire *request)
{
	if (!request->pending) {
		return;
	}
	if (request->template) {
		wait_remove(request->template, request);
	} else {
		base_list_remove(&request->waiter.link);
	}
	free(TAKE_PTR(request->labels));
	request->pending = false;
}
