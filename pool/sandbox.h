/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * One sandbox: one VMM process, from its start to its last closed handle.
 */

#include "base/list.h"
#include "pool/adopt.h"
#include "pool/cgroup.h"
#include "pool/launch.h"
#include "pool/lease.h"
#include "pool/spawning.h"
#include "vmm/control.h"

#include <uv.h>

/* Messages taken from one VMM before the others get their turn. */
#define POOL_MESSAGES_PER_TURN 16
/* Messages looked at after the VMM has ended; an honest one has a few. */
#define POOL_MESSAGES_LAST 256

/*
 *    STARTING ─▶ SHELL ─▶ LOADING ─▶ IDENTIFYING ─▶ PAUSING ─▶ PARKED ─▶ LEASED
 *        └─────────┴─────────┴───────────┴────────────┴──────────┴─────────┴──▶ DOOMED ─▶ DYING ─▶
 * (freed)
 *
 * One that is wanted at once goes from STARTING to LOADING: its LOAD is sent behind its CREATE.
 * Each state up to PAUSING but SHELL is bounded by the identity timeout.
 */
enum pool_sandbox_state {
	POOL_SANDBOX_STARTING,	  /* CREATE is sent */
	POOL_SANDBOX_SHELL,	  /* has a VM without a state, and waits */
	POOL_SANDBOX_LOADING,	  /* LOAD is sent */
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
	struct pool_image *image;	/* a reference; NULL: it was adopted */
	struct pool_lease_entry *lease; /* owned until the claim, then by the table */
	/* template->shells, ->restoring, ->parked, pool->doomed or none */
	struct base_link link;
	struct base_link image_link; /* image->sandboxes */
	struct base_link pool_link;  /* pool->sandboxes */
	struct pool_pager_vm *vm;    /* while the pager serves it */
	enum pool_sandbox_state state;
	bool spawning; /* the spawner has not answered */
	bool lazy;     /* its image had holes when it was started */
	enum pool_adoption_state adoption;
	bool urgent; /* somebody waits for it: it runs at the priority of a leased one */
	struct pool_cgroup *cgroup; /* NULL: it does without */
	bool unasked;		    /* the spawner is asked when there is a cgroup */
	bool restored;		    /* it is parked when it is in its cgroup */
	bool ended; /* its process is reaped when that is not being moved any more */
	struct pool_launch launch;
	struct pool_spawn spawn;
	uv_poll_t control, process, stream;
	uv_timer_t timer; /* start and restore: their bound; lease: its TTL */
	unsigned n_handles;
	enum pool_step sent, awaited; /* the last request; the oldest without a reply */
	uint64_t generation;
	uint64_t limited[POOL_LIMITED_KINDS];	   /* what its VMM has said of its limits last */
	uint8_t ack[GUEST_IDENTITY_ACK_BYTES + 1]; /* one more, to see that there is no more */
	size_t ack_size;
	uint64_t mark_ns;	/* end of the step before */
	uint64_t load_taken_ns; /* by the VMM */
	uint64_t parked_ns, claim_received_ns, claimed_ns;
	struct pool_timings timings;
};

/* --- sandbox.c --- */

/* Starts a shell and puts it last in template->shells. pool_refill_shell_ready() or
 * pool_refill_lost() follows, unless it is doomed or loaded before. 0 and *ret_sandbox, or -errno
 * with the reason in error. */
int pool_sandbox_start(struct pool_template *template, struct pool_sandbox **ret_sandbox,
		       struct base_error *error);

/* Makes a leased sandbox of a VMM that a former manager has started; the journal says which. lease
 * and pidfd are consumed on success. 0 or -errno: nobody is there. */
int pool_sandbox_adopt(struct pool *pool, struct pool_lease_entry *lease, int pidfd,
		       uint64_t start_ticks);

/* Restores into a shell, ready or not; urgent: somebody waits for it. pool_refill_parked() or
 * pool_refill_lost() follows, the latter maybe from inside, unless it is doomed. */
void pool_sandbox_load(struct pool_sandbox *sandbox, bool urgent);

/* Somebody has come to wait for what is being restored. */
void pool_sandbox_hurry(struct pool_sandbox *sandbox);

/* Asks the spawner for its process. */
void pool_sandbox_spawn(struct pool_sandbox *sandbox);

/* Its process has ended, and may be reaped. */
void pool_sandbox_ended(struct pool_sandbox *sandbox);

/* Lets a parked sandbox run; it is leased from now on. 0, or -errno: the VMM is not there. */
int pool_sandbox_claim(struct pool_sandbox *sandbox, uint64_t received_ns, uint64_t ttl_ms);

/* A leased one ends in ttl_ms from now; 0: it does not by itself. */
void pool_sandbox_set_ttl(struct pool_sandbox *sandbox, uint64_t ttl_ms);

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

/* --- limit.c: its cgroup --- */

/* An adopted sandbox goes on in the cgroup that it has. */
void pool_limit_adopt(struct pool_sandbox *sandbox);
/* Asks for one, if there are any. True: the process has to wait for it; pool_sandbox_spawn()
 * follows. */
bool pool_limit_start(struct pool_sandbox *sandbox);
/* There is a process. */
void pool_limit_process(struct pool_sandbox *sandbox);
/* It may not be parked yet; pool_refill_parked() follows when `restored` is set. */
bool pool_limit_holds(const struct pool_sandbox *sandbox);
/* It gets the priority of those in use. */
void pool_limit_raise(struct pool_sandbox *sandbox);
/* The process has ended but is being moved, so its pid has to stay: pool_sandbox_ended() follows.
 */
bool pool_limit_keeps(struct pool_sandbox *sandbox);
/* The process was killed. True: the cgroup is asked whether that was for its limits, and the
 * sandbox is lost then. */
bool pool_limit_killed(struct pool_sandbox *sandbox);

/* --- talk.c --- */

/* CREATE has been sent: its bound begins. */
void pool_talk_begin(struct pool_sandbox *sandbox);

/* Listens to a VMM that has been started. 0 or -errno. */
int pool_talk_start(struct pool_sandbox *sandbox);

/* Sends LOAD. 0 or -errno; a VMM that has ended is no failure here. */
int pool_talk_load(struct pool_sandbox *sandbox);

/* Sends the RESUME of a claim. 0 or -errno. */
int pool_talk_claim(struct pool_sandbox *sandbox);

/* Asks an adopted VM to go on as leased; pool_adopt_answered() follows, or its end. 0 or -errno. */
int pool_talk_adopt(struct pool_sandbox *sandbox);

/* Takes what a VMM that has ended had said. */
void pool_talk_drain(struct pool_sandbox *sandbox);
