/* SPDX-License-Identifier: Apache-2.0 */

/* Typed parameters out of a parsed map. The bytes are a client's. No state, any thread. */

#include "rpc/params.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define KEY_SHOWN_BYTES 64 /* of an unknown key, in the error */

void rpc_params_refuse(struct rpc_params *params, const char *format, ...)
{
	va_list args;

	if (params->result < 0) {
		return;
	}
	params->result = -EINVAL;
	va_start(args, format);
	vsnprintf(params->error->text, sizeof(params->error->text), format, args);
	va_end(args);
}

void rpc_params_init(struct rpc_params *params, const msgpack_object_map *map, msgpack_zone *zone,
		     struct base_error *error)
{
	*params = (struct rpc_params){ .map = map, .zone = zone, .error = error };
	if (map->size > RPC_PARAMS_MAX) {
		rpc_params_refuse(params, "more than %d parameters", RPC_PARAMS_MAX);
	}
}

/* NULL: absent, or failed before. A key that is there twice is refused. */
static const msgpack_object *find(struct rpc_params *params, const char *name)
{
	const msgpack_object *found = NULL;

	if (params->result < 0) {
		return NULL;
	}
	for (uint32_t i = 0; i < params->map->size; i++) {
		if (!rpc_object_is(&params->map->ptr[i].key, name)) {
			continue;
		}
		if (found) {
			rpc_params_refuse(params, "%s: given twice", name);
			return NULL;
		}
		found = &params->map->ptr[i].val;
		params->used |= UINT64_C(1) << i;
	}
	return found;
}

void rpc_params_require(struct rpc_params *params, const char *name)
{
	if (params->result == 0 && !rpc_map_get(params->map, name)) {
		rpc_params_refuse(params, "%s: missing", name);
	}
}

/* A NUL-terminated copy in the zone; NULL after a failure. */
static const char *copy_str(struct rpc_params *params, const char *name,
			    const msgpack_object *object, size_t max_bytes)
{
	const msgpack_object_str *str = &object->via.str;
	char *copy;

	if (object->type != MSGPACK_OBJECT_STR) {
		rpc_params_refuse(params, "%s: not a string", name);
		return NULL;
	}
	if (str->size > max_bytes) {
		rpc_params_refuse(params, "%s: longer than %zu bytes", name, max_bytes);
		return NULL;
	}
	if (memchr(str->ptr, '\0', str->size)) {
		rpc_params_refuse(params, "%s: contains a NUL byte", name);
		return NULL;
	}
	copy = msgpack_zone_malloc(params->zone, str->size + 1);
	if (!copy) {
		params->result = -ENOMEM;
		return NULL;
	}
	memcpy(copy, str->ptr, str->size);
	copy[str->size] = '\0';
	return copy;
}

const char *rpc_params_str(struct rpc_params *params, const char *name, size_t max_bytes)
{
	const msgpack_object *object = find(params, name);

	return object ? copy_str(params, name, object, max_bytes) : NULL;
}

bool rpc_params_uint(struct rpc_params *params, const char *name, uint64_t max, uint64_t *ret_value)
{
	const msgpack_object *object = find(params, name);

	if (!object) {
		return false;
	}
	if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
		rpc_params_refuse(params, "%s: not an unsigned integer", name);
		return false;
	}
	if (object->via.u64 > max) {
		rpc_params_refuse(params, "%s: more than %llu", name, (unsigned long long)max);
		return false;
	}
	*ret_value = object->via.u64;
	return true;
}

bool rpc_params_bool(struct rpc_params *params, const char *name)
{
	const msgpack_object *object = find(params, name);

	if (!object) {
		return false;
	}
	if (object->type != MSGPACK_OBJECT_BOOLEAN) {
		rpc_params_refuse(params, "%s: not a boolean", name);
		return false;
	}
	return object->via.boolean;
}

const struct pool_label *rpc_params_labels(struct rpc_params *params, const char *name,
					   size_t *ret_n)
{
	const msgpack_object *object = find(params, name);
	struct pool_label *labels;

	*ret_n = 0;
	if (!object) {
		return NULL;
	}
	if (object->type != MSGPACK_OBJECT_MAP) {
		rpc_params_refuse(params, "%s: not a map", name);
		return NULL;
	}

	const msgpack_object_map *map = &object->via.map;

	if (map->size > POOL_LABELS_MAX) {
		rpc_params_refuse(params, "%s: more than %d", name, POOL_LABELS_MAX);
		return NULL;
	}
	if (map->size == 0) {
		return NULL;
	}
	labels = msgpack_zone_malloc(params->zone, map->size * sizeof(*labels));
	if (!labels) {
		params->result = -ENOMEM;
		return NULL;
	}
	for (uint32_t i = 0; i < map->size; i++) {
		labels[i].key = copy_str(params, name, &map->ptr[i].key, POOL_LABEL_BYTES_MAX);
		labels[i].value = copy_str(params, name, &map->ptr[i].val, POOL_LABEL_BYTES_MAX);
		for (uint32_t j = 0; labels[i].key && j < i; j++) {
			if (labels[j].key && strcmp(labels[j].key, labels[i].key) == 0) {
				rpc_params_refuse(params, "%s: a key is given twice", name);
			}
		}
	}
	if (params->result < 0) {
		return NULL;
	}
	*ret_n = map->size;
	return labels;
}

int rpc_params_finish(struct rpc_params *params)
{
	for (uint32_t i = 0; params->result == 0 && i < params->map->size; i++) {
		const msgpack_object *key = &params->map->ptr[i].key;

		if (params->used & UINT64_C(1) << i) {
			continue;
		}
		if (key->type != MSGPACK_OBJECT_STR) {
			rpc_params_refuse(params, "a parameter's name is not a string");
		} else {
			rpc_params_refuse(params, "%.*s: no such parameter",
					  (int)MIN(key->via.str.size, (uint32_t)KEY_SHOWN_BYTES),
					  key->via.str.ptr);
		}
	}
	return params->result;
}
