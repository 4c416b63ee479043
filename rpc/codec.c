/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Framing and classification of msgpack-RPC.
 *
 * rpc_decoder_space() and rpc_decoder_commit() put bytes into a buffer, rpc_decoder_next() takes
 * messages out until it returns 0. Failures are final for the stream. Nothing here blocks, locks or
 * knows sockets; an object belongs to one thread.
 */

#include "rpc/codec.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const char *const code_names[RPC_CODES] = {
	[RPC_OK] = "ok",
	[RPC_INVALID_REQUEST] = "invalid_request",
	[RPC_UNKNOWN_METHOD] = "unknown_method",
	[RPC_INVALID_ARGUMENT] = "invalid_argument",
	[RPC_NOT_FOUND] = "not_found",
	[RPC_ALREADY_EXISTS] = "already_exists",
	[RPC_DEADLINE_EXCEEDED] = "deadline_exceeded",
	[RPC_EXHAUSTED] = "exhausted",
	[RPC_PERMISSION_DENIED] = "permission_denied",
	[RPC_QUOTA_EXCEEDED] = "quota_exceeded",
	[RPC_UNAVAILABLE] = "unavailable",
	[RPC_FAILED] = "failed",
	[RPC_INTERNAL] = "internal",
};

const char *rpc_code_name(enum rpc_code code)
{
	return (unsigned)code < RPC_CODES ? code_names[code] : code_names[RPC_INTERNAL];
}

enum rpc_code rpc_code_parse(const msgpack_object *name)
{
	for (unsigned code = RPC_OK + 1; code < RPC_CODES; code++) {
		if (rpc_object_is(name, code_names[code])) {
			return (enum rpc_code)code;
		}
	}
	return RPC_INTERNAL;
}

/* --- scanner --- */

/* What one msgpack header says. */
struct header {
	unsigned size;	   /* of the header itself */
	uint64_t payload;  /* bytes that follow */
	uint64_t children; /* values that follow */
	bool container;
};

static uint32_t load_big_endian(const uint8_t *p, unsigned size)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < size; i++) {
		value = value << 8 | p[i];
	}
	return value;
}

/* Headers 0xc0..0xdf: number of length bytes, what the length counts, and bytes besides. */
enum length_of {
	NOTHING,
	BYTES,
	VALUES,
	PAIRS,
	RESERVED,
};
struct layout {
	uint8_t length_bytes;
	uint8_t counts;
	uint8_t extra;
};
static const struct layout layouts[32] = {
	[0x00] = { 0, NOTHING, 0 },  /* nil */
	[0x01] = { 0, RESERVED, 0 }, /* never used */
	[0x02] = { 0, NOTHING, 0 },  /* false */
	[0x03] = { 0, NOTHING, 0 },  /* true */
	[0x04] = { 1, BYTES, 0 },    /* bin 8 */
	[0x05] = { 2, BYTES, 0 },    /* bin 16 */
	[0x06] = { 4, BYTES, 0 },    /* bin 32 */
	[0x07] = { 1, BYTES, 1 },    /* ext 8: and a type byte */
	[0x08] = { 2, BYTES, 1 },    /* ext 16 */
	[0x09] = { 4, BYTES, 1 },    /* ext 32 */
	[0x0a] = { 0, NOTHING, 4 },  /* float 32 */
	[0x0b] = { 0, NOTHING, 8 },  /* float 64 */
	[0x0c] = { 0, NOTHING, 1 },  /* uint 8 */
	[0x0d] = { 0, NOTHING, 2 },  /* uint 16 */
	[0x0e] = { 0, NOTHING, 4 },  /* uint 32 */
	[0x0f] = { 0, NOTHING, 8 },  /* uint 64 */
	[0x10] = { 0, NOTHING, 1 },  /* int 8 */
	[0x11] = { 0, NOTHING, 2 },  /* int 16 */
	[0x12] = { 0, NOTHING, 4 },  /* int 32 */
	[0x13] = { 0, NOTHING, 8 },  /* int 64 */
	[0x14] = { 0, NOTHING, 2 },  /* fixext 1 */
	[0x15] = { 0, NOTHING, 3 },  /* fixext 2 */
	[0x16] = { 0, NOTHING, 5 },  /* fixext 4 */
	[0x17] = { 0, NOTHING, 9 },  /* fixext 8 */
	[0x18] = { 0, NOTHING, 17 }, /* fixext 16 */
	[0x19] = { 1, BYTES, 0 },    /* str 8 */
	[0x1a] = { 2, BYTES, 0 },    /* str 16 */
	[0x1b] = { 4, BYTES, 0 },    /* str 32 */
	[0x1c] = { 2, VALUES, 0 },   /* array 16 */
	[0x1d] = { 4, VALUES, 0 },   /* array 32 */
	[0x1e] = { 2, PAIRS, 0 },    /* map 16 */
	[0x1f] = { 4, PAIRS, 0 },    /* map 32 */
};

/* 1: *ret is filled. 0: the header is not complete. */
static int header_read(const uint8_t *p, size_t size, struct header *ret)
{
	uint8_t byte = p[0];

	*ret = (struct header){ .size = 1 };
	if (byte <= 0x7f || byte >= 0xe0) { /* small integers */
		return 1;
	}
	if (byte <= 0x9f) { /* small maps and arrays */
		ret->container = true;
		ret->children = byte <= 0x8f ? 2 * (byte & 0x0fu) : byte & 0x0fu;
		return 1;
	}
	if (byte <= 0xbf) { /* small strings */
		ret->payload = byte & 0x1f;
		return 1;
	}

	const struct layout *layout = &layouts[byte & 0x1f];

	if (layout->counts == RESERVED) {
		return -EBADMSG;
	}
	ret->size += layout->length_bytes;
	if (size < ret->size) {
		return 0;
	}

	uint64_t length = load_big_endian(p + 1, layout->length_bytes);

	ret->container = layout->counts == VALUES || layout->counts == PAIRS;
	ret->children = ret->container ? length * (layout->counts == PAIRS ? 2 : 1) : 0;
	ret->payload = layout->extra + (ret->container ? 0 : length);
	return 1;
}

/* A value has ended, and with it every container whose last it was. */
static void value_end(struct rpc_scanner *scanner)
{
	while (scanner->depth > 0 && --scanner->left[scanner->depth - 1] == 0) {
		scanner->depth--;
	}
	scanner->done = scanner->depth == 0;
}

static int value_begin(struct rpc_scanner *scanner, const struct header *header)
{
	scanner->position += header->size;
	/* Every value that is still to come takes at least a byte. */
	if (header->payload > RPC_MESSAGE_MAX_BYTES ||
	    header->children > RPC_VALUES_MAX - scanner->values) {
		return -EMSGSIZE;
	}
	scanner->position += (size_t)header->payload;
	scanner->values += (uint32_t)header->children;
	if (scanner->position + header->children > RPC_MESSAGE_MAX_BYTES) {
		return -EMSGSIZE;
	}
	if (header->container && scanner->depth == RPC_NESTING_MAX) {
		return -ELOOP;
	}
	if (header->children > 0) {
		scanner->left[scanner->depth++] = header->children;
	} else {
		value_end(scanner);
	}
	return 0;
}

int rpc_scanner_run(struct rpc_scanner *scanner, const uint8_t *data, size_t size)
{
	while (!scanner->done) {
		struct header header;
		int r;

		if (scanner->position >= size) {
			return 0;
		}
		r = header_read(data + scanner->position, size - scanner->position, &header);
		if (r <= 0) {
			return r;
		}
		r = value_begin(scanner, &header);
		if (r < 0) {
			return r;
		}
	}
	return scanner->position <= size;
}

/* --- messages --- */

bool rpc_str_is(const msgpack_object_str *str, const char *text)
{
	size_t size = strlen(text);

	return str->size == size && memcmp(str->ptr, text, size) == 0;
}

bool rpc_object_is(const msgpack_object *object, const char *text)
{
	return object->type == MSGPACK_OBJECT_STR && rpc_str_is(&object->via.str, text);
}

const msgpack_object *rpc_map_get(const msgpack_object_map *map, const char *key)
{
	for (uint32_t i = 0; i < map->size; i++) {
		if (rpc_object_is(&map->ptr[i].key, key)) {
			return &map->ptr[i].val;
		}
	}
	return NULL;
}

/* Method and params; returns what is wrong with them, or NULL. */
static const char *parse_call(const msgpack_object *method, const msgpack_object *params,
			      struct rpc_message *message)
{
	if (method->type != MSGPACK_OBJECT_STR || method->via.str.size > RPC_METHOD_MAX_BYTES) {
		return "the method is not a string of at most 64 bytes";
	}
	if (params->type != MSGPACK_OBJECT_ARRAY || params->via.array.size != 1 ||
	    params->via.array.ptr[0].type != MSGPACK_OBJECT_MAP) {
		return "params is not an array of exactly one map";
	}
	message->method = method->via.str;
	message->params = params->via.array.ptr[0].via.map;
	return NULL;
}

static bool is_id(const msgpack_object *object)
{
	return object->type == MSGPACK_OBJECT_POSITIVE_INTEGER && object->via.u64 <= UINT32_MAX;
}

static int parse_response(const msgpack_object *items, uint32_t n, struct rpc_message *message)
{
	if (n != 4 || !is_id(&items[1]) ||
	    (items[2].type != MSGPACK_OBJECT_NIL && items[2].type != MSGPACK_OBJECT_MAP)) {
		return -EBADMSG;
	}
	message->id = (uint32_t)items[1].via.u64;
	message->error = items[2];
	message->result = items[3];
	return 0;
}

static int classify(const msgpack_object *root, struct rpc_message *message)
{
	if (root->type != MSGPACK_OBJECT_ARRAY || root->via.array.size < 2 ||
	    root->via.array.ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
	    root->via.array.ptr[0].via.u64 > RPC_NOTIFICATION) {
		return -EBADMSG;
	}

	const msgpack_object *items = root->via.array.ptr;
	uint32_t n = root->via.array.size;

	*message = (struct rpc_message){ .type = (enum rpc_message_type)items[0].via.u64 };
	switch (message->type) {
	case RPC_REQUEST:
		if (!is_id(&items[1])) {
			return -EBADMSG;
		}
		message->id = (uint32_t)items[1].via.u64;
		message->malformed = n == 4 ? parse_call(&items[2], &items[3], message)
					    : "a request is [0, id, method, [params]]";
		return 0;
	case RPC_RESPONSE:
		return parse_response(items, n, message);
	case RPC_NOTIFICATION:
		return n == 3 && !parse_call(&items[1], &items[2], message) ? 0 : -EBADMSG;
	}
	return -EBADMSG;
}

int rpc_message_parse(const uint8_t *data, size_t size, msgpack_zone *zone,
		      struct rpc_message *ret_message)
{
	msgpack_object root;
	size_t offset = 0;
	int r;

	msgpack_zone_clear(zone);
	switch (msgpack_unpack((const char *)data, size, &offset, zone, &root)) {
	case MSGPACK_UNPACK_SUCCESS:
		r = classify(&root, ret_message);
		if (r == 0) {
			ret_message->data = data;
			ret_message->size = size;
		}
		return r;
	case MSGPACK_UNPACK_NOMEM_ERROR:
		return -ENOMEM;
	default:
		return -EBADMSG;
	}
}

/* --- decoder --- */

void rpc_decoder_deinit(struct rpc_decoder *decoder)
{
	free(decoder->data);
	*decoder = (struct rpc_decoder){ 0 };
}

/* Moves what is left to the front; drops a buffer that was large once. */
static void compact(struct rpc_decoder *decoder)
{
	size_t used = decoder->end - decoder->start;

	if (used == 0 && decoder->room > RPC_BUFFER_KEEP_BYTES) {
		free(decoder->data);
		decoder->data = NULL;
		decoder->room = 0;
	} else if (decoder->start > 0 && used > 0) {
		memmove(decoder->data, decoder->data + decoder->start, used);
	}
	decoder->start = 0;
	decoder->end = used;
}

uint8_t *rpc_decoder_space(struct rpc_decoder *decoder, size_t *ret_size)
{
	if (decoder->room - decoder->end < RPC_READ_BYTES) {
		compact(decoder);
	}
	if (decoder->room - decoder->end < RPC_READ_BYTES) {
		/* The scanner refuses a message above the limit, so at most one read lies beyond
		   it. */
		assert(decoder->end <= RPC_MESSAGE_MAX_BYTES + RPC_READ_BYTES);

		size_t room = MAX(decoder->room * 2, decoder->end + RPC_READ_BYTES);
		uint8_t *data;

		room = MIN(room, RPC_MESSAGE_MAX_BYTES + 2 * RPC_READ_BYTES);
		data = realloc(decoder->data, room);
		if (!data) {
			return NULL;
		}
		decoder->data = data;
		decoder->room = room;
	}
	*ret_size = decoder->room - decoder->end;
	return decoder->data + decoder->end;
}

void rpc_decoder_commit(struct rpc_decoder *decoder, size_t size)
{
	assert(size <= decoder->room - decoder->end);
	decoder->end += size;
}

int rpc_decoder_next(struct rpc_decoder *decoder, msgpack_zone *zone,
		     struct rpc_message *ret_message)
{
	const uint8_t *data;
	int r;

	if (decoder->start == decoder->end) {
		compact(decoder);
		return 0;
	}
	data = decoder->data + decoder->start;
	r = rpc_scanner_run(&decoder->scanner, data, decoder->end - decoder->start);
	if (r <= 0) {
		return r;
	}

	size_t size = decoder->scanner.position;

	decoder->scanner = (struct rpc_scanner){ 0 };
	decoder->start += size;
	r = rpc_message_parse(data, size, zone, ret_message);
	return r < 0 ? r : 1;
}
