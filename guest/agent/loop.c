/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Event delivery. One thread. A handler may close any source, its own or another's, in the middle
 * of a batch; agent_loop_forget() makes sure that no event reaches a source after that. An error of
 * epoll itself ends the program.
 */

#include "guest/agent/loop.h"

#include <errno.h>
#include <unistd.h>

int agent_loop_init(struct agent_loop *loop)
{
	loop->n_events = 0;
	loop->next = 0;
	loop->batch_was_full = false;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop->epoll_fd < 0 ? -errno : 0;
}

void agent_loop_deinit(struct agent_loop *loop)
{
	if (loop->epoll_fd >= 0) {
		close(loop->epoll_fd);
		loop->epoll_fd = -1;
	}
}

static int control(struct agent_loop *loop, int op, struct agent_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };

	return epoll_ctl(loop->epoll_fd, op, source->fd, &event) < 0 ? -errno : 0;
}

int agent_loop_add(struct agent_loop *loop, struct agent_source *source, uint32_t events)
{
	return control(loop, EPOLL_CTL_ADD, source, events);
}

int agent_loop_change(struct agent_loop *loop, struct agent_source *source, uint32_t events)
{
	return control(loop, EPOLL_CTL_MOD, source, events);
}

void agent_loop_forget(struct agent_loop *loop, const struct agent_source *source)
{
	for (int i = loop->next; i < loop->n_events; i++) {
		if (loop->events[i].data.ptr == source) {
			loop->events[i].data.ptr = NULL;
		}
	}
}

int agent_loop_step(struct agent_loop *loop, int timeout_ms)
{
	int n = epoll_wait(loop->epoll_fd, loop->events, AGENT_LOOP_EVENTS, timeout_ms);

	if (n < 0) {
		return errno == EINTR ? 0 : -errno;
	}
	loop->n_events = n;
	loop->batch_was_full = n == AGENT_LOOP_EVENTS;
	for (loop->next = 0; loop->next < loop->n_events;) {
		struct epoll_event *event = &loop->events[loop->next++];
		struct agent_source *source = event->data.ptr;

		if (source) {
			source->on_events(source, event->events);
		}
	}
	return 0;
}
