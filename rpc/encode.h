/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Encoding messages. An encoder remembers that memory ran out and is then inert, so a message is
 * checked once, at its end: rpc_encoder_result().
 */

#include "rpc/codec.h"

#include <string.h>

struct rpc_encoder {
	msgpack_sbuffer buffer; /* what was encoded: data, size */
	msgpack_packer packer;
	int result; /* 0 or -ENOMEM */
};

/* encoder must not move afterwards. */
void rpc_encoder_init(struct rpc_encoder *encoder);
void rpc_encoder_deinit(struct rpc_encoder *encoder);
/* Empty again; keeps a small buffer for the next message. */
void rpc_encoder_reset(struct rpc_encoder *encoder);

static inline int rpc_encoder_result(const struct rpc_encoder *encoder)
{
	return encoder->result;
}

/* `[0, id, method, [`: one map must follow. */
void rpc_encode_request(struct rpc_encoder *encoder, uint32_t id, const char *method);
/* `[2, method, [`: one map must follow. */
void rpc_encode_notification(struct rpc_encoder *encoder, const char *method);
/* `[1, id, nil, `: one value must follow. */
void rpc_encode_response(struct rpc_encoder *encoder, uint32_t id);
/* A whole response. */
void rpc_encode_error(struct rpc_encoder *encoder, uint32_t id, enum rpc_code code,
		      const char *text);
/* A whole response: RPC_QUOTA_EXCEEDED. retry_ms 0: not known. */
void rpc_encode_quota_error(struct rpc_encoder *encoder, uint32_t id, const char *text,
			    const char *quota, uint64_t retry_ms);
/* Bytes that are encoded already. */
void rpc_encode_raw(struct rpc_encoder *encoder, const void *data, size_t size);

static inline void rpc_encode_map(struct rpc_encoder *encoder, size_t n)
{
	msgpack_pack_map(&encoder->packer, n);
}

static inline void rpc_encode_array(struct rpc_encoder *encoder, size_t n)
{
	msgpack_pack_array(&encoder->packer, n);
}

static inline void rpc_encode_uint(struct rpc_encoder *encoder, uint64_t value)
{
	msgpack_pack_uint64(&encoder->packer, value);
}

/* NULL is nil. */
static inline void rpc_encode_str(struct rpc_encoder *encoder, const char *value)
{
	if (value) {
		msgpack_pack_str_with_body(&encoder->packer, value, strlen(value));
	} else {
		msgpack_pack_nil(&encoder->packer);
	}
}

static inline void rpc_encode_bin(struct rpc_encoder *encoder, const void *data, size_t size)
{
	msgpack_pack_bin_with_body(&encoder->packer, data, size);
}

static inline void rpc_encode_bool(struct rpc_encoder *encoder, bool value)
{
	if (value) {
		msgpack_pack_true(&encoder->packer);
	} else {
		msgpack_pack_false(&encoder->packer);
	}
}

/* Key and value, for maps. */
static inline void rpc_encode_key_uint(struct rpc_encoder *encoder, const char *key, uint64_t value)
{
	rpc_encode_str(encoder, key);
	rpc_encode_uint(encoder, value);
}

static inline void rpc_encode_key_str(struct rpc_encoder *encoder, const char *key,
				      const char *value)
{
	rpc_encode_str(encoder, key);
	rpc_encode_str(encoder, value);
}

static inline void rpc_encode_key_bool(struct rpc_encoder *encoder, const char *key, bool value)
{
	rpc_encode_str(encoder, key);
	rpc_encode_bool(encoder, value);
}
