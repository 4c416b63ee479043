/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Helper programs of the pool: started, talked to with base/message.h, started again when they die.
 */

#include "base/message.h"

#include <stdbool.h>
#include <uv.h>

/* One that lived at least so long has done nothing wrong. */
#define POOL_HELPER_STABLE_NS (5 * NSEC_PER_SEC)
/* The first death in a row costs no wait, the second this long, and so on, doubling. */
#define POOL_HELPER_RETRY_MIN_NS (20 * NSEC_PER_MSEC)
#define POOL_HELPER_RETRY_MAX_NS (5 * NSEC_PER_SEC)
/* Deaths in a row from which on it counts as trouble. */
#define POOL_HELPER_TROUBLE	  3
#define POOL_HELPER_ARGUMENTS_MAX 2

struct pool_helper;

/* All on the loop's thread. */
struct pool_helper_ops {
	/* It has been started (again), and knows nothing. */
	void (*started)(struct pool_helper *helper);
	/* fds are owned by the callee, who sees to it that as many as it keeps were closed. */
	void (*message)(struct pool_helper *helper, const struct base_message *message,
			const int *fds, size_t n_fds);
	/* It has ended, and nothing that it said is unread. It will be started again. */
	void (*gone)(struct pool_helper *helper);
	/* A send was refused with -EAGAIN, and may succeed now. */
	void (*writable)(struct pool_helper *helper);
};

struct pool_helper_process;

struct pool_helper {
	const struct pool_helper_ops *ops;
	uv_loop_t *loop;
	const char *name;			   /* for people */
	char *argv[POOL_HELPER_ARGUMENTS_MAX + 2]; /* owned; the first is its path */
	struct pool_helper_process *process;	   /* NULL: there is none now */
	unsigned n_handles;
	bool has_timer, stopping;
	uv_timer_t retry;
	unsigned failures; /* in a row */
	uint64_t started_ns, starts_total;
	void (*on_stopped)(struct pool_helper *helper);
};

/* Copies the strings; arguments ends with NULL. 0 or -ENOMEM. Nothing is started. */
int pool_helper_init(struct pool_helper *helper, const struct pool_helper_ops *ops, uv_loop_t *loop,
		     const char *name, const char *path, const char *const *arguments);
/* After it has stopped, or when it was never started. */
void pool_helper_deinit(struct pool_helper *helper);

/* Starts it. Failure is like a death: it is tried again. Its handles keep no loop running. */
void pool_helper_start(struct pool_helper *helper);

/* Kills it; on_stopped is called when it has been reaped, from a later turn of the loop. */
void pool_helper_stop(struct pool_helper *helper, void (*on_stopped)(struct pool_helper *helper));

/* 0; -ENOTCONN: there is none now, `started` follows; -EAGAIN: `writable` follows. fds are
 * borrowed. */
int pool_helper_send(struct pool_helper *helper, const struct base_message *message, const int *fds,
		     size_t n_fds);

/* Takes what it has said by now. */
void pool_helper_drain(struct pool_helper *helper);

/* What it does is not to be trusted any more: it is killed, and started again. */
void pool_helper_kill(struct pool_helper *helper, const char *why);

/* Of the present one; 0: there is none. */
int pool_helper_pid(const struct pool_helper *helper);

/* It dies again and again. */
bool pool_helper_is_trouble(const struct pool_helper *helper);
