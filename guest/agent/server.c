/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The listener and the loop around it: wait, let events set flags, pump what they touched. Nothing
 * here blocks but the wait itself. Fails only when the loop's own descriptors do; for PID 1 that is
 * the end of the VM. One thread.
 */

#include "guest/agent/server.h"

#include "guest/agent/connection.h"
#include "guest/agent/process.h"
#include "guest/agent/spawn.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Memory that decoding a usual message needs. */
#define ZONE_BYTES 8192
/* How long to let things end when a new connection finds no descriptor or memory. */
#define ACCEPT_PAUSE_MS 20

static void on_listener(struct agent_source *source, uint32_t events)
{
	struct agent_server *server = CONTAINER_OF(source, struct agent_server, listener);
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			poll(NULL, 0, ACCEPT_PAUSE_MS);
		}
	} else if (server->n_connections >= AGENT_CONNECTIONS_MAX) {
		close(fd);
	} else {
		agent_connection_create(server, fd);
	}
}

static void on_signals(struct agent_source *source, uint32_t events)
{
	agent_process_reap(CONTAINER_OF(source, struct agent_server, signals));
}

int agent_server_init(struct agent_server *server, int listener_fd)
{
	int r;

	*server = (struct agent_server){
		.loop.epoll_fd = -1,
		.listener = { .fd = listener_fd, .on_events = on_listener },
		.signals = { .fd = -1, .on_events = on_signals },
	};
	base_list_init(&server->connections);
	base_list_init(&server->spare_connections);
	base_list_init(&server->orphans);
	base_list_init(&server->retired);
	base_list_init(&server->processes);
	if (!msgpack_zone_init(&server->zone, ZONE_BYTES)) {
		close(listener_fd);
		return -ENOMEM;
	}
	r = agent_loop_init(&server->loop);
	if (r == 0) {
		r = agent_spawn_init(&server->signals.fd);
	}
	if (r == 0) {
		r = agent_loop_add(&server->loop, &server->signals, EPOLLIN | EPOLLET);
	}
	if (r == 0) {
		/* Not edge-triggered: then accepting one costs one call, not two. */
		r = agent_loop_add(&server->loop, &server->listener, EPOLLIN);
	}
	if (r < 0) {
		agent_server_deinit(server);
	}
	return r;
}

static void pump_connections(struct agent_server *server)
{
	BASE_LIST_FOR_EACH(link, &server->connections)
	{
		struct agent_connection *connection =
			CONTAINER_OF(link, struct agent_connection, link);

		if (connection->dirty) {
			agent_connection_pump(connection);
		}
	}
}

int agent_server_run(struct agent_server *server, const volatile int *stop)
{
	while (!stop || !*stop) {
		int timeout_ms = server->busy ? 0 : -1;
		int r;

		server->busy = false;
		r = agent_loop_step(&server->loop, timeout_ms);
		if (r < 0) {
			return r;
		}
		do {
			pump_connections(server);
		} while (agent_process_tidy(server));
	}
	return 0;
}

void agent_server_deinit(struct agent_server *server)
{
	BASE_LIST_FOR_EACH(link, &server->connections)
	{
		agent_connection_destroy(CONTAINER_OF(link, struct agent_connection, link));
	}
	BASE_LIST_FOR_EACH(link, &server->orphans)
	{
		agent_process_destroy(CONTAINER_OF(link, struct agent_process, link));
	}
	BASE_LIST_FOR_EACH(link, &server->retired)
	{
		agent_process_destroy(CONTAINER_OF(link, struct agent_process, link));
	}
	if (server->prepared) {
		agent_process_destroy(server->prepared);
	}
	agent_connection_free_spares(server);
	agent_loop_deinit(&server->loop);
	msgpack_zone_destroy(&server->zone);
	if (server->signals.fd >= 0) {
		close(server->signals.fd);
	}
	close(server->listener.fd);
}
