/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Freezing the vsock device, with a fake guest and real Unix sockets: saved and loaded states,
 * streams attached before the guest runs, and how it learns of the connections that it lost.
 */

#include "vsock_guest.h"

#include "base/fd.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

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
	vsock_new_device(f);
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
	struct guest guest = vsock_establish(f, 5, &fd);
	uint32_t old_port = guest.host_port, got = 0;

	vsock_reply(f, &guest, RST, 0);
	close(fd);
	save(f, &writer);
	assert_int_equal(load(f, &writer, NULL), 0);

	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = vsock_stream_byte(i, 3);
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(base_fd_write_full(pair[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1024), 0);

	/* All of it is in guest memory at once, without a turn of the loop. */
	assert_true(vsock_try_receive(f, &packet));
	assert_int_equal(packet.op, REQUEST);
	assert_int_equal(packet.dst_port, 1024);
	assert_true(packet.src_port > old_port);
	guest = (struct guest){ .host_port = packet.src_port, .port = 1024 };
	while (vsock_try_receive(f, &packet)) {
		assert_int_equal(packet.op, RW);
		assert_memory_equal(packet.data, bytes + got, packet.length);
		got += packet.length;
	}
	assert_int_equal(got, 16384); /* as much as a guest is sent unasked */
	driver_settle(&f->driver);
	assert_false(vsock_try_receive(f, &packet));

	vmm_virtio_resume(f->driver.device);
	guest.forwarded = got;
	vsock_reply(f, &guest, RESPONSE, 0);
	vsock_expect(f, RW, &packet);
	assert_int_equal(packet.length, sizeof(bytes) - got);
	assert_memory_equal(packet.data, bytes + got, packet.length);
	vsock_send_data(f, &guest, "yes", 3);
	vsock_hear(pair[0], "yes"); /* no OK line */
	vsock_hear_nothing(pair[0]);
	vsock_say(pair[0], "go on");
	vsock_expect(f, RW, &packet);
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
	assert_true(vsock_try_receive(f, &packet));
	assert_int_equal(packet.op, REQUEST);
	save(f, &second);
	vsock_hear_end(pair[0]);
	assert_true(driver_used(&f->driver, EVENT, &head, &length));
	assert_int_equal(load(f, &second, NULL), 0);
	vmm_virtio_resume(f->driver.device);
	close(pair[0]);
	vsock_expect_nothing(f);
}

static void attaches_to_a_running_guest(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	struct guest guest;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1024), 0);
	guest = vsock_accept_request(f, 1024);
	vsock_say(pair[0], "ping");
	vsock_expect(f, RW, &packet);
	vsock_send_data(f, &guest, "pong", 4);
	vsock_hear(pair[0], "pong");
	close(pair[0]);
	vsock_expect(f, SHUTDOWN, &packet);
	vsock_reply(f, &guest, RST, 0);

	/* Refused: closed. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1), 0);
	vsock_expect(f, REQUEST, &packet);
	guest = (struct guest){ .host_port = packet.src_port, .port = 1 };
	vsock_reply(f, &guest, RST, 0);
	vsock_hear_end(pair[0]);
	close(pair[0]);
}

static void tells_the_guest_of_lost_connections(void **state)
{
	struct fixture *f = *state;
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct packet packet;
	uint16_t head;
	uint32_t length;
	int fd, pair[2], pending = vsock_client(f);
	struct guest guest = vsock_establish(f, 5, &fd),
		     connecting = { .host_port = 53, .port = 8 };

	(void)pending;
	vsock_reply(f, &connecting, REQUEST, 0);
	save(f, &writer);
	vsock_hear_end(fd);
	close(fd);
	/* The half-open one got an RST, the others the event. */
	assert_true(vsock_try_receive(f, &packet));
	assert_int_equal(packet.op, RST);
	assert_int_equal(packet.dst_port, 8);
	assert_false(vsock_try_receive(f, &packet));
	assert_true(driver_used(&f->driver, EVENT, &head, &length));
	assert_int_equal(length, 4);
	assert_int_equal(base_load_u32(driver_at(&f->driver, f->event, 4)), 0);

	assert_int_equal(load(f, &writer, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	vsock_say(pair[0], "identity");
	assert_int_equal(vmm_virtio_vsock_attach(f->driver.device, pair[1], 1024), 0);
	vmm_virtio_resume(f->driver.device);
	vsock_reply(f, &guest, RW, 0); /* from before: its RST waits, too */
	vsock_expect_nothing(f);

	/* The guest has dealt with the event when it gives the buffer back. */
	vsock_post_event(f);
	vsock_expect(f, RST, &packet);
	assert_int_equal(packet.dst_port, 5);
	vsock_expect(f, REQUEST, &packet);
	vsock_expect(f, RW, &packet);
	assert_memory_equal(packet.data, "identity", 8);
	vsock_expect_nothing(f);
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
	vsock_post_rx(f, RX_BUFFERS);
	vsock_establish(f, 5, &fd);
	save(f, &writer);
	vsock_hear_end(fd);
	close(fd);
	assert_false(driver_used(&f->driver, EVENT, &head, &length));
	assert_int_equal(load(f, &writer, NULL), 0);
	vmm_virtio_resume(f->driver.device);
	fd = vsock_client(f);
	vsock_say(fd, "CONNECT 6\n");
	vsock_expect_nothing(f);
	head = vsock_post_event(f);
	assert_int_equal(driver_wait(&f->driver, EVENT, head), 4);
	vsock_expect_nothing(f);
	vsock_post_event(f);
	vsock_expect(f, REQUEST, &packet);
	close(fd);
}

static void goes_on_after_a_pause_without_connections(void **state)
{
	struct fixture *f = *state;
	struct packet packet;
	uint16_t head;
	uint32_t length;
	int fd;
	struct guest guest = vsock_establish(f, 5, &fd), next;

	vsock_reply(f, &guest, RST, 0);
	close(fd);
	assert_int_equal(vmm_virtio_drain(f->driver.device), 0);
	assert_false(driver_used(&f->driver, EVENT, &head, &length));
	fd = vsock_client(f); /* waits in the backlog */
	vsock_say(fd, "CONNECT 6\n");
	/* What the guest sent before is found without a kick. */
	struct packet late = vsock_make_packet(&guest, RW);
	const struct driver_buffer buffer = { f->tx, HEADER, false };
	uint8_t *bytes = driver_at(&f->driver, f->tx, HEADER);
	base_store_u64(bytes, late.src_cid);
	base_store_u64(bytes + 8, late.dst_cid);
	base_store_u16(bytes + 30, RW);
	head = driver_add(&f->driver, TX, &buffer, 1);
	vsock_expect_nothing(f);
	vmm_virtio_resume(f->driver.device);
	driver_wait(&f->driver, TX, head);
	vsock_expect(f, RST, &packet);
	next = vsock_accept_request(f, 6);
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
			vsock_say(pair[0], "x");
			vmm_virtio_vsock_attach(f->driver.device, pair[1], 1);
			vmm_virtio_resume(f->driver.device);
			driver_settle(&f->driver);
			close(pair[0]);
			driver_settle(&f->driver);
		}
		writer.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, vsock_setup, vsock_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(attaches_before_the_first_resume),
		TEST(saves_again_before_the_first_resume),
		TEST(attaches_to_a_running_guest),
		TEST(tells_the_guest_of_lost_connections),
		TEST(owes_the_event_without_a_buffer),
		TEST(goes_on_after_a_pause_without_connections),
		TEST(refuses_states_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
