/* SPDX-License-Identifier: Apache-2.0 */

/*
 * From a configuration to a served socket, and back.
 *
 * Start: checks, runtime directory, socket, pool, then leases of a daemon that died are adopted,
 * clients are served and the configured templates filled. The socket comes before the pool, because
 * the pool clears the runtime directory, which must not be a live daemon's. A configured template
 * that cannot be loaded is logged and makes `health` degraded; the daemon goes on.
 *
 * Stop, on SIGTERM or SIGINT: the pool ends every sandbox and tells waiting clients; then the
 * server closes; then the loop has nothing left and ends. If that takes too long the loop is
 * stopped as it is: VMMs that are not leased end with this process, because their control sockets
 * close, and those that were are killed by the next one, or end when nobody comes.
 * One thread; disk work of the pool and the server is on libuv's.
 */

#include "daemon/run.h"

#include "base/fd.h"
#include "base/log.h"
#include "daemon/checks.h"
#include "daemon/notify.h"
#include "pool/pool.h"
#include "rpc/rpc.h"
#include "vmm/control.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

struct daemon {
	const struct daemon_config *config;
	uv_loop_t loop;
	struct snapshot_store *store;
	struct rpc_server *server;
	struct pool *pool;
	int runtime_fd;
	uv_signal_t signals[2];
	uv_timer_t stop_timer;
	struct pool_tenants_config tenants;
	struct pool_set *fills; /* one for each configured template */
	bool stopping;
	int result;
};

/* --- stopping --- */

static void handle_server_stopped(void *userdata)
{
	struct daemon *daemon = userdata;

	for (size_t i = 0; i < ARRAY_SIZE(daemon->signals); i++) {
		uv_close((uv_handle_t *)&daemon->signals[i], NULL);
	}
	uv_close((uv_handle_t *)&daemon->stop_timer, NULL);
}

static void handle_pool_stopped(void *userdata)
{
	struct daemon *daemon = userdata;

	rpc_server_stop(daemon->server, handle_server_stopped, daemon);
}

static void handle_stop_timeout(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;

	daemon->result = -ETIMEDOUT;
	uv_stop(&daemon->loop);
}

static void stop(struct daemon *daemon)
{
	daemon->stopping = true;
	daemon_notify("STOPPING=1");
	uv_timer_start(&daemon->stop_timer, handle_stop_timeout, DAEMON_STOP_TIMEOUT_MS, 0);
	for (size_t i = 0; i < daemon->config->n_templates; i++) {
		if (daemon->fills[i].userdata) {
			pool_set_cancel(&daemon->fills[i]);
		}
	}
	pool_stop(daemon->pool, handle_pool_stopped, daemon);
}

static void handle_signal(uv_signal_t *signal, int number)
{
	struct daemon *daemon = signal->data;

	if (!daemon->stopping) {
		log_info("stopping on signal %d", number);
		stop(daemon);
	}
}

/* --- starting --- */

static void handle_filled(struct pool_set *set, enum pool_status status, const char *text)
{
	struct daemon *daemon = set->userdata;
	const char *name = daemon->config->templates[set - daemon->fills].name;

	set->userdata = NULL;
	if (status != POOL_OK) {
		log_error("template %s: %s", name, text ?: "cannot be loaded");
	} else {
		log_info("template %s: loaded", name);
	}
}

static int fill_templates(struct daemon *daemon, struct base_error *error)
{
	const struct daemon_config *config = daemon->config;

	daemon->fills = calloc(config->n_templates + 1, sizeof(*daemon->fills));
	if (!daemon->fills) {
		return base_error_set_errno(error, -ENOMEM, "templates");
	}
	for (size_t i = 0; i < config->n_templates; i++) {
		daemon->fills[i].userdata = daemon;
		daemon->fills[i].fn = handle_filled;
		pool_set(daemon->pool, &daemon->fills[i],
			 &(struct pool_set_params){
				 .template_name = config->templates[i].name,
				 .min = config->templates[i].keep.min,
				 .max = config->templates[i].keep.max,
				 .shells = config->templates[i].keep.shells,
			 });
	}
	return 0;
}

static int start_handles(struct daemon *daemon, struct base_error *error)
{
	static const int numbers[] = { SIGTERM, SIGINT };
	int r = uv_timer_init(&daemon->loop, &daemon->stop_timer);

	daemon->stop_timer.data = daemon;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(numbers); i++) {
		daemon->signals[i].data = daemon;
		r = uv_signal_init(&daemon->loop, &daemon->signals[i]);
		if (r == 0) {
			r = uv_signal_start(&daemon->signals[i], handle_signal, numbers[i]);
		}
	}
	return r < 0 ? base_error_set_errno(error, r, "event loop") : 0;
}

static struct pool_template_config template_config(const char *name,
						   const struct daemon_limits *limits)
{
	return (struct pool_template_config){
		.name = name,
		.cgroup = {
			.memory_mib = limits->memory_mib,
			.memory_overhead_mib = limits->memory_overhead_mib,
			.swap_mib = limits->swap_mib,
			.cpu_percent = limits->cpu_percent,
			.cpu_weight = limits->cpu_weight,
			.pids = limits->pids,
			.io_weight = limits->io_weight,
		},
		.limits = {
			.disk_bytes = MIB(limits->disk_mib_s),
			.disk_burst_bytes = MIB(limits->disk_burst_mib),
			.disk_operations = limits->disk_iops,
			.disk_operations_burst = limits->disk_iops_burst,
			.console_bytes = KIB(limits->console_kib_s),
			.vsock_connections = limits->vsock_connections,
			/* The least is room for one connection. */
			.vsock_bytes = limits->vsock_buffer_kib > 0
					       ? MAX(KIB(limits->vsock_buffer_kib),
						     VMM_LIMIT_VSOCK_BYTES_MIN)
					       : 0,
			.ttl_max_ms = limits->ttl_max_s * UINT64_C(1000),
		},
	};
}

/* Says what VMMs get, and what that lacks. */
static int choose_jail(struct pool_jail_config *jail, const struct daemon_config *config,
		       struct base_error *error)
{
	struct base_error lacking = {};
	int r = pool_jail_resolve(jail, config->spawner, config->vmm, &lacking, error);

	if (r < 0) {
		return r;
	}
	if (lacking.text[0]) {
		log_warning("VMMs get a %s jail, without user ids of their own: the full one is "
			    "not to be had: %s",
			    pool_jail_level_name(jail->level), lacking.text);
	} else if (jail->level == POOL_JAIL_NONE) {
		log_warning("VMMs are not jailed");
	} else {
		log_info("VMMs get a %s jail", pool_jail_level_name(jail->level));
	}
	return 0;
}

static int open_pool(struct daemon *daemon, struct pool_config *pool_config,
		     struct base_error *error)
{
	const struct daemon_config *config = daemon->config;
	_cleanup_free_ struct pool_template_config *templates =
		calloc(config->n_templates + 1, sizeof(*templates));

	if (!templates) {
		return base_error_set_errno(error, -ENOMEM, "templates");
	}
	for (size_t i = 0; i < config->n_templates; i++) {
		templates[i] =
			template_config(config->templates[i].name, &config->templates[i].limits);
	}
	pool_config->default_template = template_config(NULL, &config->limits);
	pool_config->templates = templates;
	pool_config->n_templates = config->n_templates;
	return pool_new(&daemon->loop, pool_config, &daemon->pool, error);
}

static int open_all(struct daemon *daemon, struct base_error *error)
{
	const struct daemon_config *config = daemon->config;
	struct rpc_server_config server_config = {
		.socket_path = config->socket,
		.acquire_timeout_ms = config->acquire_timeout_ms,
	};
	struct pool_config pool_config = {
		.store_path = config->store,
		.runtime_dir = config->runtime_dir,
		.vmm_path = config->vmm,
		.spawner_path = config->spawner,
		.pager_path = config->pager,
		.fill_limit_bytes = MIB(config->fill_limit_mib),
		.default_limits = { config->keep.min, config->keep.max },
		.default_shells = config->keep.shells,
		.memory_floor_percent = config->memory_floor_percent,
		.touch = (enum pool_touch)config->touch,
		.restore_nice = (int)config->restore_nice,
		.restore_concurrency = config->restore_concurrency,
		.identity_timeout_ms = config->identity_timeout_ms,
		.acquire_timeout_ms = config->acquire_timeout_ms,
		.tenants = &daemon->tenants,
		.jail = { (enum pool_jail_level)config->jail_level,
			  (enum pool_jail_network)config->jail_network, config->jail_uids.first,
			  config->jail_uids.last },
		.cgroups = (enum pool_cgroups_use)config->cgroups,
		.death = { config->journal, config->orphan_timeout_s * UINT64_C(1000) },
	};
	int r = daemon_check_group(config, &server_config.group, error);

	if (r == 0) {
		r = snapshot_store_open(config->store, true, &daemon->store, error);
	}
	if (r == 0) {
		r = daemon_check_runtime_dir(config, server_config.group, &daemon->runtime_fd,
					     error);
	}
	if (r == 0) {
		r = rpc_server_new(&daemon->loop, &server_config, &daemon->server, error);
	}
	if (r == 0) {
		r = choose_jail(&pool_config.jail, config, error);
	}
	if (r == 0) {
		r = open_pool(daemon, &pool_config, error);
	}
	return r;
}

static int start_all(struct daemon *daemon, struct base_error *error)
{
	int r = start_handles(daemon, error);

	if (r < 0) {
		return r;
	}
	/* What a daemon that died has left is known before the first request is answered. */
	pool_start(daemon->pool);
	r = rpc_server_start(daemon->server, daemon->pool, daemon->store, error);
	return r < 0 ? r : fill_templates(daemon, error);
}

static void close_all(struct daemon *daemon)
{
	if (daemon->pool) {
		pool_free(daemon->pool);
	}
	rpc_server_free(daemon->server);
	snapshot_store_free(daemon->store);
	free(daemon->fills);
	if (daemon->runtime_fd >= 0) {
		/* Only when it is empty. */
		(void)rmdir(daemon->config->runtime_dir);
		base_fd_close(daemon->runtime_fd);
	}
	uv_loop_close(&daemon->loop);
}

int daemon_run(struct daemon_config *config, struct base_error *error)
{
	struct daemon daemon = {
		.config = config,
		.tenants = daemon_tenants_config(&config->tenants),
		.runtime_fd = -1,
	};
	int r = daemon_check_kvm(error);

	if (r == 0) {
		r = daemon_check_programs(config, error);
	}
	if (r == 0) {
		r = uv_loop_init(&daemon.loop);
		if (r < 0) {
			base_error_set_errno(error, r, "event loop");
		}
	}
	if (r < 0) {
		return r;
	}
	daemon_raise_descriptor_limit();
	daemon_raise_priority();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN); /* the configuration is read once */

	r = open_all(&daemon, error);
	if (r == 0) {
		r = start_all(&daemon, error);
		if (r < 0) {
			/* A loop that cannot even start has nothing to be waited for. */
			return r;
		}
		log_info("serving %s with the store %s", config->socket, config->store);
		daemon_notify("READY=1");
		uv_run(&daemon.loop, UV_RUN_DEFAULT);
		if (daemon.result < 0) {
			return base_error_set(error, daemon.result,
					      "not everything ended within %d ms",
					      DAEMON_STOP_TIMEOUT_MS);
		}
		log_info("stopped");
	}
	close_all(&daemon);
	return r;
}
