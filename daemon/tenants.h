/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * [tenant NAME] sections of the configuration: which users and groups are a tenant, and what it may
 * have. [tenant *] is for every user that no section names; each of them is a tenant of its own.
 */

#include "base/error.h"
#include "pool/pool.h"

#define DAEMON_TENANTS_MAX	    256 /* sections */
#define DAEMON_TENANT_IDS_MAX	    256 /* users, and groups, of a section */
#define DAEMON_TENANT_TEMPLATES_MAX 256

struct daemon_tenants {
	struct pool_tenant_config *named; /* owned, with all that they point to */
	unsigned *seen;			  /* bit n: the n-th key was given; of each of them */
	struct pool_tenant_config others;
	unsigned others_seen;
	size_t n;
};

void daemon_tenants_init(struct daemon_tenants *tenants);
void daemon_tenants_deinit(struct daemon_tenants *tenants);

/* Begins or goes on with a section. NULL, or what is wrong. */
const char *daemon_tenants_section(struct daemon_tenants *tenants, const char *name);

/* Sets a key in a section. NULL, or what is wrong. */
const char *daemon_tenants_set(struct daemon_tenants *tenants, const char *name, const char *key,
			       const char *value);

/* Fills in what follows from what was said, and checks what single lines cannot tell. 0 or
 * -EINVAL. */
int daemon_tenants_complete(struct daemon_tenants *tenants, struct base_error *error);

/* For the pool; borrowed from tenants. */
static inline struct pool_tenants_config daemon_tenants_config(const struct daemon_tenants *tenants)
{
	return (struct pool_tenants_config){ tenants->named, tenants->n, tenants->others };
}
