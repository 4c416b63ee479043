/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sandboxes: driving one VMM through restore, identity, parking, claim and death.
 *
 * Happy path: a worker thread launches the process, which at once gets CREATE and LOAD. When LOAD
 * is answered with the guest's clock, the identity is written into the stream and ATTACH and RESUME
 * are sent; the agent's five bytes on the stream bring PAUSE, its reply parks the sandbox. A claim
 * is one RESUME.
 *
 * Failure: the VMM is not trusted. A reply out of order, a message or descriptor that has no place,
 * a full socket, a missed bound: the sandbox is lost (pool_refill_lost()), which dooms it. Nothing
 * is sent that could block.
 *
 * Shut-down: doomed, killed from the background, reaped when the pidfd says so, freed when its
 * handles are closed. A sandbox that is doomed while its worker runs is killed when that is back.
 *
 * Runs on the loop's thread but for start_work().
 */

#include "pool/sandbox.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
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

/* --- end --- */

static void sandbox_free(struct pool_sandbox *sandbox)
{
	struct pool *pool = sandbox->pool;

	pool_launch_deinit(&sandbox->launch);
	pool_lease_entry_free(sandbox->lease);
	free(sandbox);
	pool->n_sandboxes--;
	if (pool->stopping) {
		pool_kick(pool);
	}
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct pool_sandbox *sandbox = handle->data;

	if (--sandbox->n_handles == 0) {
		sandbox_free(sandbox);
	}
}

static void close_handle(struct pool_sandbox *sandbox, void *handle)
{
	uv_handle_t *h = handle;

	if (h->type != UV_UNKNOWN_HANDLE && !uv_is_closing(h)) {
		uv_close(h, on_handle_closed);
	}
}

/* Everything but waiting for the process. */
static void close_links(struct pool_sandbox *sandbox)
{
	close_handle(sandbox, &sandbox->control);
	close_handle(sandbox, &sandbox->stream);
	close_handle(sandbox, &sandbox->timer);
	sandbox->launch.control = base_fd_close(sandbox->launch.control);
	sandbox->launch.stream = base_fd_close(sandbox->launch.stream);
	sandbox->launch.stream_peer = base_fd_close(sandbox->launch.stream_peer);
}

void pool_sandbox_doom(struct pool_sandbox *sandbox)
{
	struct pool_template *template = sandbox->template;

	switch (sandbox->state) {
	case POOL_SANDBOX_STARTING:
	case POOL_SANDBOX_LOADING:
	case POOL_SANDBOX_IDENTIFYING:
	case POOL_SANDBOX_PAUSING:
		template->n_restoring--;
		sandbox->pool->n_restoring--;
		break;
	case POOL_SANDBOX_PARKED:
		template->n_parked--;
		break;
	case POOL_SANDBOX_LEASED:
		template->n_leased--;
		break;
	case POOL_SANDBOX_DOOMED:
	case POOL_SANDBOX_DYING:
		return;
	}
	pool_link_remove(&sandbox->link);
	sandbox->state = POOL_SANDBOX_DOOMED;
	if (!sandbox->starting) {
		pool_link_append(&sandbox->pool->doomed, &sandbox->link);
		pool_kick(sandbox->pool);
	}
}

void pool_sandbox_kill(struct pool_sandbox *sandbox)
{
	assert(sandbox->state == POOL_SANDBOX_DOOMED && !sandbox->starting);
	pool_link_remove(&sandbox->link);
	sandbox->state = POOL_SANDBOX_DYING;
	pool_launch_kill(&sandbox->launch);
	pool_launch_unlink(&sandbox->launch);
	close_links(sandbox);
	if (sandbox->launch.pidfd < 0) {
		/* There is no process, or it has been reaped. */
		close_handle(sandbox, &sandbox->process);
	}
}

static void lost(struct pool_sandbox *sandbox, enum pool_cause cause, const char *format, ...)
	_printf_(3, 4);

/* The sandbox cannot go on. */
static void lost(struct pool_sandbox *sandbox, enum pool_cause cause, const char *format, ...)
{
	char text[BASE_ERROR_TEXT_MAX];
	va_list args;

	if (sandbox->state >= POOL_SANDBOX_DOOMED) {
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	log_debug("sandbox %s of %s: %s", sandbox->launch.id, sandbox->template->name, text);
	pool_refill_lost(sandbox, cause, text);
}

/* --- talking to the VMM --- */

/* Sends the next request. On failure the caller gives the sandbox up. */
static int send_step(struct pool_sandbox *sandbox, enum pool_step step, uint64_t arg0, int fd)
{
	struct vmm_message message;

	/* Not the whole of it: the text is 2 KiB that nobody reads. */
	memset(&message, 0, offsetof(struct vmm_message, text));
	message.op = step_ops[step];
	message.sequence = step;
	message.arg[0] = arg0;
	sandbox->sent = step;
	return vmm_control_send(sandbox->launch.control, &message, &fd, fd >= 0 ? 1 : 0);
}

static void restart_timer(struct pool_sandbox *sandbox);

/* Time since the step before; at most that, whatever the VMM says. */
static uint64_t lap(struct pool_sandbox *sandbox, uint64_t now_ns)
{
	uint64_t elapsed_ns = now_ns - sandbox->mark_ns;

	sandbox->mark_ns = now_ns;
	return elapsed_ns;
}

static void on_created(struct pool_sandbox *sandbox, const struct vmm_message *reply,
		       uint64_t now_ns)
{
	uint64_t there_ns = MIN(MAX(reply->arg[0], sandbox->mark_ns), now_ns);

	sandbox->timings.spawn_ns = lap(sandbox, there_ns);
	sandbox->timings.create_ns = lap(sandbox, now_ns);
}

static void on_stream(uv_poll_t *poll, int status, int events);

static int poll_open(struct pool_sandbox *sandbox, uv_poll_t *poll, int fd, uv_poll_cb callback)
{
	int r = uv_poll_init(sandbox->pool->loop, poll, fd);

	if (r < 0) {
		poll->type = UV_UNKNOWN_HANDLE;
		return r;
	}
	poll->data = sandbox;
	sandbox->n_handles++;
	return uv_poll_start(poll, UV_READABLE, callback);
}

/* The identity lies in the stream before the VMM gets the stream, and the VMM has the stream before
 * the vCPUs run. */
static void on_loaded(struct pool_sandbox *sandbox, const struct vmm_message *reply,
		      uint64_t now_ns)
{
	struct pool_launch *launch = &sandbox->launch;
	struct pool_identity_clock clock = { reply->arg[0], reply->arg[1], reply->arg[2] };
	uint8_t request[POOL_IDENTITY_REQUEST_MAX];
	size_t size = pool_identity_encode(&launch->identity, sandbox->generation, &clock, request);

	sandbox->timings.load_ns = lap(sandbox, now_ns);
	pool_identity_wipe(&launch->identity);

	ssize_t n = base_fd_send(launch->stream, request, size, NULL, 0, MSG_DONTWAIT);
	int r = n < 0 ? (int)n : (size_t)n < size ? -EAGAIN : 0;

	explicit_bzero(request, sizeof(request));
	if (r == 0) {
		r = poll_open(sandbox, &sandbox->stream, launch->stream, on_stream);
	}
	if (r == 0) {
		r = send_step(sandbox, POOL_STEP_ATTACH, GUEST_AGENT_PORT, launch->stream_peer);
	}
	if (r == 0) {
		r = send_step(sandbox, POOL_STEP_RESUME, 0, -1);
	}
	if (r < 0) {
		lost(sandbox, POOL_CAUSE_VMM_DIED, "giving the guest its identity: %s",
		     strerrordesc_np(-r));
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
	pool_refill_parked(sandbox);
}

static void on_reply(struct pool_sandbox *sandbox, const struct vmm_message *reply)
{
	enum pool_step step = sandbox->awaited;
	uint64_t now_ns = base_clock_monotonic_ns();

	if (step > sandbox->sent || reply->sequence != step || reply->op != step_ops[step]) {
		lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM sent a reply to nothing");
		return;
	}
	if (reply->result != 0) {
		const char *text = reply->text_length > 0 ? reply->text : "no reason given";

		lost(sandbox, POOL_CAUSE_VMM_DIED, "%s: %s", step_names[step], text);
		return;
	}
	sandbox->awaited++;
	switch (step) {
	case POOL_STEP_CREATE:
		on_created(sandbox, reply, now_ns);
		break;
	case POOL_STEP_LOAD:
		on_loaded(sandbox, reply, now_ns);
		break;
	case POOL_STEP_PAUSE:
		on_paused(sandbox, now_ns);
		break;
	case POOL_STEP_ATTACH:
	case POOL_STEP_RESUME:
	case POOL_STEP_CLAIM:
		break;
	}
}

/* The guest runs, for the first time after a claim or for its identity. */
static void on_entered(struct pool_sandbox *sandbox, const struct vmm_message *event)
{
	struct pool_timings *timings;

	if (sandbox->state != POOL_SANDBOX_LEASED || sandbox->lease->timings.first_entry_ns) {
		return;
	}
	timings = &sandbox->lease->timings;

	uint64_t at_ns = MIN(event->arg[0], base_clock_monotonic_ns());

	timings->first_entry_ns = MAX(at_ns, sandbox->claimed_ns) - sandbox->claim_received_ns;
}

/* The guest wants to talk to a program of the claimant. */
static void on_connect(struct pool_sandbox *sandbox, const struct vmm_message *event)
{
	struct vmm_message answer = { .op = VMM_OP_CONNECTED, .arg = { event->arg[0] } };
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
	r = vmm_control_send(sandbox->launch.control, &answer, &fd, fd >= 0 ? 1 : 0);
	if (r < 0) {
		lost(sandbox, POOL_CAUSE_VMM_DIED, "answering a connection of the guest: %s",
		     strerrordesc_np(-r));
	}
}

static void on_exited(struct pool_sandbox *sandbox, const struct vmm_message *event)
{
	const char *text = event->text_length > 0 ? event->text : "no reason given";

	switch (event->arg[0]) {
	case VMM_EXIT_GUEST:
	case VMM_EXIT_RESET:
		lost(sandbox, POOL_CAUSE_GUEST_EXITED, "the guest ended: %s", text);
		break;
	default:
		lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM gave up: %s", text);
	}
}

static void on_message(struct pool_sandbox *sandbox, const struct vmm_message *message)
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
	default:
		on_reply(sandbox, message);
	}
}

/* The VMM closed its end, so it ends or has to: its exit status will say what happened. Until then
 * a claim fails to send and takes another sandbox. */
static void on_gone(struct pool_sandbox *sandbox)
{
	uv_poll_stop(&sandbox->control);
	pool_launch_kill(&sandbox->launch);
}

/* Takes at most `limit` messages. */
static void take_messages(struct pool_sandbox *sandbox, unsigned limit)
{
	struct vmm_message message;
	int fds[VMM_FDS_MAX];

	while (limit-- > 0 && sandbox->state < POOL_SANDBOX_DOOMED) {
		size_t n_fds = 0;
		int r = vmm_control_receive(sandbox->launch.control, &message, fds, &n_fds);

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
			lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM sent a malformed message");
			return;
		}
		if (n_fds > 0) {
			for (size_t i = 0; i < n_fds; i++) {
				base_fd_close(fds[i]);
			}
			lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM sent a descriptor");
			return;
		}
		on_message(sandbox, &message);
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
	lost(timer->data, POOL_CAUSE_VMM_DIED,
	     "the stream to the agent was closed before it acknowledged its identity");
}

/* The agent has spoken: the only bytes of a guest that the manager looks at. */
static void on_stream(uv_poll_t *poll, int status, int events)
{
	struct pool_sandbox *sandbox = poll->data;
	size_t room = sizeof(sandbox->ack) - sandbox->ack_size;
	ssize_t n =
		recv(sandbox->launch.stream, sandbox->ack + sandbox->ack_size, room, MSG_DONTWAIT);

	if (sandbox->state != POOL_SANDBOX_IDENTIFYING ||
	    (n < 0 && (errno == EAGAIN || errno == EINTR))) {
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
		lost(sandbox, POOL_CAUSE_VMM_DIED, "the agent did not acknowledge its identity");
		return;
	}
	if (sandbox->ack_size < GUEST_IDENTITY_ACK_BYTES) {
		return;
	}
	sandbox->timings.identity_ns = lap(sandbox, base_clock_monotonic_ns());
	close_handle(sandbox, &sandbox->stream);
	sandbox->state = POOL_SANDBOX_PAUSING;
	restart_timer(sandbox);
	/* uv_poll_init() made it non-blocking; who gets the stream expects an ordinary one. */
	if (fcntl(sandbox->launch.stream, F_SETFL, O_RDWR) < 0 ||
	    send_step(sandbox, POOL_STEP_PAUSE, 0, -1) < 0) {
		lost(sandbox, POOL_CAUSE_VMM_DIED, "pausing the VM after its identity");
	}
}

static void on_process(uv_poll_t *poll, int status, int events)
{
	struct pool_sandbox *sandbox = poll->data;
	int code, killed_by;

	if (!pool_launch_reap(&sandbox->launch, &code, &killed_by)) {
		return;
	}
	if (sandbox->state < POOL_SANDBOX_DOOMED) {
		/* What it said last may tell why. */
		take_messages(sandbox, POOL_MESSAGES_LAST);
	}
	if (killed_by > 0) {
		lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM was killed by signal %d (%s)",
		     killed_by, strsignal(killed_by));
	} else {
		lost(sandbox, POOL_CAUSE_VMM_DIED, "the VMM ended with status %d", code);
	}
	sandbox->launch.pidfd = base_fd_close(sandbox->launch.pidfd);
	close_handle(sandbox, &sandbox->process);
	if (sandbox->state == POOL_SANDBOX_DOOMED) {
		pool_sandbox_kill(sandbox);
	}
}

/* --- restore --- */

static void on_restore_timeout(uv_timer_t *timer)
{
	struct pool_sandbox *sandbox = timer->data;

	switch (sandbox->state) {
	case POOL_SANDBOX_IDENTIFYING:
		lost(sandbox, POOL_CAUSE_VMM_DIED,
		     "the guest did not acknowledge its identity within %" PRIu64 " ms",
		     sandbox->pool->identity_timeout_ms);
		break;
	default:
		lost(sandbox, POOL_CAUSE_VMM_DIED, "%s took longer than %" PRIu64 " ms",
		     step_names[MIN(sandbox->awaited, POOL_STEP_CLAIM)],
		     sandbox->pool->identity_timeout_ms);
	}
}

static void restart_timer(struct pool_sandbox *sandbox)
{
	uv_timer_start(&sandbox->timer, on_restore_timeout, sandbox->pool->identity_timeout_ms, 0);
}

static void start_work(uv_work_t *work)
{
	struct pool_sandbox *sandbox = CONTAINER_OF(work, struct pool_sandbox, work);

	pool_launch_run(&sandbox->launch);
}

static void start_done(uv_work_t *work, int status)
{
	struct pool_sandbox *sandbox = CONTAINER_OF(work, struct pool_sandbox, work);
	struct pool_launch *launch = &sandbox->launch;
	int r = status < 0 ? status : launch->result;

	sandbox->starting = false;
	/* Whatever comes next, a process that is there has to be waited for. */
	if (launch->pidfd >= 0) {
		int opened = poll_open(sandbox, &sandbox->process, launch->pidfd, on_process);

		if (opened < 0) {
			/* It cannot be waited for, so wait: it is being killed. */
			pool_launch_kill(launch);
			pool_launch_wait(launch);
			r = r < 0 ? r : opened;
		}
	}
	if (sandbox->state == POOL_SANDBOX_DOOMED) {
		pool_link_append(&sandbox->pool->doomed, &sandbox->link);
		pool_kick(sandbox->pool);
		return;
	}
	sandbox->state = POOL_SANDBOX_LOADING;
	sandbox->mark_ns = launch->started_ns;
	if (r == 0) {
		r = poll_open(sandbox, &sandbox->control, launch->control, on_control);
	}
	if (r < 0) {
		lost(sandbox, POOL_CAUSE_VMM_DIED, "%s",
		     launch->error.text[0] ? launch->error.text : strerrordesc_np(-r));
		return;
	}
	restart_timer(sandbox);
}

int pool_sandbox_start(struct pool_template *template)
{
	struct pool *pool = template->pool;
	_cleanup_free_ struct pool_lease_entry *lease = calloc(1, sizeof(*lease));
	_cleanup_free_ struct pool_sandbox *sandbox = calloc(1, sizeof(*sandbox));
	int r;

	if (!lease || !sandbox) {
		return -ENOMEM;
	}
	sandbox->pool = pool;
	sandbox->template = template;
	sandbox->generation = ++pool->generation;
	sandbox->sent = POOL_STEP_LOAD;
	sandbox->awaited = POOL_STEP_CREATE;
	sandbox->starting = true;
	pool_launch_init(&sandbox->launch);
	sandbox->launch.runtime_dir = pool->runtime_dir;
	sandbox->launch.vmm_path = pool->vmm_path;
	sandbox->launch.image = &template->image;
	sandbox->launch.devnull = pool->devnull;
	r = uv_queue_work(pool->loop, &sandbox->work, start_work, start_done);
	if (r < 0) {
		return r;
	}
	uv_timer_init(pool->loop, &sandbox->timer);
	sandbox->timer.data = sandbox;
	sandbox->n_handles = 1;
	sandbox->lease = TAKE_PTR(lease);
	pool_link_append(&template->restoring, &sandbox->link);
	template->n_restoring++;
	pool->n_restoring++;
	pool->n_sandboxes++;
	sandbox = NULL;
	return 0;
}

/* --- claim --- */

static void on_ttl(uv_timer_t *timer)
{
	struct pool_sandbox *sandbox = timer->data;

	pool_release(sandbox->pool, sandbox->launch.id, POOL_CAUSE_EXPIRED);
}

int pool_sandbox_claim(struct pool_sandbox *sandbox, uint64_t received_ns, uint64_t ttl_ms)
{
	assert(sandbox->state == POOL_SANDBOX_PARKED);
	sandbox->claim_received_ns = received_ns;
	sandbox->claimed_ns = base_clock_monotonic_ns();

	int r = send_step(sandbox, POOL_STEP_CLAIM, 0, -1);

	if (r < 0) {
		return r;
	}
	pool_link_remove(&sandbox->link);
	sandbox->state = POOL_SANDBOX_LEASED;
	sandbox->template->n_parked--;
	sandbox->template->n_leased++;
	if (ttl_ms > 0) {
		uv_update_time(sandbox->pool->loop);
		uv_timer_start(&sandbox->timer, on_ttl, ttl_ms, 0);
	}
	return 0;
}

int pool_sandbox_take_stream(struct pool_sandbox *sandbox)
{
	return TAKE_FD(sandbox->launch.stream);
}
