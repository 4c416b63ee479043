/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Streams through the vsock device, with a fake guest and real Unix sockets: half-closes, what is
 * still delivered before the end, credit of both sides, and guests that are slow to take anything.
 */

#include "vsock_guest.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void closes_halves(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	int fd;
	struct guest guest = vsock_establish(f, 1, &fd);

	/* The host first: the guest can still send. */
	vsock_say(fd, "last");
	shutdown(fd, SHUT_WR);
	vsock_expect(f, RW, &packet);
	vsock_expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_SEND);
	vsock_send_data(f, &guest, "more", 4);
	vsock_hear(fd, "more");
	vsock_expect_nothing(f);
	vsock_reply(f, &guest, SHUTDOWN, SHUT_SEND);
	driver_settle(&f->driver);
	vsock_hear_end(fd);
	vsock_expect(f, SHUTDOWN, &packet); /* both ends of the socket are shut */
	assert_int_equal(packet.flags, SHUT_ALL);
	vsock_reply(f, &guest, RST, 0);
	close(fd);
	vsock_expect_nothing(f);

	/* The guest first: the host can still send. */
	guest = vsock_establish(f, 2, &fd);
	vsock_send_data(f, &guest, "bye", 3);
	vsock_reply(f, &guest, SHUTDOWN, SHUT_SEND);
	vsock_hear(fd, "bye");
	vsock_hear_end(fd);
	vsock_say(fd, "still here");
	vsock_expect(f, RW, &packet);
	assert_memory_equal(packet.data, "still here", 10);
	/* Having said that it sends no more, it must not. */
	vsock_send_data(f, &guest, "x", 1);
	vsock_expect(f, RST, &packet);
	vsock_hear_end(fd);
	close(fd);

	/* A guest that receives no more. */
	guest = vsock_establish(f, 3, &fd);
	vsock_reply(f, &guest, SHUTDOWN, SHUT_RECEIVE);
	driver_settle(&f->driver);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	vsock_send_data(f, &guest, "I talk", 6);
	vsock_hear(fd, "I talk");
	vsock_reply(f, &guest, SHUTDOWN, SHUT_SEND);
	vsock_expect(f, RST, &packet);
	vsock_hear_end(fd);
	close(fd);

	/* A host that receives no more. */
	guest = vsock_establish(f, 4, &fd);
	shutdown(fd, SHUT_RD);
	vsock_send_data(f, &guest, "nobody reads this", 17);
	vsock_expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_RECEIVE);
	vsock_say(fd, "but I talk");
	vsock_expect(f, RW, &packet);
	close(fd);
	vsock_expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_ALL);
	vsock_send_data(f, &guest, "late", 4);
	vsock_expect_nothing(f);
	vsock_reply(f, &guest, SHUTDOWN, SHUT_ALL);
	vsock_expect(f, RST, &packet);
	vsock_expect_nothing(f);
}

static void delivers_all_before_the_end(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	uint8_t *bytes = malloc(TX_BYTES), *back = malloc(TX_BYTES);
	int fd;
	struct guest guest = vsock_establish(f, 1, &fd);
	uint32_t rounds = 0;

	/* The host sends, closes, and everything still arrives, end last. */
	memset(bytes, 'h', TX_BYTES);
	assert_int_equal(base_fd_write_full(fd, bytes, 60000), 0);
	close(fd);
	for (uint32_t got = 0; got < 60000; got += packet.length) {
		vsock_expect(f, RW, &packet);
	}
	vsock_expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_ALL);
	vsock_reply(f, &guest, RST, 0);

	/* The guest sends more than the socket takes, closes, and everything still arrives. */
	guest = vsock_establish(f, 2, &fd);
	for (uint32_t i = 0; i < TX_BYTES; i++) {
		bytes[i] = (uint8_t)(i * 3 + i / 251);
	}
	while (guest.sent - guest.peer_forwarded <= DEVICE_BUFFER / 2 && rounds < 64) {
		vsock_send_data(f, &guest, bytes, TX_BYTES / 2);
		rounds++;
		while (vsock_try_receive(f, &packet)) {
			assert_int_equal(packet.op, CREDIT_UPDATE);
			guest.peer_forwarded = packet.forwarded;
		}
	}
	assert_true(rounds < 64); /* the socket filled up, the buffer is in use */
	vsock_reply(f, &guest, SHUTDOWN, SHUT_ALL);
	vsock_expect(f, RST, &packet);
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
	vsock_hear_end(fd);
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
	struct guest guest = vsock_establish(f, 1, &fd);

	fcntl(fd, F_SETFL, O_NONBLOCK);
	assert_true(write(fd, bytes, 2 * GUEST_BUFFER) > GUEST_BUFFER + 100);
	for (uint32_t got = 0; got < GUEST_BUFFER; got += packet.length) {
		vsock_expect(f, RW, &packet);
	}
	/* Used up: one request for credit, then silence, however long. */
	vsock_expect(f, CREDIT_REQUEST, &packet);
	vsock_expect_nothing(f);
	guest.forwarded = 100;
	vsock_reply(f, &guest, CREDIT_UPDATE, 0);
	vsock_expect(f, RW, &packet);
	assert_int_equal(packet.length, 100);
	vsock_expect(f, CREDIT_REQUEST, &packet);
	/* A guest that takes credit back, or claims what it never got, is sent nothing. */
	struct packet lie = vsock_make_packet(&guest, CREDIT_UPDATE);
	lie.buffer = 10;
	vsock_send_packet(f, &lie, 0);
	vsock_expect(f, CREDIT_REQUEST, &packet);
	lie.buffer = GUEST_BUFFER;
	lie.forwarded = GUEST_BUFFER + 101;
	vsock_send_packet(f, &lie, 0);
	vsock_expect(f, CREDIT_REQUEST, &packet);
	vsock_expect_nothing(f);
	vsock_reply(f, &guest, RST, 0);
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
	struct guest guest = vsock_establish(f, 1, &fd);
	bool reset = false;

	/* Nobody reads: the socket fills up, then the buffer, and then it is the guest's fault. */
	for (unsigned i = 0; i < 64 && !reset; i++) {
		vsock_send_data(f, &guest, bytes, TX_BYTES);
		while (vsock_try_receive(f, &packet)) {
			reset |= packet.op == RST;
		}
	}
	assert_true(reset);
	driver_settle(&f->driver);
	close(fd);

	/* A request for credit is answered with the truth. */
	guest = vsock_establish(f, 1, &fd);
	vsock_send_data(f, &guest, bytes, 1000);
	vsock_reply(f, &guest, CREDIT_REQUEST, 0);
	vsock_expect(f, CREDIT_UPDATE, &packet);
	assert_int_equal(packet.buffer, DEVICE_BUFFER);
	assert_int_equal(packet.forwarded, 1000);
	close(fd);
	free(bytes);
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
	uint64_t credit = flow->guest.peer_buffer - on_the_way;
	uint64_t n = MIN(total - flow->guest_sent, (uint64_t)sizeof(bytes));

	n = MIN(n, credit);
	if (n > 0) {
		for (uint64_t i = 0; i < n; i++) {
			bytes[i] = vsock_stream_byte(flow->guest_sent + i, flow->salt + 1);
		}
		vsock_send_data(f, &flow->guest, bytes, (uint32_t)n);
		flow->guest_sent += n;
	}
	/* The client, as far as its socket takes it. */
	n = total - flow->host_sent;
	if (n > 0) {
		n = n < sizeof(bytes) ? n : sizeof(bytes);
		for (uint64_t i = 0; i < n; i++) {
			bytes[i] = vsock_stream_byte(flow->host_sent + i, flow->salt);
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
		if (bytes[i] != vsock_stream_byte(flow->host_got + (uint64_t)i, flow->salt + 1)) {
			fail_msg("the host got a wrong byte at %llu",
				 (unsigned long long)flow->host_got + (unsigned long long)i);
		}
	}
	flow->host_got += n > 0 ? (uint64_t)n : 0;
}

static void flow_receive(struct fixture *f, struct flow *flows, unsigned n_flows)
{
	struct packet packet;

	while (vsock_try_receive(f, &packet)) {
		struct flow *flow = flows;

		while (flow < flows + n_flows && flow->guest.host_port != packet.src_port) {
			flow++;
		}
		assert_true(flow < flows + n_flows);
		flow->guest.peer_forwarded = packet.forwarded;
		if (packet.op == CREDIT_REQUEST) {
			vsock_reply(f, &flow->guest, CREDIT_UPDATE, 0);
			continue;
		}
		if (packet.op == CREDIT_UPDATE) {
			continue;
		}
		assert_int_equal(packet.op, RW);
		for (uint32_t i = 0; i < packet.length; i++) {
			if (packet.data[i] != vsock_stream_byte(flow->guest_got + i, flow->salt)) {
				fail_msg("the guest got a wrong byte");
			}
		}
		flow->guest_got += packet.length;
		/* The guest reads all, and says so now and then. */
		flow->guest.forwarded += packet.length;
		if (flow->guest_got % 5 == 0) {
			vsock_reply(f, &flow->guest, CREDIT_UPDATE, 0);
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

	flow.guest = vsock_establish(f, 1024, &flow.fd);
	carry(f, &flow, 1, MIB(10), 5000);
	vsock_expect_nothing(f);
	close(flow.fd);
}

static void carries_many_connections(void **state)
{
	struct fixture *f = *state;
	struct flow flows[100];

	for (unsigned i = 0; i < ARRAY_SIZE(flows); i++) {
		flows[i] = (struct flow){ .salt = i * 2 };
		flows[i].guest = vsock_establish(f, 1000 + i % 10, &flows[i].fd);
	}
	carry(f, flows, ARRAY_SIZE(flows), KIB(100), 1000);
	for (unsigned i = 0; i < ARRAY_SIZE(flows); i++) {
		close(flows[i].fd);
	}
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

	vsock_establish(f, 5, &fd);
	/* The guest stops giving buffers back. */
	for (unsigned i = 0; i < RX_BUFFERS; i++) {
		vsock_say(fd, "x");
		driver_settle(&f->driver);
		assert_true(driver_used(&f->driver, RX, &heads[i], &length));
	}
	vsock_say(fd, "the one that waits");
	for (unsigned i = 0; i < 300; i++) { /* more answers than are kept */
		stranger.port = i;
		vsock_reply(f, &stranger, RW, 0);
	}
	assert_false(driver_used(&f->driver, RX, &heads[0], &length));
	for (unsigned i = 0; i < RX_BUFFERS; i++) {
		vsock_repost_rx(f, heads[i]);
	}
	for (;;) {
		vsock_receive(f, &packet);
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

/* Connections whose hosts never read: the guest is held by its credit, all of them together never
 * make the device hold more than its limit, and then there are no more. */
static void holds_no_more_than_its_limit(void **state)
{
	struct fixture *f = *state;
	const uint32_t limit = DEVICE_BUFFER * 2 + 5000;
	static const uint32_t promised[] = { DEVICE_BUFFER, DEVICE_BUFFER, 5000 };
	static const uint8_t bytes[TX_BYTES];
	struct packet packet;
	int peers[3];

	vmm_virtio_vsock_limit(f->driver.device, 0, limit);
	for (unsigned i = 0; i < ARRAY_SIZE(peers); i++) {
		struct guest guest = { .host_port = 7000, .port = 100 + i };
		int pair[2], size = 1;
		uint64_t sent = 0;

		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			0);
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		peers[i] = pair[1];
		f->connect_stream = pair[0];
		vsock_reply(f, &guest, REQUEST, 0);
		vsock_expect(f, RESPONSE, &packet);
		assert_int_equal(packet.buffer, promised[i]);
		/* As much as the credit allows: what the socket took was forwarded and gives new
		 * credit, up to what the device holds. */
		for (;;) {
			uint32_t room = packet.buffer - (guest.sent - packet.forwarded);

			while (vsock_try_receive(f, &packet)) {
				room = packet.buffer - (guest.sent - packet.forwarded);
			}
			if (room == 0) {
				break;
			}
			room = MIN(room, 3000u);
			vsock_send_data(f, &guest, bytes, room);
			sent += room;
			driver_settle(&f->driver);
			assert_true(sent < MIB(4));
		}
		vsock_expect_nothing(f);
	}
	for (unsigned i = 0; i < 20; i++) {
		struct guest guest = { .host_port = 7000, .port = 500 + i };

		vsock_reply(f, &guest, REQUEST, 0);
		vsock_expect(f, RST, &packet);
	}
	assert_int_equal(vmm_virtio_vsock_limited(f->driver.device), 20);
	/* A reader that wakes up gets all of it, and its guest goes on. */
	for (size_t got = 0; got < DEVICE_BUFFER;) {
		uint8_t scratch[8192];
		ssize_t n = recv(peers[0], scratch, sizeof(scratch), MSG_DONTWAIT);

		got += n > 0 ? (size_t)n : 0;
		driver_turn(&f->driver, n > 0 ? 0 : 10);
	}
	vsock_expect(f, CREDIT_UPDATE, &packet);
	assert_int_equal(packet.dst_port, 100);
	for (unsigned i = 0; i < ARRAY_SIZE(peers); i++) {
		close(peers[i]);
	}
}

/* A small ring wraps as a large one does. */
static void carries_through_a_small_buffer(void **state)
{
	struct fixture *f = *state;
	struct flow flow = { .salt = 9 };

	vmm_virtio_vsock_limit(f->driver.device, 1, VMM_LIMIT_VSOCK_BYTES_MIN + 77);
	flow.guest = vsock_establish(f, 1024, &flow.fd);
	assert_int_equal(flow.guest.peer_buffer, VMM_LIMIT_VSOCK_BYTES_MIN + 77);
	carry(f, &flow, 1, KIB(512), 999);
	close(flow.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vsock_setup, vsock_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(closes_halves),
		TEST(delivers_all_before_the_end),
		TEST(respects_the_guests_credit),
		TEST(enforces_its_own_credit),
		TEST(carries_ten_mebibytes),
		TEST(carries_many_connections),
		TEST(waits_for_receive_buffers),
		TEST(holds_no_more_than_its_limit),
		TEST(carries_through_a_small_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
