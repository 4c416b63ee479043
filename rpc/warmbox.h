/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * libwarmbox: the C client of warmboxd, and of the agent inside a sandbox.
 *
 * Blocking, no event loop, no threads, no global state. An object is used by one thread at a time.
 * Descriptors made here are close-on-exec; SIGPIPE is never raised.
 *
 *    struct warmbox_error error;
 *    struct warmbox_connection *connection;
 *    struct warmbox_lease lease;
 *    struct warmbox_agent *agent;
 *    int stream;
 *
 *    warmbox_connect(NULL, &connection, &error);
 *    warmbox_acquire(connection, &(struct warmbox_acquire_params){ .template_name = "python" },
 *                    &lease, &stream, &error);
 *    warmbox_agent_new(stream, &agent, &error);
 *    warmbox_agent_exec(agent, &(struct warmbox_exec_params){ .argv = argv }, &id, &error);
 *    warmbox_agent_run(agent, id, -1, &stdio, &exit, &error);
 *    warmbox_agent_free(agent);
 *    warmbox_release(connection, lease.id, lease.token, &error);
 *    warmbox_disconnect(connection);
 *
 * Every function that can fail returns 0 (or a documented positive outcome) or -errno, and then
 * fills *error (borrowed, may be NULL): `code` says which of the errors of the protocol it is, or
 * that it arose on this side; `text` is one line for a person. After WARMBOX_DISCONNECTED,
 * WARMBOX_PROTOCOL or WARMBOX_TIMEOUT the object is good for nothing but being freed.
 *
 * The protocol itself (methods, parameters, results) is described in docs/protocol.md.
 */

#include <msgpack.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WARMBOX_PUBLIC __attribute__((visibility("default")))

#define WARMBOX_DEFAULT_SOCKET "/run/warmbox/warmboxd.sock"
#define WARMBOX_TEXT_MAX       512
#define WARMBOX_ID_LENGTH      32 /* of leases and snapshots */
#define WARMBOX_TOKEN_LENGTH   32 /* of leases */
#define WARMBOX_QUOTA_MAX      16
#define WARMBOX_NAME_MAX       64  /* of templates */
#define WARMBOX_PATH_MAX       108 /* of Unix sockets, with the NUL */

enum warmbox_code {
	WARMBOX_OK = 0,
	/* Said by the other side; the names are in docs/protocol.md. */
	WARMBOX_INVALID_REQUEST,
	WARMBOX_UNKNOWN_METHOD,
	WARMBOX_INVALID_ARGUMENT,
	WARMBOX_NOT_FOUND,
	WARMBOX_ALREADY_EXISTS,
	WARMBOX_DEADLINE_EXCEEDED,
	WARMBOX_EXHAUSTED,
	WARMBOX_PERMISSION_DENIED,
	WARMBOX_QUOTA_EXCEEDED, /* the error has `quota` and `retry_ms` */
	WARMBOX_UNAVAILABLE,
	WARMBOX_FAILED,
	WARMBOX_INTERNAL,
	/* Found on this side. */
	WARMBOX_CANNOT_CONNECT, /* nobody answers on that socket; the text says what to do */
	WARMBOX_DISCONNECTED,	/* the other side went away */
	WARMBOX_PROTOCOL,	/* the other side sent what is not the protocol */
	WARMBOX_TIMEOUT,	/* this side's own timeout passed */
	WARMBOX_LOCAL,		/* out of memory, a bad parameter, a callback's refusal */
};

/* "not_found", …; the client's own are "cannot_connect", "disconnected", "protocol", "timeout" and
 * "local"; "ok" for WARMBOX_OK. */
WARMBOX_PUBLIC const char *warmbox_code_name(enum warmbox_code code);

struct warmbox_error {
	enum warmbox_code code;
	char text[WARMBOX_TEXT_MAX]; /* NUL-terminated, without the code's name */
	/* WARMBOX_QUOTA_EXCEEDED: which quota, and after what time trying again is of use; -1: when
	 * something of the same tenant has ended. */
	char quota[WARMBOX_QUOTA_MAX];
	int64_t retry_ms;
};

/* --- manager --- */

struct warmbox_connection;

/* path NULL: the environment's WARMBOX_SOCKET, else WARMBOX_DEFAULT_SOCKET. */
WARMBOX_PUBLIC int warmbox_connect(const char *path, struct warmbox_connection **ret_connection,
				   struct warmbox_error *error);
/* NULL is fine. Leases that were acquired with `bind` end now. */
WARMBOX_PUBLIC void warmbox_disconnect(struct warmbox_connection *connection);

/* How long a call waits for its answer, beyond the timeout that an acquire carries itself. -1: for
 * ever. The default is 30,000. */
WARMBOX_PUBLIC void warmbox_set_timeout(struct warmbox_connection *connection, int timeout_ms);

/* A decoded result that owns its memory. */
struct warmbox_value;
WARMBOX_PUBLIC const msgpack_object *warmbox_value_object(const struct warmbox_value *value);
WARMBOX_PUBLIC void warmbox_value_free(struct warmbox_value *value);
/* The value of a string key in a map; NULL when object is not a map or has no such key. */
WARMBOX_PUBLIC const msgpack_object *warmbox_map_get(const msgpack_object *object, const char *key);

/*
 * Calls any method. params: one packed msgpack map (for example made in a msgpack_sbuffer), or NULL
 * with size 0 for the empty map. On success *ret_value (may be NULL) is owned by the caller.
 */
WARMBOX_PUBLIC int warmbox_call(struct warmbox_connection *connection, const char *method,
				const void *params, size_t params_size,
				struct warmbox_value **ret_value, struct warmbox_error *error);

struct warmbox_label {
	const char *key;
	const char *value;
};

struct warmbox_acquire_params {
	const char *template_name;
	bool has_timeout;    /* false: the daemon's default */
	uint64_t timeout_ms; /* 0: only what is parked now */
	uint64_t ttl_ms;     /* 0: none */
	bool bind;	     /* the lease ends with this connection */
	const struct warmbox_label *labels;
	size_t n_labels;
};

/* Nanoseconds; 0 where it has not happened. See docs/protocol.md. */
struct warmbox_timings {
	uint64_t wait_ns, claim_ns, first_entry_ns;
	uint64_t spawn_ns, create_ns, load_ns, identity_ns, park_ns; /* of the restore */
};

struct warmbox_lease {
	char id[WARMBOX_ID_LENGTH + 1];
	char token[WARMBOX_TOKEN_LENGTH + 1]; /* of warmbox_acquire(); else empty */
	char template_name[WARMBOX_NAME_MAX + 1];
	char snapshot[WARMBOX_ID_LENGTH + 1];
	char socket[WARMBOX_PATH_MAX]; /* for warmbox_agent_connect(); empty: this user has none */
	char cause[32];		       /* why it ended; empty while it is active */
	uint32_t pid;		       /* of the VMM */
	bool active;
	uint64_t acquired_realtime_ns;
	uint64_t ttl_ms;	      /* as acquired or renewed last; 0: none */
	uint64_t expires_realtime_ns; /* 0: never */
	struct warmbox_timings timings;
};

/* With ret_stream, *ret_stream is a stream to the agent, owned by the caller (warmbox_agent_new()
 * takes it). ret_stream NULL: no stream is asked for. */
WARMBOX_PUBLIC int warmbox_acquire(struct warmbox_connection *connection,
				   const struct warmbox_acquire_params *params,
				   struct warmbox_lease *ret_lease, int *ret_stream,
				   struct warmbox_error *error);
/* token: the lease's; NULL is for administrators. */
WARMBOX_PUBLIC int warmbox_release(struct warmbox_connection *connection, const char *lease_id,
				   const char *token, struct warmbox_error *error);
/* The lease ends in ttl_ms from now (0: not by itself). ret_lease may be NULL. */
WARMBOX_PUBLIC int warmbox_renew(struct warmbox_connection *connection, const char *lease_id,
				 const char *token, uint64_t ttl_ms,
				 struct warmbox_lease *ret_lease, struct warmbox_error *error);
/* Only of leases of one's own tenant, unless one is an administrator. */
WARMBOX_PUBLIC int warmbox_get(struct warmbox_connection *connection, const char *lease_id,
			       struct warmbox_lease *ret_lease, struct warmbox_error *error);
/* Reads one lease out of a result, for example an element of `list`. */
WARMBOX_PUBLIC int warmbox_lease_parse(const msgpack_object *object,
				       struct warmbox_lease *ret_lease,
				       struct warmbox_error *error);

/* --- agent --- */

struct warmbox_agent;

/* Connects through the socket of a lease (`CONNECT 1024`). timeout_ms < 0: wait for ever. */
WARMBOX_PUBLIC int warmbox_agent_connect(const char *socket_path, int timeout_ms,
					 struct warmbox_agent **ret_agent,
					 struct warmbox_error *error);
/* Takes a stream that is connected to the agent already. stream is consumed, on failure too. */
WARMBOX_PUBLIC int warmbox_agent_new(int stream, struct warmbox_agent **ret_agent,
				     struct warmbox_error *error);
/* NULL is fine. Kills what was started through this stream and still runs. */
WARMBOX_PUBLIC void warmbox_agent_free(struct warmbox_agent *agent);

/* For poll(2): the descriptor (borrowed) and the events to wait for. When one of them is there,
 * call warmbox_agent_next() with timeout 0 until it returns 0. */
WARMBOX_PUBLIC int warmbox_agent_fd(const struct warmbox_agent *agent);
WARMBOX_PUBLIC short warmbox_agent_events(const struct warmbox_agent *agent);

/* Calls any method of the agent and waits for the answer. Only while no request is open on this
 * stream (-EBUSY). timeout_ms < 0: wait for ever. Parameters and result as in warmbox_call(). */
WARMBOX_PUBLIC int warmbox_agent_call(struct warmbox_agent *agent, const char *method,
				      const void *params, size_t params_size, int timeout_ms,
				      struct warmbox_value **ret_value,
				      struct warmbox_error *error);
/* ret_generation may be NULL. */
WARMBOX_PUBLIC int warmbox_agent_ping(struct warmbox_agent *agent, int timeout_ms,
				      uint64_t *ret_generation, struct warmbox_error *error);

struct warmbox_exec_params {
	char *const *argv; /* NULL-terminated; 1 to 256 strings */
	char *const *env;  /* "KEY=VALUE", NULL-terminated; NULL: only the agent's default */
	const char *cwd;   /* NULL: "/" */
	bool want_stdin;   /* false: /dev/null */
	uint64_t max_output_bytes; /* of stdout and stderr together, 0: no limit. A program that
				      writes more is killed; the request fails with
				      WARMBOX_EXHAUSTED. */
	bool make_resident; /* template builder: start it as the resident process. It ends with
			       WARMBOX_EVENT_ANSWER when the process is warm. */
};

/* Start something; nothing is waited for. Several may be open at once. *ret_id names the request
 * from then on. */
WARMBOX_PUBLIC int warmbox_agent_exec(struct warmbox_agent *agent,
				      const struct warmbox_exec_params *params, uint32_t *ret_id,
				      struct warmbox_error *error);
WARMBOX_PUBLIC int warmbox_agent_resident(struct warmbox_agent *agent, uint32_t *ret_id,
					  struct warmbox_error *error);
/* Signals the process of an open request. The answer comes as an event with the id *ret_id (may be
 * NULL); warmbox_agent_run() skips it. */
WARMBOX_PUBLIC int warmbox_agent_kill(struct warmbox_agent *agent, uint32_t id, int signal,
				      uint32_t *ret_id, struct warmbox_error *error);

/* The most bytes of stdin that are queued here before the agent takes them. */
#define WARMBOX_STDIN_QUEUE_MAX (256 * 1024)

/*
 * Queues bytes for the standard input of an open request; size 0 closes it. Never blocks. 0: taken.
 * 1: the queue is full, nothing was taken: handle events with warmbox_agent_next() and try again.
 */
WARMBOX_PUBLIC int warmbox_agent_stdin(struct warmbox_agent *agent, uint32_t id, const void *data,
				       size_t size, struct warmbox_error *error);

enum warmbox_event_kind {
	WARMBOX_EVENT_STDOUT = 1, /* data, size */
	WARMBOX_EVENT_STDERR,	  /* data, size */
	WARMBOX_EVENT_EXITED,	  /* exec or resident: the process ended; exit */
	WARMBOX_EVENT_ANSWER,	  /* any other request succeeded; object */
	WARMBOX_EVENT_ERROR,	  /* the request failed; failure */
};

struct warmbox_exit {
	bool signaled;
	int code;   /* exit status; when signaled 0 */
	int signal; /* when signaled */
};

struct warmbox_event {
	enum warmbox_event_kind kind;
	uint32_t id;	  /* of the request */
	const void *data; /* borrowed until the next call with this agent, like object */
	size_t size;
	const msgpack_object *object;
	struct warmbox_exit exit;
	struct warmbox_error failure;
};

/* Sends what is queued and waits for the next event. 1: *ret_event is filled. 0: timeout_ms passed
 * (0: do not wait, < 0: for ever) or a signal handler ran. */
WARMBOX_PUBLIC int warmbox_agent_next(struct warmbox_agent *agent, int timeout_ms,
				      struct warmbox_event *ret_event, struct warmbox_error *error);

/* How warmbox_agent_run() moves bytes. */
struct warmbox_stdio {
	void *userdata;
	/* What the process wrote. A negative return ends the run with it. May block; the guest is
	 * slowed down then. NULL: dropped. */
	int (*on_stdout)(void *userdata, const void *data, size_t size);
	int (*on_stderr)(void *userdata, const void *data, size_t size);
	/* Read and sent until its end, which closes the process's standard input; borrowed. -1:
	 * nothing is sent (close it with warmbox_agent_stdin()). */
	int stdin_fd;
	/* Called when a signal handler ran, for example to call warmbox_agent_kill(). A negative
	 * return ends the run with it. May be NULL. */
	int (*on_interrupt)(void *userdata, struct warmbox_agent *agent, uint32_t id);
	/* The signal mask while waiting, as in ppoll(2); NULL: unchanged. With the signal blocked
	 * outside, none is missed just before a wait. */
	const sigset_t *wait_mask;
};

/*
 * Runs request id to its end. 0 with *ret_exit when the process ended; the -errno of the failure
 * when the request failed. Events of other requests are dropped. timeout_ms < 0: for ever;
 * -ETIMEDOUT (WARMBOX_TIMEOUT) closes the stream, which kills the process.
 */
WARMBOX_PUBLIC int warmbox_agent_run(struct warmbox_agent *agent, uint32_t id, int timeout_ms,
				     const struct warmbox_stdio *stdio,
				     struct warmbox_exit *ret_exit, struct warmbox_error *error);

#ifdef __cplusplus
}
#endif
