/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The event loop of the VMM: level-triggered epoll, served by the main thread.
 *
 * Happy path: wait without the lock, take it, hand out the batch, release it. A batch becomes stale
 * when a source is removed after epoll_wait() filled it in, by one of its own callbacks or by a
 * vCPU thread that had the lock in between: the source may be freed by then, so the rest of the
 * batch is dropped. Nothing is lost by that, since what is still ready is reported again.
 *
 * Failures of epoll_wait() other than EINTR end the loop. It shuts down when a callback sets
 * `stop`. Timers are looked at after each batch; the wait lasts until the first of them.
 */

#include "vmm/loop.h"

#include "base/clock.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>

/* How many events one turn takes with the lock held; vCPU threads wait for it that long. */
#define EVENTS_PER_TURN 32

int vmm_loop_init(struct vmm_loop *loop)
{
	int r;

	*loop = (struct vmm_loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	if (loop->epoll_fd < 0) {
		return -errno;
	}
	TAILQ_INIT(&loop->timers);
	r = pthread_mutex_init(&loop->lock, NULL);
	if (r != 0) {
		loop->epoll_fd = base_fd_close(loop->epoll_fd);
		return -r;
	}
	return 0;
}

void vmm_loop_deinit(struct vmm_loop *loop)
{
	if (loop->epoll_fd >= 0) {
		loop->epoll_fd = base_fd_close(loop->epoll_fd);
		pthread_mutex_destroy(&loop->lock);
	}
}

static int control(struct vmm_loop *loop, int operation, struct vmm_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	return epoll_ctl(loop->epoll_fd, operation, source->fd, &event) < 0 ? -errno : 0;
}

int vmm_loop_add(struct vmm_loop *loop, struct vmm_source *source, uint32_t events)
{
	int r;

	assert(!source->added);
	r = control(loop, EPOLL_CTL_ADD, source, events);
	if (r < 0) {
		return r;
	}
	source->added = true;
	return 0;
}

int vmm_loop_modify(struct vmm_loop *loop, struct vmm_source *source, uint32_t events)
{
	assert(source->added);
	return control(loop, EPOLL_CTL_MOD, source, events);
}

void vmm_loop_remove(struct vmm_loop *loop, struct vmm_source *source)
{
	if (source->added) {
		control(loop, EPOLL_CTL_DEL, source, 0);
		source->added = false;
		loop->removals++;
	}
}

void vmm_loop_arm(struct vmm_loop *loop, struct vmm_timer *timer, uint64_t deadline_ns)
{
	vmm_loop_disarm(loop, timer);
	timer->deadline_ns = MAX(deadline_ns, UINT64_C(1));
	TAILQ_INSERT_TAIL(&loop->timers, timer, link);
}

void vmm_loop_disarm(struct vmm_loop *loop, struct vmm_timer *timer)
{
	if (timer->deadline_ns > 0) {
		TAILQ_REMOVE(&loop->timers, timer, link);
		timer->deadline_ns = 0;
	}
}

static struct vmm_timer *first_timer(const struct vmm_loop *loop)
{
	struct vmm_timer *first = NULL, *timer;

	TAILQ_FOREACH(timer, &loop->timers, link)
	{
		if (!first || timer->deadline_ns < first->deadline_ns) {
			first = timer;
		}
	}
	return first;
}

int vmm_loop_timeout_ms(const struct vmm_loop *loop, uint64_t now_ns)
{
	const struct vmm_timer *first = first_timer(loop);
	uint64_t wait_ns;

	if (!first) {
		return -1;
	}
	wait_ns = first->deadline_ns - MIN(now_ns, first->deadline_ns);
	return (int)MIN(wait_ns / NSEC_PER_MSEC + (wait_ns % NSEC_PER_MSEC > 0), (uint64_t)INT_MAX);
}

void vmm_loop_expire(struct vmm_loop *loop, uint64_t now_ns)
{
	struct vmm_timer *timer;

	while ((timer = first_timer(loop)) && timer->deadline_ns <= now_ns) {
		vmm_loop_disarm(loop, timer);
		timer->fn(timer);
	}
}

/* With the lock held; removals is the count from before the batch was fetched. */
static void serve_batch(struct vmm_loop *loop, const struct epoll_event *events, int n_events,
			uint64_t removals)
{
	for (int i = 0; i < n_events && loop->removals == removals && !loop->stop; i++) {
		struct vmm_source *source = events[i].data.ptr;

		source->fn(source, events[i].events);
	}
}

int vmm_loop_run(struct vmm_loop *loop)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int r = 0;

	pthread_mutex_lock(&loop->lock);
	while (!loop->stop) {
		uint64_t removals = loop->removals;
		int timeout_ms = -1;
		int n;

		if (!TAILQ_EMPTY(&loop->timers)) {
			timeout_ms = vmm_loop_timeout_ms(loop, base_clock_monotonic_ns());
		}
		pthread_mutex_unlock(&loop->lock);
		n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, timeout_ms);
		if (n < 0) {
			r = -errno;
		}
		pthread_mutex_lock(&loop->lock);
		if (n < 0 && r != -EINTR) {
			break;
		}
		r = 0;
		serve_batch(loop, events, n, removals);
		if (!TAILQ_EMPTY(&loop->timers)) {
			vmm_loop_expire(loop, base_clock_monotonic_ns());
		}
	}
	pthread_mutex_unlock(&loop->lock);
	return r;
}
