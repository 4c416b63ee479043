/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runs one process in a sandbox to its end, between the caller's descriptors and callbacks and the
 * agent's stream.
 *
 * Events are handled as they come; input is read only when the agent has taken what came before, so
 * neither side piles up. It ends with the process, a failure, the deadline, or a callback's
 * refusal. The caller's thread.
 */

#include "rpc/agent_client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

struct run {
	struct warmbox_agent *agent;
	uint32_t id;
	const struct warmbox_stdio *stdio;
	int stdin_fd; /* borrowed; -1 after its end */
};

/* Reads some of the caller's input into the queue; its end, or what cannot be read, closes the
 * process's. */
static int run_feed(struct run *run, struct warmbox_error *error)
{
	char data[RPC_AGENT_CHUNK_BYTES];
	ssize_t n = read(run->stdin_fd, data, sizeof(data));

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return 0;
	}
	if (n <= 0) {
		run->stdin_fd = -1;
		n = 0;
	}
	/* Fits: nothing was pending. */
	return warmbox_agent_stdin(run->agent, run->id, data, (size_t)n, error);
}

static int run_output(int (*fn)(void *userdata, const void *data, size_t size), void *userdata,
		      const struct warmbox_event *event, struct warmbox_error *error)
{
	int r = fn ? fn(userdata, event->data, event->size) : 0;

	return r < 0 ? rpc_fail(error, WARMBOX_LOCAL, r, "output cannot be written: %s",
				strerrordesc_np(-r))
		     : 0;
}

/* Handles all events that are there. 1: the process ended. */
static int run_events(struct run *run, struct warmbox_exit *ret_exit, struct warmbox_error *error)
{
	const struct warmbox_stdio *stdio = run->stdio;
	struct warmbox_event event;
	int r;

	while ((r = rpc_agent_next(run->agent, 0, &event, error)) > 0) {
		if (event.id != run->id) {
			continue;
		}
		switch (event.kind) {
		case WARMBOX_EVENT_STDOUT:
			r = run_output(stdio->on_stdout, stdio->userdata, &event, error);
			break;
		case WARMBOX_EVENT_STDERR:
			r = run_output(stdio->on_stderr, stdio->userdata, &event, error);
			break;
		case WARMBOX_EVENT_EXITED:
			*ret_exit = event.exit;
			return 1;
		case WARMBOX_EVENT_ANSWER:
			*ret_exit = (struct warmbox_exit){ 0 };
			return 1;
		case WARMBOX_EVENT_ERROR:
			return rpc_agent_failure(run->agent, &event, error);
		}
		if (r < 0) {
			return r;
		}
	}
	return r;
}

/* Waits for either side. Input is read only when the agent has taken what came before. */
static int run_wait(struct run *run, uint64_t deadline_ns, struct warmbox_error *error)
{
	bool feed = run->stdin_fd >= 0 && rpc_channel_pending(&run->agent->channel) == 0;
	struct pollfd waits[] = {
		{ .fd = run->agent->channel.fd, .events = warmbox_agent_events(run->agent) },
		{ .fd = feed ? run->stdin_fd : -1, .events = POLLIN },
	};
	int left_ms = rpc_deadline_left_ms(deadline_ns);
	struct timespec left = { .tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000L };
	int n = ppoll(waits, ARRAY_SIZE(waits), left_ms < 0 ? NULL : &left, run->stdio->wait_mask);

	if (n < 0 && run->stdio->on_interrupt) {
		int r = run->stdio->on_interrupt(run->stdio->userdata, run->agent, run->id);

		return r < 0 ? rpc_fail(error, WARMBOX_LOCAL, r, "interrupted") : 0;
	}
	if (n == 0 && rpc_deadline_left_ms(deadline_ns) == 0) {
		return rpc_agent_timed_out(run->agent, "the process", error);
	}
	return n > 0 && waits[1].revents ? run_feed(run, error) : 0;
}

int warmbox_agent_run(struct warmbox_agent *agent, uint32_t id, int timeout_ms,
		      const struct warmbox_stdio *stdio, struct warmbox_exit *ret_exit,
		      struct warmbox_error *error)
{
	struct run run = { .agent = agent, .id = id, .stdio = stdio, .stdin_fd = stdio->stdin_fd };
	uint64_t deadline_ns = rpc_deadline(timeout_ms);

	for (;;) {
		struct warmbox_exit exit;
		int r = run_events(&run, &exit, error);

		if (r > 0) {
			*ret_exit = exit;
			return 0;
		}
		if (r == 0) {
			r = run_wait(&run, deadline_ns, error);
		}
		if (r < 0) {
			return r;
		}
	}
}
