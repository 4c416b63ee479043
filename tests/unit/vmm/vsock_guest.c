/* SPDX-License-Identifier: Apache-2.0 */

/* The guest as Linux would be, as plain as it gets; hostile packets are made by the tests. */

#include "vsock_guest.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_NS (5 * NSEC_PER_SEC)

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

void vsock_post_rx(struct fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		gpa_t gpa = driver_alloc(&f->driver, RX_BYTES, 8);
		const struct driver_buffer buffer = { gpa, RX_BYTES, true };
		uint16_t head = driver_add(&f->driver, RX, &buffer, 1);

		f->rx[head] = gpa;
		f->rx_posted++;
	}
}

void vsock_repost_rx(struct fixture *f, uint16_t head)
{
	driver_set_desc(&f->driver, RX, head, f->rx[head], RX_BYTES, DESC_WRITE, 0);
	driver_offer(&f->driver, RX, head);
	driver_kick(&f->driver, RX);
}

uint16_t vsock_post_event(struct fixture *f)
{
	const struct driver_buffer buffer = { f->event, 4, true };
	uint16_t head = driver_add(&f->driver, EVENT, &buffer, 1);

	driver_kick(&f->driver, EVENT);
	return head;
}

void vsock_new_device(struct fixture *f)
{
	assert_int_equal(vmm_virtio_vsock_new(&f->driver.host, 2, CID, dup(f->listener),
					      &f->driver.device, NULL),
			 0);
}

int vsock_setup(void **state)
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
	vsock_new_device(f);
	driver_start(&f->driver);
	f->tx = driver_alloc(&f->driver, HEADER + TX_BYTES + 1, 8);
	f->event = driver_alloc(&f->driver, 4, 4);
	vsock_post_rx(f, RX_BUFFERS);
	vsock_post_event(f);
	driver_settle(&f->driver);
	*state = f;
	return 0;
}

int vsock_teardown(void **state)
{
	struct fixture *f = *state;

	driver_deinit(&f->driver);
	close(f->listener);
	free(f);
	return 0;
}

bool vsock_try_receive(struct fixture *f, struct packet *packet)
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
	vsock_repost_rx(f, head);
	return true;
}

void vsock_receive(struct fixture *f, struct packet *packet)
{
	uint64_t deadline = base_clock_monotonic_ns() + WAIT_NS;

	while (!vsock_try_receive(f, packet)) {
		assert_true(base_clock_monotonic_ns() < deadline);
		driver_turn(&f->driver, 100);
	}
}

void vsock_expect(struct fixture *f, uint16_t op, struct packet *packet)
{
	vsock_receive(f, packet);
	assert_int_equal(packet->op, op);
}

void vsock_expect_nothing(struct fixture *f)
{
	struct packet packet;

	driver_settle(&f->driver);
	if (vsock_try_receive(f, &packet)) {
		fail_msg("unexpected packet of kind %u", packet.op);
	}
}

struct packet vsock_make_packet(const struct guest *guest, uint16_t op)
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

void vsock_send_packet(struct fixture *f, const struct packet *packet, uint32_t chain_bytes)
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

void vsock_reply(struct fixture *f, const struct guest *guest, uint16_t op, uint32_t flags)
{
	struct packet packet = vsock_make_packet(guest, op);

	packet.flags = flags;
	vsock_send_packet(f, &packet, 0);
}

void vsock_send_data(struct fixture *f, struct guest *guest, const void *data, uint32_t size)
{
	struct packet packet = vsock_make_packet(guest, RW);

	packet.length = size;
	memcpy(driver_at(&f->driver, f->tx + HEADER, size), data, size);
	vsock_send_packet(f, &packet, size);
	guest->sent += size;
}

int vsock_client(struct fixture *f)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&f->address, f->address_size), 0);
	return fd;
}

void vsock_say(int fd, const char *text)
{
	assert_int_equal(base_fd_write_full(fd, text, strlen(text)), 0);
}

void vsock_hear(int fd, const char *text)
{
	char buffer[256] = { 0 };

	assert_int_equal(base_fd_read_full(fd, buffer, strlen(text)), 0);
	assert_string_equal(buffer, text);
}

void vsock_hear_end(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

void vsock_hear_nothing(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

struct guest vsock_accept_request(struct fixture *f, uint32_t port)
{
	struct guest guest = { .port = port };
	struct packet packet;

	vsock_expect(f, REQUEST, &packet);
	assert_int_equal(packet.dst_port, port);
	assert_int_equal(packet.length, 0);
	guest.host_port = packet.src_port;
	guest.peer_buffer = packet.buffer;
	vsock_reply(f, &guest, RESPONSE, 0);
	return guest;
}

struct guest vsock_establish(struct fixture *f, uint32_t port, int *ret_fd)
{
	struct guest guest;
	char line[64];

	*ret_fd = vsock_client(f);
	snprintf(line, sizeof(line), "CONNECT %u\n", port);
	vsock_say(*ret_fd, line);
	guest = vsock_accept_request(f, port);
	snprintf(line, sizeof(line), "OK %u\n", guest.host_port);
	vsock_hear(*ret_fd, line);
	return guest;
}

uint8_t vsock_stream_byte(uint64_t offset, uint64_t salt)
{
	uint64_t x = (offset / 8 + salt * 0x1000003) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint8_t)(x >> (offset % 8 * 8));
}
