/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The worker threads.
 *
 * A queue for each rank, one lock. A thread takes from the urgent queue first, so a demand fault
 * waits for at most the job that each thread has in hand, and jobs are cut small. A finished job
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
#include <unistd.h>

unsigned uffd_workers_count(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	return (unsigned)MIN(MAX(cores, 1L), (long)UFFD_WORKERS_MAX);
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

static struct uffd_job *take_first(struct uffd_workers *workers)
{
	struct uffd_job *job = NULL;

	for (unsigned rank = 0; rank < UFFD_JOB_RANKS && !job; rank++) {
		job = take(&workers->queues[rank]);
	}
	return job;
}

static void *worker(void *userdata)
{
	struct uffd_workers *workers = userdata;
	uint8_t *scratch;

	pthread_mutex_lock(&workers->lock);
	scratch = workers->scratch + workers->n_started++ * UFFD_SCRATCH_BYTES;
	while (!workers->stop) {
		struct uffd_job *job = take_first(workers);

		if (!job) {
			workers->n_idle++;
			pthread_cond_wait(&workers->work, &workers->lock);
			workers->n_idle--;
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
	return NULL;
}

int uffd_workers_start(struct uffd_workers *workers, uint8_t *scratch)
{
	unsigned wanted = uffd_workers_count();

	*workers = (struct uffd_workers){ .scratch = scratch };
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->work, NULL);
	for (unsigned rank = 0; rank < UFFD_JOB_RANKS; rank++) {
		base_list_init(&workers->queues[rank]);
	}
	base_list_init(&workers->done);
	workers->done_fd = eventfd(0, EFD_CLOEXEC);
	if (workers->done_fd < 0) {
		return -errno;
	}
	for (; workers->n_threads < wanted; workers->n_threads++) {
		int r = -pthread_create(&workers->threads[workers->n_threads], NULL, worker,
					workers);

		if (r < 0) {
			/* Fewer threads do the same, only later. */
			return workers->n_threads > 0 ? 0 : r;
		}
	}
	return 0;
}

void uffd_workers_stop(struct uffd_workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	workers->stop = true;
	pthread_cond_broadcast(&workers->work);
	pthread_mutex_unlock(&workers->lock);
	for (unsigned i = 0; i < workers->n_threads; i++) {
		pthread_join(workers->threads[i], NULL);
	}
	workers->n_threads = 0;
	workers->done_fd = base_fd_close(workers->done_fd);
	pthread_cond_destroy(&workers->work);
	pthread_mutex_destroy(&workers->lock);
}

void uffd_workers_push(struct uffd_workers *workers, struct uffd_job *job, enum uffd_job_rank rank,
		       bool wake)
{
	pthread_mutex_lock(&workers->lock);
	base_list_append(&workers->queues[rank], &job->link);
	if (wake && workers->n_idle > 0) {
		pthread_cond_signal(&workers->work);
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
	job->run(job, workers->scratch + (size_t)workers->n_threads * UFFD_SCRATCH_BYTES);
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
