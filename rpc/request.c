/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Requests: from a parsed message to a method, and from its result to the connection.
 *
 * A request is answered exactly once, at once or from a callback; it is then freed, or kept in the
 * list of unread leases. The answer is made in the server's one encoder, which is free again as
 * soon as it was sent or queued.
 */

#include "rpc/server.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>

/* What a method costs of a tenant's share of a turn (RPC_TURN_COST_MAX). */
enum cost {
	CHEAP = 1,
	LONG = 8, /* it looks at every lease */
};

struct method {
	const char *name;
	rpc_method_fn fn;
	enum cost cost;
	bool for_admins;
};

static const struct method methods[RPC_METHODS] = {
	[RPC_METHOD_ACQUIRE] = { "acquire", rpc_method_acquire, CHEAP, false },
	[RPC_METHOD_RELEASE] = { "release", rpc_method_release, CHEAP, false },
	[RPC_METHOD_RENEW] = { "renew", rpc_method_renew, CHEAP, false },
	[RPC_METHOD_GET] = { "get", rpc_method_get, CHEAP, false },
	[RPC_METHOD_LIST] = { "list", rpc_method_list, LONG, false },
	[RPC_METHOD_TEMPLATE_LIST] = { "template.list", rpc_method_template_list, CHEAP, true },
	[RPC_METHOD_TEMPLATE_INSPECT] = { "template.inspect", rpc_method_template_inspect, CHEAP,
					  true },
	[RPC_METHOD_POOL_GET] = { "pool.get", rpc_method_pool_get, CHEAP, true },
	[RPC_METHOD_POOL_SET] = { "pool.set", rpc_method_pool_set, CHEAP, true },
	[RPC_METHOD_STATS] = { "stats", rpc_method_stats, LONG, true },
	[RPC_METHOD_HEALTH] = { "health", rpc_method_health, CHEAP, false },
};

const char *rpc_method_name(enum rpc_method_id id)
{
	return methods[id].name;
}

/* --- lists --- */

static void list_add(struct rpc_request **head, struct rpc_request *request)
{
	request->previous = NULL;
	request->next = *head;
	if (*head) {
		(*head)->previous = request;
	}
	*head = request;
}

static void list_remove(struct rpc_request **head, struct rpc_request *request)
{
	if (request->previous) {
		request->previous->next = request->next;
	} else {
		*head = request->next;
	}
	if (request->next) {
		request->next->previous = request->previous;
	}
}

static void take_out(struct rpc_request *request)
{
	struct rpc_connection *connection = request->connection;

	if (request->answered) {
		list_remove(&connection->unread, request);
		connection->n_unread--;
	} else {
		list_remove(&connection->open, request);
		connection->n_open--;
	}
}

void rpc_request_free(struct rpc_request *request)
{
	if (request->connection) {
		take_out(request);
	}
	free(request);
}

/* --- answering --- */

struct rpc_encoder *rpc_request_encoder(struct rpc_request *request)
{
	struct rpc_encoder *encoder = &request->connection->server->encoder;

	rpc_encoder_reset(encoder);
	rpc_encode_response(encoder, request->id);
	return encoder;
}

static void count_acquire(struct rpc_server *server, const struct rpc_request *request)
{
	uint64_t ns = base_clock_monotonic_ns() - request->received_ns;

	base_histogram_add(request->parked ? &server->counters.acquire_parked
					   : &server->counters.acquire_waited,
			   ns);
}

/* An answered acquire stays, until its answer is known to have been read. */
static void keep_unread(struct rpc_request *request)
{
	struct rpc_connection *connection = request->connection;

	take_out(request);
	request->answered = true;
	list_add(&connection->unread, request);
	connection->n_unread++;
}

void rpc_request_answer(struct rpc_request *request, int fd)
{
	struct rpc_connection *connection = request->connection;
	struct rpc_server *server = connection->server;
	struct rpc_encoder *encoder = &server->encoder;

	if (rpc_encoder_result(encoder) == 0 && encoder->buffer.size > RPC_MESSAGE_MAX_BYTES) {
		server->counters.errors[RPC_FAILED]++;
		rpc_encoder_reset(encoder);
		rpc_encode_error(encoder, request->id, RPC_FAILED,
				 "the result is larger than a message may be");
	}
	/* With nothing sent, the end of the connection must release the lease. */
	request->end_bytes = UINT64_MAX;
	if (rpc_encoder_result(encoder) < 0) {
		rpc_connection_end(connection);
	}
	if (!connection->ended) {
		request->end_bytes = connection->queued_bytes + encoder->buffer.size;
	}
	if (request->lease[0]) {
		/* Before it is sent: sending may let the client run first. */
		count_acquire(server, request);
	}
	rpc_connection_send(connection, encoder->buffer.data, encoder->buffer.size, fd);
	if (request->lease[0]) {
		keep_unread(request);
	} else {
		rpc_request_free(request);
	}
	if (connection->paused && !connection->ended) {
		/* Not from here: this may be the pool's callback. */
		uv_async_send(&server->resume);
	}
}

void rpc_request_refuse(struct rpc_request *request, enum rpc_code code, const char *text)
{
	struct rpc_server *server = request->connection->server;

	server->counters.errors[code]++;
	rpc_encoder_reset(&server->encoder);
	rpc_encode_error(&server->encoder, request->id, code, text);
	rpc_request_answer(request, -1);
}

void rpc_request_refuse_quota(struct rpc_request *request, enum pool_quota quota, uint64_t retry_ns,
			      const char *text)
{
	struct rpc_server *server = request->connection->server;

	server->counters.errors[RPC_QUOTA_EXCEEDED]++;
	rpc_encoder_reset(&server->encoder);
	rpc_encode_quota_error(&server->encoder, request->id, text, pool_quota_name(quota),
			       (retry_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
	rpc_request_answer(request, -1);
}

void rpc_request_refuse_status(struct rpc_request *request, enum pool_status status,
			       const char *text)
{
	switch (status) {
	case POOL_NOT_FOUND:
		rpc_request_refuse(request, RPC_NOT_FOUND, text ?: "not found");
		return;
	case POOL_DEADLINE_EXCEEDED:
		rpc_request_refuse(request, RPC_DEADLINE_EXCEEDED, text ?: "the deadline passed");
		return;
	case POOL_EXHAUSTED:
		rpc_request_refuse(request, RPC_EXHAUSTED, text ?: "a limit is reached");
		return;
	case POOL_UNAVAILABLE:
		rpc_request_refuse(request, RPC_UNAVAILABLE, text ?: "not available now");
		return;
	case POOL_FAILED:
		rpc_request_refuse(request, RPC_FAILED, text ?: "failed");
		return;
	case POOL_INVALID:
		rpc_request_refuse(request, RPC_INVALID_ARGUMENT, text ?: "contradictory");
		return;
	case POOL_DENIED:
		rpc_request_refuse(request, RPC_PERMISSION_DENIED, text ?: "not allowed");
		return;
	case POOL_QUOTA_EXCEEDED: /* rpc_request_refuse_quota() */
	case POOL_OK:
		break;
	}
	rpc_request_refuse(request, RPC_INTERNAL, "a status that is not known");
}

/* --- dispatching --- */

static bool is_open(const struct rpc_connection *connection, uint32_t id)
{
	for (const struct rpc_request *r = connection->open; r; r = r->next) {
		if (r->id == id) {
			return true;
		}
	}
	return false;
}

static const struct method *find_method(const msgpack_object_str *name)
{
	for (unsigned i = 0; i < RPC_METHODS; i++) {
		if (rpc_str_is(name, methods[i].name)) {
			return &methods[i];
		}
	}
	return NULL;
}

void rpc_request_dispatch(struct rpc_connection *connection, const struct rpc_message *message,
			  uint64_t received_ns)
{
	struct rpc_server *server = connection->server;
	bool duplicate = is_open(connection, message->id);
	struct rpc_request *request = calloc(1, sizeof(*request));
	const struct method *method;
	struct rpc_params params;
	struct base_error error;

	if (!request) {
		rpc_connection_end(connection);
		return;
	}
	request->connection = connection;
	request->id = message->id;
	request->received_ns = received_ns;
	list_add(&connection->open, request);
	connection->n_open++;

	connection->tenant->spent += CHEAP;
	if (message->malformed || duplicate) {
		rpc_request_refuse(request, RPC_INVALID_REQUEST,
				   message->malformed ?: "a request with this id is open");
		return;
	}
	method = find_method(&message->method);
	if (!method) {
		base_error_set(&error, 0, "%.*s: no such method", (int)message->method.size,
			       message->method.ptr);
		rpc_request_refuse(request, RPC_UNKNOWN_METHOD, error.text);
		return;
	}
	server->counters.requests[method - methods]++;
	connection->tenant->spent += method->cost - CHEAP;
	if (method->for_admins && !connection->tenant->config->admin) {
		base_error_set(&error, 0, "%s: tenant %s is no administrator", method->name,
			       connection->tenant->name);
		rpc_request_refuse(request, RPC_PERMISSION_DENIED, error.text);
		return;
	}
	rpc_params_init(&params, &message->params, &server->zone, &error);
	method->fn(request, &params);
}

bool rpc_params_refused(struct rpc_request *request, struct rpc_params *params)
{
	int r = rpc_params_finish(params);

	if (r == -ENOMEM) {
		rpc_request_refuse(request, RPC_INTERNAL, "out of memory");
	} else if (r < 0) {
		rpc_request_refuse(request, RPC_INVALID_ARGUMENT, params->error->text);
	}
	return r < 0;
}

const char *rpc_params_template(struct rpc_params *params, const char *name)
{
	const char *value;

	rpc_params_require(params, name);
	value = rpc_params_str(params, name, SNAPSHOT_NAME_MAX);
	if (value && !snapshot_name_is_valid(value)) {
		rpc_params_refuse(params,
				  "%s: not a template name (a-z, 0-9, '.', '_', '-'; the first a "
				  "letter or digit)",
				  name);
		return NULL;
	}
	return value;
}
