/* SPDX-License-Identifier: Apache-2.0 */

/*
 * acquire, release, renew, get, list.
 *
 * A parked sandbox is answered before pool_acquire() returns; otherwise the request stays open
 * until the pool calls back, or the connection's end cancels it. A lease whose answer cannot be
 * delivered is released by the connection.
 *
 * A client sees the leases of its own tenant, and ends or renews those whose token it has; an
 * administrator needs neither. A lease that is not there, somebody else's, and one of which the
 * token is wrong are the same to it.
 */

#include "rpc/server.h"

#include "base/fd.h"

#include <string.h>

static void encode_uint_or_nil(struct rpc_encoder *encoder, const char *key, uint64_t value)
{
	if (value > 0) {
		rpc_encode_key_uint(encoder, key, value);
	} else {
		rpc_encode_key_str(encoder, key, NULL);
	}
}

static void encode_timings(struct rpc_encoder *encoder, const struct pool_timings *timings)
{
	rpc_encode_str(encoder, "timings");
	rpc_encode_map(encoder, 4);
	rpc_encode_key_uint(encoder, "wait_ns", timings->wait_ns);
	rpc_encode_key_uint(encoder, "claim_ns", timings->claim_ns);
	encode_uint_or_nil(encoder, "first_entry_ns", timings->first_entry_ns);
	rpc_encode_str(encoder, "restore");
	rpc_encode_map(encoder, 7);
	rpc_encode_key_uint(encoder, "spawn_ns", timings->spawn_ns);
	rpc_encode_key_uint(encoder, "create_ns", timings->create_ns);
	rpc_encode_key_uint(encoder, "load_ns", timings->load_ns);
	rpc_encode_key_uint(encoder, "identity_ns", timings->identity_ns);
	rpc_encode_key_uint(encoder, "park_ns", timings->park_ns);
	rpc_encode_key_uint(encoder, "entry_ns", timings->entry_ns);
	rpc_encode_key_bool(encoder, "shell", timings->from_shell);
}

/* token: only for the one who has acquired it; NULL: left out. */
static void encode_lease(struct rpc_encoder *encoder, const struct pool_lease *lease,
			 const char *token)
{
	rpc_encode_map(encoder, token ? 15 : 14);
	rpc_encode_key_str(encoder, "lease", lease->id);
	if (token) {
		rpc_encode_key_str(encoder, "token", token);
	}
	rpc_encode_key_str(encoder, "tenant", lease->tenant->name);
	rpc_encode_key_str(encoder, "template", lease->template_name);
	rpc_encode_key_str(encoder, "snapshot", lease->snapshot_id);
	rpc_encode_key_str(encoder, "state", lease->active ? "active" : "ended");
	rpc_encode_key_str(encoder, "socket", lease->socket_path);
	rpc_encode_key_uint(encoder, "pid", (uint64_t)lease->pid);
	rpc_encode_key_uint(encoder, "acquired_ns", lease->acquired_realtime_ns);
	encode_uint_or_nil(encoder, "ended_ns", lease->ended_realtime_ns);
	rpc_encode_key_uint(encoder, "ttl_ms", lease->ttl_ms);
	encode_uint_or_nil(encoder, "expires_ns", lease->expires_realtime_ns);
	rpc_encode_str(encoder, "labels");
	rpc_encode_map(encoder, lease->n_labels);
	for (size_t i = 0; i < lease->n_labels; i++) {
		rpc_encode_key_str(encoder, lease->labels[i].key, lease->labels[i].value);
	}
	rpc_encode_key_str(encoder, "cause", pool_cause_name(lease->cause));
	encode_timings(encoder, &lease->timings);
}

/* --- acquire --- */

static void handle_acquired(struct pool_acquire *acquire, enum pool_status status,
			    const struct pool_lease *lease, int stream, const char *text)
{
	struct rpc_request *request = acquire->userdata;

	request->wait = RPC_WAIT_NOTHING;
	if (status == POOL_QUOTA_EXCEEDED) {
		rpc_request_refuse_quota(request, acquire->quota, acquire->retry_ns, text);
		return;
	}
	if (status != POOL_OK) {
		rpc_request_refuse_status(request, status, text);
		return;
	}
	strcpy(request->lease, lease->id);
	if (request->bind && rpc_connection_bind(request->connection, lease->id) < 0) {
		/* The unread lease is released with it. */
		rpc_connection_end(request->connection);
	}
	encode_lease(rpc_request_encoder(request), lease, lease->token);
	rpc_request_answer(request, stream);
}

void rpc_method_acquire(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	struct pool_acquire_params acquire = {
		.timeout_ms = server->acquire_timeout_ms,
		.tenant = request->connection->tenant,
		.uid = request->connection->uid,
		.gid = request->connection->gid,
	};

	acquire.template_name = rpc_params_template(params, "template");
	rpc_params_uint(params, "timeout_ms", RPC_TIMEOUT_MAX_MS, &acquire.timeout_ms);
	rpc_params_uint(params, "ttl_ms", RPC_TTL_MAX_MS, &acquire.ttl_ms);
	acquire.labels = rpc_params_labels(params, "labels", &acquire.n_labels);
	acquire.want_stream = rpc_params_bool(params, "pass_fd");
	request->bind = acquire.bound = rpc_params_bool(params, "bind");
	if (rpc_params_refused(request, params)) {
		return;
	}
	if (request->connection->n_unread == RPC_UNREAD_LEASES_MAX) {
		rpc_request_refuse(request, RPC_EXHAUSTED,
				   "too many leases on this connection that were not read");
		return;
	}
	request->acquire.userdata = request;
	request->acquire.fn = handle_acquired;
	request->wait = RPC_WAIT_ACQUIRE;
	request->parked = true;

	struct rpc_connection *connection = request->connection;
	unsigned open = connection->n_open;

	pool_acquire(server->pool, &request->acquire, &acquire);
	if (connection->n_open == open) {
		request->parked = false;
	}
}

/* --- the rest --- */

static const char *lease_param(struct rpc_params *params)
{
	rpc_params_require(params, "lease");
	return rpc_params_str(params, "lease", POOL_LEASE_ID_LENGTH);
}

/* An administrator may do without. */
static const char *token_param(struct rpc_request *request, struct rpc_params *params)
{
	if (!request->connection->tenant->config->admin) {
		rpc_params_require(params, "token");
	}
	return rpc_params_str(params, "token", POOL_TOKEN_LENGTH);
}

/* Takes as long wherever they differ. */
static bool token_is(const char *token, const char *given)
{
	volatile unsigned difference = 0;

	if (strlen(given) != POOL_TOKEN_LENGTH) {
		return false;
	}
	for (unsigned i = 0; i < POOL_TOKEN_LENGTH; i++) {
		difference |= (unsigned char)token[i] ^ (unsigned char)given[i];
	}
	return difference == 0;
}

static bool is_visible(const struct rpc_request *request, const struct pool_lease *lease)
{
	const struct pool_tenant *tenant = request->connection->tenant;

	return lease->tenant == tenant || tenant->config->admin;
}

/* Whether there is such a lease and the client may touch it. */
static bool find_touchable(const struct rpc_request *request, const char *id, const char *token,
			   struct pool_lease *ret_lease)
{
	const struct rpc_connection *connection = request->connection;

	return pool_get(connection->server->pool, id, ret_lease) &&
	       is_visible(request, ret_lease) &&
	       (connection->tenant->config->admin || token_is(ret_lease->token, token));
}

static void refuse_lease(struct rpc_request *request, const char *id)
{
	struct base_error error;

	base_error_set(&error, 0, "%s: no such lease", id);
	rpc_request_refuse(request, RPC_NOT_FOUND, error.text);
}

void rpc_method_release(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	const char *id = lease_param(params);
	const char *token = token_param(request, params);
	struct pool_lease lease;
	enum pool_status status;

	if (rpc_params_refused(request, params)) {
		return;
	}
	if (!find_touchable(request, id, token, &lease)) {
		refuse_lease(request, id);
		return;
	}
	status = pool_release(server->pool, id, POOL_CAUSE_RELEASED);
	if (status != POOL_OK) {
		rpc_request_refuse_status(request, status, NULL);
	} else {
		rpc_encode_map(rpc_request_encoder(request), 0);
		rpc_request_answer(request, -1);
	}
}

void rpc_method_renew(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	const char *id = lease_param(params);
	const char *token = token_param(request, params);
	struct pool_lease lease;
	enum pool_status status;
	uint64_t ttl_ms = 0;

	rpc_params_require(params, "ttl_ms");
	rpc_params_uint(params, "ttl_ms", RPC_TTL_MAX_MS, &ttl_ms);
	if (rpc_params_refused(request, params)) {
		return;
	}
	if (!find_touchable(request, id, token, &lease)) {
		refuse_lease(request, id);
		return;
	}
	status = pool_renew(server->pool, id, ttl_ms);
	if (status != POOL_OK) {
		rpc_request_refuse_status(request, status,
					  status == POOL_INVALID
						  ? "ttl_ms: the lease would last longer than its "
						    "template allows (ttl_max_s)"
					  : lease.active ? NULL
							 : "the lease has ended");
		return;
	}
	pool_get(server->pool, id, &lease);
	encode_lease(rpc_request_encoder(request), &lease, NULL);
	rpc_request_answer(request, -1);
}

void rpc_method_get(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	const char *id = lease_param(params);
	struct pool_lease lease;

	if (rpc_params_refused(request, params)) {
		return;
	}
	if (!pool_get(server->pool, id, &lease) || !is_visible(request, &lease)) {
		refuse_lease(request, id);
		return;
	}
	encode_lease(rpc_request_encoder(request), &lease, NULL);
	rpc_request_answer(request, -1);
}

struct list {
	const struct rpc_request *request;
	struct rpc_encoder elements;
	const char *after; /* skip up to this one; NULL: passed */
	size_t n;
	bool more;
};

static void list_lease(void *userdata, const struct pool_lease *lease)
{
	struct list *list = userdata;

	if (!is_visible(list->request, lease)) {
		return;
	}
	if (list->after) {
		if (strcmp(lease->id, list->after) == 0) {
			list->after = NULL;
		}
		return;
	}
	if (list->n == RPC_LIST_MAX || list->elements.buffer.size > RPC_LIST_MAX_BYTES) {
		list->more = true;
		return;
	}
	encode_lease(&list->elements, lease, NULL);
	list->n++;
}

static unsigned list_states(struct rpc_params *params)
{
	const char *state = rpc_params_str(params, "state", 16);

	if (!state || strcmp(state, "active") == 0) {
		return POOL_LIST_ACTIVE;
	}
	if (strcmp(state, "ended") == 0) {
		return POOL_LIST_ENDED;
	}
	if (strcmp(state, "all") == 0) {
		return POOL_LIST_ACTIVE | POOL_LIST_ENDED;
	}
	rpc_params_refuse(params, "state: not one of active, ended, all");
	return 0;
}

void rpc_method_list(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	unsigned which = list_states(params);
	const char *after = rpc_params_str(params, "after", POOL_LEASE_ID_LENGTH);
	struct list list = { .request = request, .after = after };
	struct rpc_encoder *encoder;

	if (rpc_params_refused(request, params)) {
		return;
	}
	rpc_encoder_init(&list.elements);
	pool_list(server->pool, which, list_lease, &list);
	if (list.after) {
		refuse_lease(request, after);
	} else {
		encoder = rpc_request_encoder(request);
		rpc_encode_map(encoder, 2);
		rpc_encode_key_bool(encoder, "more", list.more);
		rpc_encode_str(encoder, "leases");
		rpc_encode_array(encoder, list.n);
		rpc_encode_raw(encoder, list.elements.buffer.data, list.elements.buffer.size);
		if (rpc_encoder_result(&list.elements) < 0) {
			encoder->result = rpc_encoder_result(&list.elements);
		}
		rpc_request_answer(request, -1);
	}
	rpc_encoder_deinit(&list.elements);
}
