/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Death of a manager: what it says to the journal while it lives, and what its successor makes of
 * that. All on the loop's thread.
 */

#include "pool/journal.h"

#include <uv.h>

struct pool_sandbox;

/* Where an adopted sandbox stands. */
enum pool_adoption_state {
	POOL_ADOPTION_NONE = 0,
	POOL_ADOPTION_ASKED,	  /* whether it goes on and misses pages */
	POOL_ADOPTION_ASKED_LAST, /* the same, since the former pager has ended */
	POOL_ADOPTION_MISSING,	  /* pages; the former pager is bringing them */
	POOL_ADOPTION_DONE,
};

/* An adopted VM that has not answered by then is lost. Longer than what else a VMM may be at. */
#define POOL_ADOPT_TIMEOUT_NS (10 * NSEC_PER_SEC)
/* So long the start waits at most for processes that it has killed. */
#define POOL_ADOPT_KILL_MS 2000

/* What is left of the former manager while that matters. */
struct pool_adoption {
	uint64_t deadline_ns; /* adopted VMs have answered by then; 0: all have */
	int pager_pidfd;      /* the former pager, which fills on; -1: there is none */
	uv_poll_t pager;
	bool watching; /* `pager` is an open handle */
	void (*on_closed)(struct pool_adoption *adoption);
};

/* --- record.c: into the journal. 0 or -errno; the trouble is in pool->journal and in the log. ---
 */

/* Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot. 0 or -errno. */
int pool_process_start(int pid, uint64_t *ret_ticks);

/* The VMM has been started; reads its start time. */
int pool_record_started(struct pool_sandbox *sandbox);
/* Before the VM runs for its claimant. */
int pool_record_leased(struct pool_sandbox *sandbox);
int pool_record_renewed(struct pool_sandbox *sandbox);
int pool_record_ended(struct pool *pool, const char *id, enum pool_cause cause);
void pool_record_pager(struct pool *pool, int pid);
/* For pool_journal_init(). */
uint64_t pool_record_fill(struct pool_journal *journal, struct base_writer *writer);
/* Background step: writes the journal again when most of it is about what is over. */
void pool_record_run(struct pool *pool);

/* --- adopt.c --- */

/*
 * Takes over what a former manager has left, according to its journal: leases whose VMs wait become
 * leases of this pool, the rest is killed and swept, and a journal of this manager is begun. Waits
 * for what it kills, at most POOL_ADOPT_KILL_MS. Once, before anything is started.
 */
void pool_adopt(struct pool *pool);

/* An adopted VM has answered; whole: it misses no page of its memory. */
void pool_adopt_answered(struct pool_sandbox *sandbox, bool whole);

/* The timer has fired. */
void pool_adopt_advance(struct pool *pool, uint64_t now_ns);

/* Ends the watch on the former pager. Returns how many times on_closed will be called. */
unsigned pool_adopt_stop(struct pool *pool, void (*on_closed)(struct pool_adoption *adoption));
