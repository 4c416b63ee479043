/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Many clients in one thread: each has a connection of its own, and at most one request under way.
 *
 * The client library serves one request at a time and waits for it; here answers are taken as they
 * come, so that a hundred clients can ask at once without a hundred threads to schedule.
 */

#include "rpc/warmbox.h"

struct bench_wire;

struct bench_answer {
	size_t client;
	bool failed;		    /* code says why */
	char code[32];		    /* name of the error */
	struct warmbox_lease lease; /* of an acquire that did not fail */
	uint64_t at_ns;		    /* CLOCK_MONOTONIC when the answer had been decoded */
};

/* Connects n clients. 0 or -errno, printed. */
int bench_wire_new(const char *socket, size_t n, struct bench_wire **ret_wire);
/* Closes all connections; bound leases end. NULL is fine. */
void bench_wire_free(struct bench_wire *wire);

/* Sends without waiting; the client must have nothing under way. timeout_ms is the daemon's to
 * keep. The lease is bound to the connection. 0 or -errno. */
int bench_wire_acquire(struct bench_wire *wire, size_t client, const char *template_name,
		       uint64_t timeout_ms);
int bench_wire_release(struct bench_wire *wire, size_t client, const char *lease_id);

/* The next answer. 1; 0: nothing came in timeout_ns (0: do not wait); -errno: a connection ended or
 * sent what is not an answer, printed. */
int bench_wire_next(struct bench_wire *wire, uint64_t timeout_ns, struct bench_answer *ret_answer);
