/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inside the server: server, connection, request. Everything runs on the loop's thread.
 *
 * A connection reads, a decoder finds requests, a method answers each by rpc_request_answer() or
 * rpc_request_refuse(): at once, or later. What ends a connection only marks it and closes its
 * handle; the pool is told from the handle's close callback, so the pool is never called from
 * inside its own callbacks by a connection that dies.
 */

#include "base/clock.h"
#include "base/histogram.h"
#include "pool/account.h"
#include "pool/pool.h"
#include "rpc/encode.h"
#include "rpc/listener.h"
#include "rpc/params.h"
#include "rpc/rpc.h"

#define RPC_CONNECTIONS_MAX	   1024 /* one more is told `exhausted` and closed */
#define RPC_CONNECTIONS_RESERVED   16	/* of them, for administrators */
#define RPC_TENANT_CONNECTIONS_MAX 256	/* of a tenant that is no administrator */
#define RPC_ACCEPTS_MAX		   16	/* in a turn of the loop */
/* What a tenant's requests in a turn of the loop may cost together (see rpc/request.c); the rest
 * waits, so that others come first. */
#define RPC_TURN_COST_MAX	16
#define RPC_OPEN_REQUESTS_MAX	64	 /* of a connection; no more are read meanwhile */
#define RPC_OUTPUT_MAX_BYTES	MIB(4)	 /* unsent, of a connection; one that does not read ends */
#define RPC_TENANT_BUFFER_BYTES MIB(32)	 /* of all connections of a tenant, in and out */
#define RPC_BUFFER_BYTES	MIB(256) /* of all tenants */
#define RPC_MESSAGE_TIMEOUT_MS \
	10000			  /* from a message's first byte to its last, unless configured */
#define RPC_UNREAD_LEASES_MAX 256 /* leases of a connection that may not have been read */
#define RPC_TIMEOUT_MAX_MS    86400000	 /* of an acquire: a day */
#define RPC_TTL_MAX_MS	      2592000000 /* 30 days */
#define RPC_LIST_MAX	      512	 /* elements of one answer */
#define RPC_LIST_MAX_BYTES    KIB(512)	 /* no more elements once an answer is so large */

enum rpc_method_id {
	RPC_METHOD_ACQUIRE,
	RPC_METHOD_RELEASE,
	RPC_METHOD_RENEW,
	RPC_METHOD_GET,
	RPC_METHOD_LIST,
	RPC_METHOD_TEMPLATE_LIST,
	RPC_METHOD_TEMPLATE_INSPECT,
	RPC_METHOD_POOL_GET,
	RPC_METHOD_POOL_SET,
	RPC_METHOD_STATS,
	RPC_METHOD_HEALTH,
	RPC_METHODS,
};

struct rpc_counters {
	uint64_t requests[RPC_METHODS];
	uint64_t errors[RPC_CODES];
	uint64_t connections_total, connections_refused;
	struct base_histogram acquire_parked; /* received → answer made, of a parked sandbox */
	struct base_histogram acquire_waited; /* of one that was waited for */
};

struct rpc_server {
	uv_loop_t *loop;
	struct rpc_listener listener;
	uint64_t acquire_timeout_ms, message_timeout_ms;
	struct pool *pool;
	struct snapshot_store *store;
	uint64_t started_ns;

	uv_poll_t accept_poll;
	uv_async_t resume;     /* looks for connections that can go on reading */
	uv_prepare_t prepare;  /* counts turns */
	uv_timer_t timer;      /* runs while there are messages that are not complete */
	unsigned open_handles; /* of these */
	uint64_t turn;
	int reserve_fd; /* given up to refuse a client when descriptors run out */

	struct rpc_connection *connections;
	unsigned n_connections;
	unsigned n_begun;	 /* messages that are not complete */
	uint64_t buffered_bytes; /* of all connections */
	struct base_link held;	 /* connections that go on in the next turn, first come first */
	unsigned n_works;	 /* on the thread pool */

	bool stopping;
	void (*stopped)(void *userdata);
	void *stopped_userdata;

	msgpack_zone zone;	    /* of the request that is being dispatched */
	struct rpc_encoder encoder; /* of the answer that is being made */
	struct rpc_counters counters;
};

/* Tells whoever waits for the end of the server, when it is reached. */
void rpc_server_check_stopped(struct rpc_server *server);

/* A message is begun: sees to it that rpc_connection_check_time() is called. */
void rpc_server_watch_time(struct rpc_server *server);

static inline uint64_t rpc_server_uptime_ms(const struct rpc_server *server)
{
	return (base_clock_monotonic_ns() - server->started_ns) / NSEC_PER_MSEC;
}

struct rpc_output {
	struct rpc_output *next;
	size_t size, sent;
	int fd; /* goes with the first byte; owned; -1: none or gone */
	char data[];
};

typedef char rpc_lease_id[POOL_LEASE_ID_LENGTH + 1];

struct rpc_connection {
	struct rpc_server *server;
	struct rpc_connection *previous, *next;
	int fd;
	struct pool_tenant *tenant; /* a reference */
	uid_t uid;
	gid_t gid; /* by which it is that tenant; POOL_GROUP_NONE: by its user */
	uv_poll_t poll;
	int events; /* that are polled for */
	bool dispatching;
	bool paused;	       /* RPC_OPEN_REQUESTS_MAX are open */
	bool gone;	       /* the client has closed; what it sent before is still handled */
	bool readable;	       /* when it was held */
	struct base_link held; /* server->held: its tenant's share of the turn was used up */
	bool ended;	       /* the handle is being closed; nothing is read, sent or answered */
	bool reset;	       /* the client did not read all that was sent */

	struct rpc_decoder in;
	uint64_t begun_ns;	 /* when the message that is not complete began; 0: there is none */
	uint64_t buffered_bytes; /* as counted for the tenant and the server */
	struct rpc_output *out_first, *out_last;
	uint64_t queued_bytes, sent_bytes; /* since the beginning */

	struct rpc_request *open; /* not answered */
	unsigned n_open;
	struct rpc_request *unread; /* answered with a lease that may not have been read */
	unsigned n_unread;
	rpc_lease_id *bound; /* leases that end with the connection */
	size_t n_bound, bound_room;
};

/* Serves a socket (consumed, on failure too) of a client of that tenant, of which the reference is
 * consumed likewise; uid and gid get the sockets of its sandboxes. */
int rpc_connection_new(struct rpc_server *server, int fd, struct pool_tenant *tenant, uid_t uid,
		       gid_t gid);
/* Marks it ended. Its memory goes in a later iteration of the loop. */
void rpc_connection_end(struct rpc_connection *connection);
/* Whether its tenant may have another request dispatched in this turn of the loop. */
bool rpc_connection_has_turn(struct rpc_connection *connection);
/* Goes on with a connection that was paused or held and need not be any more. */
void rpc_connection_resume(struct rpc_connection *connection);
/* Ends it when its message has taken too long. */
void rpc_connection_check_time(struct rpc_connection *connection, uint64_t now_ns);
/* Sends or queues bytes. fd (-1: none) goes with the first; it is consumed. May end the connection.
 */
void rpc_connection_send(struct rpc_connection *connection, const char *data, size_t size, int fd);
/* The lease ends with the connection. 0 or -ENOMEM. */
int rpc_connection_bind(struct rpc_connection *connection, const char *lease_id);

/* What a request waits for, and therefore what its connection's end does to it. */
enum rpc_wait {
	RPC_WAIT_NOTHING,
	RPC_WAIT_ACQUIRE, /* pool_acquire_cancel() */
	RPC_WAIT_SET,	  /* pool_set_cancel() */
	RPC_WAIT_ACCOUNT, /* pool_account_cancel() */
	RPC_WAIT_WORK,	  /* it loses its connection and ends by itself */
};

struct rpc_work {
	uv_work_t work;
	struct snapshot_store *store;
	struct rpc_encoder encoder; /* the whole answer, made on the thread pool */
	enum rpc_code code;
	struct base_error error;
};

struct rpc_request {
	struct rpc_connection *connection; /* NULL: gone */
	struct rpc_request *previous, *next;
	uint32_t id;
	enum rpc_wait wait;
	bool answered; /* in the list of unread leases, not in that of open requests */
	uint64_t received_ns;
	char name[SNAPSHOT_NAME_MAX + 1]; /* of the template, for those who need it later */

	/* acquire */
	bool bind;
	bool parked;	    /* still inside pool_acquire() */
	rpc_lease_id lease; /* the answer is a lease; empty: it is not */
	uint64_t end_bytes; /* where the answer ends in the connection's output */

	bool show_sandboxes; /* stats */

	union {
		struct pool_acquire acquire;
		struct pool_set set;
		struct pool_account account;
		struct rpc_work work;
	};
};

/* Finds the method and calls it. malformed and duplicate requests are answered. */
void rpc_request_dispatch(struct rpc_connection *connection, const struct rpc_message *message,
			  uint64_t received_ns);
/* The server's encoder, with the head of the answer in it: one value must follow. */
struct rpc_encoder *rpc_request_encoder(struct rpc_request *request);
/* Sends what is in the server's encoder, with fd (-1: none; consumed). The request is finished and
 * may be freed. Not for one without a connection. */
void rpc_request_answer(struct rpc_request *request, int fd);
void rpc_request_refuse(struct rpc_request *request, enum rpc_code code, const char *text);
/* quota_exceeded; retry_ns 0: not known. */
void rpc_request_refuse_quota(struct rpc_request *request, enum pool_quota quota, uint64_t retry_ns,
			      const char *text);
/* The code and the default text of a pool's status, but for POOL_QUOTA_EXCEEDED. */
void rpc_request_refuse_status(struct rpc_request *request, enum pool_status status,
			       const char *text);
/* Takes an unfinished or unread request out of its connection's list and frees it. */
void rpc_request_free(struct rpc_request *request);

/* --- methods --- */

typedef void (*rpc_method_fn)(struct rpc_request *request, struct rpc_params *params);

void rpc_method_acquire(struct rpc_request *request, struct rpc_params *params);
void rpc_method_release(struct rpc_request *request, struct rpc_params *params);
void rpc_method_renew(struct rpc_request *request, struct rpc_params *params);
void rpc_method_get(struct rpc_request *request, struct rpc_params *params);
void rpc_method_list(struct rpc_request *request, struct rpc_params *params);
void rpc_method_template_list(struct rpc_request *request, struct rpc_params *params);
void rpc_method_template_inspect(struct rpc_request *request, struct rpc_params *params);
void rpc_method_pool_get(struct rpc_request *request, struct rpc_params *params);
void rpc_method_pool_set(struct rpc_request *request, struct rpc_params *params);
void rpc_method_stats(struct rpc_request *request, struct rpc_params *params);
void rpc_method_health(struct rpc_request *request, struct rpc_params *params);

const char *rpc_method_name(enum rpc_method_id id);

/* Answers invalid_argument (or internal) and returns true when the parameters are not right. */
bool rpc_params_refused(struct rpc_request *request, struct rpc_params *params);
/* A required template name, or NULL after a failure. */
const char *rpc_params_template(struct rpc_params *params, const char *name);
/* Encodes the pools of a template, or of all (name NULL), as an array. Returns their number. */
size_t rpc_encode_pools(struct rpc_server *server, struct rpc_encoder *encoder, const char *name);
