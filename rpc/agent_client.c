/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The client of the agent inside a sandbox.
 *
 * Requests are started and named by their id; warmbox_agent_next() sends what is queued and turns
 * what comes in into events, and the rest is built on it. What the guest sends is not trusted: a
 * message about a request that is not open, or of the wrong shape, ends the stream. So does every
 * failure of the stream; freeing the agent closes it, and the guest then kills what was started
 * through it. The caller's thread.
 */

#include "rpc/agent_client.h"

#include "base/fd.h"
#include "guest/agent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

_Static_assert(GUEST_MESSAGE_MAX_BYTES == RPC_MESSAGE_MAX_BYTES, "one limit for both protocols");
_Static_assert(GUEST_NESTING_MAX == RPC_NESTING_MAX, "one limit for both protocols");

#define GREETING_MAX_BYTES 32 /* "OK 4294967295\n" and some */

static struct rpc_agent_request *find_request(struct warmbox_agent *agent, uint32_t id)
{
	for (unsigned i = 0; id != 0 && i < agent->n_requests; i++) {
		if (agent->requests[i].id == id) {
			return &agent->requests[i];
		}
	}
	return NULL;
}

static void close_request(struct warmbox_agent *agent, struct rpc_agent_request *request)
{
	*request = agent->requests[--agent->n_requests];
}

/* --- connecting --- */

int warmbox_agent_new(int stream, struct warmbox_agent **ret_agent, struct warmbox_error *error)
{
	struct warmbox_agent *agent = calloc(1, sizeof(*agent));
	int r;

	if (!agent) {
		base_fd_close(stream);
		return rpc_fail(error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	r = rpc_channel_init(&agent->channel, stream, "the agent", error);
	if (r < 0) {
		free(agent);
		return r;
	}
	*ret_agent = agent;
	return 0;
}

void warmbox_agent_free(struct warmbox_agent *agent)
{
	if (agent) {
		rpc_channel_deinit(&agent->channel);
		free(agent);
	}
}

/* Reads the answer to CONNECT up to its newline, and not a byte more: what follows is the agent's.
 */
static int read_greeting(int fd, uint64_t deadline_ns, char line[GREETING_MAX_BYTES])
{
	for (size_t n = 0; n < GREETING_MAX_BYTES;) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		ssize_t got = recv(fd, line + n, 1, MSG_DONTWAIT);

		if (got == 0) {
			return -ECONNRESET;
		}
		if (got < 0 && errno != EAGAIN && errno != EINTR) {
			return -errno;
		}
		if (got > 0 && line[n++] == '\n') {
			line[n - 1] = '\0';
			return 0;
		}
		if (got < 0 && poll(&wait, 1, rpc_deadline_left_ms(deadline_ns)) == 0) {
			return -ETIMEDOUT;
		}
	}
	return -EBADMSG;
}

static int greet(int fd, uint64_t deadline_ns)
{
	char line[GREETING_MAX_BYTES];
	int n = snprintf(line, sizeof(line), "CONNECT %d\n", GUEST_AGENT_PORT);
	int r = base_fd_write_full(fd, line, (size_t)n);

	/* A refusal may be closed before it is asked for; reading tells. */
	if (r < 0 && r != -EPIPE) {
		return r;
	}
	r = read_greeting(fd, deadline_ns, line);
	if (r == 0 && strncmp(line, "OK ", 3) != 0) {
		return -EBADMSG;
	}
	return r;
}

static int connect_socket(const char *path, int timeout_ms, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval timeout = { .tv_sec = timeout_ms / 1000,
				   .tv_usec = timeout_ms % 1000 * 1000 };
	_cleanup_fd_ int fd = -1;

	if (strlen(path) >= sizeof(address.sun_path)) {
		return -ENAMETOOLONG;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return -errno;
	}
	/* Connecting waits while the backlog is full; 0 would be for ever. */
	if (timeout_ms > 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0) {
		return -errno;
	}
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int warmbox_agent_connect(const char *socket_path, int timeout_ms, struct warmbox_agent **ret_agent,
			  struct warmbox_error *error)
{
	uint64_t deadline_ns = rpc_deadline(timeout_ms);
	_cleanup_fd_ int fd = -1;
	int r = connect_socket(socket_path, timeout_ms, &fd);

	if (r == 0) {
		r = greet(fd, deadline_ns);
	}
	if (r == -ETIMEDOUT) {
		return rpc_fail(error, WARMBOX_TIMEOUT, r, "%s: the sandbox did not answer in time",
				socket_path);
	}
	if (r < 0) {
		return rpc_fail(error, WARMBOX_CANNOT_CONNECT, r,
				"%s: cannot reach the agent: %s; the lease may have ended",
				socket_path, strerrordesc_np(-r));
	}
	return warmbox_agent_new(TAKE_FD(fd), ret_agent, error);
}

int warmbox_agent_fd(const struct warmbox_agent *agent)
{
	return agent->channel.fd;
}

short warmbox_agent_events(const struct warmbox_agent *agent)
{
	return rpc_channel_pending(&agent->channel) > 0 ? POLLIN | POLLOUT : POLLIN;
}

/* --- requests --- */

static int start_request(struct warmbox_agent *agent, const char *method, const void *params,
			 size_t params_size, bool process, uint32_t *ret_id,
			 struct warmbox_error *error)
{
	int r;

	if (agent->n_requests == RPC_AGENT_REQUESTS_MAX) {
		return rpc_fail(error, WARMBOX_LOCAL, -EBUSY,
				"%s: %d requests are open on this stream", method,
				RPC_AGENT_REQUESTS_MAX);
	}
	r = rpc_channel_request(&agent->channel, method, params, params_size, ret_id, error);
	if (r == 0) {
		agent->requests[agent->n_requests++] =
			(struct rpc_agent_request){ .id = *ret_id, .process = process };
	}
	return r;
}

static size_t count(char *const *strings)
{
	size_t n = 0;

	while (strings && strings[n]) {
		n++;
	}
	return n;
}

static void encode_env(struct rpc_encoder *encoder, char *const *env)
{
	rpc_encode_str(encoder, "env");
	rpc_encode_map(encoder, count(env));
	for (size_t i = 0; env[i]; i++) {
		size_t key_size = (size_t)(strchrnul(env[i], '=') - env[i]);

		msgpack_pack_str_with_body(&encoder->packer, env[i], key_size);
		rpc_encode_str(encoder, env[i][key_size] ? env[i] + key_size + 1 : "");
	}
}

static void encode_exec(struct rpc_encoder *encoder, const struct warmbox_exec_params *params)
{
	rpc_encode_map(encoder, 1u + (params->env != NULL) + (params->cwd != NULL) +
					params->want_stdin + params->make_resident +
					(params->max_output_bytes > 0));
	rpc_encode_str(encoder, "argv");
	rpc_encode_array(encoder, count(params->argv));
	for (size_t i = 0; params->argv[i]; i++) {
		rpc_encode_str(encoder, params->argv[i]);
	}
	if (params->env) {
		encode_env(encoder, params->env);
	}
	if (params->cwd) {
		rpc_encode_key_str(encoder, "cwd", params->cwd);
	}
	if (params->want_stdin) {
		rpc_encode_key_bool(encoder, "stdin", true);
	}
	if (params->make_resident) {
		rpc_encode_key_bool(encoder, "resident", true);
	}
	if (params->max_output_bytes > 0) {
		rpc_encode_key_uint(encoder, "max_output_bytes", params->max_output_bytes);
	}
}

int warmbox_agent_exec(struct warmbox_agent *agent, const struct warmbox_exec_params *params,
		       uint32_t *ret_id, struct warmbox_error *error)
{
	size_t n = count(params->argv);
	struct rpc_encoder encoder;
	int r;

	if (n < 1 || n > GUEST_ARGV_MAX) {
		return rpc_fail(error, WARMBOX_LOCAL, -EINVAL, "a command has 1 to %d words",
				GUEST_ARGV_MAX);
	}
	rpc_encoder_init(&encoder);
	encode_exec(&encoder, params);
	r = rpc_encoder_result(&encoder);
	if (r == 0) {
		r = start_request(agent, "exec", encoder.buffer.data, encoder.buffer.size,
				  !params->make_resident, ret_id, error);
	} else {
		rpc_fail(error, WARMBOX_LOCAL, r, "out of memory");
	}
	rpc_encoder_deinit(&encoder);
	return r;
}

int warmbox_agent_resident(struct warmbox_agent *agent, uint32_t *ret_id,
			   struct warmbox_error *error)
{
	return start_request(agent, "resident", NULL, 0, true, ret_id, error);
}

int warmbox_agent_kill(struct warmbox_agent *agent, uint32_t id, int signal, uint32_t *ret_id,
		       struct warmbox_error *error)
{
	struct rpc_encoder encoder;
	uint32_t kill_id;
	int r;

	rpc_encoder_init(&encoder);
	rpc_encode_map(&encoder, 2);
	rpc_encode_key_uint(&encoder, "id", id);
	rpc_encode_key_uint(&encoder, "signal", (uint64_t)signal);
	r = rpc_encoder_result(&encoder);
	if (r == 0) {
		r = start_request(agent, "kill", encoder.buffer.data, encoder.buffer.size, false,
				  ret_id ?: &kill_id, error);
	} else {
		rpc_fail(error, WARMBOX_LOCAL, r, "out of memory");
	}
	rpc_encoder_deinit(&encoder);
	return r;
}

int warmbox_agent_stdin(struct warmbox_agent *agent, uint32_t id, const void *data, size_t size,
			struct warmbox_error *error)
{
	struct rpc_encoder *out = &agent->channel.out;
	const char *bytes = data;

	if (agent->channel.fd < 0) {
		return rpc_fail(error, WARMBOX_DISCONNECTED, -ENOTCONN,
				"the agent: the connection has ended");
	}
	if (size > WARMBOX_STDIN_QUEUE_MAX) {
		return rpc_fail(error, WARMBOX_LOCAL, -EMSGSIZE,
				"more than %d bytes of input at once", WARMBOX_STDIN_QUEUE_MAX);
	}
	if (size > 0 && rpc_channel_pending(&agent->channel) > 0 &&
	    rpc_channel_pending(&agent->channel) + size > WARMBOX_STDIN_QUEUE_MAX) {
		return 1;
	}
	do {
		size_t n = MIN(size, RPC_AGENT_CHUNK_BYTES);

		rpc_encode_notification(out, "stdin");
		rpc_encode_map(out, 2);
		rpc_encode_key_uint(out, "id", id);
		rpc_encode_str(out, "data");
		rpc_encode_bin(out, bytes, n);
		bytes += n;
		size -= n;
	} while (size > 0);
	if (rpc_encoder_result(out) < 0) {
		agent->channel.fd = base_fd_close(agent->channel.fd);
		return rpc_fail(error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	return 0;
}

/* --- events --- */

static int nonsense(struct warmbox_agent *agent, struct warmbox_error *error, const char *what)
{
	agent->channel.fd = base_fd_close(agent->channel.fd);
	return rpc_fail(error, WARMBOX_PROTOCOL, -EBADMSG, "the agent sent %s", what);
}

/* {code} or {signal} */
static bool read_exit(const msgpack_object *result, struct warmbox_exit *ret_exit)
{
	const msgpack_object *code = warmbox_map_get(result, "code");
	const msgpack_object *signal = warmbox_map_get(result, "signal");
	const msgpack_object *value = code ?: signal;

	if (!value || (code && signal) || value->type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
	    value->via.u64 > 255) {
		return false;
	}
	*ret_exit = (struct warmbox_exit){
		.signaled = signal != NULL,
		.code = code ? (int)value->via.u64 : 0,
		.signal = signal ? (int)value->via.u64 : 0,
	};
	return true;
}

static int response_event(struct warmbox_agent *agent, struct warmbox_event *event,
			  struct warmbox_error *error)
{
	const struct rpc_message *message = &agent->message;
	struct rpc_agent_request *request = find_request(agent, message->id);
	bool process = request && request->process;

	if (!request) {
		return nonsense(agent, error, "an answer to no request");
	}
	close_request(agent, request);
	event->id = message->id;
	if (rpc_channel_check(&agent->channel, message, &event->failure) < 0) {
		event->kind = WARMBOX_EVENT_ERROR;
	} else if (process) {
		event->kind = WARMBOX_EVENT_EXITED;
		if (!read_exit(&message->result, &event->exit)) {
			return nonsense(agent, error, "an exit status that is none");
		}
	} else {
		event->kind = WARMBOX_EVENT_ANSWER;
		event->object = &message->result;
	}
	return 1;
}

static int output_event(struct warmbox_agent *agent, struct warmbox_event *event,
			struct warmbox_error *error)
{
	const struct rpc_message *message = &agent->message;
	const msgpack_object *id = rpc_map_get(&message->params, "id");
	const msgpack_object *data = rpc_map_get(&message->params, "data");
	struct rpc_agent_request *request;

	if (rpc_str_is(&message->method, "stdout")) {
		event->kind = WARMBOX_EVENT_STDOUT;
	} else if (rpc_str_is(&message->method, "stderr")) {
		event->kind = WARMBOX_EVENT_STDERR;
	} else {
		return nonsense(agent, error, "a notification that is not known");
	}
	if (!id || id->type != MSGPACK_OBJECT_POSITIVE_INTEGER || id->via.u64 > UINT32_MAX ||
	    !data || data->type != MSGPACK_OBJECT_BIN) {
		return nonsense(agent, error, "output without an id or data");
	}
	request = find_request(agent, (uint32_t)id->via.u64);
	if (!request || !request->process) {
		return nonsense(agent, error, "output of a process that does not run");
	}
	event->id = request->id;
	event->data = data->via.bin.ptr;
	event->size = data->via.bin.size;
	return 1;
}

int rpc_agent_next(struct warmbox_agent *agent, uint64_t deadline_ns,
		   struct warmbox_event *ret_event, struct warmbox_error *error)
{
	int r = rpc_channel_wait(&agent->channel, deadline_ns, &agent->message, error);

	if (r <= 0) {
		return r;
	}
	*ret_event = (struct warmbox_event){ 0 };
	switch (agent->message.type) {
	case RPC_RESPONSE:
		return response_event(agent, ret_event, error);
	case RPC_NOTIFICATION:
		return output_event(agent, ret_event, error);
	case RPC_REQUEST:
		break;
	}
	return nonsense(agent, error, "a request");
}

int warmbox_agent_next(struct warmbox_agent *agent, int timeout_ms, struct warmbox_event *ret_event,
		       struct warmbox_error *error)
{
	return rpc_agent_next(agent, rpc_deadline(timeout_ms), ret_event, error);
}

int rpc_agent_timed_out(struct warmbox_agent *agent, const char *what, struct warmbox_error *error)
{
	agent->channel.fd = base_fd_close(agent->channel.fd);
	return rpc_fail(error, WARMBOX_TIMEOUT, -ETIMEDOUT, "%s: not finished in time", what);
}

int rpc_agent_failure(struct warmbox_agent *agent, const struct warmbox_event *event,
		      struct warmbox_error *error)
{
	if (error) {
		*error = event->failure;
	}
	return rpc_channel_check(&agent->channel, &agent->message, NULL);
}

int warmbox_agent_call(struct warmbox_agent *agent, const char *method, const void *params,
		       size_t params_size, int timeout_ms, struct warmbox_value **ret_value,
		       struct warmbox_error *error)
{
	uint64_t deadline_ns = rpc_deadline(timeout_ms);
	struct warmbox_event event;
	uint32_t id;
	int r;

	if (agent->n_requests > 0) {
		return rpc_fail(error, WARMBOX_LOCAL, -EBUSY, "%s: another request is open",
				method);
	}
	r = start_request(agent, method, params, params_size, false, &id, error);
	if (r < 0) {
		return r;
	}
	/* Nothing else is open, so the first event is the answer. */
	while ((r = rpc_agent_next(agent, deadline_ns, &event, error)) == 0) {
		if (rpc_deadline_left_ms(deadline_ns) == 0) {
			return rpc_agent_timed_out(agent, method, error);
		}
	}
	if (r < 0) {
		return r;
	}
	if (event.kind == WARMBOX_EVENT_ERROR) {
		return rpc_agent_failure(agent, &event, error);
	}
	return ret_value ? rpc_value_new(&agent->message, ret_value, error) : 0;
}

int warmbox_agent_ping(struct warmbox_agent *agent, int timeout_ms, uint64_t *ret_generation,
		       struct warmbox_error *error)
{
	int r = warmbox_agent_call(agent, "ping", NULL, 0, timeout_ms, NULL, error);
	const msgpack_object *generation;

	if (r < 0) {
		return r;
	}
	generation = warmbox_map_get(&agent->message.result, "generation");
	if (!generation || generation->type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
		return nonsense(agent, error, "a ping without a generation");
	}
	if (ret_generation) {
		*ret_generation = generation->via.u64;
	}
	return 0;
}
