/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One client of the server.
 *
 * Readable: one recv() into the decoder, and every complete request is dispatched. An answer is
 * sent at once; what the socket does not take is queued, up to a limit past which the connection
 * ends. A connection with too many open requests is paused: nothing is read until one is answered,
 * and only its end is watched for. One whose tenant has used up its share of the loop's turn is
 * held: it goes on in the next turn, in the order of those that were held.
 *
 * Descriptors that a client sends are closed by the kernel: they are never asked for.
 *
 * What may go wrong: end of stream, a reset, a failed write, bytes that are not the protocol. All
 * of them mark the connection ended and close its handle. The handle's close callback cancels what
 * is open, and releases the leases that end with the connection:
 *  - those that are bound to it;
 *  - those whose answer was not wholly handed to the kernel;
 *  - after a reset, those whose answer may not have been read. A Unix socket that is closed with
 *    unread data resets its peer; SIOCOUTQ at 0 when later requests are handled says that all
 *    that was sent before has been read.
 */

#include "rpc/server.h"

#include "base/clock.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BOUND_ROOM_MIN 16

static void handle_event(uv_poll_t *poll, int status, int events);

/* --- bounds --- */

static void set_begun(struct rpc_connection *connection, uint64_t ns)
{
	connection->server->n_begun += (ns != 0) - (connection->begun_ns != 0);
	connection->begun_ns = ns;
}

static void count_buffered(struct rpc_connection *connection, uint64_t bytes)
{
	connection->tenant->buffered_bytes += bytes - connection->buffered_bytes;
	connection->server->buffered_bytes += bytes - connection->buffered_bytes;
	connection->buffered_bytes = bytes;
}

/* False: the tenant, or all together, have more bytes in memory than they may. */
static bool is_within_buffers(struct rpc_connection *connection)
{
	count_buffered(connection,
		       connection->in.room + connection->queued_bytes - connection->sent_bytes);
	return connection->tenant->buffered_bytes <= RPC_TENANT_BUFFER_BYTES &&
	       connection->server->buffered_bytes <= RPC_BUFFER_BYTES;
}

bool rpc_connection_has_turn(struct rpc_connection *connection)
{
	struct pool_tenant *tenant = connection->tenant;

	if (tenant->turn != connection->server->turn) {
		tenant->turn = connection->server->turn;
		tenant->spent = 0;
	}
	return tenant->spent < RPC_TURN_COST_MAX;
}

static bool is_held(const struct rpc_connection *connection)
{
	return !base_list_is_empty(&connection->held);
}

static void hold(struct rpc_connection *connection)
{
	if (!is_held(connection)) {
		base_list_append(&connection->server->held, &connection->held);
		uv_async_send(&connection->server->resume);
	}
}

/* --- ending --- */

static void free_output(struct rpc_output *output)
{
	base_fd_close(output->fd);
	free(output);
}

static void release(struct rpc_connection *connection, const char *lease_id)
{
	/* A server that stops has a pool that has ended every lease. */
	if (!connection->server->stopping) {
		pool_release(connection->server->pool, lease_id, POOL_CAUSE_CLIENT_GONE);
	}
}

static void release_leases(struct rpc_connection *connection)
{
	while (connection->unread) {
		struct rpc_request *request = connection->unread;

		if (connection->reset || request->end_bytes > connection->sent_bytes) {
			release(connection, request->lease);
		}
		rpc_request_free(request);
	}
	for (size_t i = 0; i < connection->n_bound; i++) {
		release(connection, connection->bound[i]);
	}
}

static void cancel_open(struct rpc_connection *connection)
{
	while (connection->open) {
		struct rpc_request *request = connection->open;

		switch (request->wait) {
		case RPC_WAIT_ACQUIRE:
			pool_acquire_cancel(&request->acquire);
			break;
		case RPC_WAIT_SET:
			pool_set_cancel(&request->set);
			break;
		case RPC_WAIT_ACCOUNT:
			pool_account_cancel(&request->account);
			break;
		case RPC_WAIT_WORK:
			connection->open = request->next;
			if (request->next) {
				request->next->previous = NULL;
			}
			request->connection = NULL;
			continue;
		case RPC_WAIT_NOTHING:
			break;
		}
		rpc_request_free(request);
	}
}

static void handle_closed(uv_handle_t *handle)
{
	struct rpc_connection *connection = handle->data;
	struct rpc_server *server = connection->server;

	cancel_open(connection);
	release_leases(connection);
	while (connection->out_first) {
		struct rpc_output *output = connection->out_first;

		connection->out_first = output->next;
		free_output(output);
	}
	if (connection->previous) {
		connection->previous->next = connection->next;
	} else {
		server->connections = connection->next;
	}
	if (connection->next) {
		connection->next->previous = connection->previous;
	}
	set_begun(connection, 0);
	count_buffered(connection, 0);
	base_list_remove(&connection->held);
	connection->tenant->n_connections--;
	pool_tenant_unref(connection->tenant);
	rpc_decoder_deinit(&connection->in);
	free(connection->bound);
	free(connection);
	server->n_connections--;
	rpc_server_check_stopped(server);
}

/* Looking at a pending error clears it. */
static bool check_reset(struct rpc_connection *connection)
{
	int pending = 0;
	socklen_t size = sizeof(pending);

	if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &pending, &size) == 0 &&
	    pending == ECONNRESET) {
		connection->reset = true;
	}
	return connection->reset;
}

void rpc_connection_end(struct rpc_connection *connection)
{
	if (connection->ended) {
		return;
	}
	connection->ended = true;
	(void)check_reset(connection);
	uv_close((uv_handle_t *)&connection->poll, handle_closed);
	connection->fd = base_fd_close(connection->fd);
}

/* --- sending --- */

static void watch(struct rpc_connection *connection)
{
	int events = connection->paused ? UV_DISCONNECT : UV_READABLE;
	int r;

	if (connection->ended || connection->gone) {
		return;
	}
	if (connection->out_first) {
		events |= UV_WRITABLE;
	}
	if (events != connection->events) {
		r = uv_poll_start(&connection->poll, events, handle_event);
		if (r < 0) {
			rpc_connection_end(connection);
			return;
		}
		connection->events = events;
	}
}

/* Bytes that the socket took, 0 when it takes none now, or -errno. */
static ssize_t send_some(struct rpc_connection *connection, const char *data, size_t size, int fd)
{
	ssize_t n;

	do {
		n = base_fd_send(connection->fd, data, size, &fd, fd >= 0 ? 1 : 0, MSG_DONTWAIT);
	} while (n == -EINTR);
	if (n > 0) {
		connection->sent_bytes += (size_t)n;
	}
	return n == -EAGAIN ? 0 : n;
}

static void flush(struct rpc_connection *connection)
{
	while (connection->out_first) {
		struct rpc_output *output = connection->out_first;
		ssize_t n = send_some(connection, output->data + output->sent,
				      output->size - output->sent, output->fd);

		if (n < 0) {
			connection->reset |= n == -ECONNRESET;
			rpc_connection_end(connection);
			return;
		}
		if (n == 0) {
			return;
		}
		output->fd = base_fd_close(output->fd);
		output->sent += (size_t)n;
		if (output->sent == output->size) {
			connection->out_first = output->next;
			free_output(output);
		}
	}
}

/* Queues bytes; fd is consumed. */
static int enqueue(struct rpc_connection *connection, const char *data, size_t size, int fd)
{
	struct rpc_output *output;

	if (connection->queued_bytes - connection->sent_bytes > RPC_OUTPUT_MAX_BYTES) {
		base_fd_close(fd);
		return -ENOBUFS;
	}
	output = malloc(sizeof(*output) + size);
	if (!output) {
		base_fd_close(fd);
		return -ENOMEM;
	}
	*output = (struct rpc_output){ .size = size, .fd = fd };
	memcpy(output->data, data, size);
	if (connection->out_first) {
		connection->out_last->next = output;
	} else {
		connection->out_first = output;
	}
	connection->out_last = output;
	return is_within_buffers(connection) ? 0 : -ENOBUFS;
}

void rpc_connection_send(struct rpc_connection *connection, const char *data, size_t size, int fd)
{
	_cleanup_fd_ int owned = fd;
	ssize_t n = 0;

	if (connection->ended) {
		return;
	}
	connection->queued_bytes += size;
	if (!connection->out_first) {
		n = send_some(connection, data, size, owned);
	}
	if (n > 0) {
		owned = base_fd_close(owned);
	}
	if (n >= 0 && (size_t)n < size) {
		n = enqueue(connection, data + n, size - (size_t)n, TAKE_FD(owned));
	}
	if (n < 0) {
		connection->reset |= n == -ECONNRESET;
		rpc_connection_end(connection);
		return;
	}
	if (!connection->dispatching) {
		watch(connection);
	}
}

/* --- receiving --- */

/* Says what is wrong in a response to id 0, which speaks of the connection, and ends it. */
static void end_with_error(struct rpc_connection *connection, int r)
{
	struct rpc_encoder *encoder = &connection->server->encoder;
	const char *text = r == -EMSGSIZE ? "a message is larger than the limit"
			   : r == -ELOOP  ? "a message is nested deeper than the limit"
			   : r == -ENOMEM ? "out of memory"
			   : r == -ENOBUFS
				   ? "this tenant's connections hold more bytes than they may"
			   : r == -ETIMEDOUT ? "a message was begun and not ended in time"
					     : "this is not msgpack-RPC";
	enum rpc_code code = r == -ENOMEM      ? RPC_INTERNAL
			     : r == -ENOBUFS   ? RPC_EXHAUSTED
			     : r == -ETIMEDOUT ? RPC_DEADLINE_EXCEEDED
					       : RPC_INVALID_REQUEST;

	connection->server->counters.errors[code]++;
	rpc_encoder_reset(encoder);
	rpc_encode_error(encoder, 0, code, text);
	if (rpc_encoder_result(encoder) == 0) {
		rpc_connection_send(connection, encoder->buffer.data, encoder->buffer.size, -1);
	}
	rpc_connection_end(connection);
}

/* What was answered has been read when nothing is on its way any more. A client
 * that closes also leaves nothing on its way, but the reset is marked before that. */
static void forget_read_leases(struct rpc_connection *connection)
{
	int on_its_way = 1;

	if (!connection->unread || connection->out_first ||
	    ioctl(connection->fd, SIOCOUTQ, &on_its_way) < 0 || on_its_way != 0 ||
	    check_reset(connection)) {
		return;
	}
	while (connection->unread) {
		rpc_request_free(connection->unread);
	}
}

/* What is in the decoder is the beginning of a message, unless it is not looked at now. */
static void note_begun(struct rpc_connection *connection, uint64_t now_ns)
{
	if (connection->paused || is_held(connection) || !rpc_decoder_is_inside(&connection->in)) {
		set_begun(connection, 0);
	} else if (connection->begun_ns == 0) {
		set_begun(connection, now_ns);
		rpc_server_watch_time(connection->server);
	}
}

void rpc_connection_check_time(struct rpc_connection *connection, uint64_t now_ns)
{
	uint64_t most_ns = connection->server->message_timeout_ms * NSEC_PER_MSEC;

	if (!connection->ended && connection->begun_ns > 0 &&
	    now_ns - connection->begun_ns >= most_ns) {
		end_with_error(connection, -ETIMEDOUT);
	}
}

/* Dispatches what is complete in the decoder. */
static void dispatch(struct rpc_connection *connection, uint64_t received_ns)
{
	struct rpc_message message;
	int r = 0;

	assert(!connection->dispatching);
	forget_read_leases(connection);
	connection->dispatching = true;
	while (!connection->ended && connection->n_open < RPC_OPEN_REQUESTS_MAX) {
		if (!rpc_connection_has_turn(connection)) {
			hold(connection);
			break;
		}
		r = rpc_decoder_next(&connection->in, &connection->server->zone, &message);
		if (r <= 0) {
			break;
		}
		set_begun(connection, 0);
		if (message.type != RPC_REQUEST) {
			/* This side asks nothing and knows no notification. */
			r = -EBADMSG;
			break;
		}
		rpc_request_dispatch(connection, &message, received_ns);
	}
	connection->dispatching = false;
	if (connection->ended) {
		return;
	}
	if (r == 0 && !is_within_buffers(connection)) {
		r = -ENOBUFS;
	}
	if (r < 0) {
		end_with_error(connection, r);
		return;
	}
	connection->paused = connection->n_open == RPC_OPEN_REQUESTS_MAX;
	note_begun(connection, received_ns);
	watch(connection);
}

/* 1: bytes came and were handled. 0: none there, or this is not the time. <0: the connection is to
 * be ended. */
static int receive(struct rpc_connection *connection)
{
	size_t size;
	uint8_t *data;
	ssize_t n;

	if (is_held(connection) || !rpc_connection_has_turn(connection)) {
		connection->readable = true;
		hold(connection);
		return 0;
	}
	data = rpc_decoder_space(&connection->in, &size);
	if (!data) {
		return -ENOMEM;
	}
	n = recv(connection->fd, data, size, MSG_DONTWAIT);
	if (n < 0) {
		int r = -errno;

		connection->reset |= r == -ECONNRESET;
		return r == -EAGAIN || r == -EINTR ? 0 : r;
	}
	if (n == 0) {
		return -ENOTCONN;
	}
	rpc_decoder_commit(&connection->in, (size_t)n);
	dispatch(connection, base_clock_monotonic_ns());
	return 1;
}

/* The client has gone, and libuv polls no more. What it sent before still counts. */
static void drain(struct rpc_connection *connection)
{
	connection->gone = true;
	while (!connection->ended && !connection->paused && receive(connection) > 0) {
	}
	if (!is_held(connection) || connection->paused) {
		rpc_connection_end(connection);
	}
}

void rpc_connection_resume(struct rpc_connection *connection)
{
	bool readable = connection->readable;

	base_list_remove(&connection->held);
	connection->readable = false;
	if (connection->ended || connection->n_open == RPC_OPEN_REQUESTS_MAX) {
		return;
	}
	dispatch(connection, base_clock_monotonic_ns());
	if (connection->ended || connection->paused) {
		return;
	}
	if (connection->gone) {
		drain(connection);
	} else if (readable && receive(connection) < 0) {
		rpc_connection_end(connection);
	}
}

static void handle_event(uv_poll_t *poll, int status, int events)
{
	struct rpc_connection *connection = poll->data;

	if (status < 0) {
		drain(connection);
		return;
	}
	if (events & UV_WRITABLE) {
		flush(connection);
	}
	if (!connection->ended && events & UV_DISCONNECT) {
		rpc_connection_end(connection);
	}
	if (!connection->ended && events & UV_READABLE && receive(connection) < 0) {
		rpc_connection_end(connection);
	}
	watch(connection);
}

/* --- beginning --- */

int rpc_connection_new(struct rpc_server *server, int fd, struct pool_tenant *tenant, uid_t uid,
		       gid_t gid)
{
	struct rpc_connection *connection = calloc(1, sizeof(*connection));
	int r;

	if (!connection) {
		pool_tenant_unref(tenant);
		base_fd_close(fd);
		return -ENOMEM;
	}
	connection->server = server;
	connection->fd = fd;
	connection->tenant = tenant;
	connection->uid = uid;
	connection->gid = gid;
	base_list_init(&connection->held);
	connection->poll.data = connection;
	r = uv_poll_init(server->loop, &connection->poll, fd);
	if (r < 0) {
		pool_tenant_unref(tenant);
		base_fd_close(fd);
		free(connection);
		return r;
	}
	tenant->n_connections++;
	connection->next = server->connections;
	if (server->connections) {
		server->connections->previous = connection;
	}
	server->connections = connection;
	server->n_connections++;
	watch(connection);
	return 0;
}

/* Forgets bound leases that have ended by themselves. */
static void prune_bound(struct rpc_connection *connection)
{
	size_t kept = 0;

	for (size_t i = 0; i < connection->n_bound; i++) {
		struct pool_lease lease;

		if (pool_get(connection->server->pool, connection->bound[i], &lease) &&
		    lease.active) {
			memmove(connection->bound[kept++], connection->bound[i],
				sizeof(rpc_lease_id));
		}
	}
	connection->n_bound = kept;
}

int rpc_connection_bind(struct rpc_connection *connection, const char *lease_id)
{
	if (connection->n_bound == connection->bound_room) {
		size_t room = MAX(2 * connection->bound_room, (size_t)BOUND_ROOM_MIN);
		rpc_lease_id *bound;

		prune_bound(connection);
		/* Unless half of it became free, the next pruning would come too soon. */
		if (connection->n_bound >= connection->bound_room / 2) {
			bound = reallocarray(connection->bound, room, sizeof(*bound));
			if (!bound) {
				return -ENOMEM;
			}
			connection->bound = bound;
			connection->bound_room = room;
		}
	}
	strcpy(connection->bound[connection->n_bound++], lease_id);
	return 0;
}
