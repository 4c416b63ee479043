/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * msgpack-RPC on a byte stream: bytes in, classified messages out.
 *
 * The bytes come from somebody who is not trusted. They are looked at twice: the scanner, which
 * allocates nothing, finds where a message ends and refuses what exceeds the limits as soon as a
 * header promises it; only then does msgpack-c parse the message, which therefore cannot allocate
 * more than RPC_VALUES_MAX objects.
 *
 * Every function fails with -EMSGSIZE (more bytes or values than the limits), -ELOOP (too deep),
 * -EBADMSG (not msgpack, or not msgpack-RPC) or -ENOMEM. After a failure the stream has no message
 * boundaries any more and must be closed.
 */

#include "base/util.h"

#include <msgpack.h>
#include <stdbool.h>

#define RPC_MESSAGE_MAX_BYTES MIB(1)
#define RPC_NESTING_MAX	      16 /* arrays and maps that are open at once, the message's own included */
#define RPC_VALUES_MAX	      65536 /* values in a message; a parsed one takes 24 bytes */
#define RPC_METHOD_MAX_BYTES  64
#define RPC_READ_BYTES	      KIB(16) /* a buffer offers at least this much room */
#define RPC_BUFFER_KEEP_BYTES KIB(64) /* an empty buffer above this is freed */

/* The errors of the protocol. The order is that of enum warmbox_code. */
enum rpc_code {
	RPC_OK = 0,
	RPC_INVALID_REQUEST,
	RPC_UNKNOWN_METHOD,
	RPC_INVALID_ARGUMENT,
	RPC_NOT_FOUND,
	RPC_ALREADY_EXISTS,
	RPC_DEADLINE_EXCEEDED,
	RPC_EXHAUSTED,
	RPC_PERMISSION_DENIED,
	RPC_QUOTA_EXCEEDED,
	RPC_UNAVAILABLE,
	RPC_FAILED,
	RPC_INTERNAL,
	RPC_CODES,
};
const char *rpc_code_name(enum rpc_code code); /* "not_found", …; "ok" for RPC_OK */
/* RPC_INTERNAL for a name that is not in the list. */
enum rpc_code rpc_code_parse(const msgpack_object *name);

/* --- scanner --- */

/* Zeroed is ready. Holds no pointer: the same bytes may lie elsewhere at the next call. */
struct rpc_scanner {
	size_t position; /* of the next header, from the start of the message */
	uint32_t values;
	unsigned depth;
	bool done; /* the last header was seen */
	uint64_t left[RPC_NESTING_MAX];
};

/*
 * Goes on with the message that starts at data. 1: it is complete, position is its length. 0: more
 * bytes are needed. Each header is looked at once, however small the pieces.
 */
int rpc_scanner_run(struct rpc_scanner *scanner, const uint8_t *data, size_t size);

/* --- messages --- */

enum rpc_message_type {
	RPC_REQUEST = 0, /* the numbers on the wire */
	RPC_RESPONSE = 1,
	RPC_NOTIFICATION = 2,
};

/* Points into the decoder's buffer and the zone; valid until the decoder's next call. */
struct rpc_message {
	enum rpc_message_type type;
	const uint8_t *data; /* the bytes of the whole message */
	size_t size;
	uint32_t id; /* of requests and responses */

	/* Requests and notifications. A request that has an id, but is otherwise wrong, has
	 * `malformed` set to what is wrong, and neither method nor params: answer
	 * invalid_request. */
	const char *malformed;
	msgpack_object_str method;
	msgpack_object_map params;

	/* Responses. */
	msgpack_object error; /* nil or a map */
	msgpack_object result;
};

/* Parses one whole message (as found by the scanner). zone is cleared and then holds the parsed
 * objects. */
int rpc_message_parse(const uint8_t *data, size_t size, msgpack_zone *zone,
		      struct rpc_message *ret_message);

bool rpc_str_is(const msgpack_object_str *str, const char *text);
bool rpc_object_is(const msgpack_object *object, const char *text);
/* The value of a key; NULL without it. */
const msgpack_object *rpc_map_get(const msgpack_object_map *map, const char *key);

/* --- decoder --- */

struct rpc_decoder {
	uint8_t *data; /* owned */
	size_t start, end, room;
	struct rpc_scanner scanner;
};

void rpc_decoder_deinit(struct rpc_decoder *decoder);

/* Where to read to: at least RPC_READ_BYTES. NULL: out of memory. */
uint8_t *rpc_decoder_space(struct rpc_decoder *decoder, size_t *ret_size);
/* There are bytes of a message that is not complete; after rpc_decoder_next() has returned 0. */
static inline bool rpc_decoder_is_inside(const struct rpc_decoder *decoder)
{
	return decoder->start != decoder->end;
}
/* Says that size bytes were read to there. */
void rpc_decoder_commit(struct rpc_decoder *decoder, size_t size);
/* 1: a message. 0: more bytes are needed. */
int rpc_decoder_next(struct rpc_decoder *decoder, msgpack_zone *zone,
		     struct rpc_message *ret_message);
