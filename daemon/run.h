/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The running daemon: event loop, pool, server, signals. */

#include "base/error.h"
#include "daemon/config.h"

#define DAEMON_STOP_TIMEOUT_MS 5000 /* of an orderly end; then the process just ends */

/*
 * Checks the host, serves until SIGTERM or SIGINT, and stops. config must be complete. 0 after an
 * orderly end; -ETIMEDOUT when it took longer than DAEMON_STOP_TIMEOUT_MS, after which the caller
 * must exit.
 */
int daemon_run(struct daemon_config *config, struct base_error *error);
