/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Bytes in, messages served, bytes out. Events only set flags; the work is done by
 * agent_connection_pump() once for each batch of events, so that a process's last output and its
 * response leave with one send.
 *
 * It ends when the peer closes, when it breaks the protocol, or when memory for a message cannot be
 * had. Whatever the reason, its processes are killed. One thread.
 */

#include "guest/agent/connection.h"

#include "guest/agent/methods.h"
#include "guest/agent/process.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Messages served and reads done for one connection before the others get their turn. */
#define TURN_MESSAGES 64
#define TURN_READS    8

static void on_socket(struct agent_source *source, uint32_t events)
{
	struct agent_connection *connection = CONTAINER_OF(source, struct agent_connection, source);

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		connection->readable = true;
	}
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		connection->hung_up = true;
	}
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
		connection->writable = true;
	}
	connection->dirty = true;
}

static struct agent_connection *allocate(struct agent_server *server)
{
	struct agent_connection *connection;

	if (!base_list_is_empty(&server->spare_connections)) {
		connection =
			CONTAINER_OF(server->spare_connections.next, struct agent_connection, link);
		base_list_remove(&connection->link);
		server->n_spare--;
		return connection;
	}
	connection = malloc(sizeof(*connection));
	if (!connection) {
		return NULL;
	}
	connection->in_room = AGENT_IN_BYTES;
	connection->in = malloc(connection->in_room);
	if (!connection->in) {
		free(connection);
		return NULL;
	}
	return connection;
}

int agent_connection_create(struct agent_server *server, int fd)
{
	struct agent_connection *connection = allocate(server);

	if (!connection) {
		close(fd);
		return -ENOMEM;
	}
	connection->source = (struct agent_source){ .fd = fd, .on_events = on_socket };
	connection->server = server;
	base_list_init(&connection->processes);
	/* Often the first request is there already. */
	connection->dirty = true;
	connection->readable = true;
	connection->writable = true;
	connection->watched = false;
	connection->watched_out = false;
	connection->hung_up = false;
	connection->broken = false;
	connection->in_start = 0;
	connection->in_end = 0;
	connection->scan = (struct agent_scan){ 0 };
	connection->blocked = NULL;
	connection->blocked_data = NULL;
	connection->out_start = 0;
	connection->out_end = 0;
	base_list_append(&server->connections, &connection->link);
	server->n_connections++;
	return 0;
}

static void connection_free(struct agent_connection *connection)
{
	free(connection->in);
	free(connection);
}

void agent_connection_destroy(struct agent_connection *connection)
{
	struct agent_server *server = connection->server;

	BASE_LIST_FOR_EACH(link, &connection->processes)
	{
		agent_process_abandon(CONTAINER_OF(link, struct agent_process, link));
	}
	agent_loop_forget(&server->loop, &connection->source);
	close(connection->source.fd);
	base_list_remove(&connection->link);
	server->n_connections--;
	if (server->n_spare < AGENT_SPARE_CONNECTIONS && connection->in_room == AGENT_IN_BYTES) {
		base_list_append(&server->spare_connections, &connection->link);
		server->n_spare++;
	} else {
		connection_free(connection);
	}
}

void agent_connection_free_spares(struct agent_server *server)
{
	BASE_LIST_FOR_EACH(link, &server->spare_connections)
	{
		base_list_remove(link);
		connection_free(CONTAINER_OF(link, struct agent_connection, link));
	}
	server->n_spare = 0;
}

uint8_t *agent_connection_reserve(struct agent_connection *connection, size_t size)
{
	size_t used = connection->out_end - connection->out_start;

	if (size > AGENT_OUT_BYTES - used) {
		return NULL;
	}
	if (size > AGENT_OUT_BYTES - connection->out_end) {
		memmove(connection->out, connection->out + connection->out_start, used);
		connection->out_start = 0;
		connection->out_end = used;
	}
	return connection->out + connection->out_end;
}

void agent_connection_commit(struct agent_connection *connection, size_t size)
{
	connection->out_end += size;
}

bool agent_connection_can_respond(struct agent_connection *connection)
{
	return agent_connection_reserve(connection, AGENT_RESPONSE_MAX) != NULL;
}

static int pack_write(void *userdata, const char *data, size_t size)
{
	struct agent_connection *connection = userdata;
	uint8_t *out = agent_connection_reserve(connection, size);

	assert(out);
	memcpy(out, data, size);
	agent_connection_commit(connection, size);
	return 0;
}

void agent_connection_pack_string(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str_with_body(packer, text, strlen(text));
}

static void begin(struct agent_connection *connection, uint32_t id, msgpack_packer *packer)
{
	msgpack_packer_init(packer, connection, pack_write);
	msgpack_pack_array(packer, 4);
	msgpack_pack_int(packer, 1);
	msgpack_pack_uint32(packer, id);
}

void agent_connection_begin_response(struct agent_connection *connection, uint32_t id,
				     msgpack_packer *ret_packer)
{
	begin(connection, id, ret_packer);
	msgpack_pack_nil(ret_packer);
}

void agent_connection_respond_empty(struct agent_connection *connection, uint32_t id)
{
	msgpack_packer packer;

	agent_connection_begin_response(connection, id, &packer);
	msgpack_pack_map(&packer, 0);
}

void agent_connection_respond_error(struct agent_connection *connection, uint32_t id,
				    const char *code, const char *format, ...)
{
	char text[AGENT_TEXT_MAX];
	msgpack_packer packer;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	begin(connection, id, &packer);
	msgpack_pack_map(&packer, 2);
	agent_connection_pack_string(&packer, "code");
	agent_connection_pack_string(&packer, code);
	agent_connection_pack_string(&packer, "message");
	agent_connection_pack_string(&packer, text);
	msgpack_pack_nil(&packer);
}

/* The message at in_start is done with. */
static void consume(struct agent_connection *connection)
{
	connection->in_start += connection->scan.position;
	connection->scan = (struct agent_scan){ 0 };
	if (connection->in_start < connection->in_end) {
		return;
	}
	connection->in_start = 0;
	connection->in_end = 0;
	if (connection->in_room > AGENT_IN_BYTES) {
		uint8_t *in = realloc(connection->in, AGENT_IN_BYTES);

		if (in) {
			connection->in = in;
			connection->in_room = AGENT_IN_BYTES;
		}
	}
}

/* Room behind what is there, for the rest of a message that has begun. 0 or -ENOMEM. */
static int make_room(struct agent_connection *connection)
{
	size_t used = connection->in_end - connection->in_start;
	size_t room;
	uint8_t *in;

	if (connection->in_room - connection->in_end >= AGENT_IN_BYTES / 4) {
		return 0;
	}
	if (connection->in_start > 0) {
		memmove(connection->in, connection->in + connection->in_start, used);
		connection->in_start = 0;
		connection->in_end = used;
	}
	if (connection->in_room - connection->in_end >= AGENT_IN_BYTES / 4 ||
	    connection->in_room == GUEST_MESSAGE_MAX_BYTES) {
		return 0;
	}
	room = MIN(connection->in_room * 2, (size_t)GUEST_MESSAGE_MAX_BYTES);
	in = realloc(connection->in, room);
	if (!in) {
		return -ENOMEM;
	}
	connection->in = in;
	connection->in_room = room;
	return 0;
}

static void receive(struct agent_connection *connection)
{
	size_t room;
	ssize_t n;

	if (make_room(connection) < 0) {
		connection->broken = true;
		return;
	}
	room = connection->in_room - connection->in_end;
	assert(room > 0);
	n = recv(connection->source.fd, connection->in + connection->in_end, room, MSG_DONTWAIT);
	if (n > 0) {
		connection->in_end += (size_t)n;
		/* After a hang-up no event will tell of the rest. */
		connection->readable = (size_t)n == room || connection->hung_up;
	} else if (n < 0 && errno == EAGAIN) {
		connection->readable = false;
	} else if (n == 0 || errno != EINTR) {
		connection->broken = true;
	}
}

/* Serves the whole message at in_start. 0 or -EBADMSG. */
static int serve(struct agent_connection *connection)
{
	struct agent_server *server = connection->server;
	struct agent_rpc_message message;
	msgpack_object value;
	size_t offset = 0;
	int r;

	r = msgpack_unpack((const char *)connection->in + connection->in_start,
			   connection->scan.position, &offset, &server->zone, &value);
	if (r < MSGPACK_UNPACK_EXTRA_BYTES) {
		r = -EBADMSG;
	} else {
		r = agent_rpc_parse(&value, &message);
	}
	if (r == 0) {
		r = agent_methods_serve(connection, &message);
	}
	msgpack_zone_clear(&server->zone);
	return r;
}

/* Gives the process the rest of its stdin. True when it has taken all. */
static bool unblock(struct agent_connection *connection)
{
	if (connection->blocked) {
		size_t n = agent_process_write(connection->blocked, connection->blocked_data,
					       connection->blocked_size);

		connection->blocked_data += n;
		connection->blocked_size -= n;
		if (connection->blocked_size > 0) {
			return false;
		}
		connection->blocked = NULL;
	}
	return true;
}

/* Serves what has come. True when there is more to do as soon as there is room. */
static bool pump_input(struct agent_connection *connection)
{
	unsigned messages = 0, reads = 0;

	while (!connection->broken) {
		int r;

		if (connection->blocked_data) {
			if (!unblock(connection)) {
				return false;
			}
			connection->blocked_data = NULL;
			consume(connection);
		}
		if (!agent_connection_can_respond(connection) || messages == TURN_MESSAGES) {
			return true;
		}
		r = agent_scan_step(&connection->scan, connection->in + connection->in_start,
				    connection->in_end - connection->in_start);
		if (r == 1) {
			messages++;
			r = serve(connection);
			if (r == 0 && !connection->blocked_data) {
				consume(connection);
			}
		} else if (r == 0) {
			if (!connection->readable || reads == TURN_READS) {
				return connection->readable;
			}
			reads++;
			receive(connection);
		}
		if (r < 0) {
			connection->broken = true;
		}
	}
	return false;
}

static bool pump_processes(struct agent_connection *connection)
{
	bool more = false;

	BASE_LIST_FOR_EACH(link, &connection->processes)
	{
		more |= agent_process_pump(CONTAINER_OF(link, struct agent_process, link));
	}
	/* Another is first to find room the next time. */
	if (!base_list_is_empty(&connection->processes)) {
		struct base_link *first = connection->processes.next;

		base_list_remove(first);
		base_list_append(&connection->processes, first);
	}
	return more;
}

static void flush(struct agent_connection *connection)
{
	while (connection->out_start < connection->out_end && connection->writable) {
		ssize_t n = send(connection->source.fd, connection->out + connection->out_start,
				 connection->out_end - connection->out_start,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n >= 0) {
			connection->out_start += (size_t)n;
		} else if (errno == EAGAIN) {
			connection->writable = false;
		} else if (errno != EINTR) {
			connection->broken = true;
			return;
		}
	}
	if (connection->out_start == connection->out_end) {
		connection->out_start = 0;
		connection->out_end = 0;
	}
}

/* Sees to it that the events which are now waited for will come. 0 or -errno. */
static int watch(struct agent_connection *connection)
{
	struct agent_loop *loop = &connection->server->loop;
	bool out = connection->watched_out || !connection->writable;
	uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (out ? EPOLLOUT : 0);
	int r = 0;

	if (!connection->watched) {
		r = agent_loop_add(loop, &connection->source, events);
	} else if (out && !connection->watched_out) {
		r = agent_loop_change(loop, &connection->source, events);
	}
	connection->watched = true;
	connection->watched_out = out;
	return r;
}

void agent_connection_pump(struct agent_connection *connection)
{
	bool more;

	connection->dirty = false;
	more = pump_input(connection);
	more |= pump_processes(connection);
	flush(connection);
	/* Somebody who is gone takes nothing any more and sends nothing that could help. */
	if (connection->hung_up && (connection->blocked || !connection->writable)) {
		connection->broken = true;
	}
	if (connection->broken || watch(connection) < 0) {
		agent_connection_destroy(connection);
	} else if ((more && connection->writable) || connection->dirty) {
		connection->dirty = true;
		connection->server->busy = true;
	}
}
