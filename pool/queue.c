/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Acquires: handing out what is parked, and the queues of those who wait.
 *
 * Happy path: pool_acquire() finds a parked sandbox and claims it with one sendmsg(); nothing is
 * allocated but room for labels. On a miss the request joins its template's queue, first come first
 * served, and is served when a sandbox is parked.
 *
 * Failure: requests end with a status and a text. Those that fail at once are kept and told from
 * the background, since fn is not called from inside pool_acquire() unless there is a lease.
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

/* --- lists --- */

static void append(struct pool_acquire **first, struct pool_acquire **last,
		   struct pool_acquire *request)
{
	request->previous = *last;
	request->next = NULL;
	*(*last ? &(*last)->next : first) = request;
	*last = request;
}

static void unlink_request(struct pool_acquire **first, struct pool_acquire **last,
			   struct pool_acquire *request)
{
	*(request->previous ? &request->previous->next : first) = request->next;
	*(request->next ? &request->next->previous : last) = request->previous;
	request->previous = request->next = NULL;
}

static void wait_append(struct pool_template *template, struct pool_acquire *request)
{
	append(&template->waiting_first, &template->waiting_last, request);
	template->n_waiting++;
}

static void wait_remove(struct pool_template *template, struct pool_acquire *request)
{
	unlink_request(&template->waiting_first, &template->waiting_last, request);
	template->n_waiting--;
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
	append(&pool->refused_first, &pool->refused_last, request);
	pool_kick(pool);
}

bool pool_queue_tell_refused(struct pool *pool)
{
	struct pool_acquire *last = pool->refused_last;

	if (!last) {
		return false;
	}
	/* One a turn: what the callback refuses anew does not keep the loop from turning. */
	struct pool_acquire *request = pool->refused_first;

	unlink_request(&pool->refused_first, &pool->refused_last, request);
	finish(request, request->status, request->text);
	return true;
}

/* --- claim --- */

static void deliver(struct pool_sandbox *sandbox, struct pool_acquire *request, uint64_t at_hand_ns)
{
	struct pool_template *template = sandbox->template;
	struct pool *pool = template->pool;
	struct pool_lease_entry *entry = sandbox->lease;
	struct pool_lease lease;
	int stream = request->want_stream ? pool_sandbox_take_stream(sandbox) : -1;

	entry->acquired_realtime_ns = base_clock_realtime_ns();
	entry->ttl_ms = request->ttl_ms;
	entry->labels = TAKE_PTR(request->labels);
	entry->n_labels = request->n_labels;
	entry->timings.wait_ns = at_hand_ns - request->received_ns;
	pool_lease_table_add(&pool->leases, entry);
	template->claimed_total++;
	pool_refill_claimed(template);
	pool_kick(pool);
	entry->timings.claim_ns = base_clock_monotonic_ns() - at_hand_ns;
	pool_lease_entry_show(entry, &lease);
	request->pending = false;
	request->fn(request, POOL_OK, &lease, stream, NULL);
}

/* Gives the request a parked sandbox that still lives. False: there is none. */
static bool claim(struct pool_template *template, struct pool_acquire *request)
{
	while (!base_list_is_empty(&template->parked)) {
		struct pool_sandbox *sandbox =
			CONTAINER_OF(template->parked.next, struct pool_sandbox, link);
		uint64_t now_ns = base_clock_monotonic_ns();
		int r = pool_sandbox_claim(sandbox, request->received_ns, request->ttl_ms);

		if (r == 0) {
			deliver(sandbox, request, now_ns);
			return true;
		}
		pool_refill_lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM was gone when claimed");
	}
	return false;
}

void pool_queue_serve(struct pool_template *template)
{
	while (template->waiting_first && template->n_parked > 0) {
		struct pool_acquire *request = template->waiting_first;

		wait_remove(template, request);
		if (!claim(template, request)) {
			/* Back to the head, where it was. */
			request->next = template->waiting_first;
			*(request->next ? &request->next->previous : &template->waiting_last) =
				request;
			template->waiting_first = request;
			template->n_waiting++;
		}
	}
}

void pool_queue_fail(struct pool_template *template, enum pool_status status, const char *text)
{
	/* Counted, so that a callback that asks again does not go round for ever. */
	for (unsigned n = template->n_waiting; n > 0 && template->waiting_first; n--) {
		struct pool_acquire *request = template->waiting_first;

		wait_remove(template, request);
		finish(request, status, text);
	}
}

static struct pool_acquire *find_expired(struct pool_template *template, uint64_t now_ns,
					 uint64_t *ret_next_ns)
{
	*ret_next_ns = UINT64_MAX;
	for (struct pool_acquire *r = template->waiting_first; r; r = r->next) {
		if (r->deadline_ns <= now_ns) {
			return r;
		}
		*ret_next_ns = MIN(*ret_next_ns, r->deadline_ns);
	}
	return NULL;
}

void pool_queue_expire(struct pool_template *template, uint64_t now_ns)
{
	struct pool_acquire *request;
	uint64_t next_ns;

	while ((request = find_expired(template, now_ns, &next_ns))) {
		const char *trouble = template->last_error;
		char text[BASE_ERROR_TEXT_MAX];

		snprintf(text, sizeof(text),
			 "no sandbox of %s within %" PRIu64 " ms (%s, %u being restored, %u "
			 "waiting)%s%s",
			 template->name,
			 (request->deadline_ns - request->received_ns) / NSEC_PER_MSEC,
			 template->state == POOL_TEMPLATE_LOADING ? "being loaded" : "loaded",
			 template->n_restoring, template->n_waiting,
			 trouble[0] ? "; last error: " : "", trouble);
		wait_remove(template, request);
		finish(request, POOL_DEADLINE_EXCEEDED, text);
	}
	if (next_ns != UINT64_MAX) {
		pool_timer_need(template->pool, next_ns);
	}
}

/* --- the facade's part --- */

static uint64_t deadline_of(uint64_t received_ns, uint64_t timeout_ms)
{
	if (timeout_ms > (UINT64_MAX - received_ns) / NSEC_PER_MSEC) {
		return UINT64_MAX;
	}
	return received_ns + timeout_ms * NSEC_PER_MSEC;
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
	if (pool_refill_is_broken(template, request->received_ns)) {
		pool_queue_refuse(pool, request, POOL_UNAVAILABLE, template->last_error);
	} else if (timeout_ms == 0) {
		pool_queue_refuse(pool, request, POOL_DEADLINE_EXCEEDED,
				  template->state == POOL_TEMPLATE_LOADING
					  ? "nothing is parked: the template is being loaded"
					  : "nothing is parked");
	} else if (template->n_waiting >= POOL_WAITERS_MAX) {
		pool_queue_refuse(pool, request, POOL_EXHAUSTED, "too many wait already");
	} else {
		request->template = template;
		request->deadline_ns = deadline_of(request->received_ns, timeout_ms);
		wait_append(template, request);
		pool_timer_need(pool, request->deadline_ns);
		pool_kick(pool);
	}
}

void pool_acquire(struct pool *pool, struct pool_acquire *request,
		  const struct pool_acquire_params *params)
{
	uint64_t timeout_ms = params->timeout_ms == POOL_TIMEOUT_DEFAULT ? pool->acquire_timeout_ms
									 : params->timeout_ms;
	struct pool_template *template;
	enum pool_status status;
	const char *text;
	int r;

	request->pool = pool;
	request->template = NULL;
	request->previous = request->next = NULL;
	request->received_ns = base_clock_monotonic_ns();
	request->ttl_ms = params->ttl_ms;
	request->want_stream = params->want_stream;
	request->pending = true;
	request->labels = NULL;
	request->n_labels = params->n_labels;
	if (pool->stopping) {
		pool_queue_refuse(pool, request, POOL_UNAVAILABLE, "shutting down");
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
	if (template->waiting_first || !claim(template, request)) {
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
		unlink_request(&request->pool->refused_first, &request->pool->refused_last,
			       request);
	}
	free(TAKE_PTR(request->labels));
	request->pending = false;
}
