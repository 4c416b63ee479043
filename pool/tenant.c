/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The table of tenants; see pool/tenant.h.
 *
 * Those with a section are made at the start and stay. Others are made with the first reference
 * that is asked for; when the last is gone they join a list, and the oldest of a list that is too
 * long is freed. Only making one can fail. Runs on the loop's thread.
 */

#include "pool/tenant.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define UID_PREFIX "uid:"

const char *pool_quota_name(enum pool_quota quota)
{
	switch (quota) {
	case POOL_QUOTA_NONE:
		return NULL;
	case POOL_QUOTA_OF_LEASES:
		return "leases";
	case POOL_QUOTA_OF_RATE:
		return "rate";
	case POOL_QUOTA_OF_QUEUE:
		return "queue";
	case POOL_QUOTA_OF_CONNECTIONS:
		return "connections";
	}
	return NULL;
}

/* --- the table --- */

static struct base_link *bucket_of(struct pool_tenants *tenants, const char *name)
{
	unsigned hash = 0;

	for (; *name; name++) {
		hash = hash * 31 + (unsigned char)*name;
	}
	return &tenants->buckets[hash % POOL_TENANT_BUCKETS];
}

static struct pool_tenant *tenant_new(struct pool_tenants *tenants, const char *name,
				      const struct pool_tenant_config *config)
{
	struct pool_tenant *tenant = calloc(1, sizeof(*tenant));

	if (!tenant) {
		return NULL;
	}
	tenant->tenants = tenants;
	tenant->config = config;
	snprintf(tenant->name, sizeof(tenant->name), "%s", name);
	base_list_init(&tenant->idle);
	base_list_append(bucket_of(tenants, tenant->name), &tenant->bucket);
	return tenant;
}

static void tenant_free(struct pool_tenant *tenant)
{
	assert(tenant->n_leases == 0 && tenant->n_waiting == 0 && tenant->n_connections == 0);
	base_list_remove(&tenant->bucket);
	base_list_remove(&tenant->idle);
	free(tenant);
}

int pool_tenants_init(struct pool_tenants *tenants, const struct pool_tenants_config *config)
{
	tenants->config = config;
	tenants->own = pool_tenant_config_others();
	tenants->own.quotas.leases = POOL_QUOTA_UNLIMITED;
	tenants->own.admin = true;
	tenants->uid = geteuid();
	tenants->n_idle = 0;
	base_list_init(&tenants->idle);
	for (unsigned i = 0; i < POOL_TENANT_BUCKETS; i++) {
		base_list_init(&tenants->buckets[i]);
	}
	for (size_t i = 0; i < config->n_named; i++) {
		struct pool_tenant *tenant =
			tenant_new(tenants, config->named[i].name, &config->named[i]);

		if (!tenant) {
			return -ENOMEM;
		}
		tenant->has_section = true;
	}
	return 0;
}

void pool_tenants_deinit(struct pool_tenants *tenants)
{
	for (unsigned i = 0; i < POOL_TENANT_BUCKETS; i++) {
		while (!base_list_is_empty(&tenants->buckets[i])) {
			struct pool_tenant *tenant =
				CONTAINER_OF(tenants->buckets[i].next, struct pool_tenant, bucket);

			assert(tenant->refs == 0);
			tenant_free(tenant);
		}
	}
}

struct pool_tenant *pool_tenant_ref(struct pool_tenant *tenant)
{
	if (tenant->refs++ == 0 && !tenant->has_section) {
		base_list_remove(&tenant->idle);
		tenant->tenants->n_idle--;
	}
	return tenant;
}

void pool_tenant_unref(struct pool_tenant *tenant)
{
	struct pool_tenants *tenants;

	if (!tenant || --tenant->refs > 0 || tenant->has_section) {
		return;
	}
	tenants = tenant->tenants;
	base_list_append(&tenants->idle, &tenant->idle);
	if (++tenants->n_idle > POOL_TENANTS_MAX) {
		tenant_free(CONTAINER_OF(tenants->idle.next, struct pool_tenant, idle));
		tenants->n_idle--;
	}
}

static struct pool_tenant *find(struct pool_tenants *tenants, const char *name)
{
	BASE_LIST_FOR_EACH(link, bucket_of(tenants, name))
	{
		struct pool_tenant *tenant = CONTAINER_OF(link, struct pool_tenant, bucket);

		if (strcmp(tenant->name, name) == 0) {
			return tenant;
		}
	}
	return NULL;
}

static struct pool_tenant *find_or_make(struct pool_tenants *tenants, const char *name,
					const struct pool_tenant_config *config)
{
	struct pool_tenant *tenant = find(tenants, name);

	if (!tenant) {
		tenant = tenant_new(tenants, name, config);
		if (!tenant) {
			return NULL;
		}
		tenants->n_idle++; /* from where the reference takes it */
	}
	return pool_tenant_ref(tenant);
}

/* --- who is which --- */

static bool has_uid(const struct pool_tenant_config *config, uid_t uid)
{
	for (size_t i = 0; i < config->n_uids; i++) {
		if (config->uids[i] == uid) {
			return true;
		}
	}
	return false;
}

/* The group of the peer that the section names, or POOL_GROUP_NONE. */
static gid_t common_group(const struct pool_tenant_config *config, const struct pool_peer *peer)
{
	for (size_t i = 0; i < config->n_gids; i++) {
		if (config->gids[i] == peer->gid) {
			return peer->gid;
		}
		for (size_t j = 0; j < peer->n_groups; j++) {
			if (config->gids[i] == peer->groups[j]) {
				return peer->groups[j];
			}
		}
	}
	return POOL_GROUP_NONE;
}

/* NULL: no section names the peer. */
static const struct pool_tenant_config *section_of(const struct pool_tenants_config *config,
						   const struct pool_peer *peer, gid_t *ret_gid)
{
	*ret_gid = POOL_GROUP_NONE;
	for (size_t i = 0; i < config->n_named; i++) {
		if (has_uid(&config->named[i], peer->uid)) {
			return &config->named[i];
		}
	}
	for (size_t i = 0; i < config->n_named; i++) {
		*ret_gid = common_group(&config->named[i], peer);
		if (*ret_gid != POOL_GROUP_NONE) {
			return &config->named[i];
		}
	}
	return NULL;
}

struct pool_tenant *pool_tenants_find(struct pool_tenants *tenants, const struct pool_peer *peer,
				      gid_t *ret_gid)
{
	const struct pool_tenant_config *config = section_of(tenants->config, peer, ret_gid);
	char name[sizeof(UID_PREFIX) + 10];

	if (config) {
		return pool_tenant_ref(find(tenants, config->name));
	}
	snprintf(name, sizeof(name), UID_PREFIX "%u", peer->uid);
	config = peer->uid == 0 || peer->uid == tenants->uid ? &tenants->own
							     : &tenants->config->others;
	return find_or_make(tenants, name, config);
}

struct pool_tenant *pool_tenants_named(struct pool_tenants *tenants, const char *name)
{
	if (strncmp(name, UID_PREFIX, strlen(UID_PREFIX)) == 0) {
		struct pool_peer peer = { .gid = POOL_GROUP_NONE };
		gid_t gid;

		peer.uid = (uid_t)strtoul(name + strlen(UID_PREFIX), NULL, 10);
		return pool_tenants_find(tenants, &peer, &gid);
	}
	return find_or_make(tenants, name, &tenants->config->others);
}

/* --- what each may have --- */

bool pool_tenant_may_use(const struct pool_tenant *tenant, const char *template_name)
{
	const struct pool_tenant_config *config = tenant->config;

	for (size_t i = 0; i < config->n_templates; i++) {
		if (strcmp(config->templates[i], template_name) == 0) {
			return true;
		}
	}
	return !config->templates;
}

/*
 * The rate: each acquire pays for 1/rate of a second, and `paid_until_ns` may be at most `burst` of
 * them ahead. One number holds what a bucket of tokens would.
 */
enum pool_quota pool_tenant_admit(struct pool_tenant *tenant, uint64_t now_ns,
				  uint64_t *ret_retry_ns)
{
	const struct pool_quotas *quotas = &tenant->config->quotas;
	uint64_t price_ns, paid_ns, most_ns;

	*ret_retry_ns = 0;
	if (tenant->n_leases + tenant->n_waiting >= quotas->leases) {
		return POOL_QUOTA_OF_LEASES;
	}
	if (quotas->rate == POOL_QUOTA_UNLIMITED) {
		return POOL_QUOTA_NONE;
	}
	price_ns = NSEC_PER_SEC / quotas->rate;
	paid_ns = MAX(tenant->paid_until_ns, now_ns) + price_ns;
	most_ns = now_ns + price_ns * quotas->burst;
	if (paid_ns > most_ns) {
		*ret_retry_ns = paid_ns - most_ns;
		return POOL_QUOTA_OF_RATE;
	}
	tenant->paid_until_ns = paid_ns;
	return POOL_QUOTA_NONE;
}
