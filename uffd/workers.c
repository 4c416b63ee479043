/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The worker threads.
 *
 * A queue for each rank, one lock, two crews. What nobody waits for has threads of its own, at a
 * higher nice value: filling in the background must not take the processors from guests that run
 * already (a guest with all of its working set was off the processor for three quarters of its
 * first 128 ms), and a thread that has been made nicer may not go back. Not the highest value:
 * these threads hold locks of the memfd for a moment that urgent writes want, too. A finished job
 * goes to a list of its own, and an eventfd tells the main thread when that was empty. The main
 * thread may take an urgent job itself: waking a thread on another, sleeping core takes longer than
 * decoding a chunk.
 *
 * Jobs carry their own results: nothing here fails but the start. Stopping waits for what runs and
 * forgets the rest, whose memory is the caller's.
 */

#include "uffd/workers.h"

#include "base/fd.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* A tenth of what a thread of the usual priority gets, while one wants the same processor. */
#define PATIENT_NICE 10

static unsigned crew_size(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	return (unsigned)MIN(MAX(cores, 1L), (long)UFFD_WORKERS_MAX);
}

unsigned uffd_workers_count(void)
{
	return UFFD_CREWS * crew_size();
}

static enum uffd_crew crew_of(enum uffd_job_rank rank)
{
	return rank == UFFD_JOB_BACKGROUND ? UFFD_CREW_PATIENT : UFFD_CREW_PROMPT;
}

/* The lock is held. */
static struct uffd_job *take(struct base_link *list)
{
	if (base_list_is_empty(list)) {
		return NULL;
	}

	struct uffd_job *job = CONTAINER_OF(list->next, struct uffd_job, link);

	base_list_remove(&job->link);
	return job;
}

static struct uffd_job *take_first(struct uffd_workers *workers, enum uffd_crew crew)
{
	struct uffd_job *job = NULL;

	for (unsigned rank = 0; rank < UFFD_JOB_RANKS && !job; rank++) {
		if (crew_of(rank) == crew) {
			job = take(&workers->queues[rank]);
		}
	}
	return job;
}

static void work(struct uffd_workers *workers, enum uffd_crew crew)
{
	uint8_t *scratch;

	pthread_mutex_lock(&workers->lock);
	scratch = workers->scratch + workers->n_started++ * UFFD_SCRATCH_BYTES;
	while (!workers->stop) {
		struct uffd_job *job = take_first(workers, crew);

		if (!job) {
			workers->n_idle[crew]++;
			pthread_cond_wait(&workers->work[crew], &workers->lock);
			workers->n_idle[crew]--;
			continue;
		}
		pthread_mutex_unlock(&workers->lock);
		job->run(job, scratch);
		pthread_mutex_lock(&workers->lock);

		bool first = base_list_is_empty(&workers->done);

		base_list_append(&workers->done, &job->link);
		if (first) {
			/* Only a counter at its limit refuses, and then it is readable. */
			(void)eventfd_write(workers->done_fd, 1);
		}
	}
	pthread_mutex_unlock(&workers->lock);
}

static void *prompt_thread(void *userdata)
{
	work(userdata, UFFD_CREW_PROMPT);
	return NULL;
}

static void *patient_thread(void *userdata)
{
	/* Of this thread alone; to be nicer is always allowed. */
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), PATIENT_NICE);
	work(userdata, UFFD_CREW_PATIENT);
	return NULL;
}

static int start_crew(struct uffd_workers *workers, enum uffd_crew crew)
{
	unsigned wanted = crew_size(), *n = &workers->n_threads[crew];

	for (; *n < wanted; (*n)++) {
		int r = -pthread_create(&workers->threads[crew][*n], NULL,
					crew == UFFD_CREW_PROMPT ? prompt_thread : patient_thread,
					workers);

		if (r < 0) {
			/* Fewer threads do the same, only later. */
			return *n > 0 ? 0 : r;
		}
	}
	return 0;
}

int uffd_workers_start(struct uffd_workers *workers, uint8_t *scratch)
{
	int r = 0;

	*workers = (struct uffd_workers){ .scratch = scratch };
	pthread_mutex_init(&workers->lock, NULL);
	for (unsigned crew = 0; crew < UFFD_CREWS; crew++) {
		pthread_cond_init(&workers->work[crew], NULL);
	}
	for (unsigned rank = 0; rank < UFFD_JOB_RANKS; rank++) {
		base_list_init(&workers->queues[rank]);
	}
	base_list_init(&workers->done);
	workers->done_fd = eventfd(0, EFD_CLOEXEC);
	if (workers->done_fd < 0) {
		return -errno;
	}
	for (unsigned crew = 0; crew < UFFD_CREWS && r == 0; crew++) {
		r = start_crew(workers, crew);
	}
	return r;
}

void uffd_workers_stop(struct uffd_workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	workers->stop = true;
	for (unsigned crew = 0; crew < UFFD_CREWS; crew++) {
		pthread_cond_broadcast(&workers->work[crew]);
	}
	pthread_mutex_unlock(&workers->lock);
	for (unsigned crew = 0; crew < UFFD_CREWS; crew++) {
		for (unsigned i = 0; i < workers->n_threads[crew]; i++) {
			pthread_join(workers->threads[crew][i], NULL);
		}
		workers->n_threads[crew] = 0;
		pthread_cond_destroy(&workers->work[crew]);
	}
	workers->done_fd = base_fd_close(workers->done_fd);
	pthread_mutex_destroy(&workers->lock);
}

void uffd_workers_push(struct uffd_workers *workers, struct uffd_job *job, enum uffd_job_rank rank,
		       bool wake)
{
	pthread_mutex_lock(&workers->lock);
	base_list_append(&workers->queues[rank], &job->link);
	if (wake && workers->n_idle[crew_of(rank)] > 0) {
		pthread_cond_signal(&workers->work[crew_of(rank)]);
	}
	pthread_mutex_unlock(&workers->lock);
}

void uffd_workers_hurry(struct uffd_workers *workers, struct uffd_job *job)
{
	pthread_mutex_lock(&workers->lock);
	BASE_LIST_FOR_EACH(link, &workers->queues[UFFD_JOB_BACKGROUND])
	{
		if (link == &job->link) {
			base_list_remove(link);
			base_list_append(&workers->queues[UFFD_JOB_URGENT], link);
			pthread_cond_signal(&workers->work[UFFD_CREW_PROMPT]);
			break;
		}
	}
	pthread_mutex_unlock(&workers->lock);
}

bool uffd_workers_help(struct uffd_workers *workers)
{
	pthread_mutex_lock(&workers->lock);

	struct uffd_job *job = take(&workers->queues[UFFD_JOB_URGENT]);

	pthread_mutex_unlock(&workers->lock);
	if (!job) {
		return false;
	}
	job->run(job, workers->scratch + (size_t)uffd_workers_count() * UFFD_SCRATCH_BYTES);
	job->done(job);
	return true;
}

void uffd_workers_reap(struct uffd_workers *workers)
{
	struct base_link finished;

	base_list_init(&finished);
	pthread_mutex_lock(&workers->lock);
	for (struct uffd_job *job; (job = take(&workers->done));) {
		base_list_append(&finished, &job->link);
	}
	pthread_mutex_unlock(&workers->lock);
	for (struct uffd_job *job; (job = take(&finished));) {
		job->done(job);
	}
}
