/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Reading the parameters of a request: typed, bounded, and all of them.
 *
 * A reader remembers the first failure, with the parameter's name in the error, and is then inert;
 * rpc_params_finish() returns it, or refuses keys that nobody asked for. Absent parameters are not
 * a failure unless rpc_params_require() said so. What is returned lives in the zone.
 */

#include "base/error.h"
#include "pool/pool.h"
#include "rpc/codec.h"

#define RPC_PARAMS_MAX 64 /* keys in a map of parameters */

struct rpc_params {
	const msgpack_object_map *map; /* borrowed */
	msgpack_zone *zone;	       /* borrowed */
	struct base_error *error;      /* borrowed */
	uint64_t used;		       /* bit n: key n was asked for */
	int result;
};

void rpc_params_init(struct rpc_params *params, const msgpack_object_map *map, msgpack_zone *zone,
		     struct base_error *error);

/* Fails when the parameter is absent. */
void rpc_params_require(struct rpc_params *params, const char *name);

/* A string without NUL bytes, NUL-terminated; NULL when absent or after a failure. */
const char *rpc_params_str(struct rpc_params *params, const char *name, size_t max_bytes);

/* True when it is there, and then *ret_value <= max. */
bool rpc_params_uint(struct rpc_params *params, const char *name, uint64_t max,
		     uint64_t *ret_value);

/* False when absent. */
bool rpc_params_bool(struct rpc_params *params, const char *name);

/* A map of strings to strings within the limits of the pool. NULL and 0 when absent. */
const struct pool_label *rpc_params_labels(struct rpc_params *params, const char *name,
					   size_t *ret_n);

/* Fails on behalf of the caller, who found the value of a parameter wrong. */
void rpc_params_refuse(struct rpc_params *params, const char *format, ...) _printf_(2, 3);

/* 0, -EINVAL with the error filled, or -ENOMEM. */
int rpc_params_finish(struct rpc_params *params);
