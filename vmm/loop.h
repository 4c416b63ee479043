/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The VMM's one event loop: an epoll set served by the main thread.
 *
 * Every callback, and every device access from a vCPU thread, runs with the VM's device lock held,
 * so devices are single-threaded. A callback may add, change and remove any source, its own
 * included.
 */

#include "base/util.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>

/* A timer is part of the wait for events and costs no descriptor: to the millisecond. */
struct vmm_timer {
	void (*fn)(struct vmm_timer *timer);
	void *userdata;
	uint64_t deadline_ns; /* 0: not armed */
	TAILQ_ENTRY(vmm_timer) link;
};

struct vmm_loop {
	int epoll_fd;
	pthread_mutex_t lock; /* the device lock */
	bool stop;
	TAILQ_HEAD(, vmm_timer) timers; /* those that are armed: a handful */
	uint64_t removals;		/* tells a batch that one of its sources may be gone */
};

struct vmm_source {
	int fd; /* borrowed */
	void (*fn)(struct vmm_source *source, uint32_t events);
	void *userdata;
	bool added;
};

int vmm_loop_init(struct vmm_loop *loop);
void vmm_loop_deinit(struct vmm_loop *loop);

/* source is embedded in its owner and must outlive its time in the loop. events as for epoll
 * (level-triggered). 0 or -errno. */
int vmm_loop_add(struct vmm_loop *loop, struct vmm_source *source, uint32_t events);
int vmm_loop_modify(struct vmm_loop *loop, struct vmm_source *source, uint32_t events);
/* Takes a source that was never added, too. Events that were already fetched for it are not
 * delivered. */
void vmm_loop_remove(struct vmm_loop *loop, struct vmm_source *source);

/* Has fn called once, not before deadline_ns (CLOCK_MONOTONIC); an armed timer is armed anew. fn
 * may arm it for a later time than it was called for. The timer is embedded in its owner. Only on
 * the main thread: a wait that has begun is not cut short.
 */
void vmm_loop_arm(struct vmm_loop *loop, struct vmm_timer *timer, uint64_t deadline_ns);
/* Takes a timer that is not armed, too. */
void vmm_loop_disarm(struct vmm_loop *loop, struct vmm_timer *timer);

/* What vmm_loop_run() does about timers. How long to wait for events: milliseconds as for
 * epoll_wait(), -1 without a timer. And calling those that are due. */
int vmm_loop_timeout_ms(const struct vmm_loop *loop, uint64_t now_ns);
void vmm_loop_expire(struct vmm_loop *loop, uint64_t now_ns);

/* Serves until stop is set by a callback. Takes the lock around each batch of callbacks. 0 or
 * -errno. */
int vmm_loop_run(struct vmm_loop *loop);
