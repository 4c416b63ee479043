/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The conversation with one VMM and, for five bytes, with the agent in its guest.
 *
 * Happy path: CREATE was sent by the launch, and its reply makes a shell. LOAD follows when there
 * is demand, maybe before that. When LOAD is answered with the guest's clock, the identity is
 * written into the stream and ATTACH and RESUME are sent; the agent's five bytes on the stream
 * bring PAUSE, its reply parks the sandbox. A claim is one RESUME.
 *
 * Failure: the VMM is not trusted. A reply out of order, a message or descriptor that has no place,
 * a full socket, a missed bound: the sandbox is lost. Nothing is sent that could block. A VMM that
 * closes the socket is left to pool/sandbox.c, which learns its exit status.
 *
 * Shut-down: nothing of its own; the handles are the sandbox's. Runs on the loop's thread.
 */

#include "base/clock.h"
#include "base/fd.h"
#include "pool/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

/* A VMM that closed the stream since it ends has so long to do it. */
#define STREAM_CLOSED_GRACE_MS 50

static const uint32_t step_ops[] = {
	[POOL_STEP_CREATE] = VMM_OP_CREATE, [POOL_STEP_LOAD] = VMM_OP_LOAD,
	[POOL_STEP_ATTACH] = VMM_OP_ATTACH, [POOL_STEP_RESUME] = VMM_OP_RESUME,
	[POOL_STEP_PAUSE] = VMM_OP_PAUSE,   [POOL_STEP_CLAIM] = VMM_OP_RESUME,
};

static const char *const step_names[] = {
	[POOL_STEP_CREATE] = "creating the VM",
	[POOL_STEP_LOAD] = "loading the state",
	[POOL_STEP_ATTACH] = "attaching a stream",
	[POOL_STEP_RESUME] = "running",
	[POOL_STEP_PAUSE] = "pausing",
	[POOL_STEP_CLAIM] = "running when claimed",
};

/* Sends the next request. On failure the caller gives the sandbox up. */
static int send_step(struct pool_sandbox *sandbox, enum pool_step step, uint64_t arg0, int fd)
{
	/* Of a claim, the only step that uses it: how long the VM waits for a successor. */
	uint64_t arg1 = step == POOL_STEP_CLAIM ? sandbox->pool->orphan_timeout_ms : 0;

	struct base_message message;

	/* Not the whole of it: the text is 2 KiB that nobody reads. */
	memset(&message, 0, offsetof(struct base_message, text));
	message.op = step_ops[step];
	message.sequence = step;
	message.arg[0] = arg0;
	message.arg[1] = arg1;
	sandbox->sent = step;
	return base_message_send(sandbox->launch.control, &message, &fd, fd >= 0 ? 1 : 0);
}

/* The VMM closed its end, so it ends or has to: its exit status will say what happened. Until then
 * a claim fails to send and takes another sandbox. */
static void on_gone(struct pool_sandbox *sandbox)
{
	uv_poll_stop(&sandbox->control);
	if (sandbox->stream.type != UV_UNKNOWN_HANDLE &&
	    !uv_is_closing((uv_handle_t *)&sandbox->stream)) {
		uv_poll_stop(&sandbox->stream);
	}
	pool_launch_kill(&sandbox->launch);
}

/* Something could not be sent. */
static void on_send_failed(struct pool_sandbox *sandbox, int r, const char *what)
{
	if (r == -EPIPE || r == -ECONNRESET) {
		on_gone(sandbox);
		return;
	}
	pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "%s: %s", what, strerrordesc_np(-r));
}

static void on_restore_timeout(uv_timer_t *timer)
{
	struct pool_sandbox *sandbox = timer->data;

	switch (sandbox->state) {
	case POOL_SANDBOX_IDENTIFYING:
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
				  "the guest did not acknowledge its identity within %" PRIu64
				  " ms",
				  sandbox->pool->identity_timeout_ms);
		break;
	default:
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
				  "%s took longer than %" PRIu64 " ms",
				  step_names[MIN(sandbox->awaited, POOL_STEP_CLAIM)],
				  sandbox->pool->identity_timeout_ms);
	}
}

static void restart_timer(struct pool_sandbox *sandbox)
{
	uv_timer_start(&sandbox->timer, on_restore_timeout, sandbox->pool->identity_timeout_ms, 0);
}

/* Time since the step before. */
static uint64_t lap(struct pool_sandbox *sandbox, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns - sandbox->mark_ns;

	sandbox->mark_ns = now_ns;
	return elapsed_ns;
}

/* The VMM says when it began and when it was ready: its answers to CREATE and LOAD may be read
 * together. */
static void on_created(struct pool_sandbox *sandbox, const struct base_message *reply, int *fd,
		       uint64_t now_ns)
{
	uint64_t there_ns = MIN(MAX(reply->arg[0], sandbox->mark_ns), now_ns);
	uint64_t ready_ns = MIN(MAX(reply->arg[4], there_ns), now_ns);

	sandbox->timings.spawn_ns = lap(sandbox, there_ns);
	sandbox->timings.create_ns = lap(sandbox, ready_ns);
	if (sandbox->lazy) {
		int r = *fd < 0 ? -ENOMSG : pool_pager_add_vm(sandbox, TAKE_FD(*fd), reply->arg[5]);

		if (r < 0) {
			pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
					  "no userfaultfd of its memory: %s", strerrordesc_np(-r));
			return;
		}
	}
	if (sandbox->state == POOL_SANDBOX_STARTING) {
		uv_timer_stop(&sandbox->timer);
		pool_refill_shell_ready(sandbox);
	}
}

static void on_stream(uv_poll_t *poll, int status, int events);

/* Where guest kernels are interpreted, a rehearsed exec takes longer than all it saves. */
static bool wants_touch(const struct pool_sandbox *sandbox)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(sandbox->image->snapshot);

	switch (sandbox->pool->touch) {
	case POOL_TOUCH_NEVER:
		return false;
	case POOL_TOUCH_ALWAYS:
		return true;
	case POOL_TOUCH_AUTO:
		break;
	}
	return manifest->host_kind != VMM_HOST_PVM;
}

/* The identity lies in the stream before the VMM gets the stream, and the VMM has the stream before
 * the vCPUs run. */
static void on_loaded(struct pool_sandbox *sandbox, const struct base_message *reply,
		      uint64_t now_ns)
{
	struct pool_launch *launch = &sandbox->launch;
	struct guest_identity_clock clock = { reply->arg[0], reply->arg[1], reply->arg[2] };
	uint8_t request[GUEST_IDENTITY_REQUEST_MAX];
	size_t size = guest_identity_encode(&launch->identity, sandbox->generation, &clock,
					    wants_touch(sandbox), request);

	sandbox->load_taken_ns = MIN(MAX(reply->arg[3], sandbox->mark_ns), now_ns);
	sandbox->timings.load_ns =
		MIN(MAX(reply->arg[4], sandbox->load_taken_ns), now_ns) - sandbox->load_taken_ns;
	sandbox->mark_ns = now_ns;
	guest_identity_wipe(&launch->identity);

	ssize_t n = base_fd_send(launch->stream, request, size, NULL, 0, MSG_DONTWAIT);
	int r = n < 0 ? (int)n : (size_t)n < size ? -EAGAIN : 0;

	explicit_bzero(request, sizeof(request));
	if (r == 0) {
		r = pool_sandbox_poll(sandbox, &sandbox->stream, launch->stream, on_stream);
	}
	if (r == 0) {
		r = send_step(sandbox, POOL_STEP_ATTACH, GUEST_AGENT_PORT, launch->stream_peer);
	}
	if (r == 0) {
		r = send_step(sandbox, POOL_STEP_RESUME,
			      sandbox->urgent ? VMM_RESUME_FOREGROUND : 0, -1);
	}
	if (r < 0) {
		on_send_failed(sandbox, r, "giving the guest its identity");
		return;
	}
	launch->stream_peer = base_fd_close(launch->stream_peer);
	sandbox->state = POOL_SANDBOX_IDENTIFYING;
	restart_timer(sandbox);
}

static void on_paused(struct pool_sandbox *sandbox, uint64_t now_ns)
{
	sandbox->timings.park_ns = lap(sandbox, now_ns);
	uv_timer_stop(&sandbox->timer);
	if (pool_limit_holds(sandbox)) {
		sandbox->restored = true;
		return;
	}
	pool_refill_parked(sandbox);
}

/* fd came along, or is -1; who uses it takes it. */
static void on_reply(struct pool_sandbox *sandbox, const struct base_message *reply, int *fd)
{
	enum pool_step step = sandbox->awaited;
	uint64_t now_ns = base_clock_monotonic_ns();

	if (step > sandbox->sent || reply->sequence != step || reply->op != step_ops[step]) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "the VMM sent a reply to nothing");
		return;
	}
	if (reply->result != 0) {
		const char *text = reply->text_length > 0 ? reply->text : "no reason given";

		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "%s: %s", step_names[step], text);
		return;
	}
	sandbox->awaited++;
	switch (step) {
	case POOL_STEP_CREATE:
		on_created(sandbox, reply, fd, now_ns);
		break;
	case POOL_STEP_LOAD:
		on_loaded(sandbox, reply, now_ns);
		break;
	case POOL_STEP_PAUSE:
		on_paused(sandbox, now_ns);
		break;
	case POOL_STEP_CLAIM:
		if (sandbox->adoption != POOL_ADOPTION_NONE) {
			pool_adopt_answered(sandbox, reply->arg[0] == 1);
		}
		break;
	case POOL_STEP_ATTACH:
	case POOL_STEP_RESUME:
		break;
	}
}

/* The guest runs, for the first time after a claim or for its identity. */
static void on_entered(struct pool_sandbox *sandbox, const struct base_message *event)
{
	struct pool_timings *timings;
	uint64_t at_ns = MIN(event->arg[0], base_clock_monotonic_ns());

	if (sandbox->state < POOL_SANDBOX_PARKED && sandbox->load_taken_ns > 0) {
		sandbox->timings.entry_ns =
			MAX(at_ns, sandbox->load_taken_ns) - sandbox->load_taken_ns;
	}
	if (sandbox->state != POOL_SANDBOX_LEASED || sandbox->lease->timings.first_entry_ns) {
		return;
	}
	timings = &sandbox->lease->timings;

	timings->first_entry_ns = MAX(at_ns, sandbox->claimed_ns) - sandbox->claim_received_ns;
}

/* The guest wants to talk to a program of the claimant. */
static void on_connect(struct pool_sandbox *sandbox, const struct base_message *event)
{
	struct base_message answer = { .op = VMM_OP_CONNECTED, .arg = { event->arg[0] } };
	_cleanup_fd_ int fd = -1;
	int r = -ECONNREFUSED;

	/* Before the claim nobody knows where to listen. */
	if (sandbox->state == POOL_SANDBOX_LEASED && event->arg[1] <= UINT32_MAX) {
		r = pool_launch_connect(&sandbox->launch, (uint32_t)event->arg[1]);
	}
	if (r >= 0) {
		fd = r;
	} else {
		answer.result = r;
	}
	r = base_message_send(sandbox->launch.control, &answer, &fd, fd >= 0 ? 1 : 0);
	if (r < 0) {
		on_send_failed(sandbox, r, "answering a connection of the guest");
	}
}

static void on_exited(struct pool_sandbox *sandbox, const struct base_message *event)
{
	const char *text = event->text_length > 0 ? event->text : "no reason given";

	switch (event->arg[0]) {
	case VMM_EXIT_GUEST:
	case VMM_EXIT_RESET:
		pool_sandbox_lose(sandbox, POOL_CAUSE_GUEST_EXITED, "the guest ended: %s", text);
		break;
	default:
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED, "the VMM gave up: %s", text);
	}
}

/* The figures are the VMM's, which is not trusted with those of others: what counts is that one has
 * grown. */
static void on_limited(struct pool_sandbox *sandbox, const struct base_message *event)
{
	for (unsigned i = 0; i < POOL_LIMITED_KINDS; i++) {
		if (event->arg[i] > sandbox->limited[i] && sandbox->template) {
			sandbox->template->limited_total[i]++;
		}
		sandbox->limited[i] = event->arg[i];
	}
}

static void on_message(struct pool_sandbox *sandbox, const struct base_message *message, int *fd)
{
	switch (message->op) {
	case VMM_EVENT_ENTERED:
		on_entered(sandbox, message);
		break;
	case VMM_EVENT_CONNECT:
		on_connect(sandbox, message);
		break;
	case VMM_EVENT_EXITED:
		on_exited(sandbox, message);
		break;
	case VMM_EVENT_LIMITED:
		on_limited(sandbox, message);
		break;
	default:
		on_reply(sandbox, message, fd);
	}
}

/* The one message of a VMM with which a descriptor comes. */
static bool is_with_userfaultfd(const struct pool_sandbox *sandbox,
				const struct base_message *message)
{
	return sandbox->lazy && sandbox->awaited == POOL_STEP_CREATE &&
	       message->op == VMM_OP_CREATE && message->result == 0;
}

/* Takes at most `limit` messages. */
static void take_messages(struct pool_sandbox *sandbox, unsigned limit)
{
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];

	while (limit-- > 0 && sandbox->state < POOL_SANDBOX_DOOMED) {
		size_t n_fds = 0;
		int r = base_message_receive(sandbox->launch.control, &message, fds, &n_fds);

		if (r == -EAGAIN) {
			return;
		}
		if (r == -ECONNRESET) {
			/* It left requests unread; what it said before can still be read. */
			continue;
		}
		if (r == 0) {
			on_gone(sandbox);
			return;
		}
		if (r < 0) {
			pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
					  "the VMM sent a malformed message");
			return;
		}

		_cleanup_fd_ int fd = n_fds > 0 ? fds[0] : -1;

		for (size_t i = 1; i < n_fds; i++) {
			base_fd_close(fds[i]);
		}
		if (n_fds > 1 || (n_fds > 0 && !is_with_userfaultfd(sandbox, &message))) {
			pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
					  "the VMM sent a descriptor");
			return;
		}
		on_message(sandbox, &message, &fd);
	}
}

static void on_control(uv_poll_t *poll, int status, int events)
{
	struct pool_sandbox *sandbox = poll->data;

	if (status < 0) {
		/* libuv has stopped polling: the socket has an error, the other end is closed. */
		on_gone(sandbox);
		return;
	}
	take_messages(sandbox, POOL_MESSAGES_PER_TURN);
}

static void on_stream_closed(uv_timer_t *timer)
{
	pool_sandbox_lose(timer->data, POOL_CAUSE_VMM_DIED,
			  "the stream to the agent was closed before it acknowledged its identity");
}

static void on_acknowledged(struct pool_sandbox *sandbox)
{
	int r;

	sandbox->timings.identity_ns = lap(sandbox, base_clock_monotonic_ns());
	pool_sandbox_close(sandbox, &sandbox->stream);
	sandbox->state = POOL_SANDBOX_PAUSING;
	restart_timer(sandbox);
	/* uv_poll_init() made it non-blocking; who gets the stream expects an ordinary one. */
	r = fcntl(sandbox->launch.stream, F_SETFL, O_RDWR) < 0 ? -errno : 0;
	if (r == 0) {
		r = send_step(sandbox, POOL_STEP_PAUSE, 0, -1);
	}
	if (r < 0) {
		on_send_failed(sandbox, r, "pausing the VM after its identity");
	}
}

/* The agent has spoken: the only bytes of a guest that the manager looks at. */
static void on_stream(uv_poll_t *poll, int status, int events)
{
	struct pool_sandbox *sandbox = poll->data;
	size_t room = sizeof(sandbox->ack) - sandbox->ack_size;
	ssize_t n;

	if (sandbox->state != POOL_SANDBOX_IDENTIFYING) {
		return;
	}
	n = recv(sandbox->launch.stream, sandbox->ack + sandbox->ack_size, room, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	if (n <= 0) {
		/* Refused by the guest, or the VMM ends: then it soon says why, or its exit status
		 * does. */
		uv_poll_stop(&sandbox->stream);
		uv_timer_start(&sandbox->timer, on_stream_closed, STREAM_CLOSED_GRACE_MS, 0);
		return;
	}
	sandbox->ack_size += (size_t)n;
	if (sandbox->ack_size > GUEST_IDENTITY_ACK_BYTES ||
	    memcmp(sandbox->ack, GUEST_IDENTITY_ACK, sandbox->ack_size) != 0) {
		pool_sandbox_lose(sandbox, POOL_CAUSE_VMM_DIED,
				  "the agent did not acknowledge its identity");
		return;
	}
	if (sandbox->ack_size == GUEST_IDENTITY_ACK_BYTES) {
		on_acknowledged(sandbox);
	}
}

void pool_talk_begin(struct pool_sandbox *sandbox)
{
	sandbox->sent = sandbox->awaited = POOL_STEP_CREATE;
	restart_timer(sandbox);
}

int pool_talk_start(struct pool_sandbox *sandbox)
{
	return pool_sandbox_poll(sandbox, &sandbox->control, sandbox->launch.control, on_control);
}

int pool_talk_load(struct pool_sandbox *sandbox)
{
	int state = snapshot_state_fd(sandbox->image->snapshot);
	int r = send_step(sandbox, POOL_STEP_LOAD, 0, state);

	restart_timer(sandbox);
	if (sandbox->timings.from_shell) {
		sandbox->mark_ns = base_clock_monotonic_ns();
	}
	/* One that has ended already says so by its exit status. */
	return r == -EPIPE || r == -ECONNRESET ? 0 : r;
}

int pool_talk_claim(struct pool_sandbox *sandbox)
{
	return send_step(sandbox, POOL_STEP_CLAIM, VMM_RESUME_FOREGROUND | VMM_RESUME_LEASED, -1);
}

int pool_talk_adopt(struct pool_sandbox *sandbox)
{
	sandbox->awaited = POOL_STEP_CLAIM;
	return send_step(sandbox, POOL_STEP_CLAIM, VMM_RESUME_FOREGROUND | VMM_RESUME_LEASED, -1);
}

void pool_talk_drain(struct pool_sandbox *sandbox)
{
	take_messages(sandbox, POOL_MESSAGES_LAST);
}
