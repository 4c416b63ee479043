/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the client of the agent: what agent_client.c and agent_run.c share. */

#include "rpc/channel.h"

#define RPC_AGENT_REQUESTS_MAX 256     /* open at once on a stream */
#define RPC_AGENT_CHUNK_BYTES  KIB(32) /* of standard input, in one notification */

struct rpc_agent_request {
	uint32_t id;
	bool process; /* its answer is an exit */
};

struct warmbox_agent {
	struct rpc_channel channel;
	struct rpc_agent_request requests[RPC_AGENT_REQUESTS_MAX];
	unsigned n_requests;
	struct rpc_message message; /* what the last event was made of */
};

/* As warmbox_agent_next(). */
int rpc_agent_next(struct warmbox_agent *agent, uint64_t deadline_ns,
		   struct warmbox_event *ret_event, struct warmbox_error *error);
/* Closes the stream. -ETIMEDOUT. */
int rpc_agent_timed_out(struct warmbox_agent *agent, const char *what, struct warmbox_error *error);
/* The failure of the last event, as a function returns it. */
int rpc_agent_failure(struct warmbox_agent *agent, const struct warmbox_event *event,
		      struct warmbox_error *error);
