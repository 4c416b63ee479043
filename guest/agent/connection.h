/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One client: its two buffers and its running requests.
 *
 * Everything is bounded. The output buffer takes what fits; when it is full, pipes are not read and
 * no request is looked at. A request (stdin) that cannot be finished stays in the input buffer and
 * what is behind it waits.
 */

#include "guest/agent/rpc.h"
#include "guest/agent/scan.h"
#include "guest/agent/server.h"

/* No response is larger: an error's text is at most AGENT_TEXT_MAX. */
#define AGENT_RESPONSE_MAX 512
/* The output buffer: a full default pipe in two notifications, and some responses. */
#define AGENT_OUT_BYTES (2 * (GUEST_OUTPUT_MAX_BYTES + 64) + 4 * AGENT_RESPONSE_MAX)
/* The input buffer when no message needs more. */
#define AGENT_IN_BYTES (16 * 1024)

struct agent_connection {
	struct agent_source source;
	struct base_link link; /* in connections or spare_connections of the server */
	struct agent_server *server;
	struct base_link processes;

	bool dirty;   /* something happened: to be pumped after this batch of events */
	bool watched; /* in the epoll set; from the first pump on, which often has all it needs */
	bool watched_out; /* for EPOLLOUT too; from the first time that sending was refused on */
	bool readable;	  /* there may be more to read */
	bool writable;	  /* sending was not refused since the last event */
	bool hung_up;	  /* the peer is gone; what it sent before is still served */
	bool broken;	  /* to be destroyed */

	uint8_t *in; /* in_room bytes; [in_start, in_end) are not yet served */
	size_t in_room, in_start, in_end;
	struct agent_scan scan; /* of the message at in_start */

	/* stdin that its process does not take yet: the rest of the message at in_start. The
	 * pointers are into the input buffer, which does not move meanwhile. */
	struct agent_process *blocked;
	const uint8_t *blocked_data;
	size_t blocked_size;

	size_t out_start, out_end;
	uint8_t out[AGENT_OUT_BYTES];
};

/* Takes over fd (also on failure, closing it). 0 or -errno. */
int agent_connection_create(struct agent_server *server, int fd);

/* Kills its processes; the memory may be kept for another connection. */
void agent_connection_destroy(struct agent_connection *connection);

/* Frees the kept ones. */
void agent_connection_free_spares(struct agent_server *server);

/*
 * Does all that can be done without waiting: reads, serves, collects output, sends. Destroys the
 * connection when it is over. Sets the server's busy when it stopped for fairness.
 */
void agent_connection_pump(struct agent_connection *connection);

/* Makes room for size bytes at the end of the output buffer: where they go, or NULL when they do
 * not fit now. agent_connection_commit() then says how many were put there. */
uint8_t *agent_connection_reserve(struct agent_connection *connection, size_t size);
void agent_connection_commit(struct agent_connection *connection, size_t size);

/*
 * Responses. The caller has made sure of room: the dispatcher before each request, and
 * agent_process_pump() before each end of a process. After begin() the result is packed with the
 * packer.
 */
bool agent_connection_can_respond(struct agent_connection *connection);
void agent_connection_begin_response(struct agent_connection *connection, uint32_t id,
				     msgpack_packer *ret_packer);
void agent_connection_respond_empty(struct agent_connection *connection, uint32_t id);
void agent_connection_respond_error(struct agent_connection *connection, uint32_t id,
				    const char *code, const char *format, ...) _printf_(4, 5);
void agent_connection_pack_string(msgpack_packer *packer, const char *text);
