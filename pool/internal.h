/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The pool itself, and what its parts call of each other. All on the loop's thread.
 */

#include "pool/account.h"
#include "pool/adopt.h"
#include "pool/lease.h"
#include "pool/pressure.h"
#include "pool/sandbox.h"
#include "pool/template.h"

struct pool {
	uv_loop_t *loop;
	struct snapshot_store *store;
	char *runtime_dir, *vmm_path, *templates_path;
	struct pool_limits default_limits;
	struct pool_template_config default_config, *configs; /* names are owned */
	size_t n_configs;
	unsigned default_shells, restore_concurrency;
	enum pool_touch touch;
	int restore_nice; /* of a VMM that nobody waits for; 0 without the right to change it back
			   */
	uint64_t identity_timeout_ms, acquire_timeout_ms;
	int devnull;
	int userfaultfd_fd;  /* the device, for VMMs; devnull where there is none */
	uint64_t generation; /* of the sandbox restored last */

	struct base_link templates;
	unsigned n_templates;
	struct base_link doomed;    /* sandboxes to be killed */
	struct base_link sandboxes; /* all of them */
	struct pool_journal journal;
	struct pool_adoption adoption;
	uint64_t orphan_timeout_ms;
	unsigned n_sandboxes; /* whose memory is still held */
	unsigned n_restoring; /* over all templates */
	unsigned n_starting;  /* shells that are not ready, over all templates */
	unsigned n_working;   /* workers that load or close an image */

	struct pool_cgroups cgroups;
	struct pool_spawner spawner;
	struct pool_jail_uids uids; /* with POOL_JAIL_FULL */
	struct pool_pager pager;
	struct pool_lease_table leases;
	struct pool_tenants tenants;
	struct pool_fair fair; /* who waits */
	struct pool_pressure pressure;
	bool squeezed; /* by it, as far as was said in the log */

	/* Requests that were refused and have not been told. */
	struct base_link refused;
	struct pool_set *refused_sets;

	/* Requests for accounts: those that wait, those being told, and what is measured now. */
	struct pool_account *accounts, *accounts_told;
	struct pool_survey *survey;

	/* The handles exist once something was asked of the pool, so that one that was never used
	 * can be freed without running the loop. */
	bool has_handles, background_runs, stopping, stopped;
	bool kicked;	     /* since the background's turn began */
	uint64_t claimed_ns; /* the latest claim */
	uint64_t held_ns;    /* since when the background holds its work back; 0: it does not */
	uv_idle_t background;
	uv_timer_t timer;
	uv_fs_event_t watch; /* of the names in the store */
	uint64_t timer_ns;   /* when it fires; 0: not armed */
	unsigned n_parts;    /* handles and helpers that have not ended */
	void (*on_stopped)(void *userdata);
	void *on_stopped_userdata;
};

/* --- pool.c --- */

/* What is configured for a template. */
struct pool_template_config pool_template_config_of(const struct pool *pool, const char *name);

/* Ends an active lease and dooms its sandbox. */
void pool_lease_end(struct pool *pool, struct pool_lease_entry *entry, enum pool_cause cause);

/* There is something to do off the path of requests: kill, tell, restore. */
void pool_kick(struct pool *pool);

/* Makes sure that the timer fires by then. */
void pool_timer_need(struct pool *pool, uint64_t at_ns);

/* --- target.c --- */

/* Something has changed that the template's policy looks at: brings its figures up to date, ends
 * what is above them and sees to it that what is below is restored. */
void pool_target_update(struct pool_template *template);
void pool_target_update_all(struct pool *pool);
/* Looks how much memory there is, before some is taken for what nobody waits for. Returns true when
 * that has changed the templates' figures. */
bool pool_target_look(struct pool *pool, uint64_t now_ns);
/* The timer has fired. */
void pool_target_advance(struct pool *pool, uint64_t now_ns);
/* For pool_pressure_start(). */
void pool_target_on_pressure(struct pool_pressure *pressure);

/* Answers every pool_set that waits for the template's load. */
void pool_set_tell(struct pool_template *template, enum pool_status status, const char *text);
/* Background step: tells one that was refused. Returns true when there was one. */
bool pool_set_tell_refused(struct pool *pool);

/* --- account.c --- */

/* Background step: starts the next measurement, or tells one that cannot be. Returns true when it
 * told one. */
bool pool_account_run(struct pool *pool);

/* --- queue.c: acquires --- */

void pool_queue_refuse(struct pool *pool, struct pool_acquire *request, enum pool_status status,
		       const char *text);
/* Background step: tells one that was refused. Returns true when there was one. */
bool pool_queue_tell_refused(struct pool *pool);
/* Gives parked sandboxes to waiters while there are both. */
void pool_queue_serve(struct pool_template *template);
/* Ends every waiting acquire. text is borrowed during the call. */
void pool_queue_fail(struct pool_template *template, enum pool_status status, const char *text);
/* Ends those whose deadline has passed and arms the timer for the next. */
void pool_queue_expire(struct pool *pool, uint64_t now_ns);

/* --- refill.c: how many sandboxes there are --- */

/* Background step: starts one restore or one shell, as far as demand, concurrency and back-off
 * allow. Returns true when it did. */
bool pool_refill_run(struct pool *pool);
/* A shell has its VM. */
void pool_refill_shell_ready(struct pool_sandbox *sandbox);
/* Keeps so many shells for the template, POOL_SHELLS_MAX at most. */
void pool_refill_shells(struct pool_template *template, unsigned wanted);
/* A sandbox has been made unique and paused. */
void pool_refill_parked(struct pool_sandbox *sandbox);
/* A sandbox has ended by itself; text says why. */
void pool_refill_lost(struct pool_sandbox *sandbox, enum pool_cause cause, const char *text);
/* Ends what is not leased. */
void pool_refill_end(struct pool_template *template);
/* The same, so that it is restored from what the template has now, if anything. */
void pool_refill_renew(struct pool_template *template);
/* Ends what is above the policy's figure, oldest first. */
void pool_refill_shrink(struct pool_template *template);
/* A sandbox has been claimed, so restoring works. */
void pool_refill_claimed(struct pool_template *template);
/* Restores have failed time after time and nothing is left. */
bool pool_refill_gives_up(const struct pool_template *template);
/* The same, and the next attempt lies ahead: waiting is no use. */
bool pool_refill_is_broken(const struct pool_template *template, uint64_t now_ns);
