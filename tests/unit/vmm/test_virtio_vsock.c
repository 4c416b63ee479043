/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The vsock device with a fake guest and real Unix sockets: handshakes from both sides, the limit
 * of connections, and guests that do not play by the rules.
 */

#include "vsock_guest.h"

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/control.h"
#include "vmm/virtio_vsock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void carries_both_ways(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	int fd;
	struct guest guest = vsock_establish(f, 1024, &fd);

	assert_true(guest.host_port >= 0x40000000);
	assert_int_equal(guest.peer_buffer, DEVICE_BUFFER);
	vsock_say(fd, "hello guest");
	vsock_expect(f, RW, &packet);
	assert_int_equal(packet.src_port, guest.host_port);
	assert_int_equal(packet.dst_port, 1024);
	assert_int_equal(packet.length, 11);
	assert_memory_equal(packet.data, "hello guest", 11);
	vsock_send_data(f, &guest, "hello host", 10);
	vsock_hear(fd, "hello host");
	vsock_send_data(f, &guest, "", 0); /* nothing, but allowed */
	vsock_hear_nothing(fd);
	vsock_expect_nothing(f);
	close(fd);
	vsock_expect(f, SHUTDOWN, &packet);
	assert_int_equal(packet.flags, SHUT_ALL);
	vsock_reply(f, &guest, RST, 0);
	vsock_expect_nothing(f);
}

static void reads_connect_lines_in_pieces(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	const char *line = "CONNECT 5000\nearly bytes";
	int fd = vsock_client(f);
	struct guest guest;

	for (const char *c = line; *c; c++) {
		assert_int_equal(write(fd, c, 1), 1);
		driver_settle(&f->driver);
	}
	guest = vsock_accept_request(f, 5000);
	/* What came behind the line is not lost. */
	vsock_expect(f, RW, &packet);
	assert_int_equal(packet.length, 11);
	assert_memory_equal(packet.data, "early bytes", 11);
	vsock_hear(fd, "OK ");
	close(fd);
	vsock_expect(f, RST, &packet); /* unread input at close is a reset */
	assert_int_equal(packet.dst_port, guest.port);
}

/* Clients that say nothing, or never all of it, hold a connection only for so long. */
static void ends_handshakes_that_take_too_long(void **state)
{
	struct fixture *f = *state;
	struct vmm_vsock *vsock = CONTAINER_OF(f->driver.device, struct vmm_vsock, virtio);
	struct vmm_loop *loop = &f->driver.loop;
	int connected, silent, slow, early;
	struct vmm_vsock_connection *connection;

	vsock_establish(f, 1024, &connected);
	silent = vsock_client(f);
	slow = vsock_client(f);
	vsock_say(slow, "CONNECT 10");
	early = vsock_client(f);
	driver_settle(&f->driver);
	assert_int_equal(vsock->n_connections, 4);
	assert_true(vsock->timer.deadline_ns > 0);
	vmm_loop_expire(loop, base_clock_monotonic_ns());
	assert_int_equal(vsock->n_connections, 4);
	/* As if time had passed for all but the last, just not enough for that. */
	TAILQ_FOREACH(connection, &vsock->connections, all)
	{
		if (TAILQ_NEXT(connection, all)) {
			connection->deadline_ns -= VMM_VSOCK_HANDSHAKE_MS * NSEC_PER_MSEC;
		}
	}
	vmm_loop_arm(loop, &vsock->timer, 1);
	vmm_loop_expire(loop, base_clock_monotonic_ns());
	vsock_hear_end(silent);
	vsock_hear_end(slow);
	assert_int_equal(vsock->n_connections, 2);
	vsock_hear_nothing(connected);
	vsock_hear_nothing(early);
	/* The last one's time will come. */
	assert_int_equal(vsock->timer.deadline_ns,
			 TAILQ_LAST(&vsock->connections, vmm_vsock_list)->deadline_ns);
	vsock_say(early, "CONNECT 5000\n");
	driver_settle(&f->driver);
	vsock_accept_request(f, 5000);
	vmm_loop_arm(loop, &vsock->timer, 1);
	vmm_loop_expire(loop, base_clock_monotonic_ns());
	assert_int_equal(vsock->timer.deadline_ns, 0);
	assert_int_equal(vsock->n_connections, 2);
	close(connected);
	close(silent);
	close(slow);
	close(early);
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
		int fd = vsock_client(f);

		vsock_say(fd, lines[i]);
		vsock_expect_nothing(f);
		vsock_hear_end(fd);
		close(fd);
	}
	for (int i = 0; i < 3; i++) { /* one that leaves in the middle */
		int fd = vsock_client(f);

		vsock_say(fd, "CONN");
		driver_settle(&f->driver);
		close(fd);
		vsock_expect_nothing(f);
	}
	int fd;
	struct guest guest = vsock_establish(f, 4294967294, &fd);
	vsock_reply(f, &guest, RST, 0);
	vsock_hear_end(fd);
	close(fd);
}

static void closes_what_the_guest_refuses(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	int fd = vsock_client(f);
	struct guest guest = { .port = 77 };

	vsock_say(fd, "CONNECT 77\n");
	vsock_expect(f, REQUEST, &packet);
	guest.host_port = packet.src_port;
	vsock_reply(f, &guest, RST, 0);
	vsock_hear_end(fd);
	close(fd);
	vsock_expect_nothing(f);
}

static void opens_connections_for_the_guest(void **state)
{
	struct fixture *f = *state;
	struct guest guest = { .host_port = 53, .port = 9000 };
	struct packet packet;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vsock_reply(f, &guest, REQUEST, 0);
	assert_int_equal(f->connects, 1);
	assert_int_equal(f->connect_port, 53);
	vsock_expect_nothing(f);
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id + 1, 0, dup(pair[1]));
	vsock_expect_nothing(f); /* nobody asked */
	vsock_say(pair[0], "first");
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id, 0, pair[1]);
	vsock_expect(f, RESPONSE, &packet);
	assert_int_equal(packet.src_port, 53);
	assert_int_equal(packet.dst_port, 9000);
	vsock_expect(f, RW, &packet);
	assert_memory_equal(packet.data, "first", 5);
	vsock_send_data(f, &guest, "second", 6);
	vsock_hear(pair[0], "second");
	vsock_reply(f, &guest, SHUTDOWN, SHUT_ALL);
	vsock_expect(f, RST, &packet);
	vsock_hear_end(pair[0]);
	close(pair[0]);
}

static void refuses_connections_of_the_guest(void **state)
{
	struct fixture *f = *state;
	struct guest guest = { .host_port = 53, .port = 9000 };
	struct packet packet;

	f->connect_result = -EBUSY;
	vsock_reply(f, &guest, REQUEST, 0);
	vsock_expect(f, RST, &packet);
	assert_int_equal(packet.dst_port, 9000);

	f->connect_result = 0;
	vsock_reply(f, &guest, REQUEST, 0);
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id, -ECONNREFUSED, -1);
	vsock_expect(f, RST, &packet);

	/* One that the guest gives up before it is answered. */
	vsock_reply(f, &guest, REQUEST, 0);
	vsock_reply(f, &guest, RST, 0);
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id, 0, vsock_client(f));
	vsock_expect_nothing(f);

	/* One that is answered from within the call. */
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->connect_stream = pair[1];
	vsock_reply(f, &guest, REQUEST, 0);
	vsock_expect(f, RESPONSE, &packet);
	close(pair[0]);
}

static void limits_connections(void **state)
{
	struct fixture *f = *state;
	struct guest guest = { .host_port = 53, .port = 1 },
		     last = { .host_port = 53, .port = 999 };
	struct packet packet;
	int fds[256], waiting;

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		guest = vsock_establish(f, 1024, &fds[i]);
	}
	vsock_reply(f, &last, REQUEST, 0);
	vsock_expect(f, RST, &packet);
	assert_int_equal(packet.dst_port, 999);
	assert_int_equal(f->connects, 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, vsock_client(f), 5), -EBUSY);

	/* A client waits its turn, and gets it. */
	waiting = vsock_client(f);
	vsock_say(waiting, "CONNECT 1024\n");
	vsock_expect_nothing(f);
	vsock_reply(f, &guest, RST, 0);
	vsock_accept_request(f, 1024);
	close(waiting);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		close(fds[i]);
	}
	driver_settle(&f->driver);
}

/* A guest's request for a connection; what the device answers. */
static uint16_t ask(struct fixture *f, uint32_t guest_port, struct packet *packet)
{
	struct guest guest = { .host_port = 7000, .port = guest_port };

	vsock_reply(f, &guest, REQUEST, 0);
	vsock_receive(f, packet);
	return packet->op;
}

/* A guest that opens connections in a loop, beside a host that opens some, too. */
static void refuses_a_flood_of_the_guest(void **state)
{
	struct fixture *f = *state;
	struct guest guest;
	struct packet packet;
	int fds[3], peers[5];

	vmm_virtio_vsock_limit(f->driver.device, 8, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		vsock_establish(f, 10 + i, &fds[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(peers); i++) {
		int pair[2];

		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			0);
		f->connect_stream = pair[0];
		peers[i] = pair[1];
		assert_int_equal(ask(f, 100 + i, &packet), RESPONSE);
	}
	f->connect_stream = -1;
	f->connects = 0;
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(ask(f, 1000 + i, &packet), RST);
		assert_int_equal(packet.dst_port, 1000 + i);
	}
	assert_int_equal(f->connects, 0); /* nobody was asked */
	assert_int_equal(vmm_virtio_vsock_limited(f->driver.device), 1000);
	assert_int_equal(f->driver.limited, 1000);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, dup(fds[0]), 3), -EBUSY);
	assert_int_equal(vmm_virtio_vsock_limited(f->driver.device), 1001);
	/* Those that are open go on, and when one ends there is room for one. */
	guest = (struct guest){ .host_port = 7000, .port = 100 };
	vsock_send_data(f, &guest, "still here", 10);
	vsock_hear(peers[0], "still here");
	close(fds[0]);
	vsock_expect(f, SHUTDOWN, &packet);
	guest = (struct guest){ .host_port = packet.src_port, .port = packet.dst_port };
	vsock_reply(f, &guest, RST, 0);
	f->connect_result = -ECONNREFUSED;
	assert_int_equal(ask(f, 5000, &packet), RST);
	assert_int_equal(f->connects, 1); /* refused by the host this time */
	for (unsigned i = 0; i < ARRAY_SIZE(peers); i++) {
		close(peers[i]);
	}
	close(fds[1]);
	close(fds[2]);
}

static void a_lowered_limit_ends_nothing(void **state)
{
	struct fixture *f = *state;
	struct guest guests[4];
	struct packet packet;
	int fds[4], waiting;

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		guests[i] = vsock_establish(f, 10 + i, &fds[i]);
	}
	vmm_virtio_vsock_limit(f->driver.device, 1, VMM_LIMIT_VSOCK_BYTES_MIN);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		vsock_send_data(f, &guests[i], "fine", 4);
		vsock_hear(fds[i], "fine");
	}
	assert_int_equal(ask(f, 900, &packet), RST);
	waiting = vsock_client(f);
	vsock_say(waiting, "CONNECT 77\n");
	vsock_expect_nothing(f);
	vmm_virtio_vsock_limit(f->driver.device, 0, 0);
	vsock_accept_request(f, 77);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		close(fds[i]);
	}
	close(waiting);
}

static void drops_or_resets_bad_packets(void **state)
{
	struct fixture *f = *state;
	struct packet packet, bad;
	int fd;
	struct guest guest = vsock_establish(f, 7, &fd), stranger = { .host_port = 1, .port = 2 };

	/* Lengths and CIDs that make no sense: not even an answer. */
	bad = vsock_make_packet(&guest, RW);
	bad.length = 101;
	vsock_send_packet(f, &bad, 100);
	bad.length = UINT32_MAX;
	vsock_send_packet(f, &bad, 100);
	bad.length = UINT32_MAX - HEADER + 1;
	vsock_send_packet(f, &bad, 100);
	bad.length = 65537;
	vsock_send_packet(f, &bad, 65537);
	bad.length = 1;
	vsock_send_packet(f, &bad, 0);
	bad = vsock_make_packet(&guest, RW);
	bad.src_cid = CID + 1;
	vsock_send_packet(f, &bad, 0);
	bad.src_cid = CID | UINT64_C(1) << 32;
	vsock_send_packet(f, &bad, 0);
	bad = vsock_make_packet(&guest, RW);
	bad.dst_cid = 1;
	vsock_send_packet(f, &bad, 0);
	const struct driver_buffer short_header = { f->tx, HEADER - 1, false };
	uint16_t head = driver_add(&f->driver, TX, &short_header, 1);
	driver_kick(&f->driver, TX);
	driver_wait(&f->driver, TX, head);
	vsock_expect_nothing(f);
	vsock_hear_nothing(fd);

	/* Packets of nobody's connection. */
	for (uint16_t op = 0; op < 12; op++) {
		if (op != REQUEST && op != RST) {
			vsock_reply(f, &stranger, op, 0);
			vsock_expect(f, RST, &packet);
			assert_int_equal(packet.src_port, 1);
			assert_int_equal(packet.dst_port, 2);
		}
	}
	vsock_reply(f, &stranger, RST, 0);
	vsock_expect_nothing(f);
	bad = vsock_make_packet(&guest, RW); /* another type never reaches the connection */
	bad.type = 2;
	vsock_send_packet(f, &bad, 0);
	vsock_expect(f, RST, &packet);
	vsock_send_data(f, &guest, "alive", 5);
	vsock_hear(fd, "alive");

	/* Packets that the connection's state forbids end it. */
	vsock_reply(f, &guest, RESPONSE, 0);
	vsock_expect(f, RST, &packet);
	vsock_hear_end(fd);
	close(fd);
	guest = vsock_establish(f, 7, &fd);
	vsock_reply(f, &guest, 99, 0);
	vsock_expect(f, RST, &packet);
	vsock_hear_end(fd);
	close(fd);
	fd = vsock_client(f);
	vsock_say(fd, "CONNECT 7\n");
	vsock_expect(f, REQUEST, &packet);
	guest = (struct guest){ .host_port = packet.src_port, .port = 7 };
	vsock_send_data(f, &guest, "too early", 9);
	vsock_expect(f, RST, &packet);
	vsock_hear_end(fd);
	close(fd);
	vsock_expect_nothing(f);

	/* A second request for the same ports: the guest has forgotten the first. */
	guest = (struct guest){ .host_port = 53, .port = 9 };
	vsock_reply(f, &guest, REQUEST, 0);
	vsock_reply(f, &guest, REQUEST, 0);
	assert_int_equal(f->connects, 2);
	vsock_expect_nothing(f);
}

/* What waits for the VM's owner is bounded, also for a guest that takes its requests back. */
static void bounds_what_its_owner_is_asked(void **state)
{
	struct fixture *f = *state;
	struct guest guest = { .host_port = 53 };
	struct packet packet;

	for (unsigned i = 0; i < VMM_CONNECTS_MAX; i++) {
		guest.port = 2000 + i;
		vsock_reply(f, &guest, REQUEST, 0);
		vsock_reply(f, &guest, RST, 0);
		vsock_expect_nothing(f);
	}
	assert_int_equal(f->connects, VMM_CONNECTS_MAX);
	for (unsigned i = 0; i < 10; i++) {
		vsock_reply(f, &guest, REQUEST, 0);
		vsock_expect(f, RST, &packet);
	}
	assert_int_equal(f->connects, VMM_CONNECTS_MAX);

	/* Each answer, though nobody waits for it any more, makes room for one. */
	vmm_virtio_vsock_connected(f->driver.device, f->connect_id, -ECONNREFUSED, -1);
	vsock_expect_nothing(f);
	vsock_reply(f, &guest, REQUEST, 0);
	assert_int_equal(f->connects, VMM_CONNECTS_MAX + 1);
	vsock_reply(f, &guest, REQUEST, 0);
	vsock_expect(f, RST, &packet);
	assert_int_equal(f->connects, VMM_CONNECTS_MAX + 1);
}

static void breaks_on_tiny_receive_buffers(void **state)
{
	struct fixture *f = *state;
	const struct driver_buffer tiny = { f->tx, HEADER, true };
	int fd = vsock_client(f);

	driver_start(&f->driver); /* fresh rings */
	driver_add(&f->driver, RX, &tiny, 1);
	vsock_say(fd, "CONNECT 1\n");
	driver_settle(&f->driver);
	assert_true(driver_read(&f->driver, REG_STATUS) & STATUS_NEEDS_RESET);
	close(fd);
	driver_settle(&f->driver);
}

static void closes_everything_at_a_reset(void **state)
{
	struct fixture *f = *state;
	int fd, early;

	vsock_establish(f, 5, &fd);
	driver_write(&f->driver, REG_STATUS, 0);
	vsock_hear_end(fd);
	close(fd);
	/* Without a driver, clients wait. */
	early = vsock_client(f);
	vsock_say(early, "CONNECT 6\n");
	driver_settle(&f->driver);
	driver_start(&f->driver);
	vsock_post_rx(f, RX_BUFFERS);
	vsock_accept_request(f, 6);
	vsock_hear(early, "OK ");
	close(early);
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
	vsock_post_rx(f, 4);
	vsock_expect_nothing(f); /* and does not spin */
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
			*fd = vsock_client(f);
			vsock_say(*fd, random & 64 ? "CONNECT 1\nabc" : "CONNECT 2\n");
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
			vsock_post_event(f);
		} else {
			packet = vsock_make_packet(&guest, (uint16_t)((random >> 40) % 9));
			packet.flags = (uint32_t)(random >> 50) % 5;
			packet.length = (uint32_t)(random >> 44) % 200;
			vsock_send_packet(f, &packet, (uint32_t)(random >> 28) % 150);
		}
		driver_settle(&f->driver);
		while (vsock_try_receive(f, &packet)) {
			if (packet.op == REQUEST && random & 128) {
				guest = (struct guest){ .host_port = packet.src_port,
							.port = packet.dst_port };
				vsock_reply(f, &guest, RESPONSE, 0);
			}
		}
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		base_fd_close(fds[i]);
	}
	driver_start(&f->driver);
	f->driver.next_free = MIB(2);
	vsock_post_rx(f, RX_BUFFERS);
	driver_settle(&f->driver);
	while (vsock_try_receive(f, &packet)) {
	}
	int fd;
	struct guest guest = vsock_establish(f, 1024, &fd);
	vsock_send_data(f, &guest, "fine", 4);
	vsock_hear(fd, "fine");
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
		fd = vsock_client(f);
		vsock_say(fd, "CONNECT 5\nsome bytes for the guest");
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
	vsock_post_rx(f, RX_BUFFERS);
	driver_settle(driver);
	while (vsock_try_receive(f, &packet)) { /* requests that had no buffer before */
		driver_settle(driver);
	}
	struct guest guest = vsock_establish(f, 1024, &fd);
	vsock_send_data(f, &guest, "fine", 4);
	vsock_hear(fd, "fine");
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vsock_setup, vsock_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(carries_both_ways),
		TEST(reads_connect_lines_in_pieces),
		TEST(ends_handshakes_that_take_too_long),
		TEST(refuses_malformed_lines),
		TEST(closes_what_the_guest_refuses),
		TEST(opens_connections_for_the_guest),
		TEST(refuses_connections_of_the_guest),
		TEST(limits_connections),
		TEST(refuses_a_flood_of_the_guest),
		TEST(a_lowered_limit_ends_nothing),
		TEST(drops_or_resets_bad_packets),
		TEST(bounds_what_its_owner_is_asked),
		TEST(breaks_on_tiny_receive_buffers),
		TEST(closes_everything_at_a_reset),
		TEST(does_without_a_listener),
		TEST(survives_random_packets),
		TEST(survives_random_rings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
