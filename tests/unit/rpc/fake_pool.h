/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A pool without sandboxes, and a store without files, for tests of the protocol. Its tenants are
 * real (pool/tenant.c), but it enforces none of their quotas. They implement
 * pool/pool.h and snapshot/snapshot.h as far as the server calls them; the test decides what is
 * parked and looks at what was released.
 *
 * Templates: "python" is ready, "refused" exceeds a quota, "broken" has failed, "damaged" is in the
 * store but cannot be opened, every other name is unknown.
 */

#include "pool/account.h"
#include "pool/pool.h"

#define FAKE_LEASES_MAX 32768
#define FAKE_TOKEN	0xabc0000 /* the n-th lease's token is n more, in 32 hexadecimal digits */

struct fake_lease {
	char id[POOL_LEASE_ID_LENGTH + 1];
	bool active;
	enum pool_cause cause;
	struct pool_label label; /* the first one, copied; key NULL: none */
	uint64_t ttl_ms;
	struct pool_tenant *tenant; /* a reference */
	char token[POOL_TOKEN_LENGTH + 1];
	int stream; /* the other end of what the claimant got; -1: none */
};

struct pool {
	unsigned parked; /* this many acquires are answered at once */
	struct base_link waiters;
	struct pool_tenants_config config;
	struct pool_tenants tenants;
	const struct pool_tenant *tenant; /* of the latest acquire */
	unsigned n_waiters;
	struct pool_set *set;		   /* waits; NULL: none */
	bool hold_set;			   /* let pool_set() wait */
	struct pool_set_params set_params; /* of the latest */
	bool below_min;
	const char *trouble; /* with memory */
	unsigned target;
	struct pool_account *account; /* waits, and who waits behind it; NULL: none */
	unsigned n_cancelled, n_set_cancelled, n_account_cancelled, n_released;
	struct fake_lease leases[FAKE_LEASES_MAX];
	size_t n_leases;
};

/* Sections of tenants (borrowed): none. */
struct pool *fake_pool_new(const struct pool_tenant_config *sections, size_t n);
/* As new, but for its tenants. Nobody may wait. */
void fake_pool_reset(struct pool *pool);
/* Closes the streams too. */
void fake_pool_free(struct pool *pool);
/* Gives the first waiter a lease, or another status. */
void fake_pool_answer(struct pool *pool, enum pool_status status);
/* Ends the measurement that is waited for: of one template with two sandboxes, one of them leased.
 */
void fake_pool_measured(struct pool *pool);
size_t fake_pool_active(const struct pool *pool);
