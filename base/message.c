/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Messages of base/message.h: one packet in, one packet out, and a blocking call.
 *
 * Nothing is kept between calls. A packet that breaks the rules is -EBADMSG and its descriptors are
 * closed. Any thread; packets of a SOCK_SEQPACKET socket do not mix.
 */

#include "base/message.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

void base_message_set_text(struct base_message *message, const char *text)
{
	message->text_length = (uint32_t)strnlen(text, BASE_MESSAGE_TEXT_MAX);
	memcpy(message->text, text, message->text_length);
	message->text[message->text_length] = '\0';
}

int base_message_send(int socket, const struct base_message *message, const int *fds, size_t n_fds)
{
	if (message->text_length > BASE_MESSAGE_TEXT_MAX || n_fds > BASE_MESSAGE_FDS_MAX) {
		return -EINVAL;
	}
	for (;;) {
		ssize_t n = base_fd_send(socket, message,
					 BASE_MESSAGE_HEADER_BYTES + message->text_length, fds,
					 n_fds, 0);

		if (n >= 0) {
			return 0;
		}
		if (n != -EINTR) {
			return (int)n;
		}
	}
}

static bool message_is_valid(const struct base_message *message, size_t size)
{
	return size >= BASE_MESSAGE_HEADER_BYTES && message->text_length <= BASE_MESSAGE_TEXT_MAX &&
	       size == BASE_MESSAGE_HEADER_BYTES + message->text_length && message->reserved == 0 &&
	       memchr(message->text, '\0', message->text_length) == NULL;
}

int base_message_receive(int socket, struct base_message *ret_message,
			 int fds[BASE_MESSAGE_FDS_MAX], size_t *ret_n_fds)
{
	size_t n_fds = 0;
	ssize_t n;

	do {
		n = base_fd_receive(socket, ret_message, sizeof(*ret_message), fds,
				    BASE_MESSAGE_FDS_MAX, &n_fds, 0);
	} while (n == -EINTR);
	if (n == -EMSGSIZE) {
		return -EBADMSG;
	}
	if (n <= 0) {
		return (int)n;
	}
	if (!message_is_valid(ret_message, (size_t)n)) {
		for (size_t i = 0; i < n_fds; i++) {
			base_fd_close(fds[i]);
		}
		return -EBADMSG;
	}
	ret_message->text[ret_message->text_length] = '\0';
	*ret_n_fds = n_fds;
	return 1;
}

/* Waits until the socket has something. 0, -ETIMEDOUT or -errno. deadline_ns 0: for ever. */
static int wait_readable(int socket, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd item = { .fd = socket, .events = POLLIN };
		int timeout_ms = -1;

		if (deadline_ns) {
			uint64_t now = base_clock_monotonic_ns();

			if (now >= deadline_ns) {
				return -ETIMEDOUT;
			}
			timeout_ms = (int)((deadline_ns - now) / NSEC_PER_MSEC) + 1;
		}

		int n = poll(&item, 1, timeout_ms);

		if (n > 0) {
			return 0;
		}
		if (n < 0 && errno != EINTR) {
			return -errno;
		}
	}
}

/* One message, after an event or a time-out of the wait. 1: it is in *ret_reply. 0: go on waiting.
 */
static int take_reply(int socket, const struct base_message *request,
		      base_message_event_fn on_event, void *userdata,
		      struct base_message *ret_reply, int *ret_fd)
{
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;
	int r;

	r = base_message_receive(socket, ret_reply, fds, &n_fds);
	if (r <= 0) {
		return r == 0 ? -ECONNRESET : r == -EAGAIN ? 0 : r;
	}
	*ret_fd = n_fds > 0 ? fds[0] : -1;
	for (size_t i = 1; i < n_fds; i++) {
		base_fd_close(fds[i]);
	}
	if (ret_reply->sequence == 0) {
		*ret_fd = base_fd_close(*ret_fd);
		if (on_event) {
			on_event(userdata, ret_reply);
		}
		return 0;
	}
	if (ret_reply->sequence != request->sequence || ret_reply->op != request->op ||
	    ret_reply->result > 0) {
		*ret_fd = base_fd_close(*ret_fd);
		return -EBADMSG;
	}
	return 1;
}

int base_message_call(int socket, const char *peer, const struct base_message *request,
		      const int *fds, size_t n_fds, int timeout_ms, base_message_event_fn on_event,
		      void *userdata, struct base_message *ret_reply, int *ret_fd,
		      struct base_error *error)
{
	struct base_message message;
	_cleanup_fd_ int fd = -1;
	uint64_t deadline_ns = 0;
	int r;

	if (timeout_ms >= 0) {
		deadline_ns = base_clock_monotonic_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	}
	r = base_message_send(socket, request, fds, n_fds);
	if (r < 0) {
		return base_error_set_errno(error, r == -EPIPE ? -ECONNRESET : r,
					    "sending a request to the %s", peer);
	}
	do {
		r = wait_readable(socket, deadline_ns);
		if (r < 0) {
			return base_error_set_errno(error, r, "waiting for the %s", peer);
		}
		r = take_reply(socket, request, on_event, userdata, &message, &fd);
	} while (r == 0);
	if (r == -ECONNRESET) {
		return base_error_set(error, r, "the %s is gone", peer);
	}
	if (r == -EBADMSG) {
		return base_error_set(error, r, "the %s answered something that was not asked",
				      peer);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "receiving from the %s", peer);
	}
	if (message.result < 0) {
		return base_error_set(error, message.result, "%s",
				      message.text_length ? message.text
							  : "refused, no reason given");
	}
	if (ret_reply) {
		*ret_reply = message;
	}
	if (ret_fd) {
		*ret_fd = TAKE_FD(fd);
	}
	return 0;
}
