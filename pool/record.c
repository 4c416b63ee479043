/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What this manager tells its successor.
 *
 * A VMM is recorded when it is there, a lease before its VM runs, so that no answer was given that
 * a successor does not know of; its end when it is decided. A record that cannot be written fails
 * what it was for: then there is no such sandbox or lease. Only an end cannot be refused; its
 * sandbox is killed at once instead, so that there is nothing to adopt.
 *
 * Runs on the loop's thread.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* In /proc/PID/stat, counted from the one after the program's name. */
#define STAT_FIELD_START 20
#define STAT_BYTES_MAX	 4096

int pool_process_start(int pid, uint64_t *ret_ticks)
{
	char path[64], text[STAT_BYTES_MAX];
	_cleanup_fd_ int fd = -1;
	char *field;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0) {
		return -errno;
	}
	text[n] = '\0';
	/* The name may hold anything, blanks and brackets too. */
	field = strrchr(text, ')');
	for (unsigned i = 0; field && i < STAT_FIELD_START; i++) {
		field = strchr(field + 1, ' ');
	}
	if (!field) {
		return -EPROTO;
	}
	*ret_ticks = strtoull(field, NULL, 10);
	return 0;
}

/* Said when it begins and when it is over, and not at every record. */
static int append(struct pool *pool, const struct pool_journal_record *record)
{
	struct pool_journal *journal = &pool->journal;
	bool was_trouble = journal->trouble[0] != '\0';
	int r = pool_journal_append(journal, record);

	if (r < 0 && !was_trouble) {
		base_log(BASE_LOG_ERROR, "%s: nothing is started or leased until it can",
			 journal->trouble);
	} else if (r == 0 && was_trouble) {
		base_log(BASE_LOG_INFO, "the journal of leases is written again");
	}
	return r;
}

static void describe_process(const struct pool_sandbox *sandbox, struct pool_journal_record *record)
{
	strcpy(record->id, sandbox->launch.id);
	record->pid = sandbox->launch.pid;
	record->start_ticks = sandbox->launch.start_ticks;
}

static void describe_lease(const struct pool_sandbox *sandbox, struct pool_journal_record *record)
{
	const struct pool_lease_entry *lease = sandbox->lease;

	describe_process(sandbox, record);
	strcpy(record->template_name, lease->template_name);
	strcpy(record->snapshot_id, lease->snapshot_id);
	strcpy(record->socket_path, lease->socket_path);
	strcpy(record->token, lease->token);
	strcpy(record->tenant, lease->tenant->name);
	record->acquired_ns = lease->acquired_realtime_ns;
	record->ttl_ms = lease->ttl_ms;
	record->expires_ns = lease->expires_realtime_ns;
	record->bound = lease->bound;
	record->labels = lease->labels;
	record->n_labels = lease->n_labels;
}

int pool_record_started(struct pool_sandbox *sandbox)
{
	struct pool_journal_record record = { .type = POOL_JOURNAL_STARTED };
	int r = pool_process_start(sandbox->launch.pid, &sandbox->launch.start_ticks);

	if (r < 0) {
		return r;
	}
	describe_process(sandbox, &record);
	return append(sandbox->pool, &record);
}

int pool_record_leased(struct pool_sandbox *sandbox)
{
	struct pool_journal_record record = { .type = POOL_JOURNAL_LEASED };

	describe_lease(sandbox, &record);
	return append(sandbox->pool, &record);
}

int pool_record_renewed(struct pool_sandbox *sandbox)
{
	struct pool_journal_record record = { .type = POOL_JOURNAL_RENEWED };

	describe_lease(sandbox, &record);
	return append(sandbox->pool, &record);
}

int pool_record_ended(struct pool *pool, const char *id, enum pool_cause cause)
{
	struct pool_journal_record record = { .type = POOL_JOURNAL_ENDED };

	strcpy(record.id, id);
	snprintf(record.cause, sizeof(record.cause), "%s", pool_cause_name(cause));
	return append(pool, &record);
}

static bool describe_pager(int pid, struct pool_journal_record *record)
{
	record->type = POOL_JOURNAL_PAGER;
	record->pid = pid;
	return pid > 0 && pool_process_start(pid, &record->start_ticks) == 0;
}

void pool_record_pager(struct pool *pool, int pid)
{
	struct pool_journal_record record = { 0 };

	if (describe_pager(pid, &record)) {
		(void)append(pool, &record);
	}
}

uint64_t pool_record_fill(struct pool_journal *journal, struct base_writer *writer)
{
	struct pool *pool = CONTAINER_OF(journal, struct pool, journal);
	struct pool_journal_record record = { 0 };
	uint64_t n = 0;

	if (describe_pager(pool_helper_pid(&pool->pager.helper), &record)) {
		pool_journal_put(writer, &record);
		n++;
	}
	BASE_LIST_FOR_EACH(link, &pool->sandboxes)
	{
		const struct pool_sandbox *sandbox =
			CONTAINER_OF(link, struct pool_sandbox, pool_link);

		if (sandbox->launch.start_ticks == 0 || sandbox->launch.pidfd < 0) {
			continue; /* no process, or one that is being recorded */
		}
		memset(&record, 0, sizeof(record));
		if (sandbox->state == POOL_SANDBOX_LEASED && sandbox->lease) {
			record.type = POOL_JOURNAL_LEASED;
			describe_lease(sandbox, &record);
		} else {
			record.type = POOL_JOURNAL_STARTED;
			describe_process(sandbox, &record);
		}
		pool_journal_put(writer, &record);
		n++;
	}
	return n;
}

void pool_record_run(struct pool *pool)
{
	if (pool_journal_is_stale(&pool->journal, pool->n_sandboxes) &&
	    pool_journal_rewrite(&pool->journal) < 0) {
		base_log(BASE_LOG_WARNING, "%s again: it goes on growing", pool->journal.trouble);
	}
}
