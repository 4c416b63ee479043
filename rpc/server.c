/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The server: takes the socket, accepts connections, stops.
 *
 * rpc_server_new() binds, rpc_server_start() begins to accept. Which tenant a client belongs to is
 * decided here, once. A client past a limit is told so and closed; when the process has no
 * descriptor left, a reserved one is given up to do the same, because a listener that is left
 * readable would spin. Some connections are left to administrators.
 *
 * A turn is one round of the loop. What a tenant may have done in one is bounded, and so are the
 * clients accepted; a connection that is held goes on with the next.
 *
 * A timer runs while a message is begun and not complete. Stopping closes the listener and every
 * connection; the last handle that closes, or the last work on the thread pool, reports the end.
 */

#include "rpc/server.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "rpc/peer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* How often messages that are not complete are looked at, in their time. */
#define TICKS_PER_TIMEOUT 4

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
	server->message_timeout_ms = config->message_timeout_ms ?: RPC_MESSAGE_TIMEOUT_MS;
	base_list_init(&server->held);
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

/* Says why in a response to id 0, which speaks of the connection, and closes. tenant NULL: it is
 * not about its quota. */
static void refuse_client(struct rpc_server *server, int fd, const char *text,
			  const struct pool_tenant *tenant)
{
	enum rpc_code code = tenant ? RPC_QUOTA_EXCEEDED : RPC_EXHAUSTED;

	server->counters.connections_refused++;
	server->counters.errors[code]++;
	rpc_encoder_reset(&server->encoder);
	if (tenant) {
		rpc_encode_quota_error(&server->encoder, 0, text,
				       pool_quota_name(POOL_QUOTA_OF_CONNECTIONS), 0);
	} else {
		rpc_encode_error(&server->encoder, 0, code, text);
	}
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
		refuse_client(server, fd, "warmboxd has no file descriptor left", NULL);
	}
	server->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* The client's tenant, or NULL: it was refused. fd is the caller's either way. */
static struct pool_tenant *tenant_of(struct rpc_server *server, int fd, uid_t *ret_uid,
				     gid_t *ret_gid)
{
	_cleanup_free_ gid_t *groups = NULL;
	struct pool_tenant *tenant;
	struct pool_peer peer;
	int r = rpc_peer_read(fd, &peer, &groups);

	if (r < 0) {
		/* A socket that does not tell has nobody at its end. */
		return NULL;
	}
	tenant = pool_tenants_find(pool_tenants(server->pool), &peer, ret_gid);
	*ret_uid = peer.uid;
	if (tenant) {
		log_debug("process %d of user %u is tenant %s", peer.pid, peer.uid, tenant->name);
	}
	return tenant;
}

/* fd is consumed. */
static void take_client(struct rpc_server *server, int fd)
{
	uid_t uid;
	gid_t gid;
	struct pool_tenant *tenant = tenant_of(server, fd, &uid, &gid);
	unsigned most = RPC_CONNECTIONS_MAX;

	if (!tenant) {
		base_fd_close(fd);
		return;
	}
	most -= tenant->config->admin ? 0 : RPC_CONNECTIONS_RESERVED;
	if (server->n_connections >= most) {
		refuse_client(server, fd, "too many connections", NULL);
	} else if (!tenant->config->admin && tenant->n_connections >= RPC_TENANT_CONNECTIONS_MAX) {
		refuse_client(server, fd, "too many connections of this tenant", tenant);
	} else {
		if (rpc_connection_new(server, fd, tenant, uid, gid) == 0) {
			server->counters.connections_total++;
		}
		return;
	}
	pool_tenant_unref(tenant);
}

static void handle_accept(uv_poll_t *poll, int status, int events)
{
	struct rpc_server *server = poll->data;

	for (int i = 0; i < RPC_ACCEPTS_MAX; i++) {
		int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE) {
				refuse_without_descriptors(server);
			}
			return;
		}
		take_client(server, fd);
	}
}

/* Those that are held again come after those that had no turn. */
static void resume_held(struct rpc_server *server)
{
	struct base_link held, again;

	base_list_move(&server->held, &held);
	BASE_LIST_FOR_EACH(link, &held)
	{
		struct rpc_connection *c = CONTAINER_OF(link, struct rpc_connection, held);

		if (rpc_connection_has_turn(c)) {
			rpc_connection_resume(c);
		}
	}
	base_list_move(&server->held, &again);
	base_list_append_all(&server->held, &held);
	base_list_append_all(&server->held, &again);
	if (!base_list_is_empty(&server->held)) {
		uv_async_send(&server->resume);
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
	resume_held(server);
}

static void handle_prepare(uv_prepare_t *prepare)
{
	struct rpc_server *server = prepare->data;

	server->turn++;
}

static void handle_timer(uv_timer_t *timer)
{
	struct rpc_server *server = timer->data;
	uint64_t now_ns = base_clock_monotonic_ns();
	struct rpc_connection *next;

	for (struct rpc_connection *c = server->connections; c; c = next) {
		next = c->next;
		rpc_connection_check_time(c, now_ns);
	}
	if (server->n_begun == 0) {
		uv_timer_stop(timer);
	}
}

void rpc_server_watch_time(struct rpc_server *server)
{
	uint64_t tick_ms = MAX(server->message_timeout_ms / TICKS_PER_TIMEOUT, UINT64_C(1));

	if (!uv_is_active((uv_handle_t *)&server->timer) && !server->stopping) {
		uv_timer_start(&server->timer, handle_timer, tick_ms, tick_ms);
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
	server->prepare.data = server->timer.data = server;
	uv_timer_init(server->loop, &server->timer);
	uv_prepare_init(server->loop, &server->prepare);
	uv_prepare_start(&server->prepare, handle_prepare);
	server->open_handles += 2;
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
		uv_close((uv_handle_t *)&server->prepare, handle_closed);
		uv_close((uv_handle_t *)&server->timer, handle_closed);
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
