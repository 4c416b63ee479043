/* SPDX-License-Identifier: Apache-2.0 */

/* pool.get, pool.set, health: what the pool counts. Only pool.set may wait, for a template to be
 * loaded. */

#include "rpc/server.h"

#include <string.h>

struct pools {
	struct rpc_encoder *encoder; /* NULL: only count */
	const struct pool *pool;
	size_t n;
};

static void encode_pool(void *userdata, const struct pool_template_info *info)
{
	struct pools *pools = userdata;
	struct rpc_encoder *encoder = pools->encoder;
	bool below_min;

	pools->n++;
	if (!encoder) {
		return;
	}
	rpc_encode_map(encoder, 32);
	rpc_encode_key_str(encoder, "template", info->name);
	rpc_encode_key_str(encoder, "snapshot", info->snapshot_id);
	rpc_encode_key_str(encoder, "state", info->state);
	rpc_encode_key_uint(encoder, "min", info->limits.min);
	rpc_encode_key_uint(encoder, "max", info->limits.max);
	rpc_encode_key_uint(encoder, "target", info->target);
	rpc_encode_key_uint(encoder, "arrivals_per_hour", info->arrivals_per_hour);
	rpc_encode_key_uint(encoder, "restore_ns", info->restore_ns);
	rpc_encode_key_str(encoder, "pressure", pool_memory_trouble(pools->pool, &below_min));
	rpc_encode_key_uint(encoder, "parked", info->parked);
	rpc_encode_key_uint(encoder, "restoring", info->restoring);
	rpc_encode_key_uint(encoder, "leased", info->leased);
	rpc_encode_key_uint(encoder, "waiting", info->waiting);
	rpc_encode_key_uint(encoder, "claimed_total", info->claimed_total);
	rpc_encode_key_uint(encoder, "missed_total", info->missed_total);
	rpc_encode_key_uint(encoder, "restored_total", info->restored_total);
	rpc_encode_key_uint(encoder, "failed_total", info->failed_total);
	rpc_encode_key_uint(encoder, "died_total", info->died_total);
	rpc_encode_key_uint(encoder, "forbidden_total", info->forbidden_total);
	rpc_encode_key_uint(encoder, "limited_disk_total", info->limited_total[POOL_LIMITED_DISK]);
	rpc_encode_key_uint(encoder, "limited_console_total",
			    info->limited_total[POOL_LIMITED_CONSOLE]);
	rpc_encode_key_uint(encoder, "limited_vsock_total",
			    info->limited_total[POOL_LIMITED_VSOCK]);
	rpc_encode_key_uint(encoder, "image_bytes", info->image_bytes);
	rpc_encode_key_uint(encoder, "load_ns", info->load_ns);
	rpc_encode_key_str(encoder, "last_error", info->last_error);
	rpc_encode_key_uint(encoder, "shells", info->shells);
	rpc_encode_key_uint(encoder, "shells_wanted", info->shells_wanted);
	rpc_encode_key_uint(encoder, "shell_hits_total", info->shell_hits_total);
	rpc_encode_key_uint(encoder, "shell_misses_total", info->shell_misses_total);
	rpc_encode_key_bool(encoder, "image_complete", info->image_complete);
	rpc_encode_key_uint(encoder, "image_filled_bytes", info->image_filled_bytes);
	rpc_encode_key_uint(encoder, "faults_total", info->faults_total);
}

size_t rpc_encode_pools(struct rpc_server *server, struct rpc_encoder *encoder, const char *name)
{
	struct pools counted = { 0 };
	struct pools encoded = { .encoder = encoder, .pool = server->pool };

	pool_info(server->pool, name, encode_pool, &counted);
	rpc_encode_array(encoder, counted.n);
	pool_info(server->pool, name, encode_pool, &encoded);
	return encoded.n;
}

static void refuse_template(struct rpc_request *request, const char *name)
{
	struct base_error error;

	base_error_set(&error, 0, "%s: no pool of this template", name);
	rpc_request_refuse(request, RPC_NOT_FOUND, error.text);
}

void rpc_method_pool_get(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	const char *name = rpc_params_str(params, "template", SNAPSHOT_NAME_MAX);
	struct rpc_encoder *encoder;

	if (rpc_params_refused(request, params)) {
		return;
	}
	encoder = rpc_request_encoder(request);
	rpc_encode_map(encoder, 1);
	rpc_encode_str(encoder, "pools");
	if (rpc_encode_pools(server, encoder, name) == 0 && name) {
		refuse_template(request, name);
	} else {
		rpc_request_answer(request, -1);
	}
}

static void handle_set(struct pool_set *set, enum pool_status status, const char *text)
{
	struct rpc_request *request = set->userdata;
	struct rpc_server *server = request->connection->server;
	struct pools pools = { .pool = server->pool };

	request->wait = RPC_WAIT_NOTHING;
	if (status != POOL_OK) {
		rpc_request_refuse_status(request, status, text);
		return;
	}
	pools.encoder = rpc_request_encoder(request);
	pool_info(server->pool, request->name, encode_pool, &pools);
	if (pools.n == 0) {
		refuse_template(request, request->name);
	} else {
		rpc_request_answer(request, -1);
	}
}

/* One of the numbers to set, or POOL_UNCHANGED. */
static unsigned set_param(struct rpc_params *params, const char *name, unsigned max)
{
	uint64_t value = POOL_UNCHANGED;

	rpc_params_uint(params, name, max, &value);
	return (unsigned)value;
}

void rpc_method_pool_set(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	struct pool_set_params set = {
		.template_name = rpc_params_template(params, "template"),
		.min = set_param(params, "min", POOL_TARGET_MAX),
		.max = set_param(params, "max", POOL_TARGET_MAX),
		.shells = set_param(params, "shells", POOL_SHELLS_MAX),
	};
	unsigned target = set_param(params, "target", POOL_TARGET_MAX);

	if (target != POOL_UNCHANGED && (set.min != POOL_UNCHANGED || set.max != POOL_UNCHANGED)) {
		rpc_params_refuse(params,
				  "target: is both min and max, so either it or they can be given");
	} else if (target != POOL_UNCHANGED) {
		set.min = set.max = target;
	}
	if (set.min == POOL_UNCHANGED && set.max == POOL_UNCHANGED &&
	    set.shells == POOL_UNCHANGED) {
		rpc_params_refuse(params, "none of target, min, max and shells is given");
	}
	if (rpc_params_refused(request, params)) {
		return;
	}
	strcpy(request->name, set.template_name);
	request->set.userdata = request;
	request->set.fn = handle_set;
	request->wait = RPC_WAIT_SET;
	pool_set(server->pool, &request->set, &set);
}

/* --- health --- */

static bool is_failed(const struct pool_template_info *info)
{
	return info->state && strcmp(info->state, "failed") == 0;
}

static void count_failed(void *userdata, const struct pool_template_info *info)
{
	*(size_t *)userdata += is_failed(info);
}

static void encode_failed(void *userdata, const struct pool_template_info *info)
{
	struct base_error reason;

	if (is_failed(info)) {
		base_error_set(&reason, 0, "template %s: %s", info->name,
			       info->last_error ?: "cannot be loaded");
		rpc_encode_str(userdata, reason.text);
	}
}

void rpc_method_health(struct rpc_request *request, struct rpc_params *params)
{
	struct rpc_server *server = request->connection->server;
	bool below_min;
	const char *memory_trouble = pool_memory_trouble(server->pool, &below_min);
	const char *trouble = pool_trouble(server->pool);
	struct base_error reason;
	struct rpc_encoder *encoder;
	size_t n = 0;

	if (rpc_params_refused(request, params)) {
		return;
	}
	pool_info(server->pool, NULL, count_failed, &n);
	/* To yield what is above the minimum is what a healthy pool does. */
	n += (memory_trouble && below_min) + (trouble != NULL);
	encoder = rpc_request_encoder(request);
	rpc_encode_map(encoder, 5);
	rpc_encode_key_str(encoder, "status", n == 0 ? "ok" : "degraded");
	rpc_encode_key_str(encoder, "version", WARMBOX_VERSION);
	rpc_encode_key_uint(encoder, "uptime_ms", rpc_server_uptime_ms(server));
	rpc_encode_key_str(encoder, "cgroups", pool_cgroups_state(server->pool));
	rpc_encode_str(encoder, "reasons");
	if (!request->connection->tenant->config->admin) {
		/* They name what other tenants use. */
		rpc_encode_array(encoder, 0);
		rpc_request_answer(request, -1);
		return;
	}
	rpc_encode_array(encoder, n);
	pool_info(server->pool, NULL, encode_failed, encoder);
	if (memory_trouble && below_min) {
		base_error_set(&reason, 0, "memory is short: %s", memory_trouble);
		rpc_encode_str(encoder, reason.text);
	}
	if (trouble) {
		rpc_encode_str(encoder, trouble);
	}
	rpc_request_answer(request, -1);
}
