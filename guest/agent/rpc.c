/* SPDX-License-Identifier: Apache-2.0 */

/* Pure functions over decoded values; any thread. */

#include "guest/agent/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *type_name(msgpack_object_type type)
{
	switch (type) {
	case MSGPACK_OBJECT_BOOLEAN:
		return "a boolean";
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		return "an unsigned integer";
	case MSGPACK_OBJECT_STR:
		return "a string";
	case MSGPACK_OBJECT_BIN:
		return "binary data";
	case MSGPACK_OBJECT_ARRAY:
		return "an array";
	case MSGPACK_OBJECT_MAP:
		return "a map";
	default:
		return "something else";
	}
}

int agent_rpc_parse(const msgpack_object *value, struct agent_rpc_message *ret_message)
{
	struct agent_rpc_message message = { 0 };
	const msgpack_object *item = value->via.array.ptr;
	const msgpack_object *params;

	if (value->type != MSGPACK_OBJECT_ARRAY || value->via.array.size < 3 ||
	    item[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
		return -EBADMSG;
	}
	if (item[0].via.u64 == AGENT_RPC_REQUEST && value->via.array.size == 4 &&
	    item[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER && item[1].via.u64 <= UINT32_MAX) {
		message.type = AGENT_RPC_REQUEST;
		message.id = (uint32_t)item[1].via.u64;
		item++;
	} else if (item[0].via.u64 == AGENT_RPC_NOTIFICATION && value->via.array.size == 3) {
		message.type = AGENT_RPC_NOTIFICATION;
	} else {
		return -EBADMSG;
	}
	if (item[1].type != MSGPACK_OBJECT_STR || item[2].type != MSGPACK_OBJECT_ARRAY) {
		return -EBADMSG;
	}
	message.method = item[1].via.str;
	params = item[2].via.array.ptr;
	if (item[2].via.array.size == 1 && params[0].type == MSGPACK_OBJECT_MAP) {
		message.params = &params[0].via.map;
	}
	*ret_message = message;
	return 0;
}

bool agent_rpc_string_is(const msgpack_object_str *string, const char *text)
{
	return string->size == strlen(text) && memcmp(string->ptr, text, string->size) == 0;
}

static struct agent_rpc_field *find_field(struct agent_rpc_field *fields, size_t n_fields,
					  const msgpack_object_str *name)
{
	for (size_t i = 0; i < n_fields; i++) {
		if (agent_rpc_string_is(name, fields[i].name)) {
			return &fields[i];
		}
	}
	return NULL;
}

static int fill_field(struct agent_rpc_field *field, const msgpack_object *value,
		      char text[AGENT_TEXT_MAX])
{
	if (field->value) {
		snprintf(text, AGENT_TEXT_MAX, "parameter '%s' is given twice", field->name);
		return -EINVAL;
	}
	if (value->type != field->type) {
		snprintf(text, AGENT_TEXT_MAX, "parameter '%s' must be %s", field->name,
			 type_name(field->type));
		return -EINVAL;
	}
	field->value = value;
	return 0;
}

int agent_rpc_fields(const msgpack_object_map *params, struct agent_rpc_field *fields,
		     size_t n_fields, char text[AGENT_TEXT_MAX])
{
	for (uint32_t i = 0; i < params->size; i++) {
		const msgpack_object *key = &params->ptr[i].key;
		struct agent_rpc_field *field = NULL;
		int r;

		if (key->type != MSGPACK_OBJECT_STR) {
			snprintf(text, AGENT_TEXT_MAX, "a parameter's name is not a string");
			return -EINVAL;
		}
		field = find_field(fields, n_fields, &key->via.str);
		if (!field) {
			snprintf(text, AGENT_TEXT_MAX, "unknown parameter '%.*s'",
				 (int)MIN(key->via.str.size, 64u), key->via.str.ptr);
			return -EINVAL;
		}
		r = fill_field(field, &params->ptr[i].val, text);
		if (r < 0) {
			return r;
		}
	}
	for (size_t i = 0; i < n_fields; i++) {
		if (fields[i].required && !fields[i].value) {
			snprintf(text, AGENT_TEXT_MAX, "parameter '%s' is missing", fields[i].name);
			return -EINVAL;
		}
	}
	return 0;
}

bool agent_rpc_is_text(const msgpack_object *value)
{
	return value->type == MSGPACK_OBJECT_STR &&
	       !memchr(value->via.str.ptr, '\0', value->via.str.size);
}
