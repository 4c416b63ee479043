/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The control protocol of vmm/control.h: one packet in, one packet out, and a blocking call.
 *
 * Nothing is kept between calls. A packet that breaks the rules is -EBADMSG and its descriptors are
 * closed. Any thread; packets of a SOCK_SEQPACKET socket do not mix.
 */

#include "vmm/control.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#define HEADER_BYTES offsetof(struct vmm_message, text)

int vmm_control_send(int socket, const struct vmm_message *message, const int *fds, size_t n_fds)
{
	if (message->text_length > VMM_TEXT_MAX || n_fds > VMM_FDS_MAX) {
		return -EINVAL;
	}
	for (;;) {
		ssize_t n = base_fd_send(socket, message, HEADER_BYTES + message->text_length, fds,
					 n_fds, 0);

		if (n >= 0) {
			return 0;
		}
		if (n != -EINTR) {
			return (int)n;
		}
	}
}

static bool message_is_valid(const struct vmm_message *message, size_t size)
{
	return size >= HEADER_BYTES && message->text_length <= VMM_TEXT_MAX &&
	       size == HEADER_BYTES + message->text_length && message->reserved == 0 &&
	       memchr(message->text, '\0', message->text_length) == NULL;
}

int vmm_control_receive(int socket, struct vmm_message *ret_message, int fds[VMM_FDS_MAX],
			size_t *ret_n_fds)
{
	size_t n_fds = 0;
	ssize_t n;

	do {
		n = base_fd_receive(socket, ret_message, sizeof(*ret_message), fds, VMM_FDS_MAX,
				    &n_fds, 0);
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

int vmm_control_call(int socket, const struct vmm_message *request, const int *fds, size_t n_fds,
		     int timeout_ms, vmm_control_event_fn on_event, void *userdata,
		     struct vmm_message *ret_reply, struct base_error *error)
{
	uint64_t deadline_ns = 0;
	int r;

	if (timeout_ms >= 0) {
		deadline_ns = base_clock_monotonic_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	}
	r = vmm_control_send(socket, request, fds, n_fds);
	if (r == -EPIPE) {
		r = -ECONNRESET;
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "sending a request to the VMM");
	}
	for (;;) {
		struct vmm_message message;
		int received[VMM_FDS_MAX];
		size_t n_received = 0;

		r = wait_readable(socket, deadline_ns);
		if (r < 0) {
			return base_error_set_errno(error, r, "waiting for the VMM");
		}
		r = vmm_control_receive(socket, &message, received, &n_received);
		if (r == -EAGAIN) {
			continue;
		}
		if (r == 0) {
			return base_error_set(error, -ECONNRESET, "the VMM is gone");
		}
		if (r < 0) {
			return base_error_set_errno(error, r, "receiving from the VMM");
		}
		/* No message of the VMM carries descriptors. */
		for (size_t i = 0; i < n_received; i++) {
			base_fd_close(received[i]);
		}
		if (message.sequence == 0) {
			if (on_event) {
				on_event(userdata, &message);
			}
			continue;
		}
		if (message.sequence != request->sequence || message.op != request->op ||
		    message.result > 0) {
			return base_error_set(error, -EBADMSG,
					      "the VMM answered something that was not asked");
		}
		if (message.result < 0) {
			return base_error_set(error, message.result, "%s",
					      message.text_length ? message.text
								  : "the VMM refused");
		}
		if (ret_reply) {
			*ret_reply = message;
		}
		return 0;
	}
}
