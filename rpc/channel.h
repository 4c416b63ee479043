/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the two halves of libwarmbox share: one connected stream, messages in and out, deadlines.
 * The socket is never waited for but in rpc_channel_wait(). Private to the client library.
 */

#include "rpc/encode.h"
#include "rpc/warmbox.h"

struct rpc_channel {
	int fd;		  /* owned; -1: broken or not connected */
	const char *peer; /* for messages: "warmboxd" or "the agent" */
	bool accepts_fd;
	int received_fd; /* owned; the descriptor that came last, or -1 */
	uint32_t last_id;
	struct rpc_decoder decoder;
	msgpack_zone zone;
	struct rpc_encoder out; /* what is to be sent, from `sent` on */
	size_t sent;
};

#define RPC_FOREVER UINT64_MAX
/* timeout_ms < 0: RPC_FOREVER. CLOCK_MONOTONIC nanoseconds. */
uint64_t rpc_deadline(int64_t timeout_ms);
/* For poll(2), rounded up. */
int rpc_deadline_left_ms(uint64_t deadline_ns);

/* Fills *error (may be NULL) and returns r. */
int rpc_fail(struct warmbox_error *error, enum warmbox_code code, int r, const char *format, ...)
	_printf_(4, 5);

/* fd is consumed, on failure too. */
int rpc_channel_init(struct rpc_channel *channel, int fd, const char *peer,
		     struct warmbox_error *error);
void rpc_channel_deinit(struct rpc_channel *channel);

/* Bytes that wait to be sent. */
static inline size_t rpc_channel_pending(const struct rpc_channel *channel)
{
	return channel->out.buffer.size - channel->sent;
}

/* Queues a request with the given params (NULL: the empty map), which must be one packed map. */
int rpc_channel_request(struct rpc_channel *channel, const char *method, const void *params,
			size_t params_size, uint32_t *ret_id, struct warmbox_error *error);

/* Sends what is queued, and waits until a message is there. 1: *ret_message, valid until the next
 * call. 0: the deadline passed or a signal handler ran. */
int rpc_channel_wait(struct rpc_channel *channel, uint64_t deadline_ns,
		     struct rpc_message *ret_message, struct warmbox_error *error);

/* A response: 0 when it is a success; otherwise what the other side said, as -errno. */
int rpc_channel_check(const struct rpc_channel *channel, const struct rpc_message *response,
		      struct warmbox_error *error);

/* Copies the result of a response. */
int rpc_value_new(const struct rpc_message *response, struct warmbox_value **ret_value,
		  struct warmbox_error *error);
