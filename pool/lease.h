/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Leases: those that are active and the latest that have ended.
 */

#include "base/list.h"
#include "pool/launch.h"
#include "pool/pool.h"

#define POOL_LEASE_BUCKETS 4096

_Static_assert(POOL_LEASE_ID_LENGTH == POOL_SANDBOX_ID_LENGTH,
	       "a lease has the id of its sandbox: it is the only one of it");

struct pool_sandbox;

/* One lease. Made along with its sandbox, so that a claim allocates nothing. */
struct pool_lease_entry {
	struct base_link link; /* in active or ended */
	struct pool_lease_entry *bucket_next;
	struct pool_sandbox *sandbox; /* NULL: ended */
	/* Copies: the lease is remembered longer than its template and image need be there. */
	char template_name[SNAPSHOT_NAME_MAX + 1];
	char snapshot_id[SNAPSHOT_ID_LENGTH + 1];
	char id[POOL_LEASE_ID_LENGTH + 1];
	char token[POOL_TOKEN_LENGTH + 1];
	char socket_path[POOL_SOCKET_PATH_MAX]; /* empty: not given to the client */
	struct pool_tenant *tenant;		/* a reference, from the claim on */
	int pid;
	enum pool_cause cause;
	uint64_t acquired_realtime_ns, ended_realtime_ns;
	uint64_t ttl_ms, expires_realtime_ns; /* 0: none */
	bool bound;			      /* to a connection */
	struct pool_label *labels;	      /* one block with their strings, owned */
	size_t n_labels;
	struct pool_timings timings;
};

struct pool_lease_table {
	struct base_link active, ended; /* oldest first */
	size_t n_ended;
	struct pool_lease_entry *buckets[POOL_LEASE_BUCKETS];
};

void pool_lease_table_init(struct pool_lease_table *table);
/* Frees the ended ones; there must be no active one. */
void pool_lease_table_deinit(struct pool_lease_table *table);

/* Adds an active lease, which counts for its tenant from now on. */
void pool_lease_table_add(struct pool_lease_table *table, struct pool_lease_entry *entry);
struct pool_lease_entry *pool_lease_table_find(struct pool_lease_table *table, const char *id);

/* Says when the lease ends by itself: ttl_ms from now, or never (0). */
void pool_lease_entry_set_ttl(struct pool_lease_entry *entry, uint64_t ttl_ms);

/* Makes an active lease an ended one, and forgets the oldest of those when there are too many. */
void pool_lease_table_end(struct pool_lease_table *table, struct pool_lease_entry *entry,
			  enum pool_cause cause);

void pool_lease_entry_free(struct pool_lease_entry *entry);

/* As the outside sees it. */
void pool_lease_entry_show(const struct pool_lease_entry *entry, struct pool_lease *ret_lease);

/* Copies labels to one new block. 0, -E2BIG past a limit, -ENOMEM. */
int pool_labels_copy(const struct pool_label *labels, size_t n, struct pool_label **ret_labels);
