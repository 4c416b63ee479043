/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Clients on one epoll set. A request is so small that it fits into the socket's buffer: a send
 * that would block is an error. One thread; nothing is retried.
 */

#include "bench/wire.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES KIB(16)
#define EVENTS	   64

struct client {
	int fd;
	uint32_t id;
	msgpack_unpacker unpacker;
};

struct bench_wire {
	int epoll;
	size_t n;
	struct client *clients;
	msgpack_unpacked unpacked;
	/* Ready clients that were not looked at yet. */
	struct epoll_event events[EVENTS];
	int n_events, next_event;
};

static int connect_client(struct bench_wire *wire, size_t i, const struct sockaddr_un *address)
{
	struct client *client = &wire->clients[i];
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = i };

	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0 ||
	    connect(client->fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ||
	    epoll_ctl(wire->epoll, EPOLL_CTL_ADD, client->fd, &event) < 0) {
		return -errno;
	}
	return msgpack_unpacker_init(&client->unpacker, READ_BYTES) ? 0 : -ENOMEM;
}

int bench_wire_new(const char *socket, size_t n, struct bench_wire **ret_wire)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct bench_wire *wire = calloc(1, sizeof(*wire));
	int r = 0;

	if (!wire || !(wire->clients = calloc(n, sizeof(*wire->clients)))) {
		free(wire);
		return -ENOMEM;
	}
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket);
	msgpack_unpacked_init(&wire->unpacked);
	wire->epoll = epoll_create1(EPOLL_CLOEXEC);
	for (; r == 0 && wire->n < n; wire->n++) {
		r = connect_client(wire, wire->n, &address);
	}
	if (r < 0) {
		fprintf(stderr, "client %zu of %zu cannot connect: %s\n", wire->n, n, strerror(-r));
		bench_wire_free(wire);
		return r;
	}
	*ret_wire = wire;
	return 0;
}

void bench_wire_free(struct bench_wire *wire)
{
	if (!wire) {
		return;
	}
	for (size_t i = 0; i < wire->n; i++) {
		base_fd_close(wire->clients[i].fd);
		msgpack_unpacker_destroy(&wire->clients[i].unpacker);
	}
	base_fd_close(wire->epoll);
	msgpack_unpacked_destroy(&wire->unpacked);
	free(wire->clients);
	free(wire);
}

static void pack_str(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str_with_body(packer, text, strlen(text));
}

static void begin(msgpack_packer *packer, struct client *client, const char *method, size_t n)
{
	msgpack_pack_array(packer, 4);
	msgpack_pack_uint32(packer, 0);
	msgpack_pack_uint32(packer, ++client->id);
	pack_str(packer, method);
	msgpack_pack_array(packer, 1);
	msgpack_pack_map(packer, n);
}

static int send_all(struct client *client, const msgpack_sbuffer *buffer)
{
	ssize_t n = send(client->fd, buffer->data, buffer->size, MSG_NOSIGNAL | MSG_DONTWAIT);

	return n < 0 ? -errno : (size_t)n < buffer->size ? -EAGAIN : 0;
}

int bench_wire_acquire(struct bench_wire *wire, size_t client, const char *template_name,
		       uint64_t timeout_ms)
{
	msgpack_sbuffer buffer;
	msgpack_packer packer;
	int r;

	msgpack_sbuffer_init(&buffer);
	msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
	begin(&packer, &wire->clients[client], "acquire", 3);
	pack_str(&packer, "template");
	pack_str(&packer, template_name);
	pack_str(&packer, "timeout_ms");
	msgpack_pack_uint64(&packer, timeout_ms);
	pack_str(&packer, "bind");
	msgpack_pack_true(&packer);
	r = send_all(&wire->clients[client], &buffer);
	msgpack_sbuffer_destroy(&buffer);
	return r;
}

int bench_wire_release(struct bench_wire *wire, size_t client, const char *lease_id)
{
	msgpack_sbuffer buffer;
	msgpack_packer packer;
	int r;

	msgpack_sbuffer_init(&buffer);
	msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
	begin(&packer, &wire->clients[client], "release", 1);
	pack_str(&packer, "lease");
	pack_str(&packer, lease_id);
	r = send_all(&wire->clients[client], &buffer);
	msgpack_sbuffer_destroy(&buffer);
	return r;
}

static int read_answer(struct bench_wire *wire, size_t i, struct bench_answer *ret_answer)
{
	const msgpack_object *message = &wire->unpacked.data;
	const msgpack_object *fields = message->via.array.ptr;
	struct bench_answer answer = { .client = i };

	if (message->type != MSGPACK_OBJECT_ARRAY || message->via.array.size != 4 ||
	    fields[0].via.u64 != 1 || fields[1].via.u64 != wire->clients[i].id) {
		return -EBADMSG;
	}
	if (fields[2].type != MSGPACK_OBJECT_NIL) {
		const msgpack_object *code = warmbox_map_get(&fields[2], "code");

		answer.failed = true;
		if (code && code->type == MSGPACK_OBJECT_STR) {
			snprintf(answer.code, sizeof(answer.code), "%.*s", (int)code->via.str.size,
				 code->via.str.ptr);
		}
	} else if (warmbox_map_get(&fields[3], "lease")) {
		int r = warmbox_lease_parse(&fields[3], &answer.lease, NULL);

		if (r < 0) {
			return r;
		}
	}
	answer.at_ns = base_clock_monotonic_ns();
	*ret_answer = answer;
	return 1;
}

/* 0: the answer is not complete yet. */
static int receive(struct bench_wire *wire, size_t i, struct bench_answer *ret_answer)
{
	msgpack_unpacker *unpacker = &wire->clients[i].unpacker;
	msgpack_unpack_return parsed;
	ssize_t n;

	if (!msgpack_unpacker_reserve_buffer(unpacker, READ_BYTES)) {
		return -ENOMEM;
	}
	n = recv(wire->clients[i].fd, msgpack_unpacker_buffer(unpacker),
		 msgpack_unpacker_buffer_capacity(unpacker), MSG_DONTWAIT);
	if (n <= 0) {
		return n == 0 ? -ECONNRESET : errno == EAGAIN ? 0 : -errno;
	}
	msgpack_unpacker_buffer_consumed(unpacker, (size_t)n);
	parsed = msgpack_unpacker_next(unpacker, &wire->unpacked);
	if (parsed == MSGPACK_UNPACK_CONTINUE) {
		return 0;
	}
	return parsed == MSGPACK_UNPACK_SUCCESS ? read_answer(wire, i, ret_answer) : -EBADMSG;
}

static int wait_events(struct bench_wire *wire, uint64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / NSEC_PER_SEC),
		.tv_nsec = (long)(timeout_ns % NSEC_PER_SEC),
	};
	int n = epoll_pwait2(wire->epoll, wire->events, EVENTS, &timeout, NULL);

	if (n < 0 && errno == EINTR) {
		n = 0;
	}
	wire->n_events = MAX(n, 0);
	wire->next_event = 0;
	return n < 0 ? -errno : n;
}

int bench_wire_next(struct bench_wire *wire, uint64_t timeout_ns, struct bench_answer *ret_answer)
{
	uint64_t end = base_clock_monotonic_ns() + timeout_ns;

	for (;;) {
		while (wire->next_event < wire->n_events) {
			size_t i = (size_t)wire->events[wire->next_event++].data.u64;
			int r = receive(wire, i, ret_answer);

			if (r < 0) {
				fprintf(stderr, "client %zu: %s\n", i, strerror(-r));
			}
			if (r != 0) {
				return r;
			}
		}

		uint64_t now = base_clock_monotonic_ns();
		int r = wait_events(wire, now < end ? end - now : 0);

		if (r <= 0) {
			return r;
		}
	}
}
