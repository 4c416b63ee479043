/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The client of warmboxd.
 *
 * One request at a time: it is sent, its answer waited for and decoded. A timeout closes the
 * connection, because an answer that still comes would be taken for the next one's; the daemon then
 * releases a lease whose answer was not read. The caller's thread.
 */

#include "rpc/channel.h"

#include "base/fd.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_MS 30000

struct warmbox_connection {
	struct rpc_channel channel;
	int timeout_ms;
};

static int connect_error(const char *path, int r, struct warmbox_error *error)
{
	switch (-r) {
	case ENOENT:
	case ECONNREFUSED:
		return rpc_fail(error, WARMBOX_CANNOT_CONNECT, r,
				"%s: no warmboxd answers there; start it, or name its socket",
				path);
	case EACCES:
		return rpc_fail(error, WARMBOX_CANNOT_CONNECT, r,
				"%s: permission denied; become root or a member of the socket's "
				"group",
				path);
	default:
		return rpc_fail(error, WARMBOX_CANNOT_CONNECT, r, "%s: %s", path,
				strerrordesc_np(-r));
	}
}

int warmbox_connect(const char *path, struct warmbox_connection **ret_connection,
		    struct warmbox_error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct warmbox_connection *connection;
	_cleanup_fd_ int fd = -1;
	int r;

	if (!path) {
		path = getenv("WARMBOX_SOCKET") ?: WARMBOX_DEFAULT_SOCKET;
	}
	if (strlen(path) >= sizeof(address.sun_path)) {
		return connect_error(path, -ENAMETOOLONG, error);
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		return connect_error(path, -errno, error);
	}
	connection = calloc(1, sizeof(*connection));
	if (!connection) {
		return rpc_fail(error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	r = rpc_channel_init(&connection->channel, TAKE_FD(fd), "warmboxd", error);
	if (r < 0) {
		free(connection);
		return r;
	}
	connection->channel.accepts_fd = true;
	connection->timeout_ms = DEFAULT_TIMEOUT_MS;
	*ret_connection = connection;
	return 0;
}

void warmbox_disconnect(struct warmbox_connection *connection)
{
	if (connection) {
		rpc_channel_deinit(&connection->channel);
		free(connection);
	}
}

void warmbox_set_timeout(struct warmbox_connection *connection, int timeout_ms)
{
	connection->timeout_ms = timeout_ms;
}

/* Waits for the response to request id; signals do not end the wait. */
static int wait_response(struct rpc_channel *channel, uint32_t id, uint64_t deadline_ns,
			 struct rpc_message *ret_response, struct warmbox_error *error)
{
	for (;;) {
		int r = rpc_channel_wait(channel, deadline_ns, ret_response, error);

		if (r < 0) {
			return r;
		}
		if (r == 0 && rpc_deadline_left_ms(deadline_ns) == 0) {
			channel->fd = base_fd_close(channel->fd);
			return rpc_fail(error, WARMBOX_TIMEOUT, -ETIMEDOUT,
					"%s did not answer in time", channel->peer);
		}
		if (r == 0) {
			continue;
		}
		/* Id 0 speaks of the connection as a whole, which ends. */
		if (ret_response->type == RPC_RESPONSE &&
		    (ret_response->id == id || ret_response->id == 0)) {
			r = rpc_channel_check(channel, ret_response, error);
			if (r < 0 || ret_response->id == id) {
				return r;
			}
		}
		channel->fd = base_fd_close(channel->fd);
		return rpc_fail(error, WARMBOX_PROTOCOL, -EBADMSG,
				"%s sent something that answers no request", channel->peer);
	}
}

/* As warmbox_call(); the answer is still in the channel. */
static int call(struct warmbox_connection *connection, const char *method, const void *params,
		size_t params_size, int64_t timeout_ms, struct rpc_message *ret_response,
		struct warmbox_error *error)
{
	struct rpc_channel *channel = &connection->channel;
	uint32_t id;
	int r;

	/* A descriptor belongs to the answer that it came with. */
	channel->received_fd = base_fd_close(channel->received_fd);
	r = rpc_channel_request(channel, method, params, params_size, &id, error);
	if (r < 0) {
		return r;
	}
	return wait_response(channel, id, rpc_deadline(timeout_ms), ret_response, error);
}

int warmbox_call(struct warmbox_connection *connection, const char *method, const void *params,
		 size_t params_size, struct warmbox_value **ret_value, struct warmbox_error *error)
{
	struct rpc_message response;
	int r = call(connection, method, params, params_size, connection->timeout_ms, &response,
		     error);

	if (r == 0 && ret_value) {
		r = rpc_value_new(&response, ret_value, error);
	}
	return r;
}

static void encode_acquire(struct rpc_encoder *encoder, const struct warmbox_acquire_params *params,
			   bool pass_fd)
{
	rpc_encode_map(encoder, 1u + params->has_timeout + (params->ttl_ms > 0) + pass_fd +
					params->bind + (params->n_labels > 0));
	rpc_encode_key_str(encoder, "template", params->template_name);
	if (params->has_timeout) {
		rpc_encode_key_uint(encoder, "timeout_ms", params->timeout_ms);
	}
	if (params->ttl_ms > 0) {
		rpc_encode_key_uint(encoder, "ttl_ms", params->ttl_ms);
	}
	if (pass_fd) {
		rpc_encode_key_bool(encoder, "pass_fd", true);
	}
	if (params->bind) {
		rpc_encode_key_bool(encoder, "bind", true);
	}
	if (params->n_labels > 0) {
		rpc_encode_str(encoder, "labels");
		rpc_encode_map(encoder, params->n_labels);
		for (size_t i = 0; i < params->n_labels; i++) {
			rpc_encode_key_str(encoder, params->labels[i].key, params->labels[i].value);
		}
	}
}

/* The daemon ends an acquire by its own deadline; this waits as much longer as for any call. */
static int64_t acquire_timeout_ms(const struct warmbox_connection *connection,
				  const struct warmbox_acquire_params *params)
{
	if (connection->timeout_ms < 0 || !params->has_timeout ||
	    params->timeout_ms > (uint64_t)INT32_MAX) {
		return -1;
	}
	return connection->timeout_ms + (int64_t)params->timeout_ms;
}

int warmbox_acquire(struct warmbox_connection *connection,
		    const struct warmbox_acquire_params *params, struct warmbox_lease *ret_lease,
		    int *ret_stream, struct warmbox_error *error)
{
	struct rpc_encoder encoder;
	struct rpc_message response;
	int r;

	rpc_encoder_init(&encoder);
	encode_acquire(&encoder, params, ret_stream != NULL);
	r = rpc_encoder_result(&encoder);
	if (r == 0) {
		r = call(connection, "acquire", encoder.buffer.data, encoder.buffer.size,
			 acquire_timeout_ms(connection, params), &response, error);
	} else {
		rpc_fail(error, WARMBOX_LOCAL, r, "out of memory");
	}
	rpc_encoder_deinit(&encoder);
	if (r == 0) {
		r = warmbox_lease_parse(&response.result, ret_lease, error);
	}
	if (r == 0 && ret_stream && connection->channel.received_fd < 0) {
		r = rpc_fail(error, WARMBOX_PROTOCOL, -EBADMSG,
			     "warmboxd sent no descriptor with the lease");
	}
	if (r == 0 && ret_stream) {
		*ret_stream = TAKE_FD(connection->channel.received_fd);
	}
	return r;
}

/* A method whose parameters are a lease and, unless they are NULL, its token and a TTL. */
static int call_lease(struct warmbox_connection *connection, const char *method,
		      const char *lease_id, const char *token, const uint64_t *ttl_ms,
		      struct rpc_message *ret_response, struct warmbox_error *error)
{
	struct rpc_encoder encoder;
	int r;

	rpc_encoder_init(&encoder);
	rpc_encode_map(&encoder, 1u + (token != NULL) + (ttl_ms != NULL));
	rpc_encode_key_str(&encoder, "lease", lease_id);
	if (token) {
		rpc_encode_key_str(&encoder, "token", token);
	}
	if (ttl_ms) {
		rpc_encode_key_uint(&encoder, "ttl_ms", *ttl_ms);
	}
	r = rpc_encoder_result(&encoder);
	if (r == 0) {
		r = call(connection, method, encoder.buffer.data, encoder.buffer.size,
			 connection->timeout_ms, ret_response, error);
	} else {
		rpc_fail(error, WARMBOX_LOCAL, r, "out of memory");
	}
	rpc_encoder_deinit(&encoder);
	return r;
}

int warmbox_release(struct warmbox_connection *connection, const char *lease_id, const char *token,
		    struct warmbox_error *error)
{
	struct rpc_message response;

	return call_lease(connection, "release", lease_id, token, NULL, &response, error);
}

int warmbox_renew(struct warmbox_connection *connection, const char *lease_id, const char *token,
		  uint64_t ttl_ms, struct warmbox_lease *ret_lease, struct warmbox_error *error)
{
	struct rpc_message response;
	int r = call_lease(connection, "renew", lease_id, token, &ttl_ms, &response, error);

	return r == 0 && ret_lease ? warmbox_lease_parse(&response.result, ret_lease, error) : r;
}

int warmbox_get(struct warmbox_connection *connection, const char *lease_id,
		struct warmbox_lease *ret_lease, struct warmbox_error *error)
{
	struct rpc_message response;
	int r = call_lease(connection, "get", lease_id, NULL, NULL, &response, error);

	return r == 0 ? warmbox_lease_parse(&response.result, ret_lease, error) : r;
}

/* --- leases --- */

/* Absent and nil are empty. */
static int read_str(const msgpack_object *map, const char *key, char *out, size_t size)
{
	const msgpack_object *value = warmbox_map_get(map, key);

	out[0] = '\0';
	if (!value || value->type == MSGPACK_OBJECT_NIL) {
		return 0;
	}
	if (value->type != MSGPACK_OBJECT_STR || value->via.str.size >= size) {
		return -EBADMSG;
	}
	memcpy(out, value->via.str.ptr, value->via.str.size);
	out[value->via.str.size] = '\0';
	return 0;
}

/* Absent and nil are 0. */
static int read_uint(const msgpack_object *map, const char *key, uint64_t *ret)
{
	const msgpack_object *value = warmbox_map_get(map, key);

	*ret = 0;
	if (!value || value->type == MSGPACK_OBJECT_NIL) {
		return 0;
	}
	if (value->type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
		return -EBADMSG;
	}
	*ret = value->via.u64;
	return 0;
}

static int read_timings(const msgpack_object *lease, struct warmbox_timings *timings)
{
	const msgpack_object *map = warmbox_map_get(lease, "timings");
	const msgpack_object *restore = map ? warmbox_map_get(map, "restore") : NULL;
	int r = 0;

	if (map) {
		r |= read_uint(map, "wait_ns", &timings->wait_ns);
		r |= read_uint(map, "claim_ns", &timings->claim_ns);
		r |= read_uint(map, "first_entry_ns", &timings->first_entry_ns);
	}
	if (restore) {
		r |= read_uint(restore, "spawn_ns", &timings->spawn_ns);
		r |= read_uint(restore, "create_ns", &timings->create_ns);
		r |= read_uint(restore, "load_ns", &timings->load_ns);
		r |= read_uint(restore, "identity_ns", &timings->identity_ns);
		r |= read_uint(restore, "park_ns", &timings->park_ns);
	}
	return r;
}

int warmbox_lease_parse(const msgpack_object *object, struct warmbox_lease *ret_lease,
			struct warmbox_error *error)
{
	struct warmbox_lease lease = { 0 };
	uint64_t pid = 0;
	char state[16];
	int r = 0;

	r |= read_str(object, "lease", lease.id, sizeof(lease.id));
	r |= read_str(object, "token", lease.token, sizeof(lease.token));
	r |= read_str(object, "template", lease.template_name, sizeof(lease.template_name));
	r |= read_str(object, "snapshot", lease.snapshot, sizeof(lease.snapshot));
	r |= read_str(object, "socket", lease.socket, sizeof(lease.socket));
	r |= read_str(object, "cause", lease.cause, sizeof(lease.cause));
	r |= read_str(object, "state", state, sizeof(state));
	r |= read_uint(object, "pid", &pid);
	r |= read_uint(object, "acquired_ns", &lease.acquired_realtime_ns);
	r |= read_uint(object, "ttl_ms", &lease.ttl_ms);
	r |= read_uint(object, "expires_ns", &lease.expires_realtime_ns);
	r |= read_timings(object, &lease.timings);
	if (r != 0 || !lease.id[0]) {
		return rpc_fail(error, WARMBOX_PROTOCOL, -EBADMSG,
				"warmboxd sent something that is not a lease");
	}
	lease.pid = (uint32_t)pid;
	lease.active = strcmp(state, "active") == 0;
	*ret_lease = lease;
	return 0;
}
