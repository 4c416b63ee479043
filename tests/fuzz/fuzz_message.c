/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Packets of the control protocols (base/message.h), taken one by one and as replies to a call. An
 * input is a list of packets, each behind a length of two bytes, whose upper bits say how many
 * descriptors come along.
 */

#include "base/fd.h"
#include "base/message.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PACKETS_MAX 16

static int descriptor = -1; /* what is passed */

static int open_descriptors(void)
{
	int fd = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);

	FUZZ_CHECK(fd >= 0);
	close(fd);
	return fd; /* the lowest that is free */
}

/* Puts all packets into the socket. */
static void send_all(int socket, struct fuzz_input input)
{
	for (unsigned i = 0; i < PACKETS_MAX && input.left > 0; i++) {
		uint16_t head = fuzz_u16(&input);
		size_t size = MIN((size_t)(head & 0xfff), input.left);
		size_t n_fds = head >> 12;
		int fds[BASE_FD_PASS_MAX];

		for (size_t n = 0; n < ARRAY_SIZE(fds); n++) {
			fds[n] = descriptor;
		}
		if (size > 0) { /* an empty packet looks like the end */
			(void)base_fd_send(socket, input.data, size, fds, n_fds, MSG_DONTWAIT);
		}
		input.data += size;
		input.left -= size;
	}
}

static void receive_all(int socket)
{
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds;
	int r;

	/* A bad packet does not keep the good ones behind it from being read. */
	while ((r = base_message_receive(socket, &message, fds, &n_fds)) == 1 || r == -EBADMSG) {
		if (r < 0) {
			continue;
		}
		FUZZ_CHECK(strlen(message.text) == message.text_length);
		FUZZ_CHECK(n_fds <= BASE_MESSAGE_FDS_MAX);
		for (size_t i = 0; i < n_fds; i++) {
			FUZZ_CHECK(fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
			close(fds[i]);
		}
	}
}

static void on_event(void *userdata, const struct base_message *event)
{
	FUZZ_CHECK(event->sequence == 0);
}

static void call(int socket)
{
	const struct base_message request = { .op = 1, .sequence = 1 };
	struct base_message reply;
	struct base_error error = { 0 };
	int fd = -1;
	int r = base_message_call(socket, "peer", &request, NULL, 0, -1, on_event, NULL, &reply,
				  &fd, &error);

	FUZZ_CHECK(r == 0 || (fd == -1 && error.text[0] != '\0'));
	base_fd_close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct fuzz_input input = { data, size };
	int lowest;

	if (descriptor < 0) {
		descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	lowest = open_descriptors();
	for (int pass = 0; pass < 2; pass++) {
		int pair[2];

		FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
				      pair) == 0);
		send_all(pair[1], input);
		shutdown(pair[1], SHUT_WR); /* so nobody waits for more */
		if (pass == 0) {
			receive_all(pair[0]);
		} else {
			call(pair[0]);
		}
		close(pair[0]);
		close(pair[1]);
	}
	FUZZ_CHECK(open_descriptors() == lowest);
	return 0;
}
