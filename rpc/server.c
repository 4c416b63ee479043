/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The server: takes the socket, accepts connections, stops.
 *
 * rpc_server_new() binds, rpc_server_start() begins to accept. A client past the limit is told so
 * and closed; when the process has no descriptor left, a reserved one is given up to do the same,
 * because a listener that is left readable would spin. Stopping closes the listener and every
 * connection; the last handle that closes, or the last work on the thread pool, reports the end.
 */

#include "rpc/server.h"

#include "base/clock.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPTS_AT_ONCE 16

int rpc_server_new(uv_loop_t *loop, const struct rpc_server_config *config,
		   struct rpc_server **ret_server, struct base_error *error)
{
	struct rpc_server *server = calloc(1, sizeof(*server));
	int r;

	if (!server) {
		return base_error_set_errno(error, -ENOMEM, "server");
	}
	server->loop = loop;
	server->acquire_timeout_ms = config->acquire_timeout_ms;
	server->reserve_fd = -1;
	rpc_encoder_init(&server->encoder);
	if (!msgpack_zone_init(&server->zone, MSGPACK_ZONE_CHUNK_SIZE)) {
		free(server);
		return base_error_set_errno(error, -ENOMEM, "server");
	}
	server->listener = (struct rpc_listener){ .fd = -1, .lock_fd = -1 };
	r = rpc_listener_open(config->socket_path, config->group, &server->listener, error);
	if (r < 0) {
		rpc_server_free(server);
		return r;
	}
	*ret_server = server;
	return 0;
}

void rpc_server_free(struct rpc_server *server)
{
	if (!server) {
		return;
	}
	assert(server->n_connections == 0 && server->open_handles == 0);
	rpc_listener_close(&server->listener);
	base_fd_close(server->reserve_fd);
	rpc_encoder_deinit(&server->encoder);
	msgpack_zone_destroy(&server->zone);
	free(server);
}

/* Says why in a response to id 0, which speaks of the connection, and closes. */
static void refuse_client(struct rpc_server *server, int fd, const char *text)
{
	server->counters.connections_refused++;
	server->counters.errors[RPC_EXHAUSTED]++;
	rpc_encoder_reset(&server->encoder);
	rpc_encode_error(&server->encoder, 0, RPC_EXHAUSTED, text);
	if (rpc_encoder_result(&server->encoder) == 0) {
		/* Fits into an empty socket; a client that has gone does not matter. */
		(void)base_fd_send(fd, server->encoder.buffer.data, server->encoder.buffer.size,
				   NULL, 0, MSG_DONTWAIT);
	}
	base_fd_close(fd);
}

static void refuse_without_descriptors(struct rpc_server *server)
{
	int fd;

	server->reserve_fd = base_fd_close(server->reserve_fd);
	fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		refuse_client(server, fd, "warmboxd has no file descriptor left");
	}
	server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void handle_accept(uv_poll_t *poll, int status, int events)
{
	struct rpc_server *server = poll->data;

	for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
		int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE) {
				refuse_without_descriptors(server);
			}
			return;
		}
		if (server->n_connections == RPC_CONNECTIONS_MAX) {
			refuse_client(server, fd, "too many connections");
		} else if (rpc_connection_new(server, fd) == 0) {
			server->counters.connections_total++;
		}
	}
}

static void handle_resume(uv_async_t *async)
{
	struct rpc_server *server = async->data;
	struct rpc_connection *next;

	for (struct rpc_connection *c = server->connections; c; c = next) {
		next = c->next;
		if (c->paused) {
			rpc_connection_resume(c);
		}
	}
}

int rpc_server_start(struct rpc_server *server, struct pool *pool, struct snapshot_store *store,
		     struct base_error *error)
{
	int r;

	server->pool = pool;
	server->store = store;
	server->started_ns = base_clock_monotonic_ns();
	server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (server->reserve_fd < 0) {
		return base_error_set_errno(error, -errno, "/dev/null");
	}
	server->accept_poll.data = server;
	server->resume.data = server;
	r = uv_async_init(server->loop, &server->resume, handle_resume);
	if (r < 0) {
		return base_error_set_errno(error, r, "event loop");
	}
	server->open_handles++;
	r = uv_poll_init(server->loop, &server->accept_poll, server->listener.fd);
	if (r < 0) {
		return base_error_set_errno(error, r, "event loop");
	}
	server->open_handles++;
	r = uv_poll_start(&server->accept_poll, UV_READABLE, handle_accept);
	return r < 0 ? base_error_set_errno(error, r, "event loop") : 0;
}

void rpc_server_check_stopped(struct rpc_server *server)
{
	if (server->stopping && server->stopped && server->open_handles == 0 &&
	    server->n_connections == 0 && server->n_works == 0) {
		void (*stopped)(void *userdata) = server->stopped;

		server->stopped = NULL;
		stopped(server->stopped_userdata);
	}
}

static void handle_closed(uv_handle_t *handle)
{
	struct rpc_server *server = handle->data;

	server->open_handles--;
	rpc_server_check_stopped(server);
}

void rpc_server_stop(struct rpc_server *server, void (*done)(void *userdata), void *userdata)
{
	server->stopping = true;
	server->stopped = done;
	server->stopped_userdata = userdata;
	if (server->open_handles > 1) {
		uv_close((uv_handle_t *)&server->accept_poll, handle_closed);
	}
	if (server->open_handles > 0) {
		uv_close((uv_handle_t *)&server->resume, handle_closed);
	}
	for (struct rpc_connection *c = server->connections; c; c = c->next) {
		rpc_connection_end(c);
	}
	rpc_listener_close(&server->listener);
	rpc_server_check_stopped(server);
}
