/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The decoder of messages. The bytes are fed whole and in pieces, whose size the first byte says:
 * both must give the same messages and the same end. What is decoded is walked, so that a pointer
 * out of bounds is found.
 */

#include "rpc/codec.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX (RPC_NESTING_MAX + 1)

struct outcome {
	uint64_t sum; /* over everything that was decoded */
	unsigned messages;
	int result;
};

static void add_bytes(struct outcome *outcome, const char *bytes, uint32_t size)
{
	for (uint32_t i = 0; i < size; i++) {
		outcome->sum = outcome->sum * 31 + (uint8_t)bytes[i];
	}
}

static void walk(struct outcome *outcome, const msgpack_object *object, unsigned depth)
{
	if (depth > DEPTH_MAX) {
		abort();
	}
	outcome->sum = outcome->sum * 31 + object->type;
	switch (object->type) {
	case MSGPACK_OBJECT_STR:
		add_bytes(outcome, object->via.str.ptr, object->via.str.size);
		break;
	case MSGPACK_OBJECT_BIN:
		add_bytes(outcome, object->via.bin.ptr, object->via.bin.size);
		break;
	case MSGPACK_OBJECT_EXT:
		add_bytes(outcome, object->via.ext.ptr, object->via.ext.size);
		break;
	case MSGPACK_OBJECT_ARRAY:
		for (uint32_t i = 0; i < object->via.array.size; i++) {
			walk(outcome, &object->via.array.ptr[i], depth + 1);
		}
		break;
	case MSGPACK_OBJECT_MAP:
		for (uint32_t i = 0; i < object->via.map.size; i++) {
			walk(outcome, &object->via.map.ptr[i].key, depth + 1);
			walk(outcome, &object->via.map.ptr[i].val, depth + 1);
		}
		break;
	default:
		break;
	}
}

static void walk_message(struct outcome *outcome, const struct rpc_message *message)
{
	msgpack_object params = { .type = MSGPACK_OBJECT_MAP, .via.map = message->params };

	outcome->messages++;
	outcome->sum = outcome->sum * 31 + message->type + message->id;
	if (message->type == RPC_RESPONSE) {
		walk(outcome, &message->error, 2);
		walk(outcome, &message->result, 2);
	} else if (!message->malformed) {
		add_bytes(outcome, message->method.ptr, message->method.size);
		walk(outcome, &params, 3);
	}
}

static struct outcome decode(const uint8_t *data, size_t size, size_t piece)
{
	struct outcome outcome = { 0 };
	struct rpc_decoder decoder = { 0 };
	struct rpc_message message;
	msgpack_zone zone;

	if (!msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE)) {
		abort();
	}
	while (size > 0 && outcome.result >= 0) {
		size_t room;
		uint8_t *space = rpc_decoder_space(&decoder, &room);
		size_t n = MIN(size, piece);

		n = MIN(n, room);
		if (!space) {
			abort();
		}
		memcpy(space, data, n);
		rpc_decoder_commit(&decoder, n);
		data += n;
		size -= n;
		while ((outcome.result = rpc_decoder_next(&decoder, &zone, &message)) > 0) {
			walk_message(&outcome, &message);
		}
	}
	rpc_decoder_deinit(&decoder);
	msgpack_zone_destroy(&zone);
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, pieces;

	if (size < 1) {
		return 0;
	}
	whole = decode(data + 1, size - 1, size);
	pieces = decode(data + 1, size - 1, 1u + data[0]);
	if (whole.sum != pieces.sum || whole.messages != pieces.messages ||
	    whole.result != pieces.result) {
		abort();
	}
	return 0;
}
