/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A template in use: its loaded snapshot, its sandboxes that are not leased, and who waits for one.
 */

#include "base/list.h"
#include "pool/image.h"

/* Names that are in use or being looked up at once; one more is refused. */
#define POOL_TEMPLATES_MAX 1024

/* A snapshot that failed to load is not tried again before this has passed; doubles each time. A
 * name that does not exist is looked up every time. */
#define POOL_LOAD_RETRY_MIN_NS (100 * NSEC_PER_MSEC)
#define POOL_LOAD_RETRY_MAX_NS (10 * NSEC_PER_SEC)

/*
 *    LOADING ─┬─▶ READY          restores run
 *             └─▶ FAILED         waiters have been told; the next demand loads again
 *
 * READY becomes FAILED when its memory turns out to be damaged, or (not found) when the name is
 * removed from the store; when it comes to mean
 * another snapshot, that is loaded beside the present one and replaces it. Leases do not notice.
 */
enum pool_template_state {
	POOL_TEMPLATE_LOADING,
	POOL_TEMPLATE_READY, /* there is an `image` */
	POOL_TEMPLATE_FAILED,
};

struct pool_template {
	struct pool *pool;
	struct base_link link; /* pool->templates */
	char name[SNAPSHOT_NAME_MAX + 1];
	struct pool_template_config config; /* without the name */
	enum pool_template_state state;
	uv_work_t work;
	struct pool_image *image;   /* restores use it; NULL: none */
	struct pool_image *loading; /* NULL: no load runs; else its worker owns the next two, too,
				       unless `opening` */
	int load_result;
	struct base_error error;
	bool opening;	   /* `loading` is in the hands of the pager */
	bool load_retries; /* loading failed after it had begun: it is tried again by itself */
	bool stale;	   /* the store has changed since the last load began */

	enum pool_status failure; /* of the last load */
	char last_error[BASE_ERROR_TEXT_MAX];
	bool told; /* those who waited for the failed load have been told */
	unsigned load_failures;
	uint64_t load_retry_ns;

	struct pool_policy policy;
	unsigned target;	/* restore up to so many; the policy's, see pool_target_update() */
	unsigned keep;		/* end what is parked above; not below target */
	unsigned shells_wanted; /* shells to keep */
	/* Sandboxes. Shells: the ones that are ready and the ones that start, oldest first. */
	struct base_link parked, restoring, shells;
	unsigned n_parked, n_restoring, n_shells, n_leased, n_waiting;
	struct pool_fair_queue queue;
	struct pool_set *sets; /* waiting for the load */

	unsigned restore_failures; /* in a row */
	bool unstable;		   /* the latest failure was a death soon after parking */
	uint64_t restore_retry_ns; /* none before */

	uint64_t claimed_total, missed_total, restored_total, failed_total, died_total;
	uint64_t forbidden_total; /* of VMMs, whatever they were doing */
	uint64_t limited_total[POOL_LIMITED_KINDS];
	uint64_t shell_hits_total, shell_misses_total; /* restores into a ready shell, and others */
};

/* The template of that name, made and loading when it was unknown. NULL with *ret_status and
 * *ret_text when it cannot be. */
struct pool_template *pool_template_get(struct pool *pool, const char *name,
					enum pool_status *ret_status, const char **ret_text);

/* The pager has taken the image that is being loaded, or refuses it. */
void pool_template_opened(struct pool_template *template, int r, const char *text);

/* The image that restores use cannot be filled. Ends what is not leased. */
void pool_template_image_failed(struct pool_template *template, const char *text);

/* Background step: loads again what failed so, when its back-off is over. */
void pool_template_retry(struct pool_template *template, uint64_t now_ns);

/* Loads a failed template again. */
void pool_template_reload(struct pool_template *template);

/* An entry of the store's templates/ has changed (NULL: any may have): whoever it concerns looks
 * whether its name still means what is loaded. */
void pool_template_follow(struct pool *pool, const char *entry);

/* Background step: tells whoever waits for a failed load; forgets a name that does not exist once
 * nothing is left of it.
 * Returns true when it did something. */
bool pool_template_tell_failure(struct pool_template *template);

/* Gives a load up, if it has not begun. */
void pool_template_cancel(struct pool_template *template);

/* Only without sandboxes, waiters and a load under way. */
void pool_template_free(struct pool_template *template);

/* Keeps the text of the latest failure. */
void pool_template_note(struct pool_template *template, const char *text);
