/* SPDX-License-Identifier: Apache-2.0 */

/* The frames of messages. Memory that runs out is remembered in the encoder. Any thread, one
 * encoder each. */

#include "rpc/encode.h"

#include <errno.h>

static int append(void *userdata, const char *data, size_t size)
{
	struct rpc_encoder *encoder = userdata;

	if (encoder->result == 0 && msgpack_sbuffer_write(&encoder->buffer, data, size) < 0) {
		encoder->result = -ENOMEM;
	}
	return encoder->result;
}

void rpc_encoder_init(struct rpc_encoder *encoder)
{
	encoder->result = 0;
	msgpack_sbuffer_init(&encoder->buffer);
	msgpack_packer_init(&encoder->packer, encoder, append);
}

void rpc_encoder_deinit(struct rpc_encoder *encoder)
{
	msgpack_sbuffer_destroy(&encoder->buffer);
}

void rpc_encoder_reset(struct rpc_encoder *encoder)
{
	encoder->result = 0;
	if (encoder->buffer.alloc > RPC_BUFFER_KEEP_BYTES) {
		msgpack_sbuffer_destroy(&encoder->buffer);
		msgpack_sbuffer_init(&encoder->buffer);
	} else {
		msgpack_sbuffer_clear(&encoder->buffer);
	}
}

void rpc_encode_request(struct rpc_encoder *encoder, uint32_t id, const char *method)
{
	rpc_encode_array(encoder, 4);
	rpc_encode_uint(encoder, RPC_REQUEST);
	rpc_encode_uint(encoder, id);
	rpc_encode_str(encoder, method);
	rpc_encode_array(encoder, 1);
}

void rpc_encode_notification(struct rpc_encoder *encoder, const char *method)
{
	rpc_encode_array(encoder, 3);
	rpc_encode_uint(encoder, RPC_NOTIFICATION);
	rpc_encode_str(encoder, method);
	rpc_encode_array(encoder, 1);
}

void rpc_encode_response(struct rpc_encoder *encoder, uint32_t id)
{
	rpc_encode_array(encoder, 4);
	rpc_encode_uint(encoder, RPC_RESPONSE);
	rpc_encode_uint(encoder, id);
	rpc_encode_str(encoder, NULL);
}

void rpc_encode_error(struct rpc_encoder *encoder, uint32_t id, enum rpc_code code,
		      const char *text)
{
	rpc_encode_array(encoder, 4);
	rpc_encode_uint(encoder, RPC_RESPONSE);
	rpc_encode_uint(encoder, id);
	rpc_encode_map(encoder, 2);
	rpc_encode_key_str(encoder, "code", rpc_code_name(code));
	rpc_encode_key_str(encoder, "message", text);
	rpc_encode_str(encoder, NULL);
}

void rpc_encode_quota_error(struct rpc_encoder *encoder, uint32_t id, const char *text,
			    const char *quota, uint64_t retry_ms)
{
	rpc_encode_array(encoder, 4);
	rpc_encode_uint(encoder, RPC_RESPONSE);
	rpc_encode_uint(encoder, id);
	rpc_encode_map(encoder, 4);
	rpc_encode_key_str(encoder, "code", rpc_code_name(RPC_QUOTA_EXCEEDED));
	rpc_encode_key_str(encoder, "message", text);
	rpc_encode_key_str(encoder, "quota", quota);
	if (retry_ms > 0) {
		rpc_encode_key_uint(encoder, "retry_ms", retry_ms);
	} else {
		rpc_encode_key_str(encoder, "retry_ms", NULL);
	}
	rpc_encode_str(encoder, NULL);
}

void rpc_encode_raw(struct rpc_encoder *encoder, const void *data, size_t size)
{
	append(encoder, data, size);
}
