/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The methods of docs/protocol.md. */

#include "guest/agent/connection.h"

/*
 * Serves one request or notification; there is room for its response. 0, or -EBADMSG when the
 * connection cannot go on.
 */
int agent_methods_serve(struct agent_connection *connection,
			const struct agent_rpc_message *message);
