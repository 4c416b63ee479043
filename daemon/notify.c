/* SPDX-License-Identifier: Apache-2.0 */

/* One datagram to the service manager. Never blocks. */

#include "daemon/notify.h"

#include "base/fd.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

void daemon_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t size = path ? strlen(path) : 0;
	_cleanup_fd_ int fd = -1;

	if (size == 0 || size >= sizeof(address.sun_path)) {
		return;
	}
	memcpy(address.sun_path, path, size);
	if (path[0] == '@') {
		address.sun_path[0] = '\0'; /* the abstract namespace */
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size));
	}
}
