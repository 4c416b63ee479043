/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the agent is made of: one listener, its connections, their processes, at most one resident
 * process. Everything runs on one thread.
 */

#include "base/list.h"
#include "guest/agent/identity.h"
#include "guest/agent/loop.h"

#include <msgpack.h>
#include <stdbool.h>

struct agent_process;

/* Beyond this, connections are closed as soon as they are accepted. */
#define AGENT_CONNECTIONS_MAX 64
/* Beyond this, exec is refused as exhausted. Seven descriptors each and the connections' stay
 * below the usual limit of 1024. */
#define AGENT_PROCESSES_MAX 128
/* Closed connections whose memory is kept: touching it for the first time after a restore would
 * fault, using it again does not. */
#define AGENT_SPARE_CONNECTIONS 2

struct agent_server {
	struct agent_loop loop;
	struct agent_source listener;
	struct base_link connections;
	unsigned n_connections;
	struct base_link spare_connections;
	unsigned n_spare;

	struct agent_source signals; /* readable when processes have ended */
	struct base_link processes;  /* all that were started */
	unsigned n_processes;
	struct base_link orphans; /* processes without a connection: resident or being killed */
	struct base_link retired; /* answered; freed when the answer is on its way */
	bool reap_more;		  /* more processes may have ended than were looked at */
	struct agent_process *prepared; /* has its pipes, but no program yet; may be NULL */
	struct agent_process *resident; /* NULL: none was started, or it was handed out and ended */

	struct agent_identity identity;
	uint64_t generation; /* of the last identity applied; 0 before */
	bool never_identify; /* fault injection: no reseed, no acknowledgement */
	bool busy;	     /* a connection has more to do without waiting for an event */

	msgpack_zone zone; /* for decoding one message at a time; its memory is used again */
};

/*
 * Sets up the process's signals. listener_fd (consumed, non-blocking, listening). The identity is
 * set by the caller afterwards. 0 or -errno.
 */
int agent_server_init(struct agent_server *server, int listener_fd);

/* Serves until something of the loop itself fails: -errno. *stop (may be NULL) is looked at after
 * every batch; not zero means 0 is returned. */
int agent_server_run(struct agent_server *server, const volatile int *stop);

/* Kills what runs and frees everything. */
void agent_server_deinit(struct agent_server *server);
