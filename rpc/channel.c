/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One stream of the client library.
 *
 * Requests are queued in `out`, and go out in rpc_channel_wait() while it waits for what comes in,
 * so two sides that both write much never wait for each other. A failure closes the descriptor:
 * what is in flight is unknown then, and the daemon takes the closing for what it is. The caller's
 * thread.
 */

#include "rpc/channel.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

_Static_assert((int)WARMBOX_INTERNAL == (int)RPC_INTERNAL, "one order for both lists");

const char *warmbox_code_name(enum warmbox_code code)
{
	switch (code) {
	case WARMBOX_CANNOT_CONNECT:
		return "cannot_connect";
	case WARMBOX_DISCONNECTED:
		return "disconnected";
	case WARMBOX_PROTOCOL:
		return "protocol";
	case WARMBOX_TIMEOUT:
		return "timeout";
	case WARMBOX_LOCAL:
		return "local";
	default:
		return rpc_code_name((enum rpc_code)code);
	}
}

/* The errno of each error of the protocol. */
static const int code_errnos[RPC_CODES] = {
	[RPC_INVALID_REQUEST] = EPROTO,
	[RPC_UNKNOWN_METHOD] = ENOSYS,
	[RPC_INVALID_ARGUMENT] = EINVAL,
	[RPC_NOT_FOUND] = ENOENT,
	[RPC_ALREADY_EXISTS] = EEXIST,
	[RPC_DEADLINE_EXCEEDED] = ETIMEDOUT,
	[RPC_EXHAUSTED] = EBUSY,
	[RPC_PERMISSION_DENIED] = EACCES,
	[RPC_QUOTA_EXCEEDED] = EDQUOT,
	[RPC_UNAVAILABLE] = EAGAIN,
	[RPC_FAILED] = EIO,
	[RPC_INTERNAL] = EIO,
};

int rpc_fail(struct warmbox_error *error, enum warmbox_code code, int r, const char *format, ...)
{
	if (error) {
		va_list args;

		error->code = code;
		error->quota[0] = '\0';
		error->retry_ms = -1;
		va_start(args, format);
		vsnprintf(error->text, sizeof(error->text), format, args);
		va_end(args);
	}
	return r;
}

uint64_t rpc_deadline(int64_t timeout_ms)
{
	if (timeout_ms < 0) {
		return RPC_FOREVER;
	}
	return base_clock_monotonic_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
}

int rpc_deadline_left_ms(uint64_t deadline_ns)
{
	uint64_t now = deadline_ns == RPC_FOREVER ? 0 : base_clock_monotonic_ns();

	if (deadline_ns == RPC_FOREVER) {
		return -1;
	}
	if (now >= deadline_ns) {
		return 0;
	}
	return (int)MIN((deadline_ns - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC, (uint64_t)INT_MAX);
}

int rpc_channel_init(struct rpc_channel *channel, int fd, const char *peer,
		     struct warmbox_error *error)
{
	*channel = (struct rpc_channel){ .fd = fd, .peer = peer, .received_fd = -1 };
	rpc_encoder_init(&channel->out);
	if (!msgpack_zone_init(&channel->zone, MSGPACK_ZONE_CHUNK_SIZE)) {
		channel->fd = base_fd_close(channel->fd);
		return rpc_fail(error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	return 0;
}

void rpc_channel_deinit(struct rpc_channel *channel)
{
	base_fd_close(channel->fd);
	base_fd_close(channel->received_fd);
	rpc_decoder_deinit(&channel->decoder);
	rpc_encoder_deinit(&channel->out);
	msgpack_zone_destroy(&channel->zone);
}

/* A failure that ends the stream. */
static int broken(struct rpc_channel *channel, struct warmbox_error *error, enum warmbox_code code,
		  int r, const char *what)
{
	channel->fd = base_fd_close(channel->fd);
	return rpc_fail(error, code, r, "%s: %s", channel->peer, what);
}

static int check_params(const void *params, size_t size)
{
	struct rpc_scanner scanner = { 0 };
	uint8_t first = size > 0 ? *(const uint8_t *)params : 0;
	bool is_map = (first & 0xf0) == 0x80 || first == 0xde || first == 0xdf;

	if (!is_map || rpc_scanner_run(&scanner, params, size) != 1 || scanner.position != size) {
		return -EINVAL;
	}
	return 0;
}

int rpc_channel_request(struct rpc_channel *channel, const char *method, const void *params,
			size_t params_size, uint32_t *ret_id, struct warmbox_error *error)
{
	static const uint8_t empty_map = 0x80;
	size_t before = channel->out.buffer.size;

	if (!params) {
		params = &empty_map;
		params_size = 1;
	}
	if (channel->fd < 0) {
		return rpc_fail(error, WARMBOX_DISCONNECTED, -ENOTCONN,
				"%s: the connection has ended", channel->peer);
	}
	if (check_params(params, params_size) < 0) {
		return rpc_fail(error, WARMBOX_LOCAL, -EINVAL,
				"%s: the parameters are not one msgpack map within the limits",
				method);
	}
	channel->last_id = channel->last_id == UINT32_MAX ? 1 : channel->last_id + 1;
	rpc_encode_request(&channel->out, channel->last_id, method);
	rpc_encode_raw(&channel->out, params, params_size);
	if (rpc_encoder_result(&channel->out) < 0) {
		return broken(channel, error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	if (channel->out.buffer.size - before > RPC_MESSAGE_MAX_BYTES) {
		channel->out.buffer.size = before;
		return rpc_fail(error, WARMBOX_LOCAL, -EMSGSIZE,
				"%s: the request is larger than a message may be", method);
	}
	*ret_id = channel->last_id;
	return 0;
}

/* Sends as much as the socket takes. A peer that has gone is found, with its last words, by
 * reading. */
static int send_some(struct rpc_channel *channel, struct warmbox_error *error)
{
	while (rpc_channel_pending(channel) > 0) {
		ssize_t n = send(channel->fd, channel->out.buffer.data + channel->sent,
				 rpc_channel_pending(channel), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0) {
			int r = -errno;

			if (r == -EAGAIN || r == -EINTR) {
				return 0;
			}
			if (r != -EPIPE && r != -ECONNRESET) {
				return broken(channel, error, WARMBOX_DISCONNECTED, r,
					      strerrordesc_np(-r));
			}
			n = (ssize_t)rpc_channel_pending(channel);
		}
		channel->sent += (size_t)n;
	}
	channel->sent = 0;
	rpc_encoder_reset(&channel->out);
	return 0;
}

static ssize_t receive_with_fd(struct rpc_channel *channel, void *data, size_t size)
{
	int fd = -1;
	size_t n_fds = 0;
	ssize_t n = base_fd_receive(channel->fd, data, size, &fd, 1, &n_fds, MSG_DONTWAIT);

	if (n >= 0 && n_fds == 1) {
		base_fd_close(channel->received_fd);
		channel->received_fd = fd;
	}
	return n;
}

/* 1: bytes came. 0: none there. */
static int receive_some(struct rpc_channel *channel, struct warmbox_error *error)
{
	size_t size;
	uint8_t *data = rpc_decoder_space(&channel->decoder, &size);
	ssize_t n;

	if (!data) {
		return broken(channel, error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	if (channel->accepts_fd) {
		n = receive_with_fd(channel, data, size);
	} else {
		n = recv(channel->fd, data, size, MSG_DONTWAIT);
		n = n < 0 ? -errno : n;
	}
	if (n == -EAGAIN || n == -EINTR) {
		return 0;
	}
	if (n <= 0) {
		return broken(channel, error, WARMBOX_DISCONNECTED, n < 0 ? (int)n : -ECONNRESET,
			      n == 0 ? "the connection was closed" : strerrordesc_np((int)-n));
	}
	rpc_decoder_commit(&channel->decoder, (size_t)n);
	return 1;
}

static int next_message(struct rpc_channel *channel, struct rpc_message *ret_message,
			struct warmbox_error *error)
{
	int r = rpc_decoder_next(&channel->decoder, &channel->zone, ret_message);

	if (r < 0) {
		return broken(channel, error, WARMBOX_PROTOCOL, r,
			      "sent something that is not msgpack-RPC within its limits");
	}
	return r;
}

int rpc_channel_wait(struct rpc_channel *channel, uint64_t deadline_ns,
		     struct rpc_message *ret_message, struct warmbox_error *error)
{
	if (channel->fd < 0) {
		return rpc_fail(error, WARMBOX_DISCONNECTED, -ENOTCONN,
				"%s: the connection has ended", channel->peer);
	}
	for (;;) {
		struct pollfd wait = { .fd = channel->fd, .events = POLLIN };
		int r = next_message(channel, ret_message, error);

		if (r != 0) {
			return r;
		}
		r = send_some(channel, error);
		if (r < 0) {
			return r;
		}
		r = receive_some(channel, error);
		if (r < 0) {
			return r;
		}
		if (r > 0) {
			continue;
		}
		if (rpc_channel_pending(channel) > 0) {
			wait.events |= POLLOUT;
		}
		if (poll(&wait, 1, rpc_deadline_left_ms(deadline_ns)) <= 0) {
			return 0;
		}
	}
}

int rpc_channel_check(const struct rpc_channel *channel, const struct rpc_message *response,
		      struct warmbox_error *error)
{
	const msgpack_object *code, *text, *quota, *retry_ms;

	if (response->error.type != MSGPACK_OBJECT_MAP) {
		return 0;
	}
	code = rpc_map_get(&response->error.via.map, "code");
	text = rpc_map_get(&response->error.via.map, "message");

	enum rpc_code known = code ? rpc_code_parse(code) : RPC_INTERNAL;
	bool has_text = text && text->type == MSGPACK_OBJECT_STR;

	rpc_fail(error, (enum warmbox_code)known, 0, "%.*s", has_text ? (int)text->via.str.size : 0,
		 has_text ? text->via.str.ptr : "");
	quota = rpc_map_get(&response->error.via.map, "quota");
	retry_ms = rpc_map_get(&response->error.via.map, "retry_ms");
	if (error && quota && quota->type == MSGPACK_OBJECT_STR) {
		snprintf(error->quota, sizeof(error->quota), "%.*s",
			 (int)MIN(quota->via.str.size, (uint32_t)WARMBOX_QUOTA_MAX),
			 quota->via.str.ptr);
	}
	if (error && retry_ms && retry_ms->type == MSGPACK_OBJECT_POSITIVE_INTEGER) {
		error->retry_ms = (int64_t)MIN(retry_ms->via.u64, (uint64_t)INT64_MAX);
	}
	/* It may come out of a sandbox and go to a terminal. */
	for (char *c = error ? error->text : NULL; c && *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f) {
			*c = '?';
		}
	}
	return -code_errnos[known];
}

/* --- values --- */

struct warmbox_value {
	msgpack_zone zone;
	struct rpc_message message;
	uint8_t bytes[];
};

int rpc_value_new(const struct rpc_message *response, struct warmbox_value **ret_value,
		  struct warmbox_error *error)
{
	struct warmbox_value *value = malloc(sizeof(*value) + response->size);

	if (!value) {
		return rpc_fail(error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	memcpy(value->bytes, response->data, response->size);
	if (!msgpack_zone_init(&value->zone, MSGPACK_ZONE_CHUNK_SIZE)) {
		free(value);
		return rpc_fail(error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	if (rpc_message_parse(value->bytes, response->size, &value->zone, &value->message) < 0) {
		warmbox_value_free(value);
		return rpc_fail(error, WARMBOX_LOCAL, -ENOMEM, "out of memory");
	}
	*ret_value = value;
	return 0;
}

const msgpack_object *warmbox_value_object(const struct warmbox_value *value)
{
	return &value->message.result;
}

void warmbox_value_free(struct warmbox_value *value)
{
	if (value) {
		msgpack_zone_destroy(&value->zone);
		free(value);
	}
}

const msgpack_object *warmbox_map_get(const msgpack_object *object, const char *key)
{
	return object->type == MSGPACK_OBJECT_MAP ? rpc_map_get(&object->via.map, key) : NULL;
}
