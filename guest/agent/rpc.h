/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * msgpack-RPC: what a decoded value says, and typed access to its parameters. Values point into
 * the message and into the decoder's memory; they are gone with the message.
 */

#include "base/util.h"

#include <msgpack.h>
#include <stdbool.h>

/* Texts of errors, with their NUL. */
#define AGENT_TEXT_MAX 256

enum agent_rpc_type {
	AGENT_RPC_REQUEST = 0,
	AGENT_RPC_NOTIFICATION = 2,
};

struct agent_rpc_message {
	enum agent_rpc_type type;
	uint32_t id; /* of a request */
	msgpack_object_str method;
	const msgpack_object_map *params; /* NULL when they are not an array of one map */
};

/* 0, or -EBADMSG for a value that is neither a request nor a notification. */
int agent_rpc_parse(const msgpack_object *value, struct agent_rpc_message *ret_message);

bool agent_rpc_string_is(const msgpack_object_str *string, const char *text);

struct agent_rpc_field {
	const char *name;
	msgpack_object_type type;
	bool required;
	const msgpack_object *value; /* out; NULL when absent */
};

/*
 * Finds each field among the parameters. 0, or -EINVAL with text naming the parameter that is
 * unknown, doubled, missing or of the wrong type.
 */
int agent_rpc_fields(const msgpack_object_map *params, struct agent_rpc_field *fields,
		     size_t n_fields, char text[AGENT_TEXT_MAX]);

/* Is the value a string without a NUL inside, as what is passed to the kernel must be? */
bool agent_rpc_is_text(const msgpack_object *value);
