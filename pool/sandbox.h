/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One sandbox: one VMM process, from its start to its last closed handle.
 */

#include "base/list.h"
#include "pool/launch.h"
#include "pool/lease.h"
#include "vmm/control.h"

#include <uv.h>

/* Messages taken from one VMM before the others get their turn. */
#define POOL_MESSAGES_PER_TURN 16
/* Messages looked at after the VMM has ended; an honest one has a few. */
#define POOL_MESSAGES_LAST 256

/*
 *    STARTING ─▶ LOADING ─▶ IDENTIFYING ─▶ PAUSING ─▶ PARKED ─▶ LEASED
 *        └───────────┴───────────┴────────────┴──────────┴─────────┴──▶ DOOMED ─▶ DYING ─▶ (freed)
 *
 * Each state up to PAUSING is bounded by the identity timeout.
 */
enum pool_sandbox_state {
	POOL_SANDBOX_STARTING,	  /* a worker thread owns `launch` */
	POOL_SANDBOX_LOADING,	  /* CREATE and LOAD are sent */
	POOL_SANDBOX_IDENTIFYING, /* the guest runs; nothing but its acknowledgement is awaited */
	POOL_SANDBOX_PAUSING,	  /* acknowledged */
	POOL_SANDBOX_PARKED,
	POOL_SANDBOX_LEASED,
	POOL_SANDBOX_DOOMED, /* to be killed in the background; takes part in nothing any more */
	POOL_SANDBOX_DYING,  /* killed; to be reaped */
};

struct pool_sandbox {
	struct pool *pool;
	struct pool_template *template; /* gone when the sandbox is doomed or dying */
	struct pool_image *image;	/* a reference */
	struct pool_lease_entry *lease; /* owned until the claim, then by the table */
	struct base_link link;		/* template->restoring, ->parked, pool->doomed or none */
	enum pool_sandbox_state state;
	bool starting; /* the worker has not come back */
	struct pool_launch launch;
	uv_work_t work;
	uv_poll_t control, process, stream;
	uv_timer_t timer; /* restore: its bound; lease: its TTL */
	unsigned n_handles;
	enum pool_step sent, awaited; /* the last request; the oldest without a reply */
	uint64_t generation;
	uint8_t ack[GUEST_IDENTITY_ACK_BYTES + 1]; /* one more, to see that there is no more */
	size_t ack_size;
	uint64_t mark_ns; /* end of the step before */
	uint64_t parked_ns, claim_received_ns, claimed_ns;
	struct pool_timings timings;
};

/* --- sandbox.c --- */

/* Starts a restore. 0 (then pool_refill_parked() or pool_refill_lost() follows, unless it is
 * doomed) or -errno. */
int pool_sandbox_start(struct pool_template *template);

/* Lets a parked sandbox run; it is leased from now on. 0, or -errno: the VMM is not there. */
int pool_sandbox_claim(struct pool_sandbox *sandbox, uint64_t received_ns, uint64_t ttl_ms);

/* The agent's stream, in blocking mode; owned by the caller from now on. */
int pool_sandbox_take_stream(struct pool_sandbox *sandbox);

/* Takes the sandbox out of everything; the killing is left to pool_sandbox_kill(). */
void pool_sandbox_doom(struct pool_sandbox *sandbox);

/* Kills a doomed sandbox. It frees itself. */
void pool_sandbox_kill(struct pool_sandbox *sandbox);

/* The sandbox cannot go on; the format says why. Nothing happens when it is doomed already. */
void pool_sandbox_lose(struct pool_sandbox *sandbox, enum pool_cause cause, const char *format, ...)
	_printf_(3, 4);

/* Watches a descriptor with one of the sandbox's handles. 0 or -errno. */
int pool_sandbox_poll(struct pool_sandbox *sandbox, uv_poll_t *poll, int fd, uv_poll_cb callback);

/* Closes one of its handles, if it is open. */
void pool_sandbox_close(struct pool_sandbox *sandbox, void *handle);

/* --- talk.c --- */

/* Listens to a VMM that was launched. 0 or -errno. */
int pool_talk_start(struct pool_sandbox *sandbox);

/* Sends the RESUME of a claim. 0 or -errno. */
int pool_talk_claim(struct pool_sandbox *sandbox);

/* Takes what a VMM that has ended had said. */
void pool_talk_drain(struct pool_sandbox *sandbox);
