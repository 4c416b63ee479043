/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the pool's tests share: a store with templates whose "VMM" is tests/unit/pool/fakevmm.c, a
 * pool on a loop, and waiting for things to happen.
 */

#include "pool/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* More than the pager reads in one go. */
#define FIXTURE_MEMORY_BYTES MIB(8)
/* A page of the memory of each template is filled with this byte, others are noise. */
#define FIXTURE_BYTE	    0xaa
#define FIXTURE_BYTE_OFFSET KIB(7680)
#define FIXTURE_WAIT_MS	    15000

struct fixture {
	char root[64];
	char store_path[96], runtime_dir[96];
	struct snapshot_store *store;
	uv_loop_t loop;
	uv_timer_t bound;
	uint64_t bound_ns;
	struct pool *pool;
	/* Of the pools made from now on. */
	unsigned memory_floor_percent, shells;
	struct pool_tenants_config tenants;
	uint64_t fill_limit_bytes;
	enum pool_cgroups_use cgroups;
	struct pool_cgroup_config limits;
	struct pool_limits_config vmm_limits;
	bool stopped, timed_out;
	unsigned n_fds;
};

/* cmocka set-up and tear-down. The tear-down stops the pool, if the test has not, and fails when
 * anything is left: descriptors, processes, sockets. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Publishes a template whose script is the text. */
void fixture_template(struct fixture *fixture, const char *name, const char *script);

/* What fixture_pool() makes a pool of. */
struct pool_config fixture_config(const struct fixture *fixture, unsigned target,
				  unsigned concurrency, uint64_t identity_timeout_ms);

/* Makes the pool. */
void fixture_pool(struct fixture *fixture, unsigned target, unsigned concurrency,
		  uint64_t identity_timeout_ms);

/* Runs the loop until the condition holds. Fails the test when that takes too long. */
#define fixture_until(fixture, condition)                   \
	do {                                                \
		fixture_bound_start(fixture);               \
		while (!(condition)) {                      \
			fixture_turn(fixture);              \
			assert_false((fixture)->timed_out); \
		}                                           \
		fixture_bound_stop(fixture);                \
	} while (0)
void fixture_bound_start(struct fixture *fixture);
void fixture_bound_stop(struct fixture *fixture);
void fixture_turn(struct fixture *fixture);
/* Runs the loop for that long. */
void fixture_run_ms(struct fixture *fixture, unsigned ms);

void fixture_stop(struct fixture *fixture);
/* For pool_stop(): sets stopped. */
void fixture_on_stopped(void *userdata);

/* The template's figures; zeros when it is unknown. Texts are copied to static storage. */
struct pool_template_info fixture_info(struct fixture *fixture, const char *name);

/* The tenant of a user; borrowed from the pool. */
struct pool_tenant *fixture_tenant(struct fixture *fixture, uid_t uid);

/* An acquire and what became of it. */
struct acquired {
	struct pool_acquire request;
	unsigned calls;
	unsigned order; /* the how many-th callback of all */
	enum pool_status status;
	int stream;
	char id[POOL_LEASE_ID_LENGTH + 1];
	char socket_path[128]; /* empty: none */
	char token[POOL_TOKEN_LENGTH + 1];
	int pid;
	struct pool_timings timings;
	char text[BASE_ERROR_TEXT_MAX];
};
void fixture_acquire(struct fixture *fixture, struct acquired *acquired, const char *name,
		     uint64_t timeout_ms);
/* Without a tenant: that of the user who runs the test. */
void fixture_acquire_params(struct fixture *fixture, struct acquired *acquired,
			    const struct pool_acquire_params *params);

/* Sets a target and waits for the answer. */
enum pool_status fixture_set(struct fixture *fixture, const char *name, unsigned target,
			     char *ret_text, size_t size);

/* The children of this process that are VMMs; ready for SIGKILL. Returns how many there are, of
 * which at most `max` are written. */
unsigned fixture_vmms(int *pids, unsigned max);
/* The child whose program's name ends so: a helper of the pool. 0: there is none. */
int fixture_helper(const char *name);

enum pool_status fixture_set_params(struct fixture *fixture, const struct pool_set_params *params,
				    char *ret_text, size_t size);

/* Sandboxes that have their sockets in the runtime directory. */
unsigned fixture_sandboxes(struct fixture *fixture);
/* Entries of a directory. */
unsigned fixture_count_entries(const char *path);

/* Waits, running the loop, until the lease has ended; returns its cause. */
enum pool_cause fixture_wait_ended(struct fixture *fixture, const char *lease);
