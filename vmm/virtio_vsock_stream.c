/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The host side of vsock: the listener, the CONNECT handshake, and one Unix stream socket for each
 * connection.
 *
 * Happy path of a client: accept, read `CONNECT <port>\n`, ask the guest, answer `OK <host
 * port>\n`, then carry bytes. Bytes for the guest are not read before the guest can take them;
 * bytes from it go to the socket at once or wait in the connection's buffer.
 *
 * Half-closes: an end of input from the host becomes "will not send", a host that takes nothing any
 * more becomes "will not receive"; the guest's become shutdown(2) once its bytes are out. A hang-up
 * stays reported for ever by epoll, so the socket then leaves the loop and is read dry on demand.
 *
 * Failures: a malformed line closes the client's socket; a broken socket resets the guest's end.
 * Runs in the main thread under the device lock; no call blocks.
 */

#include "vmm/virtio_vsock.h"

#include "base/clock.h"
#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* How many clients one turn of the listener takes. */
#define ACCEPTS_PER_TURN 16

/* How much unread input is thrown away before a close; see discard_input(). */
#define DISCARD_BYTES_MAX KIB(256)

#define CONNECT_WORD "CONNECT "

static void connection_ready(struct vmm_source *source, uint32_t events);

bool vmm_vsock_has_room(const struct vmm_vsock *vsock)
{
	/* The limits may have been lowered below what there is. */
	return vsock->n_connections < vsock->connections_max &&
	       vsock->promised_bytes + VMM_VSOCK_BUFFER_BYTES_MIN <= vsock->buffer_bytes_max;
}

void vmm_vsock_count_refusal(struct vmm_vsock *vsock)
{
	const struct vmm_virtio_host *host = vsock->virtio.host;

	vsock->refused++;
	if (host->limited) {
		host->limited(host->userdata);
	}
}

struct vmm_vsock_connection *vmm_vsock_connection_new(struct vmm_vsock *vsock, int fd,
						      enum vmm_vsock_state state)
{
	struct vmm_vsock_connection *connection = NULL;

	if (vmm_vsock_has_room(vsock)) {
		connection = calloc(1, sizeof(*connection));
	}
	if (!connection) {
		base_fd_close(fd);
		return NULL;
	}
	connection->vsock = vsock;
	connection->state = state;
	connection->buffer_size = (uint32_t)MIN((uint64_t)VMM_VSOCK_BUFFER_BYTES,
						vsock->buffer_bytes_max - vsock->promised_bytes);
	vsock->promised_bytes += connection->buffer_size;
	connection->source =
		(struct vmm_source){ .fd = fd, .fn = connection_ready, .userdata = connection };
	TAILQ_INSERT_TAIL(&vsock->connections, connection, all);
	vsock->n_connections++;
	return connection;
}

/*
 * A Unix socket that is closed with unread input shows its peer a reset instead of an end of file,
 * and a client that reads the guest's last words must not take them for cut off.
 */
static void discard_input(int fd)
{
	char scratch[4096];

	shutdown(fd, SHUT_RDWR);
	for (size_t done = 0; done < DISCARD_BYTES_MAX;) {
		ssize_t n = recv(fd, scratch, sizeof(scratch), MSG_DONTWAIT);

		if (n <= 0) {
			break;
		}
		done += (size_t)n;
	}
}

void vmm_vsock_connection_close_socket(struct vmm_vsock_connection *connection)
{
	if (connection->source.fd >= 0) {
		vmm_loop_remove(connection->vsock->virtio.host->loop, &connection->source);
		discard_input(connection->source.fd);
		connection->source.fd = base_fd_close(connection->source.fd);
	}
}

void vmm_vsock_connection_free(struct vmm_vsock_connection *connection)
{
	struct vmm_vsock *vsock = connection->vsock;

	vmm_vsock_connection_close_socket(connection);
	if (connection->is_ready) {
		TAILQ_REMOVE(&vsock->ready, connection, ready);
	}
	TAILQ_REMOVE(&vsock->connections, connection, all);
	vsock->n_connections--;
	vsock->promised_bytes -= connection->buffer_size;
	if (vsock->serving == connection) {
		vsock->serving = NULL;
	}
	free(connection->buffer);
	free(connection);
	vmm_vsock_listener_watch(vsock);
}

/* The events that the connection can make use of; hang-ups come unasked. */
static uint32_t wanted_events(const struct vmm_vsock_connection *connection)
{
	bool reads = !connection->readable && !(connection->shut & VMM_VSOCK_SHUT_SEND) &&
		     !(connection->guest_shut & VMM_VSOCK_SHUT_RCV);
	uint32_t out = connection->buffer_bytes > 0 ? EPOLLOUT : 0;

	switch (connection->state) {
	case VMM_VSOCK_HANDSHAKE:
		return EPOLLIN;
	case VMM_VSOCK_REQUESTED:
		return connection->attached && reads ? EPOLLIN : 0;
	case VMM_VSOCK_ESTABLISHED:
		return (reads ? EPOLLIN : 0) | out;
	default:
		return out;
	}
}

/* A device that stands still leaves alone what concerns the guest. */
static bool wants_loop(const struct vmm_vsock_connection *connection)
{
	return connection->source.fd >= 0 && !connection->hung_up &&
	       (connection->vsock->virtio.run == VMM_VIRTIO_RUNNING ||
		connection->state == VMM_VSOCK_HANDSHAKE ||
		connection->state == VMM_VSOCK_FLUSHING);
}

void vmm_vsock_connection_watch(struct vmm_vsock_connection *connection)
{
	struct vmm_loop *loop = connection->vsock->virtio.host->loop;
	uint32_t events = wanted_events(connection);
	int r = 0;

	if (!wants_loop(connection)) {
		vmm_loop_remove(loop, &connection->source);
		return;
	}
	if (!connection->source.added) {
		r = vmm_loop_add(loop, &connection->source, events);
	} else if (events != connection->interest) {
		r = vmm_loop_modify(loop, &connection->source, events);
	}
	connection->interest = events;
	if (r < 0) {
		/* Out of kernel memory: as good as a peer that is gone. */
		connection->hung_up = true;
		connection->readable = true;
	}
}

ssize_t vmm_vsock_connection_read(struct vmm_vsock_connection *connection, struct iovec *iov,
				  unsigned n_iov)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = n_iov };
	ssize_t n;

	do {
		n = recvmsg(connection->source.fd, &message, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n == 0) {
		struct pollfd state = { .fd = connection->source.fd };

		/* Whether the host only stopped sending or is gone: one packet to the guest
		 * instead of two. */
		if (poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR))) {
			connection->hung_up = true;
		}
	}
	return n < 0 ? -errno : n;
}

/* The host takes nothing any more: what is left for it counts as delivered. */
static void drop_output(struct vmm_vsock_connection *connection)
{
	connection->shut |= VMM_VSOCK_SHUT_RCV;
	connection->forwarded = connection->received;
	connection->buffer_bytes = 0;
}

static void buffer_append(struct vmm_vsock_connection *connection, const struct iovec *iov,
			  unsigned n_iov, uint32_t offset, uint32_t size)
{
	uint32_t end =
		(connection->buffer_start + connection->buffer_bytes) % connection->buffer_size;
	uint32_t first = MIN(size, connection->buffer_size - end);

	assert(size <= connection->buffer_size - connection->buffer_bytes);
	vmm_virtio_iov_read(iov, n_iov, offset, connection->buffer + end, first);
	vmm_virtio_iov_read(iov, n_iov, (uint64_t)offset + first, connection->buffer, size - first);
	connection->buffer_bytes += size;
}

static ssize_t send_some(struct vmm_vsock_connection *connection, struct iovec *iov, unsigned n_iov)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = n_iov };
	ssize_t n;

	do {
		n = sendmsg(connection->source.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : -errno;
	}
	connection->forwarded += (uint32_t)n;
	return n;
}

int vmm_vsock_connection_write(struct vmm_vsock_connection *connection, const struct iovec *iov,
			       unsigned n_iov, uint32_t size)
{
	ssize_t n = 0;

	connection->received += size;
	if (connection->shut & VMM_VSOCK_SHUT_RCV) {
		drop_output(connection);
		return 0;
	}
	if (connection->buffer_bytes == 0) {
		n = send_some(connection, (struct iovec *)iov, n_iov);
	}
	if (n < 0) {
		drop_output(connection);
		return 0;
	}
	if ((uint32_t)n == size) {
		return 0;
	}
	if (!connection->buffer) {
		connection->buffer = malloc(connection->buffer_size);
		if (!connection->buffer) {
			return -ENOMEM;
		}
	}
	buffer_append(connection, iov, n_iov, (uint32_t)n, size - (uint32_t)n);
	return 0;
}

static void flush(struct vmm_vsock_connection *connection)
{
	while (connection->buffer_bytes > 0) {
		uint32_t first = MIN(connection->buffer_bytes,
				     connection->buffer_size - connection->buffer_start);
		struct iovec iov[] = {
			{ connection->buffer + connection->buffer_start, first },
			{ connection->buffer, connection->buffer_bytes - first },
		};
		ssize_t n = send_some(connection, iov, ARRAY_SIZE(iov));

		if (n < 0) {
			drop_output(connection);
		}
		if (n <= 0) {
			return;
		}
		connection->buffer_start =
			(connection->buffer_start + (uint32_t)n) % connection->buffer_size;
		connection->buffer_bytes -= (uint32_t)n;
	}
}

void vmm_vsock_connection_settle(struct vmm_vsock_connection *connection)
{
	if (connection->state == VMM_VSOCK_FLUSHING &&
	    (connection->buffer_bytes == 0 || connection->hung_up)) {
		vmm_vsock_connection_free(connection);
		return;
	}
	if (connection->state == VMM_VSOCK_ESTABLISHED && connection->source.fd >= 0) {
		if (connection->guest_shut & VMM_VSOCK_SHUT_RCV) {
			shutdown(connection->source.fd, SHUT_RD);
		}
		if ((connection->guest_shut & VMM_VSOCK_SHUT_SEND) &&
		    connection->buffer_bytes == 0) {
			shutdown(connection->source.fd, SHUT_WR);
		}
	}
	vmm_vsock_connection_watch(connection);
}

void vmm_vsock_connection_greet(struct vmm_vsock_connection *connection)
{
	char line[VMM_VSOCK_LINE_MAX];
	int length = snprintf(line, sizeof(line), "OK %u\n", connection->host_port);

	/* Nothing was sent before, so a socket that is still there has room for it. */
	if (send(connection->source.fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) !=
	    length) {
		drop_output(connection);
	}
}

/* "CONNECT <decimal port>", without the newline. */
static bool parse_line(const char *line, uint32_t length, uint32_t *ret_port)
{
	uint32_t word = sizeof(CONNECT_WORD) - 1;
	uint64_t port = 0;

	if (length <= word || length > word + 10 || memcmp(line, CONNECT_WORD, word) != 0) {
		return false;
	}
	for (uint32_t i = word; i < length; i++) {
		if (line[i] < '0' || line[i] > '9') {
			return false;
		}
		port = port * 10 + (uint64_t)(line[i] - '0');
	}
	if (port >= VMM_VSOCK_PORT_ANY) {
		return false;
	}
	*ret_port = (uint32_t)port;
	return true;
}

/* Takes bytes up to the newline, never past it. 1: the line is there; 0: not yet; <0: give up. */
static int read_line(struct vmm_vsock_connection *connection)
{
	char *end = connection->line + connection->line_bytes;
	size_t room = sizeof(connection->line) - connection->line_bytes;
	ssize_t n = recv(connection->source.fd, end, room, MSG_DONTWAIT | MSG_PEEK);
	const char *newline;

	if (n < 0) {
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	}
	if (n == 0) {
		return -ECONNRESET;
	}
	newline = memchr(end, '\n', (size_t)n);
	if (newline) {
		n = newline - end + 1;
	}
	/* What was seen is there to be taken. */
	n = recv(connection->source.fd, end, (size_t)n, MSG_DONTWAIT);
	if (n < 0) {
		return -errno;
	}
	connection->line_bytes += (uint32_t)n;
	if (newline) {
		return 1;
	}
	return connection->line_bytes < sizeof(connection->line) ? 0 : -EMSGSIZE;
}

static void serve_handshake(struct vmm_vsock_connection *connection)
{
	uint32_t port;
	int r = read_line(connection);

	if (r < 0 || (r > 0 && !parse_line(connection->line, connection->line_bytes - 1, &port))) {
		vmm_vsock_connection_free(connection);
		return;
	}
	if (r > 0) {
		connection->readable = true;
		vmm_vsock_request(connection, port);
		vmm_vsock_connection_watch(connection);
		vmm_vsock_pump(connection->vsock);
	}
}

static void hang_up(struct vmm_vsock_connection *connection)
{
	connection->hung_up = true;
	connection->readable = true; /* the rest of the bytes, then the end */
	if (connection->state == VMM_VSOCK_ESTABLISHED || connection->state == VMM_VSOCK_FLUSHING) {
		drop_output(connection);
	}
	vmm_loop_remove(connection->vsock->virtio.host->loop, &connection->source);
}

static void connection_ready(struct vmm_source *source, uint32_t events)
{
	struct vmm_vsock_connection *connection = source->userdata;
	struct vmm_vsock *vsock = connection->vsock;

	if (connection->state == VMM_VSOCK_HANDSHAKE) {
		serve_handshake(connection);
		return;
	}
	if (events & EPOLLOUT) {
		flush(connection);
	}
	if (events & EPOLLIN) {
		connection->readable = true;
	}
	if (events & (EPOLLHUP | EPOLLERR)) {
		if (connection->state == VMM_VSOCK_REQUESTED && !connection->attached &&
		    !vmm_vsock_guest_knows(connection)) {
			/* A client that did not wait; a guest that is not there must not be
			 * owed requests for ever. */
			vmm_vsock_connection_free(connection);
			return;
		}
		hang_up(connection);
	}
	/* What the loop watches is settled after the pump: most often nothing has to change. */
	vsock->serving = connection;
	vmm_vsock_wake(connection);
	vmm_vsock_pump(vsock);
	if (vsock->serving) {
		vsock->serving = NULL;
		vmm_vsock_connection_settle(connection);
	}
}

void vmm_vsock_handshakes_due(struct vmm_timer *timer)
{
	struct vmm_vsock *vsock = timer->userdata;
	uint64_t now_ns = base_clock_monotonic_ns();
	struct vmm_vsock_connection *connection, *next;

	for (connection = TAILQ_FIRST(&vsock->connections); connection; connection = next) {
		next = TAILQ_NEXT(connection, all);
		if (connection->state != VMM_VSOCK_HANDSHAKE) {
			continue;
		}
		if (connection->deadline_ns > now_ns) {
			/* The list is in the order in which they came. */
			vmm_loop_arm(vsock->virtio.host->loop, timer, connection->deadline_ns);
			break;
		}
		vmm_vsock_connection_free(connection);
	}
}

static void begin_handshake(struct vmm_vsock_connection *connection)
{
	struct vmm_vsock *vsock = connection->vsock;

	connection->deadline_ns =
		base_clock_monotonic_ns() + VMM_VSOCK_HANDSHAKE_MS * NSEC_PER_MSEC;
	if (vsock->timer.deadline_ns == 0) {
		vmm_loop_arm(vsock->virtio.host->loop, &vsock->timer, connection->deadline_ns);
	}
	vmm_vsock_connection_watch(connection);
}

static void listener_ready(struct vmm_source *source, uint32_t events)
{
	struct vmm_vsock *vsock = source->userdata;

	for (int i = 0; i < ACCEPTS_PER_TURN && vsock->listener.added; i++) {
		struct vmm_vsock_connection *connection;
		int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			return; /* no more, or gone again */
		}
		connection = vmm_vsock_connection_new(vsock, fd, VMM_VSOCK_HANDSHAKE);
		if (connection) {
			begin_handshake(connection);
		}
		vmm_vsock_listener_watch(vsock);
	}
}

void vmm_vsock_listener_watch(struct vmm_vsock *vsock)
{
	bool wanted = vsock->listener.fd >= 0 && vmm_virtio_is_active(&vsock->virtio) &&
		      vsock->virtio.run == VMM_VIRTIO_RUNNING && vmm_vsock_has_room(vsock);

	vsock->listener.fn = listener_ready;
	vsock->listener.userdata = vsock;
	if (!wanted) {
		vmm_loop_remove(vsock->virtio.host->loop, &vsock->listener);
	} else if (!vsock->listener.added) {
		/* Out of kernel memory: tried again with the next change. */
		(void)vmm_loop_add(vsock->virtio.host->loop, &vsock->listener, EPOLLIN);
	}
}
