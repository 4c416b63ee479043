/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Credentials of a client: those of the process that called connect(), at that time. Whoever it has
 * given the descriptor to since counts as it. Does not block. Any thread.
 */

#include "rpc/peer.h"

#include <errno.h>
#include <sys/socket.h>

#define GROUPS_AT_FIRST 32

static int read_groups(int fd, struct pool_peer *peer, gid_t **ret_groups)
{
	socklen_t size = GROUPS_AT_FIRST * sizeof(gid_t);

	for (;;) {
		socklen_t room = size;
		gid_t *groups = malloc(room);
		int r = 0;

		if (!groups) {
			return -ENOMEM;
		}
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0) {
			r = -errno;
		}
		if (r == 0) {
			peer->groups = *ret_groups = groups;
			peer->n_groups = size / sizeof(gid_t);
			return 0;
		}
		free(groups);
		/* The size that is needed, which a socket does not change any more. */
		if (r != -ERANGE || size <= room || size > POOL_PEER_GROUPS_MAX * sizeof(gid_t)) {
			return r;
		}
	}
}

int rpc_peer_read(int fd, struct pool_peer *ret_peer, gid_t **ret_groups)
{
	struct ucred credentials;
	socklen_t size = sizeof(credentials);
	struct pool_peer peer = { 0 };
	int r;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) {
		return -errno;
	}
	peer.pid = credentials.pid;
	peer.uid = credentials.uid;
	peer.gid = credentials.gid;
	r = read_groups(fd, &peer, ret_groups);
	if (r == 0) {
		*ret_peer = peer;
	}
	return r;
}
