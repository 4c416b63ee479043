/* SPDX-License-Identifier: Apache-2.0 */

/* The fakes: see fake_pool.h. The loop's thread; the store also on libuv's. */

#include "tests/unit/rpc/fake_pool.h"

#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct pool *fake_pool_new(const struct pool_tenant_config *sections, size_t n)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	int r;

	assert(pool);
	base_list_init(&pool->waiters);
	pool->config = (struct pool_tenants_config){ sections, n, pool_tenant_config_others() };
	r = pool_tenants_init(&pool->tenants, &pool->config);
	assert(r == 0);
	return pool;
}

struct pool_tenants *pool_tenants(struct pool *pool)
{
	return &pool->tenants;
}

void fake_pool_reset(struct pool *pool)
{
	for (size_t i = 0; i < pool->n_leases; i++) {
		base_fd_close(pool->leases[i].stream);
		pool_tenant_unref(pool->leases[i].tenant);
		free((char *)pool->leases[i].label.key);
		free((char *)pool->leases[i].label.value);
		pool->leases[i] = (struct fake_lease){ 0 };
	}
	pool->n_leases = 0;
	pool->parked = 0;
	pool->tenant = NULL;
	pool->set_params = (struct pool_set_params){ 0 };
	pool->target = 0;
	pool->below_min = false;
	pool->trouble = NULL;
	pool->n_cancelled = pool->n_set_cancelled = 0;
	pool->n_account_cancelled = pool->n_released = 0;
}

void fake_pool_free(struct pool *pool)
{
	fake_pool_reset(pool);
	pool_tenants_deinit(&pool->tenants);
	free(pool);
}

size_t fake_pool_active(const struct pool *pool)
{
	size_t n = 0;

	for (size_t i = 0; i < pool->n_leases; i++) {
		n += pool->leases[i].active;
	}
	return n;
}

const char *pool_cause_name(enum pool_cause cause)
{
	switch (cause) {
	case POOL_CAUSE_RELEASED:
		return "released";
	case POOL_CAUSE_CLIENT_GONE:
		return "client_gone";
	default:
		return NULL;
	}
}

static void fill_lease(const struct fake_lease *fake, struct pool_lease *lease)
{
	*lease = (struct pool_lease){
		.id = fake->id,
		.token = fake->token,
		.tenant = fake->tenant,
		.template_name = "python",
		.snapshot_id = "00112233445566778899aabbccddeeff",
		.socket_path = "/run/warmbox/sandboxes/1/vsock",
		.pid = 4711,
		.active = fake->active,
		.cause = fake->cause,
		.acquired_realtime_ns = 1700000000000000000,
		.ended_realtime_ns = fake->active ? 0 : 1700000001000000000,
		.ttl_ms = fake->ttl_ms,
		.expires_realtime_ns = fake->ttl_ms * NSEC_PER_MSEC,
		.labels = &fake->label,
		.n_labels = fake->label.key ? 1 : 0,
		.timings = { .wait_ns = 1, .claim_ns = 2, .spawn_ns = 3, .park_ns = 7 },
	};
}

/* --- acquire --- */

static void grant(struct pool *pool, struct pool_acquire *request)
{
	struct fake_lease *fake = &pool->leases[pool->n_leases];
	struct pool_lease lease;
	int pair[2] = { -1, -1 };

	assert(pool->n_leases < FAKE_LEASES_MAX);
	snprintf(fake->id, sizeof(fake->id), "%032zx", ++pool->n_leases);
	snprintf(fake->token, sizeof(fake->token), "%032zx", FAKE_TOKEN + pool->n_leases);
	fake->tenant = pool_tenant_ref(request->tenant);
	fake->active = true;
	fake->ttl_ms = request->ttl_ms;
	if (request->n_labels > 0) {
		fake->label.key = strdup(request->labels[0].key);
		fake->label.value = strdup(request->labels[0].value);
	}
	if (request->want_stream) {
		int r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);

		assert(r == 0);
	}
	fake->stream = pair[0];
	fill_lease(fake, &lease);
	request->fn(request, POOL_OK, &lease, pair[1], NULL);
}

void pool_acquire(struct pool *pool, struct pool_acquire *request,
		  const struct pool_acquire_params *params)
{
	pool->tenant = params->tenant;
	request->pool = pool;
	request->tenant = params->tenant;
	request->want_stream = params->want_stream;
	request->ttl_ms = params->ttl_ms;
	request->labels = (struct pool_label *)params->labels;
	request->n_labels = params->n_labels;
	if (strcmp(params->template_name, "refused") == 0) {
		request->quota = POOL_QUOTA_OF_RATE;
		request->retry_ns = 1500001;
		request->fn(request, POOL_QUOTA_EXCEEDED, NULL, -1, "too many");
		return;
	}
	if (strcmp(params->template_name, "python") != 0) {
		request->fn(request, POOL_NOT_FOUND, NULL, -1, "no such template");
		return;
	}
	if (pool->parked > 0) {
		pool->parked--;
		grant(pool, request);
		return;
	}
	if (params->timeout_ms == 0) {
		request->fn(request, POOL_DEADLINE_EXCEEDED, NULL, -1, NULL);
		return;
	}
	/* Labels were borrowed; a waiter of this pool has none. */
	request->n_labels = 0;
	request->pending = true;
	base_list_append(&pool->waiters, &request->waiter.link);
	pool->n_waiters++;
}

static void unlink_waiter(struct pool_acquire *request)
{
	struct pool *pool = request->pool;

	base_list_remove(&request->waiter.link);
	request->pending = false;
	pool->n_waiters--;
}

void pool_acquire_cancel(struct pool_acquire *request)
{
	if (request->pending) {
		unlink_waiter(request);
		request->pool->n_cancelled++;
	}
}

void fake_pool_answer(struct pool *pool, enum pool_status status)
{
	struct pool_acquire *request =
		CONTAINER_OF(pool->waiters.next, struct pool_acquire, waiter.link);

	assert(!base_list_is_empty(&pool->waiters));
	unlink_waiter(request);
	if (status == POOL_OK) {
		grant(pool, request);
	} else {
		request->fn(request, status, NULL, -1, "as the test wants it");
	}
}

/* --- leases --- */

static struct fake_lease *find(struct pool *pool, const char *id)
{
	for (size_t i = 0; i < pool->n_leases; i++) {
		if (strcmp(pool->leases[i].id, id) == 0) {
			return &pool->leases[i];
		}
	}
	return NULL;
}

enum pool_status pool_release(struct pool *pool, const char *lease_id, enum pool_cause cause)
{
	struct fake_lease *lease = find(pool, lease_id);

	if (!lease) {
		return POOL_NOT_FOUND;
	}
	if (lease->active) {
		lease->active = false;
		lease->cause = cause;
		pool->n_released++;
	}
	return POOL_OK;
}

enum pool_status pool_renew(struct pool *pool, const char *lease_id, uint64_t ttl_ms)
{
	struct fake_lease *lease = find(pool, lease_id);

	if (!lease || !lease->active) {
		return POOL_NOT_FOUND;
	}
	lease->ttl_ms = ttl_ms;
	return POOL_OK;
}

bool pool_get(struct pool *pool, const char *lease_id, struct pool_lease *ret_lease)
{
	struct fake_lease *lease = find(pool, lease_id);

	if (lease) {
		fill_lease(lease, ret_lease);
	}
	return lease != NULL;
}

void pool_list(struct pool *pool, unsigned which,
	       void (*fn)(void *userdata, const struct pool_lease *lease), void *userdata)
{
	for (size_t i = 0; i < pool->n_leases; i++) {
		struct pool_lease lease;

		if (which & (pool->leases[i].active ? POOL_LIST_ACTIVE : POOL_LIST_ENDED)) {
			fill_lease(&pool->leases[i], &lease);
			fn(userdata, &lease);
		}
	}
}

/* --- templates --- */

void pool_set(struct pool *pool, struct pool_set *request, const struct pool_set_params *params)
{
	if (strcmp(params->template_name, "python") != 0) {
		request->fn(request, POOL_UNAVAILABLE, "cannot be loaded");
		return;
	}
	if (params->min != POOL_UNCHANGED && params->max != POOL_UNCHANGED &&
	    params->min > params->max) {
		request->fn(request, POOL_INVALID, "min: more than max");
		return;
	}
	pool->set_params = *params;
	pool->target = params->min;
	if (pool->hold_set) {
		request->pool = pool;
		pool->set = request;
	} else {
		request->fn(request, POOL_OK, NULL);
	}
}

const char *pool_memory_trouble(const struct pool *pool, bool *ret_below_min)
{
	*ret_below_min = pool->below_min;
	return pool->trouble;
}

void pool_set_cancel(struct pool_set *request)
{
	if (request->pool && request->pool->set == request) {
		request->pool->set = NULL;
		request->pool->n_set_cancelled++;
	}
}

void pool_info(struct pool *pool, const char *name,
	       void (*fn)(void *userdata, const struct pool_template_info *info), void *userdata)
{
	const struct pool_template_info infos[] = {
		{ .name = "python",
		  .state = "ready",
		  .target = pool->target,
		  .limits = { pool->set_params.min, pool->set_params.max } },
		{ .name = "broken", .state = "failed", .last_error = "memory: a flipped bit" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(infos); i++) {
		if (!name || strcmp(name, infos[i].name) == 0) {
			fn(userdata, &infos[i]);
		}
	}
}

/* --- accounts --- */

void pool_account(struct pool *pool, struct pool_account *request, const char *template_name,
		  const char *lease)
{
	struct pool_account **last = &pool->account;

	while (*last) {
		last = &(*last)->next;
	}
	request->next = NULL;
	request->pool = pool;
	snprintf(request->template_name, sizeof(request->template_name), "%s", template_name ?: "");
	snprintf(request->lease, sizeof(request->lease), "%s", lease ?: "");
	*last = request;
}

void pool_account_cancel(struct pool_account *request)
{
	struct pool_account **link = &request->pool->account;

	while (*link != request) {
		assert(*link);
		link = &(*link)->next;
	}
	*link = request->next;
	request->pool->n_account_cancelled++;
}

void fake_pool_measured(struct pool *pool)
{
	struct pool_account *request = pool->account;
	const struct pool_memory memory = { .image_shared = 1000,
					    .guest_private = 70,
					    .vmm_heap = 1,
					    .vmm_data = 2,
					    .vmm_other = 4,
					    .page_tables = 8,
					    .kernel_stacks = 16,
					    .pss = 100 };
	const struct pool_account_template template = {
		.name = "python",
		.snapshot_id = "00112233445566778899aabbccddeeff",
		.parked = 3,
		.leased = 1,
		.measured = 2,
		.image_bytes = MIB(64),
		.image_resident = MIB(5),
		.sum = { .image_shared = 2000, .guest_private = 150, .pss = 200 },
	};
	const struct pool_account_sandbox sandboxes[] = {
		{ .template = &template, .pid = 1, .memory = memory },
		{ .template = &template, .pid = 2, .lease = "01", .memory = memory },
	};
	const struct pool_account_report report = {
		.host = { .total = 1 << 20, .unaccounted = 12 },
		.templates = &template,
		.n_templates = 1,
		.sandboxes = sandboxes,
		.n_sandboxes = ARRAY_SIZE(sandboxes),
	};

	assert(request);
	pool->account = request->next;
	if (strcmp(request->template_name, "other") == 0) {
		request->fn(request, POOL_NOT_FOUND, NULL, "no pool of this template");
	} else {
		request->fn(request, POOL_OK, &report, NULL);
	}
}

/* --- store --- */

struct snapshot {
	struct snapshot_manifest manifest;
};

bool snapshot_name_is_valid(const char *name)
{
	return name[0] && !strpbrk(name, "/ \n");
}

int snapshot_store_list(struct snapshot_store *store, char ***ret_names, size_t *ret_n,
			struct base_error *error)
{
	char **names = calloc(2, sizeof(*names));

	assert(names);
	names[0] = strdup("damaged");
	names[1] = strdup("python");
	*ret_names = names;
	*ret_n = 2;
	return 0;
}

int snapshot_open(struct snapshot_store *store, const char *name_or_id,
		  struct snapshot **ret_snapshot, struct base_error *error)
{
	struct snapshot *snapshot;

	if (strcmp(name_or_id, "damaged") == 0) {
		return base_error_set(error, -EBADMSG, "manifest: damaged");
	}
	if (strcmp(name_or_id, "python") != 0) {
		return base_error_set(error, -ENOENT, "%s: no such template", name_or_id);
	}
	snapshot = calloc(1, sizeof(*snapshot));
	assert(snapshot);
	strcpy(snapshot->manifest.id, "00112233445566778899aabbccddeeff");
	strcpy(snapshot->manifest.template_name, "python");
	snapshot->manifest.memory_bytes = MIB(64);
	snapshot->manifest.n_vcpus = 1;
	snapshot->manifest.n_disks = 1;
	*ret_snapshot = snapshot;
	return 0;
}

const struct snapshot_manifest *snapshot_manifest(const struct snapshot *snapshot)
{
	return &snapshot->manifest;
}

void snapshot_free(struct snapshot *snapshot)
{
	free(snapshot);
}

const char *pool_cgroups_state(const struct pool *pool)
{
	return "off";
}

const char *pool_trouble(const struct pool *pool)
{
	return NULL;
}
