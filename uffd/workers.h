/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The pager's worker threads: what takes long, or may block, is run by one of them.
 *
 * A job is embedded in what it is about. Its `run` is called once, on a worker or, for an urgent
 * one, perhaps on the main thread; then its `done` is called once, on the main thread. The jobs of
 * a rank begin in the order in which they came.
 */

#include "base/list.h"
#include "base/util.h"

#include <pthread.h>
#include <stdbool.h>

#define UFFD_WORKERS_MAX 64 /* in each crew */
/* Room that each job has to itself while it runs; the main thread has some as well. */
#define UFFD_SCRATCH_BYTES KIB(64)

enum uffd_job_rank {
	UFFD_JOB_URGENT,     /* somebody waits for it; it never blocks on anything */
	UFFD_JOB_BLOCKING,   /* rare, may block on a disk or a lock: never on the main thread */
	UFFD_JOB_BACKGROUND, /* nobody waits for it */
	UFFD_JOB_RANKS,
};

struct uffd_job {
	struct base_link link; /* in one of the lists below */
	void (*run)(struct uffd_job *job, uint8_t *scratch);
	void (*done)(struct uffd_job *job);
};

/* Threads that take the same ranks. */
enum uffd_crew {
	UFFD_CREW_PROMPT,  /* urgent jobs, then blocking ones */
	UFFD_CREW_PATIENT, /* background jobs, while nobody else wants the processor */
	UFFD_CREWS,
};

struct uffd_workers {
	pthread_t threads[UFFD_CREWS][UFFD_WORKERS_MAX];
	unsigned n_threads[UFFD_CREWS];
	uint8_t *scratch; /* borrowed; one piece for each thread and a last one for the main thread
			   */
	int done_fd;	  /* eventfd: something is in `done` */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t work[UFFD_CREWS];
	struct base_link queues[UFFD_JOB_RANKS], done;
	unsigned n_started; /* threads that have taken their scratch */
	unsigned n_idle[UFFD_CREWS];
	bool stop;
};

/* How many threads uffd_workers_start() will start: one for each core in each crew. */
unsigned uffd_workers_count(void);

/* scratch: (uffd_workers_count() + 1) * UFFD_SCRATCH_BYTES, borrowed until the end. 0 or -errno; in
 * either case uffd_workers_stop() is to be called. */
int uffd_workers_start(struct uffd_workers *workers, uint8_t *scratch);

/* Waits for the jobs that run; those that do not yet are never run. */
void uffd_workers_stop(struct uffd_workers *workers);

/* Hands a job over. With `wake` false no sleeping thread is disturbed for it: the caller is going
 * to call uffd_workers_help() itself. */
void uffd_workers_push(struct uffd_workers *workers, struct uffd_job *job, enum uffd_job_rank rank,
		       bool wake);

/* Makes a background job urgent if no thread has begun with it. */
void uffd_workers_hurry(struct uffd_workers *workers, struct uffd_job *job);

/* Runs one urgent job on this, the main, thread, and its `done`. False when there is none. */
bool uffd_workers_help(struct uffd_workers *workers);

/* Calls `done` of every job that a thread has finished. */
void uffd_workers_reap(struct uffd_workers *workers);
