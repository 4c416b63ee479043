/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The pool: sandboxes restored from snapshots, kept parked, handed out once, destroyed.
 *
 * Everything runs on one libuv loop and never blocks it: loading a snapshot is done on the thread
 * pool, VMMs are processes. Callbacks are called exactly once, never from inside the call that
 * started them unless said otherwise. The pool never reads bytes that a guest wrote, but for
 * comparing the identity acknowledgement.
 */

#include "base/error.h"
#include "pool/cgroup.h"
#include "pool/death.h" /* struct pool_death_config */
#include "pool/fair.h"	/* limits of who waits */
#include "pool/jail.h"
#include "pool/policy.h" /* struct pool_limits */
#include "snapshot/snapshot.h"

#include <stdbool.h>
#include <uv.h>

#define POOL_LEASE_ID_LENGTH  32 /* 128 random bits in lower-case hexadecimal */
#define POOL_TOKEN_LENGTH     32 /* likewise */
#define POOL_LABELS_MAX	      32
#define POOL_LABEL_BYTES_MAX  256
#define POOL_TARGET_MAX	      10000
#define POOL_SHELLS_MAX	      1024
#define POOL_ENDED_LEASES_MAX 4096	 /* ended leases remembered, oldest forgotten first */
#define POOL_TIMEOUT_DEFAULT  UINT64_MAX /* pool_config.acquire_timeout_ms */

/* Whether a guest rehearses an exec before it is parked, so that the first one finds its pages. */
enum pool_touch {
	POOL_TOUCH_AUTO = 0, /* not on kvm-pvm, where it costs more than it saves */
	POOL_TOUCH_NEVER,
	POOL_TOUCH_ALWAYS,
};

/* What a VMM holds its guest to, as VMM_OP_LIMITS has it (vmm/control.h), and how long a lease may
 * last. 0: no limit. */
struct pool_limits_config {
	uint64_t disk_bytes, disk_burst_bytes, disk_operations, disk_operations_burst;
	uint64_t console_bytes, vsock_connections, vsock_bytes;
	uint64_t ttl_max_ms; /* from the claim on, however often it is renewed */
};

/* What sandboxes of a template may take. */
struct pool_template_config {
	const char *name; /* NULL: of those that are not named */
	struct pool_cgroup_config cgroup;
	struct pool_limits_config limits;
};

/* What a guest can be at the limit of without ending. */
enum pool_limited {
	POOL_LIMITED_DISK,    /* requests wait */
	POOL_LIMITED_CONSOLE, /* bytes are dropped */
	POOL_LIMITED_VSOCK,   /* connections are refused */
	POOL_LIMITED_KINDS,
};

struct pool_config {
	const char *store_path;	   /* snapshot store */
	const char *runtime_dir;   /* private directory for sockets; made by the daemon */
	const char *vmm_path;	   /* the warmbox-vmm program */
	const char *spawner_path;  /* the warmbox-spawner program */
	const char *pager_path;	   /* the warmbox-pager program */
	uint64_t fill_limit_bytes; /* of guest memory that is loaded a second while nobody waits for
				      it, for each image; 0: no limit */
	/* For a template named for the first time: how many sandboxes to keep parked, and shells.
	 */
	struct pool_limits default_limits;
	unsigned default_shells;
	unsigned memory_floor_percent; /* of the host's memory: what must stay available for
					  sandboxes to be restored that nobody waits for */
	int restore_nice;	       /* nice value of restores that nobody waits for, 0 to 19 */
	unsigned restore_concurrency;  /* restores under way at once, over all templates; 0: number
					  of cores */
	enum pool_touch touch;
	uint64_t identity_timeout_ms; /* a sandbox that has not acknowledged by then is destroyed */
	uint64_t acquire_timeout_ms;  /* default for acquires that do not say */
	const struct pool_tenants_config *tenants; /* borrowed until pool_free() */
	enum pool_cgroups_use cgroups;
	struct pool_template_config default_template;
	const struct pool_template_config *templates;
	size_t n_templates;
	struct pool_death_config death;
	struct pool_jail_config jail; /* as pool_jail_resolve() left it */
};

/* How an operation ended; the names are the error codes of docs/protocol.md. */
enum pool_status {
	POOL_OK = 0,
	POOL_NOT_FOUND,
	POOL_DEADLINE_EXCEEDED,
	POOL_EXHAUSTED,
	POOL_UNAVAILABLE, /* shutting down, or the template cannot be loaded or restored; the text
			     says which */
	POOL_FAILED,
	POOL_INVALID,	     /* what was asked for contradicts itself, or what is set already */
	POOL_QUOTA_EXCEEDED, /* struct pool_acquire says which */
	POOL_DENIED,	     /* the tenant may not */
};

enum pool_cause {
	POOL_CAUSE_NONE = 0, /* the lease is active */
	POOL_CAUSE_RELEASED,
	POOL_CAUSE_EXPIRED,	 /* its TTL passed */
	POOL_CAUSE_CLIENT_GONE,	 /* bound to a connection that closed, or its answer was never read
				  */
	POOL_CAUSE_VMM_DIED,	 /* the VMM process ended without being asked to */
	POOL_CAUSE_GUEST_EXITED, /* the guest powered off, reset or crashed */
	POOL_CAUSE_SHUTDOWN,	 /* the daemon stopped */
	POOL_CAUSE_IMAGE_FAILED, /* the memory of its snapshot turned out to be damaged */
	POOL_CAUSE_FORBIDDEN,	 /* its VMM made a forbidden system call */
	POOL_CAUSE_LIMIT, /* it went beyond a limit that ends it, or could not be given one */
	POOL_CAUSE_LOST,  /* its manager died, and the successor could not adopt it */
};
const char *pool_cause_name(enum pool_cause cause); /* "released", …; NULL for NONE */

struct pool_label {
	const char *key;
	const char *value;
};

/* Where the time went. Nanoseconds; 0 where it has not happened. */
struct pool_timings {
	uint64_t wait_ns;	 /* acquire received → a parked sandbox was at hand */
	uint64_t claim_ns;	 /* at hand → answer handed to the transport */
	uint64_t first_entry_ns; /* acquire received → first KVM_RUN after the claim */
	/* Of the restore, before parking: */
	uint64_t spawn_ns;    /* spawn → the VMM is there */
	uint64_t create_ns;   /* VM, memory slot, vCPUs, devices */
	uint64_t load_ns;     /* state */
	uint64_t identity_ns; /* resume → reseed acknowledged: guest work */
	uint64_t park_ns;     /* acknowledged → paused */
	uint64_t entry_ns;    /* load taken → first KVM_RUN, by the VMM's clock */
	bool from_shell; /* there was a shell, so that spawn and create cost the restore nothing */
};

/* A lease as the outside sees it. Strings are borrowed and valid until the loop runs on. */
struct pool_lease {
	const char *id;
	const char *template_name;
	const char *snapshot_id;
	const char *socket_path; /* NULL: it could not be given to the client's user */
	const char *token; /* who has it may touch the sandbox; only for the one who acquires */
	const struct pool_tenant *tenant;
	int pid; /* of the VMM */
	bool active;
	enum pool_cause cause;
	uint64_t acquired_realtime_ns;
	uint64_t ended_realtime_ns;   /* 0: active */
	uint64_t ttl_ms;	      /* 0: none */
	uint64_t expires_realtime_ns; /* 0: never */
	const struct pool_label *labels;
	size_t n_labels;
	struct pool_timings timings;
};

struct pool;

/* The tenants of a pool, for connections to find theirs. */
struct pool_tenants *pool_tenants(struct pool *pool);

/* Starts with no template loaded. config is copied. */
int pool_new(uv_loop_t *loop, const struct pool_config *config, struct pool **ret_pool,
	     struct base_error *error);

/* Adopts what a manager that died has left (docs/architecture.md), and starts the helper programs,
 * which otherwise begins with the first request. */
void pool_start(struct pool *pool);

/* Ends every lease (shutdown) and every sandbox, fails every waiter; done is called when all
 * processes are reaped and all files are gone. New acquires are refused from now on. */
void pool_stop(struct pool *pool, void (*done)(void *userdata), void *userdata);

/* After done, or when pool_new() was all that happened. */
void pool_free(struct pool *pool);

struct pool_acquire_params {
	const char *template_name; /* borrowed during the call, like all of this */
	uint64_t timeout_ms;	   /* 0: only what is parked now; POOL_TIMEOUT_DEFAULT */
	uint64_t ttl_ms;	   /* 0: none */
	/* Who asks: has quotas, and those who wait take turns by it. Borrowed until the request
	 * has ended. */
	struct pool_tenant *tenant;
	uid_t uid;	  /* gets the sandbox's socket */
	gid_t gid;	  /* so does it; POOL_GROUP_NONE: nobody but uid */
	bool want_stream; /* the caller wants a stream that is connected to the agent */
	bool bound;	  /* the caller ends the lease with a connection that it has */
	const struct pool_label *labels;
	size_t n_labels;
};

/* Embedded in the caller; private but for userdata. */
struct pool_acquire {
	void *userdata;
	void (*fn)(struct pool_acquire *request, enum pool_status status,
		   const struct pool_lease *lease, int stream, const char *text);
	struct pool *pool;
	struct pool_template *template;
	struct pool_waiter waiter; /* its link is also for those that were refused */
	struct pool_tenant *tenant;
	uid_t uid;
	gid_t gid;
	uint64_t received_ns, deadline_ns, ttl_ms;
	bool want_stream, bound, pending;
	struct pool_label *labels;
	size_t n_labels;
	enum pool_status status; /* of one that was refused */
	enum pool_quota quota;	 /* POOL_QUOTA_EXCEEDED: this one */
	uint64_t retry_ns;	 /* and after so long it would not be; 0: not known */
	const char *text;
	char text_room[192]; /* for a text that names somebody */
};

/*
 * Hands out a parked sandbox, at once when there is one: then fn is called before this returns, and
 * likewise when the tenant may not have it (POOL_DENIED, POOL_QUOTA_EXCEEDED).
 * Otherwise the request waits until its deadline, taking turns with other tenants. A template that
 * is not loaded yet is loaded first. fn gets POOL_OK with a lease and the stream (owned by the
 * callee from then on; -1 unless wanted), or another status with a text.
 */
void pool_acquire(struct pool *pool, struct pool_acquire *request,
		  const struct pool_acquire_params *params);

/* The caller has gone: fn will not be called. Nothing happens when it was called already. */
void pool_acquire_cancel(struct pool_acquire *request);

/* Lets an active lease end in ttl_ms from now; 0: it does not by itself. POOL_NOT_FOUND, also for
 * one that has ended. */
enum pool_status pool_renew(struct pool *pool, const char *lease_id, uint64_t ttl_ms);

/* Ends a lease. The sandbox is destroyed in the background; what this returns is final. Releasing
 * an ended lease that is remembered is POOL_OK. */
enum pool_status pool_release(struct pool *pool, const char *lease_id, enum pool_cause cause);

/* false: unknown. */
bool pool_get(struct pool *pool, const char *lease_id, struct pool_lease *ret_lease);

enum pool_list {
	POOL_LIST_ACTIVE = 1 << 0,
	POOL_LIST_ENDED = 1 << 1,
};
/* Calls fn for each lease, oldest first. */
void pool_list(struct pool *pool, unsigned which,
	       void (*fn)(void *userdata, const struct pool_lease *lease), void *userdata);

#define POOL_UNCHANGED UINT32_MAX

struct pool_set_params {
	const char *template_name; /* borrowed during the call */
	/* POOL_UNCHANGED: as it is. Equal: so many, whatever happens; else what demand asks for,
	 * between them. POOL_TARGET_MAX at most. */
	unsigned min, max;
	unsigned shells; /* POOL_SHELLS_MAX at most */
};

/* Sets what to keep for a template; loads it when it is not loaded. fn is called once the template
 * is loaded (at once when it is) or cannot be, or the parameters were refused, in which case
 * nothing is changed; it does not wait for the sandboxes. */
struct pool_set {
	void *userdata;
	void (*fn)(struct pool_set *request, enum pool_status status, const char *text);
	struct pool *pool;
	struct pool_template *template;
	struct pool_set *next;
	bool pending;
	enum pool_status status; /* of one that was refused */
	const char *text;
};
void pool_set(struct pool *pool, struct pool_set *request, const struct pool_set_params *params);
void pool_set_cancel(struct pool_set *request);

struct pool_template_info {
	const char *name;
	const char *snapshot_id;
	const char *state; /* "loading", "ready" or "failed" */
	struct pool_limits limits;
	unsigned target;	    /* what is kept parked now, between the limits */
	uint64_t arrivals_per_hour; /* what it follows */
	uint64_t restore_ns;	    /* and how long a restore takes, on average; 0: none was seen */
	unsigned parked, restoring, leased, waiting;
	uint64_t claimed_total, missed_total, restored_total, failed_total, died_total;
	uint64_t forbidden_total; /* VMMs that made a forbidden system call */
	/* How often a sandbox was found at each limit, once a second at the most. */
	uint64_t limited_total[POOL_LIMITED_KINDS];
	unsigned shells, shells_wanted; /* ready or being started; to keep */
	uint64_t shell_hits_total;	/* restores that found a shell ready */
	uint64_t shell_misses_total;	/* restores that did not */
	bool image_complete;		/* all of the memory that is not zero is loaded */
	uint64_t image_filled_bytes;	/* so much of it is */
	uint64_t faults_total;		/* userfaults answered for sandboxes of the image */
	uint64_t image_bytes;		/* guest memory size */
	uint64_t load_ns;		/* loading the snapshot took so long */
	const char *last_error; /* the latest failure, though it may be overcome; NULL: none */
};
/* What is wrong with the pool itself, borrowed; NULL: nothing. */
const char *pool_trouble(const struct pool *pool);

/* Whether sandboxes have limits by cgroups: "version 2", "version 1", "off", or "none: " and why.
 * Borrowed; valid until the loop runs on. */
const char *pool_cgroups_state(const struct pool *pool);

/* Calls fn for each template in use: named once, and there. name NULL: all. state is "failed" also
 * when restores fail again and again and nothing is parked. */
void pool_info(struct pool *pool, const char *name,
	       void (*fn)(void *userdata, const struct pool_template_info *info), void *userdata);

/* Why fewer sandboxes are kept than demand asks for: what memory is lacking. NULL: it is not. Valid
 * until the loop runs on. *ret_below_min: even the minimum is not kept. */
const char *pool_memory_trouble(const struct pool *pool, bool *ret_below_min);
