/* SPDX-License-Identifier: Apache-2.0 */

/* Framing, limits and classification, with whole messages, single bytes and noise. */

#include "rpc/encode.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define RANDOM_STREAMS 1000

struct decoded {
	struct rpc_decoder decoder;
	msgpack_zone zone;
	struct rpc_message message;
};

static void decoded_init(struct decoded *decoded)
{
	*decoded = (struct decoded){ 0 };
	assert_true(msgpack_zone_init(&decoded->zone, MSGPACK_ZONE_CHUNK_SIZE));
}

static void decoded_deinit(struct decoded *decoded)
{
	rpc_decoder_deinit(&decoded->decoder);
	msgpack_zone_destroy(&decoded->zone);
}

/* Feeds bytes in pieces; the result of the last rpc_decoder_next(). */
static int feed(struct decoded *decoded, const void *data, size_t size, size_t piece)
{
	const uint8_t *bytes = data;
	int r = 0;

	while (size > 0 && r == 0) {
		size_t room;
		uint8_t *space = rpc_decoder_space(&decoded->decoder, &room);
		size_t limit = MIN(piece, room);
		size_t n = MIN(size, limit);

		assert_non_null(space);
		assert_true(room >= RPC_READ_BYTES);
		memcpy(space, bytes, n);
		rpc_decoder_commit(&decoded->decoder, n);
		bytes += n;
		size -= n;
		r = rpc_decoder_next(&decoded->decoder, &decoded->zone, &decoded->message);
	}
	return r;
}

static int feed_once(const void *data, size_t size)
{
	struct decoded decoded;
	int r;

	decoded_init(&decoded);
	r = feed(&decoded, data, size, size);
	decoded_deinit(&decoded);
	return r;
}
#define FEED(literal) feed_once(literal, sizeof(literal) - 1)

static void test_request(void **state)
{
	static const char bytes[] = "\x94\x00\x07\xa4ping\x91\x81\xa1k\x2a";
	struct decoded decoded;

	for (size_t piece = 1; piece <= sizeof(bytes) - 1; piece++) {
		const msgpack_object *value;

		decoded_init(&decoded);
		assert_int_equal(feed(&decoded, bytes, sizeof(bytes) - 1, piece), 1);
		assert_int_equal(decoded.message.type, RPC_REQUEST);
		assert_int_equal(decoded.message.id, 7);
		assert_null(decoded.message.malformed);
		assert_true(rpc_str_is(&decoded.message.method, "ping"));
		value = rpc_map_get(&decoded.message.params, "k");
		assert_non_null(value);
		assert_int_equal(value->via.u64, 42);
		assert_null(rpc_map_get(&decoded.message.params, "other"));
		assert_int_equal(decoded.message.size, sizeof(bytes) - 1);
		decoded_deinit(&decoded);
	}
}

static void test_pipelined(void **state)
{
	static const char bytes[] = "\x94\x00\x01\xa1"
				    "a\x91\x80\x94\x01\x02\xc0\xc3\x93\x02\xa1"
				    "c\x91\x80";
	struct decoded decoded;

	decoded_init(&decoded);
	assert_int_equal(feed(&decoded, bytes, sizeof(bytes) - 1, 100), 1);
	assert_int_equal(decoded.message.type, RPC_REQUEST);
	assert_int_equal(rpc_decoder_next(&decoded.decoder, &decoded.zone, &decoded.message), 1);
	assert_int_equal(decoded.message.type, RPC_RESPONSE);
	assert_int_equal(decoded.message.id, 2);
	assert_int_equal(decoded.message.error.type, MSGPACK_OBJECT_NIL);
	assert_true(decoded.message.result.via.boolean);
	assert_int_equal(rpc_decoder_next(&decoded.decoder, &decoded.zone, &decoded.message), 1);
	assert_int_equal(decoded.message.type, RPC_NOTIFICATION);
	assert_true(rpc_str_is(&decoded.message.method, "c"));
	assert_int_equal(rpc_decoder_next(&decoded.decoder, &decoded.zone, &decoded.message), 0);
	decoded_deinit(&decoded);
}

/* Has an id, so that it can be answered. */
static void test_malformed_request(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
	} cases[] = {
		{ "\x92\x00\x05", 3 },			/* nothing else */
		{ "\x94\x00\x05\x01\x91\x80", 6 },	/* method is a number */
		{ "\x94\x00\x05\xa1m\x80", 6 },		/* params is a map */
		{ "\x94\x00\x05\xa1m\x90", 6 },		/* params is empty */
		{ "\x94\x00\x05\xa1m\x91\x01", 7 },	/* the parameter is a number */
		{ "\x94\x00\x05\xa1m\x92\x80\x80", 8 }, /* two maps */
		{ "\x95\x00\x05\xa1m\x91\x80\xc0", 8 }, /* one element too many */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct decoded decoded;

		decoded_init(&decoded);
		assert_int_equal(feed(&decoded, cases[i].bytes, cases[i].size, 100), 1);
		assert_int_equal(decoded.message.type, RPC_REQUEST);
		assert_int_equal(decoded.message.id, 5);
		assert_non_null(decoded.message.malformed);
		decoded_deinit(&decoded);
	}
}

static void test_not_rpc(void **state)
{
	assert_int_equal(FEED("\xc0"), -EBADMSG);
	assert_int_equal(FEED("\xc1"), -EBADMSG);
	assert_int_equal(FEED("\x90"), -EBADMSG);
	assert_int_equal(FEED("\x94\x03\x01\xa1m\x91\x80"), -EBADMSG);		       /* type 3 */
	assert_int_equal(FEED("\x94\x00\xff\xa1m\x91\x80"), -EBADMSG);		       /* id -1 */
	assert_int_equal(FEED("\x94\x00\xcf\0\0\0\1\0\0\0\0\xa1m\x91\x80"), -EBADMSG); /* 2^32 */
	assert_int_equal(FEED("\x94\x00\xce\xff\xff\xff\xff\xa1m\x91\x80"), 1);
	assert_int_equal(FEED("\x94\x01\x01\xa1m\x80"), -EBADMSG); /* error is a string */
	assert_int_equal(FEED("\x93\x01\x01\xc0"), -EBADMSG);
	assert_int_equal(FEED("\x93\x02\xa1m\x80"), -EBADMSG);
	assert_int_equal(FEED("GET / HTTP/1.1\r\n"), -EBADMSG);
}

/* What a header promises is refused when the header is there, not when memory is gone. */
static void test_promises(void **state)
{
	assert_int_equal(FEED("\xdd\xff\xff\xff\xff"), -EMSGSIZE);
	assert_int_equal(FEED("\xdf\xff\xff\xff\xff"), -EMSGSIZE);
	assert_int_equal(FEED("\xdb\xff\xff\xff\xff"), -EMSGSIZE);
	assert_int_equal(FEED("\xc6\xff\xff\xff\xff"), -EMSGSIZE);
	assert_int_equal(FEED("\xc9\xff\xff\xff\xff\x01"), -EMSGSIZE);
	assert_int_equal(FEED("\x94\x00\x01\xa1m\x91\x81\xa1k\xdd\x80\x00\x00\x00"), -EMSGSIZE);
	assert_int_equal(FEED("\xdd\x00\x01\x00\x00"), 0);	   /* 65536: the limit */
	assert_int_equal(FEED("\xdd\x00\x01\x00\x01"), -EMSGSIZE); /* one past it */
	assert_int_equal(FEED("\xdf\x00\x00\x80\x00"), 0);
	assert_int_equal(FEED("\xdf\x00\x00\x80\x01"), -EMSGSIZE);
	/* Spread over several arrays. */
	assert_int_equal(FEED("\x92\xdc\x80\x00\xdc\x7f\xfe"), 0);
	assert_int_equal(FEED("\x92\xdc\x80\x00\xdc\x7f\xff"), -EMSGSIZE);
}

static int nested(unsigned depth, bool maps)
{
	uint8_t bytes[2 * RPC_NESTING_MAX + 8];
	size_t n = 0;

	for (unsigned i = 0; i < depth; i++) {
		bytes[n++] = maps ? 0x81 : 0x91;
		if (maps) {
			bytes[n++] = 0xc0;
		}
	}
	bytes[n++] = 0xc0;

	struct rpc_scanner scanner = { 0 };

	return rpc_scanner_run(&scanner, bytes, n);
}

static void test_nesting(void **state)
{
	assert_int_equal(nested(RPC_NESTING_MAX, false), 1);
	assert_int_equal(nested(RPC_NESTING_MAX, true), 1);
	assert_int_equal(nested(RPC_NESTING_MAX + 1, false), -ELOOP);
	assert_int_equal(nested(RPC_NESTING_MAX + 1, true), -ELOOP);
}

/* A notification whose data has the given size. */
static int sized(size_t data_size, size_t piece, size_t *ret_size)
{
	_cleanup_free_ char *data = calloc(1, data_size);
	struct rpc_encoder encoder;
	struct decoded decoded;
	int r;

	assert_non_null(data);
	rpc_encoder_init(&encoder);
	rpc_encode_notification(&encoder, "stdout");
	rpc_encode_map(&encoder, 1);
	rpc_encode_str(&encoder, "data");
	rpc_encode_bin(&encoder, data, data_size);
	assert_int_equal(rpc_encoder_result(&encoder), 0);
	*ret_size = encoder.buffer.size;
	decoded_init(&decoded);
	r = feed(&decoded, encoder.buffer.data, encoder.buffer.size, piece);
	decoded_deinit(&decoded);
	rpc_encoder_deinit(&encoder);
	return r;
}

static void test_size_limit(void **state)
{
	size_t size, overhead;

	assert_int_equal(sized(MIB(1) - 100, MIB(2), &size), 1);
	overhead = size - (MIB(1) - 100);
	assert_int_equal(sized(MIB(1) - overhead, MIB(2), &size), 1);
	assert_int_equal(size, RPC_MESSAGE_MAX_BYTES);
	assert_int_equal(sized(MIB(1) - overhead, 1000, &size), 1);
	assert_int_equal(sized(MIB(1) - overhead + 1, MIB(2), &size), -EMSGSIZE);
	assert_int_equal(sized(MIB(1) - overhead + 1, 1000, &size), -EMSGSIZE);
}

/* Every kind of value, at every cut: never complete too early, and skipped as a whole. */
static void test_all_types_truncated(void **state)
{
	static const char bytes[] =
		"\x94\x01\x01\xc0\xdc\x00\x16"
		"\x7f\xff\xc0\xc2\xc3\xcc\x01\xcd\x01\x02\xce\x01\x02\x03\x04"
		"\xcf\x01\x02\x03\x04\x05\x06\x07\x08\xd0\x01\xd1\x01\x02\xd2\x01\x02\x03\x04"
		"\xd3\x01\x02\x03\x04\x05\x06\x07\x08\xca\x00\x00\x00\x00"
		"\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xa2hi\xd9\x02hi\xc4\x02hi"
		"\xd4\x01\x02\xc7\x02\x01hi\xde\x00\x01\xc0\x90\xd8\x01"
		"0123456789abcdef";
	struct decoded decoded;

	for (size_t size = 0; size < sizeof(bytes) - 1; size++) {
		struct rpc_scanner scanner = { 0 };

		assert_int_equal(rpc_scanner_run(&scanner, (const uint8_t *)bytes, size), 0);
	}
	decoded_init(&decoded);
	assert_int_equal(feed(&decoded, bytes, sizeof(bytes) - 1, 1), 1);
	assert_int_equal(decoded.message.result.via.array.size, 22);
	decoded_deinit(&decoded);
}

/* Whatever comes, the decoder ends with an error, a message, or waits; its buffer stays bounded. */
static void test_random_streams(void **state)
{
	uint64_t seed = 42;
	unsigned errors = 0;

	for (unsigned i = 0; i < RANDOM_STREAMS; i++) {
		uint8_t bytes[512];
		struct decoded decoded;
		int r;

		for (size_t n = 0; n < sizeof(bytes); n++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			bytes[n] = (uint8_t)(seed >> 56);
		}
		if (i % 2) {
			bytes[0] = 0x94; /* get further */
			bytes[1] = (uint8_t)(i / 2 % 3);
		}
		decoded_init(&decoded);
		r = feed(&decoded, bytes, sizeof(bytes), 1 + i % 64);
		while (r > 0) {
			r = rpc_decoder_next(&decoded.decoder, &decoded.zone, &decoded.message);
		}
		assert_true(r == 0 || r == -EBADMSG || r == -EMSGSIZE || r == -ELOOP);
		assert_true(decoded.decoder.room <= RPC_MESSAGE_MAX_BYTES + 2 * RPC_READ_BYTES);
		errors += r < 0;
		decoded_deinit(&decoded);
	}
	assert_true(errors > RANDOM_STREAMS / 2);
}

static void test_encode(void **state)
{
	struct rpc_encoder encoder;
	struct decoded decoded;

	rpc_encoder_init(&encoder);
	rpc_encode_error(&encoder, 9, RPC_NOT_FOUND, "it is not there");
	decoded_init(&decoded);
	assert_int_equal(feed(&decoded, encoder.buffer.data, encoder.buffer.size, 3), 1);
	assert_int_equal(decoded.message.id, 9);
	assert_int_equal(rpc_code_parse(rpc_map_get(&decoded.message.error.via.map, "code")),
			 RPC_NOT_FOUND);
	decoded_deinit(&decoded);
	rpc_encoder_reset(&encoder);
	assert_int_equal(encoder.buffer.size, 0);
	rpc_encoder_deinit(&encoder);
	for (unsigned code = 0; code < RPC_CODES; code++) {
		assert_non_null(rpc_code_name(code));
	}
	assert_string_equal(rpc_code_name(RPC_CODES), "internal");
}

/* A buffer that was large once is given back. */
static void test_buffer_shrinks(void **state)
{
	struct rpc_encoder encoder;
	struct decoded decoded;
	_cleanup_free_ char *data = calloc(1, KIB(512));

	rpc_encoder_init(&encoder);
	rpc_encode_notification(&encoder, "x");
	rpc_encode_map(&encoder, 1);
	rpc_encode_str(&encoder, "data");
	rpc_encode_bin(&encoder, data, KIB(512));
	decoded_init(&decoded);
	assert_int_equal(feed(&decoded, encoder.buffer.data, encoder.buffer.size, 4096), 1);
	assert_true(decoded.decoder.room > RPC_BUFFER_KEEP_BYTES);
	assert_int_equal(rpc_decoder_next(&decoded.decoder, &decoded.zone, &decoded.message), 0);
	assert_true(decoded.decoder.room <= RPC_BUFFER_KEEP_BYTES);
	decoded_deinit(&decoded);
	rpc_encoder_deinit(&encoder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_pipelined),
		cmocka_unit_test(test_malformed_request),
		cmocka_unit_test(test_not_rpc),
		cmocka_unit_test(test_promises),
		cmocka_unit_test(test_nesting),
		cmocka_unit_test(test_size_limit),
		cmocka_unit_test(test_all_types_truncated),
		cmocka_unit_test(test_random_streams),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_buffer_shrinks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
