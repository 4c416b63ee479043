/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Tenants: who asks, and how much each may have.
 *
 * A tenant is a section of the configuration, which names users and groups, or else one user. Who
 * is which is decided once, by what the kernel says of a connection's other end: a section that
 * names the user, else the first that names one of its groups, else the user alone. The superuser
 * and the user that the daemon runs as are administrators unless a section names them.
 *
 * A tenant is kept as long as anybody holds a reference: connections and leases, also ended ones
 * that are remembered. Tenants without a section are forgotten afterwards, but not at once, so that
 * coming again is no way around a rate. On the loop's thread.
 */

#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define POOL_TENANT_NAME_MAX  64
#define POOL_TENANTS_MAX      4096 /* without a section, remembered while nobody holds them */
#define POOL_TENANT_BUCKETS   256
#define POOL_PEER_GROUPS_MAX  65536 /* the kernel's limit, NGROUPS_MAX */
#define POOL_QUOTA_UNLIMITED  UINT32_MAX
#define POOL_QUOTA_LEASES     1024 /* unless configured */
#define POOL_QUOTA_QUEUE      1024
#define POOL_QUOTA_RATE_MAX   1000000
#define POOL_QUOTA_LEASES_MAX 1000000

struct pool_quotas {
	unsigned leases; /* at once, those that are waited for included */
	unsigned rate;	 /* acquires a second, in the long run; at least 1 */
	unsigned burst;	 /* that many more at once; at least 1 */
	unsigned queue;	 /* acquires that wait at once */
};

/* What is configured of a tenant. Everything is borrowed. */
struct pool_tenant_config {
	const char *name;
	const uid_t *uids;
	const gid_t *gids;
	const char *const *templates; /* NULL: all */
	size_t n_uids, n_gids, n_templates;
	struct pool_quotas quotas;
	bool admin; /* sees and ends everything, and needs no tokens for that */
};

struct pool_tenants_config {
	const struct pool_tenant_config *named; /* sections */
	size_t n_named;
	struct pool_tenant_config others; /* of each user that no section names */
};

/* What becomes of users that no section names, when nothing is configured. */
static inline struct pool_tenant_config pool_tenant_config_others(void)
{
	return (struct pool_tenant_config){
		.quotas = {
			.leases = POOL_QUOTA_LEASES,
			.rate = POOL_QUOTA_UNLIMITED,
			.burst = POOL_QUOTA_UNLIMITED,
			.queue = POOL_QUOTA_QUEUE,
		},
	};
}

/* Which quota would be exceeded; the names are those of docs/protocol.md. */
enum pool_quota {
	POOL_QUOTA_NONE = 0,
	POOL_QUOTA_OF_LEASES,
	POOL_QUOTA_OF_RATE,
	POOL_QUOTA_OF_QUEUE,
	POOL_QUOTA_OF_CONNECTIONS,
};
const char *pool_quota_name(enum pool_quota quota); /* "leases", …; NULL for NONE */

struct pool_tenant {
	struct base_link bucket, idle; /* idle: nobody holds it */
	struct pool_tenants *tenants;
	const struct pool_tenant_config *config;
	char name[POOL_TENANT_NAME_MAX + 1]; /* the section's, or "uid:" and the number */
	bool has_section;
	unsigned refs;
	unsigned n_leases; /* active */
	unsigned n_waiting;
	uint64_t paid_until_ns; /* see pool_tenant_admit() */

	/* Of the server: */
	unsigned n_connections;
	uint64_t buffered_bytes; /* of all its connections, in both directions */
	uint64_t turn;		 /* of the loop, when it was served last */
	unsigned spent;		 /* in that turn */
};

struct pool_tenants {
	const struct pool_tenants_config *config;
	struct pool_tenant_config own; /* of the superuser and the daemon's user */
	uid_t uid;		       /* the daemon's */
	struct base_link buckets[POOL_TENANT_BUCKETS];
	struct base_link idle; /* longest first */
	unsigned n_idle;
};

/* config is borrowed until deinit. 0 or -ENOMEM; deinit is needed in either case. */
int pool_tenants_init(struct pool_tenants *tenants, const struct pool_tenants_config *config);
/* Nobody may hold a reference. */
void pool_tenants_deinit(struct pool_tenants *tenants);

/* The other end of a connection, as the kernel has it. */
struct pool_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* supplementary; borrowed */
	size_t n_groups;
};

#define POOL_GROUP_NONE ((gid_t)-1)

/* A reference to the peer's tenant; NULL without memory. *ret_gid: the group by which it is that,
 * or POOL_GROUP_NONE: by the user. */
struct pool_tenant *pool_tenants_find(struct pool_tenants *tenants, const struct pool_peer *peer,
				      gid_t *ret_gid);

/* A reference to the tenant of that name, as written down by a former daemon. What is configured
 * now counts; one whose section is gone has the quotas of those without. NULL without memory. */
struct pool_tenant *pool_tenants_named(struct pool_tenants *tenants, const char *name);

struct pool_tenant *pool_tenant_ref(struct pool_tenant *tenant);
/* NULL is fine. */
void pool_tenant_unref(struct pool_tenant *tenant);

bool pool_tenant_may_use(const struct pool_tenant *tenant, const char *template_name);

/*
 * May the tenant acquire now? POOL_QUOTA_NONE: yes, and its rate is charged. Otherwise which quota
 * it would exceed, and in *ret_retry_ns after what time it would not; 0: when one of its leases or
 * acquires has ended.
 */
enum pool_quota pool_tenant_admit(struct pool_tenant *tenant, uint64_t now_ns,
				  uint64_t *ret_retry_ns);
