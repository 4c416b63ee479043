/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The daemon under test: its pool, its processes, and where they may run.
 *
 * Functions return 0 or -errno, and then have printed why on standard error.
 */

#include "bench/options.h"
#include "rpc/warmbox.h"

#include <sys/types.h>

#define BENCH_WAIT_MS 600000

struct bench_daemon {
	struct warmbox_connection *connection;
	const char *socket;
	const char *template_name;
	pid_t pid;
	/* What the pool was told to keep before; closing tells it again. */
	bool had_pool;
	uint64_t min, max;
};

struct bench_pool {
	uint64_t target, parked, restoring, leased, waiting;
	uint64_t claimed_total, missed_total, restored_total, failed_total, died_total;
	uint64_t image_bytes;
};

/* Options are borrowed. Closing gives the pool back the limits that it had. */
int bench_daemon_open(struct bench_daemon *daemon, const struct bench_options *options);
void bench_daemon_close(struct bench_daemon *daemon);

int bench_pool_get(struct bench_daemon *daemon, struct bench_pool *ret_pool);
/* Sets the target only. */
int bench_pool_set(struct bench_daemon *daemon, uint64_t target);
/* Waits until exactly `parked` are parked and nothing is being restored. */
int bench_pool_wait(struct bench_daemon *daemon, uint64_t parked);
/* Both. */
int bench_pool_fill(struct bench_daemon *daemon, uint64_t target);

/* Acquires (timeout_ms 0: only what is parked). 0; 1: none was there in time; -errno. */
int bench_claim(struct bench_daemon *daemon, uint64_t timeout_ms, struct warmbox_lease *ret_lease,
		int *ret_stream);
/* The lease, once its first vCPU entry is known; without that when it does not come in two seconds.
 */
int bench_get_entered(struct bench_daemon *daemon, const char *lease_id,
		      struct warmbox_lease *ret_lease);
int bench_release(struct bench_daemon *daemon, const char *lease_id);

/* "what: code: text" on standard error; returns r. */
int bench_complain(const char *what, int r, const struct warmbox_error *error);
