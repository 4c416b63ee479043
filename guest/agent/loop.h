/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The epoll loop. Streams are watched edge-triggered: a source hears of a change once, remembers
 * that it is ready, and reads or writes until the kernel says otherwise. So nothing is re-armed: a
 * descriptor costs one epoll_ctl in its life, and to stop reading costs none.
 */

#include "base/util.h"

#include <stdbool.h>
#include <sys/epoll.h>

/* Events taken from the kernel at a time. */
#define AGENT_LOOP_EVENTS 64

struct agent_source {
	int fd; /* owned by whoever embeds the source */
	void (*on_events)(struct agent_source *source, uint32_t events);
};

struct agent_loop {
	int epoll_fd;
	int n_events; /* of the batch being delivered */
	int next;
	bool batch_was_full; /* there may be events that are older than some of this batch */
	struct epoll_event events[AGENT_LOOP_EVENTS];
};

/* 0 or -errno. */
int agent_loop_init(struct agent_loop *loop);
void agent_loop_deinit(struct agent_loop *loop);

/* events: EPOLLIN and the like, with EPOLLET. 0 or -errno. */
int agent_loop_add(struct agent_loop *loop, struct agent_source *source, uint32_t events);

/* Other events for a source that was added. 0 or -errno. */
int agent_loop_change(struct agent_loop *loop, struct agent_source *source, uint32_t events);

/* Drops what is still undelivered for the source. To be called before its fd is closed (which takes
 * it out of the epoll set) and its memory freed. */
void agent_loop_forget(struct agent_loop *loop, const struct agent_source *source);

/*
 * Waits (timeout_ms as epoll_wait(2)) and delivers one batch. 0 or -errno; a signal is no error.
 */
int agent_loop_step(struct agent_loop *loop, int timeout_ms);
