/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The `exec` method: from parameters to a started process. */

#include "guest/agent/connection.h"

/* What programs find in their environment unless the request says otherwise. */
#define AGENT_DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define AGENT_DEFAULT_HOME "/root"

/* Where a resident process finds the descriptor that it is to write a byte to. */
#define AGENT_READY_FD 3

/* Starts the process, which will answer the request, or answers with an error. */
void agent_exec_serve(struct agent_connection *connection, const struct agent_rpc_message *message);

/* Starts this program itself with GUEST_TOUCH_ARGUMENT, the way any other is started; its end
 * answers the `identity` request id. 0, or -errno with *ret_step. */
int agent_exec_touch(struct agent_connection *connection, uint32_t id, const char **ret_step);

/* What that program does: writes a byte, as programs do. Its exit status. */
int agent_exec_touch_main(void);
