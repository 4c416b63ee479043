/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Taking over from a manager that died.
 *
 * Happy path: the journal says which VMMs there were and which of them are leased. A leased one
 * whose process is the recorded one (by its start time) is connected to and asked to go on as
 * leased; it is a lease of this pool from then on, whatever it answers later. Everything else is
 * killed, and when it is gone its sockets are removed. Then this manager's journal takes the old
 * one's place: until then a successor of this one finds the same again.
 *
 * A VM may still miss pages of its memory, which the former pager brings: that stays until it has
 * brought all. Whoever says that pages are missing is asked again when that pager has ended, and is
 * lost if they still are: nobody else could bring them.
 *
 * Failure: a lease that cannot be adopted ends with the cause `lost`. One that was bound to a
 * connection has ended with it. A journal that cannot be read leaves nothing to adopt; its VMs end
 * when their wait for a successor does.
 *
 * An adopted VMM is no child: its end is seen, its status is not. Runs on the loop's thread.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define BUCKETS 1024

/* A VMM of the former manager. */
struct former {
	struct base_link link; /* takeover->formers */
	struct former *bucket_next;
	char id[POOL_SANDBOX_ID_LENGTH + 1];
	int pid, pidfd; /* -1: it is gone, or another process */
	uint64_t start_ticks;
	struct pool_lease_entry *lease; /* owned; NULL: it is not leased */
	bool bound;
};

struct takeover {
	struct pool *pool;
	struct base_link formers; /* in the order of their records */
	struct former *buckets[BUCKETS];
	int pager_pid;
	uint64_t pager_start_ticks;
	unsigned n_adopted, n_ended, n_lost, n_killed;
	int result; /* of reading; -ENOMEM */
};

/* --- what the journal says --- */

static struct former **bucket_of(struct takeover *takeover, const char *id)
{
	unsigned hash = 0;

	for (unsigned i = 0; i < 8; i++) {
		hash = hash * 31 + (unsigned char)id[i];
	}
	return &takeover->buckets[hash % BUCKETS];
}

static struct former *find(struct takeover *takeover, const char *id)
{
	struct former *former = *bucket_of(takeover, id);

	while (former && strcmp(former->id, id) != 0) {
		former = former->bucket_next;
	}
	return former;
}

/* The VMM of a record, made when it is the first about it. NULL: out of memory. */
static struct former *note_process(struct takeover *takeover,
				   const struct pool_journal_record *record)
{
	struct former *former = find(takeover, record->id), **bucket;

	if (!former) {
		former = calloc(1, sizeof(*former));
		if (!former) {
			takeover->result = -ENOMEM;
			return NULL;
		}
		bucket = bucket_of(takeover, record->id);
		strcpy(former->id, record->id);
		former->pidfd = -1;
		former->bucket_next = *bucket;
		*bucket = former;
		base_list_append(&takeover->formers, &former->link);
	}
	former->pid = record->pid;
	former->start_ticks = record->start_ticks;
	return former;
}

static void note_lease(struct takeover *takeover, const struct pool_journal_record *record)
{
	struct former *former = note_process(takeover, record);
	struct pool_lease_entry *lease = former ? calloc(1, sizeof(*lease)) : NULL;

	if (lease) {
		lease->tenant = pool_tenants_named(&takeover->pool->tenants, record->tenant);
	}
	if (!lease || !lease->tenant ||
	    pool_labels_copy(record->labels, record->n_labels, &lease->labels) < 0) {
		pool_lease_entry_free(lease);
		takeover->result = -ENOMEM;
		return;
	}
	snprintf(lease->token, sizeof(lease->token), "%s", record->token);
	strcpy(lease->id, record->id);
	strcpy(lease->template_name, record->template_name);
	strcpy(lease->snapshot_id, record->snapshot_id);
	strcpy(lease->socket_path, record->socket_path);
	lease->n_labels = record->n_labels;
	lease->pid = record->pid;
	lease->acquired_realtime_ns = record->acquired_ns;
	lease->ttl_ms = record->ttl_ms;
	lease->expires_realtime_ns = record->expires_ns;
	pool_lease_entry_free(former->lease);
	former->lease = lease;
	former->bound = record->bound;
}

static void on_record(void *userdata, const struct pool_journal_record *record)
{
	struct takeover *takeover = userdata;
	struct former *former = find(takeover, record->id);

	switch (record->type) {
	case POOL_JOURNAL_PAGER:
		takeover->pager_pid = record->pid;
		takeover->pager_start_ticks = record->start_ticks;
		break;
	case POOL_JOURNAL_STARTED:
		note_process(takeover, record);
		break;
	case POOL_JOURNAL_LEASED:
		note_lease(takeover, record);
		break;
	case POOL_JOURNAL_RENEWED:
		if (former && former->lease) {
			former->lease->ttl_ms = record->ttl_ms;
			former->lease->expires_realtime_ns = record->expires_ns;
		}
		break;
	case POOL_JOURNAL_ENDED:
		if (former) {
			pool_lease_entry_free(TAKE_PTR(former->lease));
		}
		break;
	}
}

static void read_journal(struct takeover *takeover)
{
	struct pool_journal *journal = &takeover->pool->journal;
	struct pool_journal_found found = { 0 };
	int r = pool_journal_read(journal, on_record, takeover, &found);

	if (found.damaged_bytes > 0) {
		base_log(BASE_LOG_WARNING,
			 "the journal of leases %s: %" PRIu64 " bytes from byte %" PRIu64
			 " on are damaged or were not finished; %" PRIu64 " records are used",
			 journal->path, found.damaged_bytes, found.damaged_at, found.n_records);
	}
	/* Of another boot: its VMs went with the host. */
	if (r < 0 && r != -ENOENT && r != -ESTALE) {
		base_log(BASE_LOG_ERROR,
			 "the journal of leases %s cannot be used (%s): what was leased is lost",
			 journal->path, r == -EBADMSG ? "it is damaged" : strerrordesc_np(-r));
	}
	if (takeover->result < 0) {
		base_log(BASE_LOG_ERROR, "out of memory: leases of a former manager are lost");
	}
}

/* --- processes --- */

/* Of the very process that was recorded, or -1. Its pid cannot be another's and have that start
 * time: the recorded process is older. */
static int open_process(int pid, uint64_t start_ticks)
{
	_cleanup_fd_ int pidfd = pidfd_open(pid, 0);
	uint64_t ticks;

	if (pidfd < 0 || pool_process_start(pid, &ticks) < 0 || ticks != start_ticks) {
		return -1;
	}
	return TAKE_FD(pidfd);
}

static bool has_ended(int pidfd, int timeout_ms)
{
	struct pollfd item = { .fd = pidfd, .events = POLLIN };

	return poll(&item, 1, timeout_ms) > 0;
}

/* --- leases --- */

/* Ends the lease; its process is killed with the others. */
static void end_lease(struct takeover *takeover, struct former *former, enum pool_cause cause)
{
	struct pool_lease_table *leases = &takeover->pool->leases;
	struct pool_lease_entry *lease = TAKE_PTR(former->lease);

	pool_lease_table_add(leases, lease);
	pool_lease_table_end(leases, lease, cause);
	takeover->n_ended++;
	if (cause == POOL_CAUSE_LOST) {
		takeover->n_lost++;
		base_log(BASE_LOG_WARNING, "lease %s of %s: it could not be adopted, and is lost",
			 lease->id, lease->template_name);
	}
}

static void take_over(struct takeover *takeover, struct former *former)
{
	if (former->bound) {
		end_lease(takeover, former, POOL_CAUSE_CLIENT_GONE);
	} else if (former->pidfd < 0 || has_ended(former->pidfd, 0) ||
		   pool_sandbox_adopt(takeover->pool, former->lease, former->pidfd,
				      former->start_ticks) < 0) {
		end_lease(takeover, former, POOL_CAUSE_LOST);
	} else {
		former->lease = NULL;
		former->pidfd = -1;
		takeover->n_adopted++;
	}
}

static void take_over_all(struct takeover *takeover)
{
	BASE_LIST_FOR_EACH(link, &takeover->formers)
	{
		struct former *former = CONTAINER_OF(link, struct former, link);

		former->pidfd = open_process(former->pid, former->start_ticks);
		if (former->lease) {
			take_over(takeover, former);
		}
		if (former->pidfd >= 0 && !has_ended(former->pidfd, 0)) {
			pidfd_send_signal(former->pidfd, SIGKILL, NULL, 0);
			takeover->n_killed++;
		}
	}
}

/* Of those that were killed; their memory and their place in cgroups is free after it. */
static void wait_for_killed(struct takeover *takeover)
{
	uint64_t end_ns = base_clock_monotonic_ns() + POOL_ADOPT_KILL_MS * NSEC_PER_MSEC;

	BASE_LIST_FOR_EACH(link, &takeover->formers)
	{
		struct former *former = CONTAINER_OF(link, struct former, link);
		uint64_t now_ns = base_clock_monotonic_ns();
		int left_ms = now_ns < end_ns ? (int)((end_ns - now_ns) / NSEC_PER_MSEC) + 1 : 0;

		if (former->pidfd >= 0 && !has_ended(former->pidfd, left_ms)) {
			base_log(BASE_LOG_WARNING, "VMM %d was killed and has not ended yet",
				 former->pid);
		}
	}
}

static void free_all(struct takeover *takeover)
{
	BASE_LIST_FOR_EACH(link, &takeover->formers)
	{
		struct former *former = CONTAINER_OF(link, struct former, link);

		base_fd_close(former->pidfd);
		pool_lease_entry_free(former->lease);
		free(former);
	}
}

/* --- the former pager --- */

static void on_pager_closed(uv_handle_t *handle)
{
	struct pool_adoption *adoption = handle->data;

	adoption->watching = false;
	adoption->pager_pidfd = base_fd_close(adoption->pager_pidfd);
	if (adoption->on_closed) {
		adoption->on_closed(adoption);
	}
}

static void lose_missing(struct pool_sandbox *sandbox)
{
	pool_sandbox_lose(sandbox, POOL_CAUSE_LOST,
			  "pages of its memory are missing, and the pager that had them is gone");
}

/* Asks a VM (again) whether it goes on and misses pages. */
static void ask(struct pool_sandbox *sandbox)
{
	struct pool *pool = sandbox->pool;

	if (sandbox->state != POOL_SANDBOX_LEASED) {
		return;
	}
	pool->adoption.deadline_ns = base_clock_monotonic_ns() + POOL_ADOPT_TIMEOUT_NS;
	pool_timer_need(pool, pool->adoption.deadline_ns);
	sandbox->adoption =
		pool->adoption.pager_pidfd >= 0 ? POOL_ADOPTION_ASKED : POOL_ADOPTION_ASKED_LAST;
	if (pool_talk_adopt(sandbox) < 0) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_LOST, "it cannot be asked to go on");
	}
}

static void on_pager_exit(uv_poll_t *poll, int status, int events)
{
	struct pool_adoption *adoption = poll->data;
	struct pool *pool = CONTAINER_OF(adoption, struct pool, adoption);

	uv_close((uv_handle_t *)poll, on_pager_closed);
	adoption->pager_pidfd = base_fd_close(adoption->pager_pidfd);
	BASE_LIST_FOR_EACH(link, &pool->sandboxes)
	{
		struct pool_sandbox *sandbox = CONTAINER_OF(link, struct pool_sandbox, pool_link);

		if (sandbox->adoption == POOL_ADOPTION_MISSING) {
			ask(sandbox);
		}
	}
}

static void watch_pager(struct takeover *takeover)
{
	struct pool_adoption *adoption = &takeover->pool->adoption;
	int pidfd = takeover->pager_pid > 0
			    ? open_process(takeover->pager_pid, takeover->pager_start_ticks)
			    : -1;

	if (pidfd < 0 || has_ended(pidfd, 0)) {
		base_fd_close(pidfd);
		return;
	}
	if (uv_poll_init(takeover->pool->loop, &adoption->pager, pidfd) < 0) {
		base_fd_close(pidfd);
		return;
	}
	adoption->pager_pidfd = pidfd;
	adoption->pager.data = adoption;
	adoption->watching = true;
	uv_poll_start(&adoption->pager, UV_READABLE, on_pager_exit);
	uv_unref((uv_handle_t *)&adoption->pager);
}

void pool_adopt_answered(struct pool_sandbox *sandbox, bool whole)
{
	if (whole) {
		sandbox->adoption = POOL_ADOPTION_DONE;
	} else if (sandbox->adoption == POOL_ADOPTION_ASKED_LAST) {
		lose_missing(sandbox);
	} else if (sandbox->pool->adoption.pager_pidfd >= 0) {
		sandbox->adoption = POOL_ADOPTION_MISSING;
	} else {
		ask(sandbox); /* the pager has ended since it was asked */
	}
}

void pool_adopt_advance(struct pool *pool, uint64_t now_ns)
{
	uint64_t deadline_ns = pool->adoption.deadline_ns;

	if (deadline_ns == 0) {
		return;
	}
	if (now_ns < deadline_ns) {
		pool_timer_need(pool, deadline_ns);
		return;
	}
	pool->adoption.deadline_ns = 0;
	BASE_LIST_FOR_EACH(link, &pool->sandboxes)
	{
		struct pool_sandbox *sandbox = CONTAINER_OF(link, struct pool_sandbox, pool_link);

		/* Of one that waits for pages the pager is still awaited. */
		if (sandbox->adoption == POOL_ADOPTION_ASKED && pool->adoption.pager_pidfd >= 0) {
			sandbox->adoption = POOL_ADOPTION_MISSING;
		} else if (sandbox->adoption == POOL_ADOPTION_ASKED ||
			   sandbox->adoption == POOL_ADOPTION_ASKED_LAST) {
			pool_sandbox_lose(sandbox, POOL_CAUSE_LOST,
					  "it has not answered its new manager");
		}
	}
}

unsigned pool_adopt_stop(struct pool *pool, void (*on_closed)(struct pool_adoption *adoption))
{
	struct pool_adoption *adoption = &pool->adoption;

	if (!adoption->watching) {
		return 0;
	}
	adoption->on_closed = on_closed;
	if (!uv_is_closing((uv_handle_t *)&adoption->pager)) {
		uv_close((uv_handle_t *)&adoption->pager, on_pager_closed);
	}
	return 1;
}

/* --- all of it --- */

static bool is_adopted(void *userdata, const char *id)
{
	struct pool *pool = userdata;

	return pool_lease_table_find(&pool->leases, id) &&
	       pool_lease_table_find(&pool->leases, id)->cause == POOL_CAUSE_NONE;
}

void pool_adopt(struct pool *pool)
{
	uint64_t start_ns = base_clock_monotonic_ns();
	struct takeover *takeover = calloc(1, sizeof(*takeover));

	if (!takeover) {
		base_log(BASE_LOG_ERROR, "out of memory: leases of a former manager are lost");
		return;
	}
	takeover->pool = pool;
	base_list_init(&takeover->formers);
	read_journal(takeover);
	watch_pager(takeover);
	take_over_all(takeover);
	wait_for_killed(takeover);
	pool_launch_sweep(pool);
	pool_cgroups_sweep(&pool->cgroups, is_adopted, pool);
	if (pool_journal_rewrite(&pool->journal) < 0) {
		base_log(BASE_LOG_ERROR, "%s: nothing is started or leased until it can",
			 pool->journal.trouble);
	}
	BASE_LIST_FOR_EACH(link, &pool->sandboxes)
	{
		struct pool_sandbox *sandbox = CONTAINER_OF(link, struct pool_sandbox, pool_link);

		pool_limit_adopt(sandbox);
		ask(sandbox);
	}
	if (!base_list_is_empty(&takeover->formers)) {
		base_log(BASE_LOG_INFO,
			 "after a manager that died: %u leases adopted, %u lost, %u ended with "
			 "their connections, %u VMMs killed, in %.1f ms",
			 takeover->n_adopted, takeover->n_lost,
			 takeover->n_ended - takeover->n_lost, takeover->n_killed,
			 (double)(base_clock_monotonic_ns() - start_ns) / (double)NSEC_PER_MSEC);
	}
	free_all(takeover);
	free(takeover);
}
