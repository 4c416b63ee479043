/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The vsock device with a fake guest and real Unix sockets: handshakes, both directions, credit,
 * half-closes, freezing, and guests that do not play by the rules.
 */

#include "virtio_driver.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define CID	      42u
#define RX_BUFFERS    16
#define RX_BYTES      4096u
#define TX_BYTES      65536u
#define HEADER	      44u
#define GUEST_BUFFER  65536u
#define DEVICE_BUFFER 65536u
#define WAIT_NS	      (5 * NSEC_PER_SEC)

enum { RX, TX, EVENT };
enum {
	REQUEST = 1,
	RESPONSE = 2,
	RST = 3,
	SHUTDOWN = 4,
	RW = 5,
	CREDIT_UPDATE = 6,
	CREDIT_REQUEST = 7,
};
enum { SHUT_RECEIVE = 1, SHUT_SEND = 2, SHUT_ALL = 3 };

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, length;
	uint16_t type, op;
	uint32_t flags, buffer, forwarded;
	uint8_t data[RX_BYTES];
};

struct fixture {
	struct driver driver;
	struct sockaddr_un address;
	socklen_t address_size;
	int listener;		     /* the test's own descriptor */
	gpa_t rx[DRIVER_QUEUE_SIZE]; /* by head */
	gpa_t tx, event;
	unsigned rx_posted;
	/* Guest-initiated connections. */
	unsigned connects;
	uint64_t connect_id;
	uint32_t connect_port;
	int connect_result;
	int connect_stream; /* >= 0: answer from within the call */
};

/* One connection as the guest keeps it. */
struct guest {
	uint32_t host_port, port;
	uint32_t received, forwarded; /* from the host; forwarded is what the guest has read */
	uint32_t sent;		      /* to the host */
	uint32_t peer_buffer, peer_forwarded;
};

static int on_connect(void *userdata, uint64_t id, uint32_t port)
{
	struct fixture *f = CONTAINER_OF(userdata, struct fixture, driver);

	f->connects++;
	f->connect_id = id;
	f->connect_port = port;
	if (f->connect_stream >= 0) {
		vmm_virtio_vsock_connected(f->driver.device, id, 0, TAKE_FD(f->connect_stream));
	}
	return f->connect_result;
}

static void post_rx(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		gpa_t gpa = driver_alloc(&f->driver, RX_BYTES, 8);
		const struct driver_buffer buffer = { gpa, RX_BYTES, true };
		uint16_t head = driver_add(&f->driver, RX, &buffer, 1);

		f->rx[head] = gpa;
		f->rx_posted++;
	}
}

/* Gives a receive buffer back under its old head. */
static void repost_rx(struct fixture *f, uint16_t head)
{
	driver_set_desc(&f->driver, RX, head, f->rx[head], RX_BYTES, DESC_WRITE, 0);
	driver_offer(&f->driver, RX, head);
	driver_kick(&f->driver, RX);
}

static uint16_t post_event(struct fixture *f)
{
	const struct driver_buffer buffer = { f->event, 4, true };
	uint16_t head = driver_add(&f->driver, EVENT, &buffer, 1);

	driver_kick(&f->driver, EVENT);
	return head;
}

static void new_device(struct fixture *f)
{
	assert_int_equal(vmm_virtio_vsock_new(&f->driver.host, 2, CID, dup(f->listener),
					      &f->driver.device, NULL),
			 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	driver_init(&f->driver);
	f->driver.host.vsock_connect = on_connect;
	f->connect_stream = -1;
	f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	f->address.sun_family = AF_UNIX; /* the kernel picks an abstract name */
	assert_int_equal(bind(f->listener, (struct sockaddr *)&f->address, sizeof(sa_family_t)), 0);
	f->address_size = sizeof(f->address);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&f->address, &f->address_size),
			 0);
	assert_int_equal(listen(f->listener, 512), 0);
	new_device(f);
	driver_start(&f->driver);
	f->tx = driver_alloc(&f->driver, HEADER + TX_BYTES + 1, 8);
	f->event = driver_alloc(&f->driver, 4, 4);
	post_rx(f, RX_BUFFERS);
	post_event(f);
	driver_settle(&f->driver);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	driver_deinit(&f->driver);
	close(f->listener);
	free(f);
	return 0;
}

/* The next packet for the guest, if there is one; its buffer is posted again. */
static bool try_receive(struct fixture *f, struct packet *packet)
{
	uint16_t head;
	uint32_t length;
	const uint8_t *bytes;

	if (!driver_used(&f->driver, RX, &head, &length)) {
		return false;
	}
	assert_true(length >= HEADER && length <= RX_BYTES);
	bytes = driver_at(&f->driver, f->rx[head], RX_BYTES);
	packet->src_cid = base_load_u64(bytes);
	packet->dst_cid = base_load_u64(bytes + 8);
	packet->src_port = base_load_u32(bytes + 16);
	packet->dst_port = base_load_u32(bytes + 20);
	packet->length = base_load_u32(bytes + 24);
	packet->type = base_load_u16(bytes + 28);
	packet->op = base_load_u16(bytes + 30);
	packet->flags = base_load_u32(bytes + 32);
	packet->buffer = base_load_u32(bytes + 36);
	packet->forwarded = base_load_u32(bytes + 40);
	assert_int_equal(packet->length, length - HEADER);
	memcpy(packet->data, bytes + HEADER, packet->length);
	assert_int_equal(packet->src_cid, 2);
	assert_int_equal(packet->dst_cid, CID);
	assert_int_equal(packet->type, 1);
	repost_rx(f, head);
	return true;
}

static void receive(struct fixture *f, struct packet *packet)
{
	uint64_t deadline = base_clock_monotonic_ns() + WAIT_NS;

	while (!try_receive(f, packet)) {
		assert_true(base_clock_monotonic_ns() < deadline);
		driver_turn(&f->driver, 100);
	}
}

static void expect(struct fixture *f, uint16_t op, struct packet *packet)
{
	receive(f, packet);
	assert_int_equal(packet->op, op);
}

static void expect_nothing(struct fixture *f)
{
	struct packet packet;

	driver_settle(&f->driver);
	if (try_receive(f, &packet)) {
		fail_msg("unexpected packet of kind %u", packet.op);
	}
}

static struct packet make_packet(const struct guest *guest, uint16_t op)
{
	return (struct packet){
		.src_cid = CID,
		.dst_cid = 2,
		.src_port = guest->port,
		.dst_port = guest->host_port,
		.type = 1,
		.op = op,
		.buffer = GUEST_BUFFER,
		.forwarded = guest->forwarded,
	};
}

/* Sends a packet whose descriptors have chain_bytes of payload (from memory at f->tx). */
static void send_packet(struct fixture *f, const struct packet *packet, uint32_t chain_bytes)
{
	uint8_t *bytes = driver_at(&f->driver, f->tx, HEADER);
	struct driver_buffer buffers[] = { { f->tx, HEADER, false },
					   { f->tx + HEADER, chain_bytes, false } };
	uint16_t head;

	base_store_u64(bytes, packet->src_cid);
	base_store_u64(bytes + 8, packet->dst_cid);
	base_store_u32(bytes + 16, packet->src_port);
	base_store_u32(bytes + 20, packet->dst_port);
	base_store_u32(bytes + 24, packet->length);
	base_store_u16(bytes + 28, packet->type);
	base_store_u16(bytes + 30, packet->op);
	base_store_u32(bytes + 32, packet->flags);
	base_store_u32(bytes + 36, packet->buffer);
	base_store_u32(bytes + 40, packet->forwarded);
	head = driver_add(&f->driver, TX, buffers, chain_bytes > 0 ? 2 : 1);
	driver_kick(&f->driver, TX);
	assert_int_equal(driver_wait(&f->driver, TX, head), 0);
}

static void reply(struct fixture *f, const struct guest *guest, uint16_t op, uint32_t flags)
{
	struct packet packet = make_packet(guest, op);

	packet.flags = flags;
	send_packet(f, &packet, 0);
}

static void send_data(struct fixture *f, struct guest *guest, const void *data, uint32_t size)
{
	struct packet packet = make_packet(guest, RW);

	packet.length = size;
	memcpy(driver_at(&f->driver, f->tx + HEADER, size), data, size);
	send_packet(f, &packet, size);
	guest->sent += size;
}

static int client(struct fixture *f)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&f->address, f->address_size), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(base_fd_write_full(fd, text, strlen(text)), 0);
}

/* Reads exactly the text. */
static void hear(int fd, const char *text)
{
	char buffer[256] = { 0 };

	assert_int_equal(base_fd_read_full(fd, buffer, strlen(text)), 0);
	assert_string_equal(buffer, text);
}

static void hear_end(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

static void hear_nothing(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static struct guest accept_request(struct fixture *f, uint32_t port)
{
	struct guest guest = { .port = port };
	struct packet packet;

	expect(f, REQUEST, &packet);
	assert_int_equal(packet.dst_port, port);
	assert_int_equal(packet.length, 0);
	assert_int_equal(packet.buffer, DEVICE_BUFFER);
	guest.host_port = packet.src_port;
	guest.peer_buffer = packet.buffer;
	reply(f, &guest, RESPONSE, 0);
	return guest;
}

/* A client connected to a guest port. */
static struct guest establish(struct fixture *f, uint32_t port, int *ret_fd)
{
	struct guest guest;
	char line[64];

	*ret_fd = client(f);
	snprintf(line, sizeof(line), "CONNECT %u\n", port);
	say(*ret_fd, line);
	guest = accept_request(f, port);
	snprintf(line, sizeof(line), "OK %u\n", guest.host_port);
	hear(*ret_fd, line);
	return guest;
}

static void carries_both_ways(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	int fd;
	struct guest guest = establish(f, 1024, &fd);

	assert_true(guest.host_port >= 0x40000000);
	say(fd, "hello guest");
	expect(f, RW, &packet);
	assert_int_equal(packet.src_port, guest.host_port);
	assert_int_equal(packet.dst_port, 1024);
	assert_int_equal(packet.length, 11);
	assert_memory_equal(packet.data, "hello guest", 11);
	send_data(f, &guest, "hello host", 10);
	hear(fd, "hello host");
	send_data(f, &guest, "", 0); /* nothing, but allowed */
	hear_nothing(fd);
	expect_nothing(f);
	close(fd);
	expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_ALL);
	reply(f, &guest, RST, 0);
	expect_nothing(f);
}

static void reads_connect_lines_in_pieces(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	const char *line = "CONNECT 5000\nearly bytes";
	int fd = client(f);
	struct guest guest;

	for (const char *c = line; *c; c++) {
		assert_int_equal(write(fd, c, 1), 1);
		driver_settle(&f->driver);
	}
	guest = accept_request(f, 5000);
	/* What came behind the line is not lost. */
	expect(f, RW, &packet);
	assert_int_equal(packet.length, 11);
	assert_memory_equal(packet.data, "early bytes", 11);
	hear(fd, "OK ");
	close(fd);
	expect(f, RST, &packet); /* unread input at close is a reset */
	assert_int_equal(packet.dst_port, guest.port);
}

static void refuses_malformed_lines(void **state)
{
	struct fixture *f = *state;
	const char *lines[] = {
		"CONNECT\n",
		"CONNECT \n",
		"CONNECT 12a\n",
		"CONNECT -1\n",
		"CONNECT 4294967295\n",
		"CONNECT 4294967296\n",
		"CONNECT 99999999999\n",
		"connect 1024\n",
		"CONNECT  1024\n",
		"CONNECT 1024 \n",
		"CONNECT 1024\r\n",
		"\n",
		"GET / HTTP/1.1\r\n",
		"CONNECT 0000000000000000000000000000000000000000001024\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		int fd = client(f);

		say(fd, lines[i]);
		expect_nothing(f);
		hear_end(fd);
		close(fd);
	}
	for (int i = 0; i < 3; i++) { /* one that leaves in the middle */
		int fd = client(f);

		say(fd, "CONN");
		driver_settle(&f->driver);
		close(fd);
		expect_nothing(f);
	}
	int fd;
	struct guest guest = establish(f, 4294967294, &fd);
	reply(f, &guest, RST, 0);
	hear_end(fd);
	close(fd);
}

static void closes_what_the_guest_refuses(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	int fd = client(f);
	struct guest guest = { .port = 77 };

	say(fd, "CONNECT 77\n");
	expect(f, REQUEST, &packet);
	guest.host_port = packet.src_port;
	reply(f, &guest, RST, 0);
	hear_end(fd);
	close(fd);
	expect_nothing(f);
}

static void opens_connections_for_the_guest(void **state)
{
	struct fixture *f = *state;
	struct guest guest = { .host_port = 53, .port = 9000 };
	struct packet packet;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	reply(f, &guest, REQUEST, 0);
	assert_int_equal(f->connects, 1);
	assert_int_equal(f->connect_port, 53);
	expect_nothing(f);
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id + 1, 0, dup(pair[1]));
	expect_nothing(f); /* nobody asked */
	say(pair[0], "first");
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id, 0, pair[1]);
	expect(f, RESPONSE, &packet);
	assert_int_equal(packet.src_port, 53);
	assert_int_equal(packet.dst_port, 9000);
	expect(f, RW, &packet);
	assert_memory_equal(packet.data, "first", 5);
	send_data(f, &guest, "second", 6);
	hear(pair[0], "second");
	reply(f, &guest, SHUTDOWN, SHUT_ALL);
	expect(f, RST, &packet);
	hear_end(pair[0]);
	close(pair[0]);
}

static void refuses_connections_of_the_guest(void **state)
{
	struct fixture *f = *state;
	struct guest guest = { .host_port = 53, .port = 9000 };
	struct packet packet;

	f->connect_result = -EBUSY;
	reply(f, &guest, REQUEST, 0);
	expect(f, RST, &packet);
	assert_int_equal(packet.dst_port, 9000);

	f->connect_result = 0;
	reply(f, &guest, REQUEST, 0);
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id, -ECONNREFUSED, -1);
	expect(f, RST, &packet);

	/* One that the guest gives up before it is answered. */
	reply(f, &guest, REQUEST, 0);
	reply(f, &guest, RST, 0);
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id, 0, client(f));
	expect_nothing(f);

	/* One that is answered from within the call. */
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->connect_stream = pair[1];
	reply(f, &guest, REQUEST, 0);
	expect(f, RESPONSE, &packet);
	close(pair[0]);
}

static void closes_halves(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	int fd;
	struct guest guest = establish(f, 1, &fd);

	/* The host first: the guest can still send. */
	say(fd, "last");
	shutdown(fd, SHUT_WR);
	expect(f, RW, &packet);
	expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_SEND);
	send_data(f, &guest, "more", 4);
	hear(fd, "more");
	expect_nothing(f);
	reply(f, &guest, SHUTDOWN, SHUT_SEND);
	driver_settle(&f->driver);
	hear_end(fd);
	expect(f, SHUTDOWN, &packet); /* both ends of the socket are shut */
	assert_int_equal(packet.flags, SHUT_ALL);
	reply(f, &guest, RST, 0);
	close(fd);
	expect_nothing(f);

	/* The guest first: the host can still send. */
	guest = establish(f, 2, &fd);
	send_data(f, &guest, "bye", 3);
	reply(f, &guest, SHUTDOWN, SHUT_SEND);
	hear(fd, "bye");
	hear_end(fd);
	say(fd, "still here");
	expect(f, RW, &packet);
	assert_memory_equal(packet.data, "still here", 10);
	/* Having said that it sends no more, it must not. */
	send_data(f, &guest, "x", 1);
	expect(f, RST, &packet);
	hear_end(fd);
	close(fd);

	/* A guest that receives no more. */
	guest = establish(f, 3, &fd);
	reply(f, &guest, SHUTDOWN, SHUT_RECEIVE);
	driver_settle(&f->driver);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	send_data(f, &guest, "I talk", 6);
	hear(fd, "I talk");
	reply(f, &guest, SHUTDOWN, SHUT_SEND);
	expect(f, RST, &packet);
	hear_end(fd);
	close(fd);

	/* A host that receives no more. */
	guest = establish(f, 4, &fd);
	shutdown(fd, SHUT_RD);
	send_data(f, &guest, "nobody reads this", 17);
	expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_RECEIVE);
	say(fd, "but I talk");
	expect(f, RW, &packet);
	close(fd);
	expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_ALL);
	send_data(f, &guest, "late", 4);
	expect_nothing(f);
	reply(f, &guest, SHUTDOWN, SHUT_ALL);
	expect(f, RST, &packet);
	expect_nothing(f);
}

static void delivers_all_before_the_end(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	uint8_t *bytes = malloc(TX_BYTES), *back = malloc(TX_BYTES);
	int fd;
	struct guest guest = establish(f, 1, &fd);
	uint32_t rounds = 0;

	/* The host sends, closes, and everything still arrives, end last. */
	memset(bytes, 'h', TX_BYTES);
	assert_int_equal(base_fd_write_full(fd, bytes, 60000), 0);
	close(fd);
	for (uint32_t got = 0; got < 60000; got += packet.length) {
		expect(f, RW, &packet);
	}
	expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_ALL);
	reply(f, &guest, RST, 0);

	/* The guest sends more than the socket takes, closes, and everything still arrives. */
	guest = establish(f, 2, &fd);
	for (uint32_t i = 0; i < TX_BYTES; i++) {
		bytes[i] = (uint8_t)(i * 3 + i / 251);
	}
	while (guest.sent - guest.peer_forwarded <= DEVICE_BUFFER / 2 && rounds < 64) {
		send_data(f, &guest, bytes, TX_BYTES / 2);
		rounds++;
		while (try_receive(f, &packet)) {
			assert_int_equal(packet.op, CREDIT_UPDATE);
			guest.peer_forwarded = packet.forwarded;
		}
	}
	assert_true(rounds < 64); /* the socket filled up, the buffer is in use */
	reply(f, &guest, SHUTDOWN, SHUT_ALL);
	expect(f, RST, &packet);
	for (uint32_t i = 0; i < rounds; i++) {
		for (uint32_t done = 0; done < TX_BYTES / 2;) {
			ssize_t n = recv(fd, back + done, TX_BYTES / 2 - done, MSG_DONTWAIT);

			if (n < 0) {
				assert_true(driver_turn(&f->driver, 1000));
				continue;
			}
			assert_true(n > 0);
			done += (uint32_t)n;
		}
		assert_memory_equal(back, bytes, TX_BYTES / 2);
	}
	driver_settle(&f->driver);
	hear_end(fd);
	close(fd);
	free(bytes);
	free(back);
}

static void respects_the_guests_credit(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	uint8_t *bytes = calloc(1, 2 * GUEST_BUFFER);
	int fd;
	struct guest guest = establish(f, 1, &fd);

	fcntl(fd, F_SETFL, O_NONBLOCK);
	assert_true(write(fd, bytes, 2 * GUEST_BUFFER) > GUEST_BUFFER + 100);
	for (uint32_t got = 0; got < GUEST_BUFFER; got += packet.length) {
		expect(f, RW, &packet);
	}
	/* Used up: one request for credit, then silence, however long. */
	expect(f, CREDIT_REQUEST, &packet);
	expect_nothing(f);
	guest.forwarded = 100;
	reply(f, &guest, CREDIT_UPDATE, 0);
	expect(f, RW, &packet);
	assert_int_equal(packet.length, 100);
	expect(f, CREDIT_REQUEST, &packet);
	/* A guest that takes credit back, or claims what it never got, is sent nothing. */
	struct packet lie = make_packet(&guest, CREDIT_UPDATE);
	lie.buffer = 10;
	send_packet(f, &lie, 0);
	expect(f, CREDIT_REQUEST, &packet);
	lie.buffer = GUEST_BUFFER;
	lie.forwarded = GUEST_BUFFER + 101;
	send_packet(f, &lie, 0);
	expect(f, CREDIT_REQUEST, &packet);
	expect_nothing(f);
	reply(f, &guest, RST, 0);
	driver_settle(&f->driver);
	close(fd);
	free(bytes);
}

static void enforces_its_own_credit(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	uint8_t *bytes = calloc(1, TX_BYTES);
	int fd;
	struct guest guest = establish(f, 1, &fd);
	bool reset = false;

	/* Nobody reads: the socket fills up, then the buffer, and then it is the guest's fault. */
	for (unsigned i = 0; i < 64 && !reset; i++) {
		send_data(f, &guest, bytes, TX_BYTES);
		while (try_receive(f, &packet)) {
			reset |= packet.op == RST;
		}
	}
	assert_true(reset);
	driver_settle(&f->driver);
	close(fd);

	/* A request for credit is answered with the truth. */
	guest = establish(f, 1, &fd);
	send_data(f, &guest, bytes, 1000);
	reply(f, &guest, CREDIT_REQUEST, 0);
	expect(f, CREDIT_UPDATE, &packet);
	assert_int_equal(packet.buffer, DEVICE_BUFFER);
	assert_int_equal(packet.forwarded, 1000);
	close(fd);
	free(bytes);
}

/* A byte stream that any offset can be checked in. */
static uint8_t stream_byte(uint64_t offset, uint64_t salt)
{
	uint64_t x = (offset / 8 + salt * 0x1000003) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint8_t)(x >> (offset % 8 * 8));
}

struct flow {
	int fd;
	struct guest guest;
	uint64_t salt;
	uint64_t host_sent, host_got;	/* by the client */
	uint64_t guest_sent, guest_got; /* by the guest */
};

static void flow_send(struct fixture *f, struct flow *flow, uint64_t total)
{
	uint8_t bytes[8192];

	/* The guest, as far as its credit goes. */
	uint32_t on_the_way = (uint32_t)flow->guest_sent - flow->guest.peer_forwarded;
	uint64_t credit = DEVICE_BUFFER - on_the_way;
	uint64_t n = MIN(total - flow->guest_sent, (uint64_t)sizeof(bytes));

	n = MIN(n, credit);
	if (n > 0) {
		for (uint64_t i = 0; i < n; i++) {
			bytes[i] = stream_byte(flow->guest_sent + i, flow->salt + 1);
		}
		send_data(f, &flow->guest, bytes, (uint32_t)n);
		flow->guest_sent += n;
	}
	/* The client, as far as its socket takes it. */
	n = total - flow->host_sent;
	if (n > 0) {
		n = n < sizeof(bytes) ? n : sizeof(bytes);
		for (uint64_t i = 0; i < n; i++) {
			bytes[i] = stream_byte(flow->host_sent + i, flow->salt);
		}
		ssize_t sent = send(flow->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		flow->host_sent += sent > 0 ? (uint64_t)sent : 0;
	}
}

static void flow_read(struct flow *flow, size_t most)
{
	uint8_t bytes[16384];
	ssize_t n = recv(flow->fd, bytes, MIN(most, sizeof(bytes)), MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++) {
		if (bytes[i] != stream_byte(flow->host_got + (uint64_t)i, flow->salt + 1)) {
			fail_msg("the host got a wrong byte at %llu",
				 (unsigned long long)flow->host_got + (unsigned long long)i);
		}
	}
	flow->host_got += n > 0 ? (uint64_t)n : 0;
}

static void flow_receive(struct fixture *f, struct flow *flows, unsigned n_flows)
{
	struct packet packet;

	while (try_receive(f, &packet)) {
		struct flow *flow = flows;

		while (flow < flows + n_flows && flow->guest.host_port != packet.src_port) {
			flow++;
		}
		assert_true(flow < flows + n_flows);
		flow->guest.peer_forwarded = packet.forwarded;
		if (packet.op == CREDIT_REQUEST) {
			reply(f, &flow->guest, CREDIT_UPDATE, 0);
			continue;
		}
		if (packet.op == CREDIT_UPDATE) {
			continue;
		}
		assert_int_equal(packet.op, RW);
		for (uint32_t i = 0; i < packet.length; i++) {
			if (packet.data[i] != stream_byte(flow->guest_got + i, flow->salt)) {
				fail_msg("the guest got a wrong byte");
			}
		}
		flow->guest_got += packet.length;
		/* The guest reads all, and says so now and then. */
		flow->guest.forwarded += packet.length;
		if (flow->guest_got % 5 == 0) {
			reply(f, &flow->guest, CREDIT_UPDATE, 0);
		}
	}
}

static void carry(struct fixture *f, struct flow *flows, unsigned n_flows, uint64_t total,
		  size_t read_most)
{
	uint64_t deadline = base_clock_monotonic_ns() + 60 * NSEC_PER_SEC;
	bool busy = true;

	for (unsigned round = 0; busy; round++) {
		assert_true(base_clock_monotonic_ns() < deadline);
		busy = false;
		for (unsigned i = 0; i < n_flows; i++) {
			struct flow *flow = &flows[i];

			flow_send(f, flow, total);
			if (round % 3 == 0) { /* a slow reader */
				flow_read(flow, read_most);
			}
			busy |= flow->host_got < total || flow->guest_got < total;
		}
		driver_settle(&f->driver);
		flow_receive(f, flows, n_flows);
	}
}

static void carries_ten_mebibytes(void **state)
{
	struct fixture *f = *state;
	struct flow flow = { .salt = 1 };

	flow.guest = establish(f, 1024, &flow.fd);
	carry(f, &flow, 1, MIB(10), 5000);
	expect_nothing(f);
	close(flow.fd);
}

static void carries_many_connections(void **state)
{
	struct fixture *f = *state;
	struct flow flows[100];

	for (unsigned i = 0; i < ARRAY_SIZE(flows); i++) {
		flows[i] = (struct flow){ .salt = i * 2 };
		flows[i].guest = establish(f, 1000 + i % 10, &flows[i].fd);
	}
	carry(f, flows, ARRAY_SIZE(flows), KIB(100), 1000);
	for (unsigned i = 0; i < ARRAY_SIZE(flows); i++) {
		close(flows[i].fd);
	}
}

static void limits_connections(void **state)
{
	struct fixture *f = *state;
	struct guest guest = { .host_port = 53, .port = 1 },
		     last = { .host_port = 53, .port = 999 };
	struct packet packet;
	int fds[256], waiting;

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		guest = establish(f, 1024, &fds[i]);
	}
	reply(f, &last, REQUEST, 0);
	expect(f, RST, &packet);
	assert_int_equal(packet.dst_port, 999);
	assert_int_equal(f->connects, 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, client(f), 5), -EBUSY);

	/* A client waits its turn, and gets it. */
	waiting = client(f);
	say(waiting, "CONNECT 1024\n");
	expect_nothing(f);
	reply(f, &guest, RST, 0);
	accept_request(f, 1024);
	close(waiting);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		close(fds[i]);
	}
	driver_settle(&f->driver);
}

static void drops_or_resets_bad_packets(void **state)
{
	struct fixture *f = *state;
	struct packet packet, bad;
	int fd;
	struct guest guest = establish(f, 7, &fd), stranger = { .host_port = 1, .port = 2 };

	/* Lengths and CIDs that make no sense: not even an answer. */
	bad = make_packet(&guest, RW);
	bad.length = 101;
	send_packet(f, &bad, 100);
	bad.length = UINT32_MAX;
	send_packet(f, &bad, 100);
	bad.length = UINT32_MAX - HEADER + 1;
	send_packet(f, &bad, 100);
	bad.length = 65537;
	send_packet(f, &bad, 65537);
	bad.length = 1;
	send_packet(f, &bad, 0);
	bad = make_packet(&guest, RW);
	bad.src_cid = CID + 1;
	send_packet(f, &bad, 0);
	bad.src_cid = CID | UINT64_C(1) << 32;
	send_packet(f, &bad, 0);
	bad = make_packet(&guest, RW);
	bad.dst_cid = 1;
	send_packet(f, &bad, 0);
	const struct driver_buffer short_header = { f->tx, HEADER - 1, false };
	uint16_t head = driver_add(&f->driver, TX, &short_header, 1);
	driver_kick(&f->driver, TX);
	driver_wait(&f->driver, TX, head);
	expect_nothing(f);
	hear_nothing(fd);

	/* Packets of nobody's connection. */
	for (uint16_t op = 0; op < 12; op++) {
		if (op != REQUEST && op != RST) {
			reply(f, &stranger, op, 0);
			expect(f, RST, &packet);
			assert_int_equal(packet.src_port, 1);
			assert_int_equal(packet.dst_port, 2);
		}
	}
	reply(f, &stranger, RST, 0);
	expect_nothing(f);
	bad = make_packet(&guest, RW); /* another type never reaches the connection */
	bad.type = 2;
	send_packet(f, &bad, 0);
	expect(f, RST, &packet);
	send_data(f, &guest, "alive", 5);
	hear(fd, "alive");

	/* Packets that the connection's state forbids end it. */
	reply(f, &guest, RESPONSE, 0);
	expect(f, RST, &packet);
	hear_end(fd);
	close(fd);
	guest = establish(f, 7, &fd);
	reply(f, &guest, 99, 0);
	expect(f, RST, &packet);
	hear_end(fd);
	close(fd);
	fd = client(f);
	say(fd, "CONNECT 7\n");
	expect(f, REQUEST, &packet);
	guest = (struct guest){ .host_port = packet.src_port, .port = 7 };
	send_data(f, &guest, "too early", 9);
	expect(f, RST, &packet);
	hear_end(fd);
	close(fd);
	expect_nothing(f);

	/* A second request for the same ports: the guest has forgotten the first. */
	guest = (struct guest){ .host_port = 53, .port = 9 };
	reply(f, &guest, REQUEST, 0);
	reply(f, &guest, REQUEST, 0);
	assert_int_equal(f->connects, 2);
	expect_nothing(f);
}

static void waits_for_receive_buffers(void **state)
{
	struct fixture *f = *state;
	struct guest stranger = { .host_port = 1 };
	struct packet packet;
	uint16_t heads[RX_BUFFERS];
	uint32_t length;
	unsigned resets = 0;
	int fd;

	establish(f, 5, &fd);
	/* The guest stops giving buffers back. */
	for (unsigned i = 0; i < RX_BUFFERS; i++) {
		say(fd, "x");
		driver_settle(&f->driver);
		assert_true(driver_used(&f->driver, RX, &heads[i], &length));
	}
	say(fd, "the one that waits");
	for (unsigned i = 0; i < 300; i++) { /* more answers than are kept */
		stranger.port = i;
		reply(f, &stranger, RW, 0);
	}
	assert_false(driver_used(&f->driver, RX, &heads[0], &length));
	for (unsigned i = 0; i < RX_BUFFERS; i++) {
		repost_rx(f, heads[i]);
	}
	for (;;) {
		receive(f, &packet);
		if (packet.op == RW) {
			break;
		}
		assert_int_equal(packet.op, RST);
		assert_int_equal(packet.dst_port, resets++);
	}
	assert_int_equal(resets, 256);
	assert_memory_equal(packet.data, "the one that waits", 18);
	close(fd);
}

static void breaks_on_tiny_receive_buffers(void **state)
{
	struct fixture *f = *state;
	const struct driver_buffer tiny = { f->tx, HEADER, true };
	int fd = client(f);

	driver_start(&f->driver); /* fresh rings */
	driver_add(&f->driver, RX, &tiny, 1);
	say(fd, "CONNECT 1\n");
	driver_settle(&f->driver);
	assert_true(driver_read(&f->driver, REG_STATUS) & STATUS_NEEDS_RESET);
	close(fd);
	driver_settle(&f->driver);
}

static void closes_everything_at_a_reset(void **state)
{
	struct fixture *f = *state;
	int fd, early;

	establish(f, 5, &fd);
	driver_write(&f->driver, REG_STATUS, 0);
	hear_end(fd);
	close(fd);
	/* Without a driver, clients wait. */
	early = client(f);
	say(early, "CONNECT 6\n");
	driver_settle(&f->driver);
	driver_start(&f->driver);
	post_rx(f, RX_BUFFERS);
	accept_request(f, 6);
	hear(early, "OK ");
	close(early);
}

static void save(struct fixture *f, struct base_writer *writer)
{
	assert_int_equal(vmm_virtio_drain(f->driver.device), 0);
	vmm_virtio_save(f->driver.device, writer);
	assert_int_equal(base_writer_result(writer), 0);
}

static int load(struct fixture *f, const struct base_writer *writer, struct base_error *error)
{
	struct base_reader reader = base_reader_init(writer->data, writer->size);
	int r;

	vmm_virtio_free(f->driver.device);
	f->driver.device = NULL;
	new_device(f);
	r = vmm_virtio_load(f->driver.device, &reader, error);
	return r < 0 ? r : base_reader_finish(&reader);
}

static void attaches_before_the_first_resume(void **state)
{
	struct fixture *f = *state;
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct packet packet;
	uint8_t bytes[20000];
	int fd, pair[2];
	struct guest guest = establish(f, 5, &fd);
	uint32_t old_port = guest.host_port, got = 0;

	reply(f, &guest, RST, 0);
	close(fd);
	save(f, &writer);
	assert_int_equal(load(f, &writer, NULL), 0);

	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = stream_byte(i, 3);
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(base_fd_write_full(pair[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1024), 0);

	/* All of it is in guest memory at once, without a turn of the loop. */
	assert_true(try_receive(f, &packet));
	assert_int_equal(packet.op, REQUEST);
	assert_int_equal(packet.dst_port, 1024);
	assert_true(packet.src_port > old_port);
	guest = (struct guest){ .host_port = packet.src_port, .port = 1024 };
	while (try_receive(f, &packet)) {
		assert_int_equal(packet.op, RW);
		assert_memory_equal(packet.data, bytes + got, packet.length);
		got += packet.length;
	}
	assert_int_equal(got, 16384); /* as much as a guest is sent unasked */
	driver_settle(&f->driver);
	assert_false(try_receive(f, &packet));

	vmm_virtio_resume(f->driver.device);
	guest.forwarded = got;
	reply(f, &guest, RESPONSE, 0);
	expect(f, RW, &packet);
	assert_int_equal(packet.length, sizeof(bytes) - got);
	assert_memory_equal(packet.data, bytes + got, packet.length);
	send_data(f, &guest, "yes", 3);
	hear(pair[0], "yes"); /* no OK line */
	hear_nothing(pair[0]);
	say(pair[0], "go on");
	expect(f, RW, &packet);
	assert_memory_equal(packet.data, "go on", 5);
	close(pair[0]);
}

static void saves_again_before_the_first_resume(void **state)
{
	struct fixture *f = *state;
	_cleanup_writer_ struct base_writer first = { 0 }, second = { 0 };
	struct packet packet;
	uint16_t head;
	uint32_t length;
	int pair[2];

	save(f, &first);
	assert_int_equal(load(f, &first, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1024), 0);
	assert_true(try_receive(f, &packet));
	assert_int_equal(packet.op, REQUEST);
	save(f, &second);
	hear_end(pair[0]);
	assert_true(driver_used(&f->driver, EVENT, &head, &length));
	assert_int_equal(load(f, &second, NULL), 0);
	vmm_virtio_resume(f->driver.device);
	close(pair[0]);
	expect_nothing(f);
}

static void attaches_to_a_running_guest(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	struct guest guest;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1024), 0);
	guest = accept_request(f, 1024);
	say(pair[0], "ping");
	expect(f, RW, &packet);
	send_data(f, &guest, "pong", 4);
	hear(pair[0], "pong");
	close(pair[0]);
	expect(f, SHUTDOWN, &packet);
	reply(f, &guest, RST, 0);

	/* Refused: closed. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1), 0);
	expect(f, REQUEST, &packet);
	guest = (struct guest){ .host_port = packet.src_port, .port = 1 };
	reply(f, &guest, RST, 0);
	hear_end(pair[0]);
	close(pair[0]);
}

static void tells_the_guest_of_lost_connections(void **state)
{
	struct fixture *f = *state;
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct packet packet;
	uint16_t head;
	uint32_t length;
	int fd, pair[2], pending = client(f);
	struct guest guest = establish(f, 5, &fd), connecting = { .host_port = 53, .port = 8 };

	(void)pending;
	reply(f, &connecting, REQUEST, 0);
	save(f, &writer);
	hear_end(fd);
	close(fd);
	/* The half-open one got an RST, the others the event. */
	assert_true(try_receive(f, &packet));
	assert_int_equal(packet.op, RST);
	assert_int_equal(packet.dst_port, 8);
	assert_false(try_receive(f, &packet));
	assert_true(driver_used(&f->driver, EVENT, &head, &length));
	assert_int_equal(length, 4);
	assert_int_equal(base_load_u32(driver_at(&f->driver, f->event, 4)), 0);

	assert_int_equal(load(f, &writer, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	say(pair[0], "identity");
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1024), 0);
	vmm_virtio_resume(f->driver.device);
	reply(f, &guest, RW, 0); /* from before: its RST waits, too */
	expect_nothing(f);

	/* The guest has dealt with the event when it gives the buffer back. */
	post_event(f);
	expect(f, RST, &packet);
	assert_int_equal(packet.dst_port, 5);
	expect(f, REQUEST, &packet);
	expect(f, RW, &packet);
	assert_memory_equal(packet.data, "identity", 8);
	expect_nothing(f);
	assert_false(driver_used(&f->driver, EVENT, &head, &length));
	close(pair[0]);
	close(pending);
}

static void owes_the_event_without_a_buffer(void **state)
{
	struct fixture *f = *state;
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct packet packet;
	uint16_t head;
	uint32_t length;
	int fd;

	driver_start(&f->driver); /* fresh rings, no event buffer */
	post_rx(f, RX_BUFFERS);
	establish(f, 5, &fd);
	save(f, &writer);
	hear_end(fd);
	close(fd);
	assert_false(driver_used(&f->driver, EVENT, &head, &length));
	assert_int_equal(load(f, &writer, NULL), 0);
	vmm_virtio_resume(f->driver.device);
	fd = client(f);
	say(fd, "CONNECT 6\n");
	expect_nothing(f);
	head = post_event(f);
	assert_int_equal(driver_wait(&f->driver, EVENT, head), 4);
	expect_nothing(f);
	post_event(f);
	expect(f, REQUEST, &packet);
	close(fd);
}

static void goes_on_after_a_pause_without_connections(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	uint16_t head;
	uint32_t length;
	int fd;
	struct guest guest = establish(f, 5, &fd), next;

	reply(f, &guest, RST, 0);
	close(fd);
	assert_int_equal(vmm_virtio_drain(f->driver.device), 0);
	assert_false(driver_used(&f->driver, EVENT, &head, &length));
	fd = client(f); /* waits in the backlog */
	say(fd, "CONNECT 6\n");
	/* What the guest sent before is found without a kick. */
	struct packet late = make_packet(&guest, RW);
	const struct driver_buffer buffer = { f->tx, HEADER, false };
	uint8_t *bytes = driver_at(&f->driver, f->tx, HEADER);
	base_store_u64(bytes, late.src_cid);
	base_store_u64(bytes + 8, late.dst_cid);
	base_store_u16(bytes + 30, RW);
	head = driver_add(&f->driver, TX, &buffer, 1);
	expect_nothing(f);
	vmm_virtio_resume(f->driver.device);
	driver_wait(&f->driver, TX, head);
	expect(f, RST, &packet);
	next = accept_request(f, 6);
	assert_true(next.host_port > guest.host_port);
	close(fd);
}

static void refuses_states_that_cannot_be(void **state)
{
	struct fixture *f = *state;
	_cleanup_writer_ struct base_writer writer = { 0 };
	const struct {
		size_t from_end;
		uint32_t value;
		const char *field;
	} bad[] = {
		{ 14, CID + 1, "CID" },
		{ 10, 5, "host port" },
		{ 10, UINT32_MAX, "host port" },
		{ 6, 3, "event" },
	};

	save(f, &writer);
	assert_int_equal(load(f, &writer, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t *field = writer.data + writer.size - bad[i].from_end;
		uint32_t good = base_load_u32(field);
		struct base_error error = { 0 };

		base_store_u32(field, bad[i].value);
		assert_int_equal(load(f, &writer, &error), -EBADMSG);
		assert_non_null(strstr(error.text, bad[i].field));
		base_store_u32(field, good);
	}
	/* Every bit: refused, or a device that works as far as its state lets it. */
	for (size_t bit = 0; bit < writer.size * 8; bit++) {
		int pair[2];

		writer.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (load(f, &writer, NULL) == 0) {
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
					 0);
			say(pair[0], "x");
			vmm_virtio_vsock_attach(f->driver.device, pair[1], 1);
			vmm_virtio_resume(f->driver.device);
			driver_settle(&f->driver);
			close(pair[0]);
			driver_settle(&f->driver);
		}
		writer.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void does_without_a_listener(void **state)
{
	struct fixture *f = *state;
	struct vmm_virtio *device = NULL;
	int none = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	vmm_virtio_free(f->driver.device);
	f->driver.device = NULL;
	assert_int_equal(
		vmm_virtio_vsock_new(&f->driver.host, 2, CID, none, &f->driver.device, NULL), 0);
	driver_start(&f->driver);
	post_rx(f, 4);
	expect_nothing(f); /* and does not spin */
	assert_int_equal(vmm_virtio_vsock_new(&f->driver.host, 2, 2, f->listener, &device, NULL),
			 -EINVAL);
	assert_int_equal(driver_read(&f->driver, REG_CONFIG), CID);
	assert_int_equal(driver_read(&f->driver, REG_CONFIG + 4), 0);
}

/* Random packets, lengths and closes: no fault, no spinning, and the device still works. */
static void survives_random_packets(void **state)
{
	struct fixture *f = *state;
	uint64_t random = base_clock_monotonic_ns() | 1;
	int fds[8] = { -1, -1, -1, -1, -1, -1, -1, -1 };
	struct packet packet;

	print_message("# seed %llu\n", (unsigned long long)random);
	for (unsigned i = 0; i < 20000; i++) {
		struct guest guest = { 0 };
		int *fd;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		fd = &fds[(random >> 32) % ARRAY_SIZE(fds)];
		guest.port = (uint32_t)(random >> 8) % 4;
		guest.host_port = random & 1 ? 0x40000000 + (uint32_t)(random >> 12) % (i / 64 + 4)
					     : (uint32_t)(random >> 12) % 4;
		guest.forwarded = random & 0x3000000 ? 0 : (uint32_t)(random >> 20);
		if (random % 11 == 0) {
			*fd = base_fd_close(*fd);
		} else if (random % 11 == 1 && *fd < 0) {
			*fd = client(f);
			say(*fd, random & 64 ? "CONNECT 1\nabc" : "CONNECT 2\n");
		} else if (random % 11 == 2 && *fd >= 0) {
			send(*fd, "some bytes", 10, MSG_DONTWAIT | MSG_NOSIGNAL);
		} else if (random % 11 == 3 && f->connect_id) {
			int pair[2];

			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
					 0);
			vmm_virtio_vsock_connected(f->driver.device, f->connect_id, 0, pair[1]);
			base_fd_close(*fd);
			*fd = pair[0];
		} else if (random % 1009 == 0) {
			assert_int_equal(vmm_virtio_drain(f->driver.device), 0);
			vmm_virtio_resume(f->driver.device);
			post_event(f);
		} else {
			packet = make_packet(&guest, (uint16_t)((random >> 40) % 9));
			packet.flags = (uint32_t)(random >> 50) % 5;
			packet.length = (uint32_t)(random >> 44) % 200;
			send_packet(f, &packet, (uint32_t)(random >> 28) % 150);
		}
		driver_settle(&f->driver);
		while (try_receive(f, &packet)) {
			if (packet.op == REQUEST && random & 128) {
				guest = (struct guest){ .host_port = packet.src_port,
							.port = packet.dst_port };
				reply(f, &guest, RESPONSE, 0);
			}
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		base_fd_close(fds[i]);
	}
	driver_start(&f->driver);
	f->driver.next_free = MIB(2);
	post_rx(f, RX_BUFFERS);
	driver_settle(&f->driver);
	while (try_receive(f, &packet)) {
	}
	int fd;
	struct guest guest = establish(f, 1024, &fd);
	send_data(f, &guest, "fine", 4);
	hear(fd, "fine");
	close(fd);
}

/* Descriptors at random in all three queues, with connections open. */
static void survives_random_rings(void **state)
{
	struct fixture *f = *state;
	struct driver *driver = &f->driver;
	uint64_t random = base_clock_monotonic_ns() | 1;
	gpa_t start = driver->next_free;
	struct packet packet;
	int fd;

	print_message("# seed %llu\n", (unsigned long long)random);
	for (unsigned round = 0; round < 1000; round++) {
		fd = client(f);
		say(fd, "CONNECT 5\nsome bytes for the guest");
		driver->next_free = start;
		driver_start(driver);
		for (unsigned i = 0; i < 12; i++) {
			driver_scramble(driver, i % 3, &random);
			driver_kick(driver, i % 3);
			driver_settle(driver);
		}
		if (round % 2) {
			assert_int_equal(vmm_virtio_drain(driver->device), 0);
			vmm_virtio_resume(driver->device);
		}
		close(fd);
		driver_settle(driver);
	}
	driver->next_free = start;
	driver_start(driver);
	post_rx(f, RX_BUFFERS);
	driver_settle(driver);
	while (try_receive(f, &packet)) { /* requests that had no buffer before */
		driver_settle(driver);
	}
	struct guest guest = establish(f, 1024, &fd);
	send_data(f, &guest, "fine", 4);
	hear(fd, "fine");
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(carries_both_ways),
		TEST(reads_connect_lines_in_pieces),
		TEST(refuses_malformed_lines),
		TEST(closes_what_the_guest_refuses),
		TEST(opens_connections_for_the_guest),
		TEST(refuses_connections_of_the_guest),
		TEST(closes_halves),
		TEST(delivers_all_before_the_end),
		TEST(respects_the_guests_credit),
		TEST(enforces_its_own_credit),
		TEST(carries_ten_mebibytes),
		TEST(carries_many_connections),
		TEST(limits_connections),
		TEST(drops_or_resets_bad_packets),
		TEST(waits_for_receive_buffers),
		TEST(breaks_on_tiny_receive_buffers),
		TEST(closes_everything_at_a_reset),
		TEST(attaches_before_the_first_resume),
		TEST(saves_again_before_the_first_resume),
		TEST(attaches_to_a_running_guest),
		TEST(tells_the_guest_of_lost_connections),
		TEST(owes_the_event_without_a_buffer),
		TEST(goes_on_after_a_pause_without_connections),
		TEST(refuses_states_that_cannot_be),
		TEST(does_without_a_listener),
		TEST(survives_random_packets),
		TEST(survives_random_rings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
