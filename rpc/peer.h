/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who is at the other end of a Unix socket, as the kernel had it when the client connected. */

#include "pool/pool.h"

/* *ret_groups holds the peer's groups and is owned by the caller (free()). 0 or -errno. */
int rpc_peer_read(int fd, struct pool_peer *ret_peer, gid_t **ret_groups);
