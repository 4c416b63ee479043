/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The transport and the vsock device, between a hostile guest (guest.h) and hostile clients at its
 * real socket. Operations of its own: packets that are nearly right, receive buffers, clients that
 * connect, say anything (CONNECT or not), stop reading, shut down or vanish, streams that are
 * attached, and answers to what the guest asked for, right, wrong or late.
 *
 * Sockets are the kernel's, without a wait: what is not there at once is not there.
 */

#include "base/fd.h"
#include "tests/fuzz/guest.h"
#include "vmm/virtio_vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CID	    42u
#define CLIENTS_MAX 8
#define RX_BYTES    256u

struct world {
	struct fuzz_guest guest;
	int listener;
	struct sockaddr_un address;
	socklen_t address_size;
	int clients[CLIENTS_MAX]; /* the other ends of streams; -1: none */
	uint64_t asked[4];	  /* ids of connections that the guest wants */
	unsigned n_asked;
	uint8_t policy; /* how the next is answered */
};

static struct world *world_of(struct fuzz_guest *guest)
{
	return CONTAINER_OF(guest, struct world, guest);
}

static struct vmm_virtio *make(struct fuzz_guest *guest)
{
	struct vmm_virtio *device;
	int listener = dup(world_of(guest)->listener);

	FUZZ_CHECK(vmm_virtio_vsock_new(&guest->host, FUZZ_SLOT, CID, listener, &device, NULL) ==
		   0);
	return device;
}

/* A stream whose other end is kept as a client. */
static int make_stream(struct world *world, uint8_t where)
{
	int *client = &world->clients[where % CLIENTS_MAX];
	int pair[2];

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	base_fd_close(*client);
	*client = pair[0];
	return pair[1];
}

static int on_connect(void *userdata, uint64_t id, uint32_t port)
{
	struct fuzz_guest *guest = userdata;
	struct world *world = world_of(guest);

	switch (world->policy % 4) {
	case 0:
		vmm_virtio_vsock_connected(guest->device, id, 0, make_stream(world, (uint8_t)port));
		return 0;
	case 1:
		return -EBUSY;
	case 2:
		vmm_virtio_vsock_connected(guest->device, id, -ECONNREFUSED, -1);
		return 0;
	default:
		world->asked[world->n_asked++ % ARRAY_SIZE(world->asked)] = id;
		return 0;
	}
}

static void answer(struct world *world, uint8_t how)
{
	uint64_t id = world->asked[how % ARRAY_SIZE(world->asked)] + (how >> 7);

	if (how & 0x40) {
		vmm_virtio_vsock_connected(world->guest.device, id, -ECONNREFUSED, -1);
	} else {
		vmm_virtio_vsock_connected(world->guest.device, id, 0, make_stream(world, how));
	}
}

static void client_connect(struct world *world, uint8_t where)
{
	int *client = &world->clients[where % CLIENTS_MAX];

	base_fd_close(*client);
	*client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(*client, (struct sockaddr *)&world->address, world->address_size) < 0) {
		*client = base_fd_close(*client);
	}
}

/* A whole line, with the port that an input says. */
static void client_ask(struct world *world, uint8_t where, uint8_t port)
{
	char line[32];
	int n = snprintf(line, sizeof(line), "CONNECT %u\n", port);

	(void)!send(world->clients[where % CLIENTS_MAX], line, (size_t)n, MSG_NOSIGNAL);
}

static void client_say(struct world *world, struct fuzz_input *input, uint8_t where)
{
	static const uint8_t much[65536];
	const uint8_t *bytes;
	size_t size;

	bytes = fuzz_bytes(input, 64, &size);
	if (where & 0x80) {
		bytes = much;
		size = MIN(size * 1024 + 1, sizeof(much));
	}
	(void)!send(world->clients[where % CLIENTS_MAX], bytes, size, MSG_NOSIGNAL);
}

static void client_hear(struct world *world, uint8_t where)
{
	static uint8_t bytes[65536];

	(void)!recv(world->clients[where % CLIENTS_MAX], bytes, (where & 0x80 ? sizeof(bytes) : 64),
		    MSG_DONTWAIT);
}

static void client_act(struct world *world, struct fuzz_input *input)
{
	uint8_t what = fuzz_u8(input), where = fuzz_u8(input);
	int *client = &world->clients[where % CLIENTS_MAX];

	switch (what % 9) {
	case 0:
		client_connect(world, where);
		break;
	case 1:
		client_ask(world, where, what / 9);
		break;
	case 2:
		client_say(world, input, where);
		break;
	case 3:
		client_hear(world, where);
		break;
	case 4:
		*client = base_fd_close(*client);
		break;
	case 5:
		shutdown(*client, where >> 6);
		break;
	case 6:
		vmm_virtio_vsock_attach(world->guest.device, make_stream(world, where), what / 9);
		break;
	case 7:
		answer(world, where);
		break;
	default:
		world->policy = where;
		break;
	}
}

static void post_buffers(struct fuzz_guest *guest, struct fuzz_input *input, unsigned queue)
{
	uint8_t how = fuzz_u8(input);

	for (unsigned i = 0; i < 1u + how % 16; i++) {
		uint16_t head = guest->queues[queue].next_desc;
		uint32_t size = queue == VMM_VSOCK_QUEUE_EVENT ? 4 : RX_BYTES << (how >> 4);

		/* The same memory for all: nobody reads it. */
		fuzz_guest_add(guest, queue, FUZZ_DATA_GPA, MIN(size, 0x8000u), true, false);
		fuzz_guest_offer(guest, queue, head);
	}
	fuzz_guest_write(guest, VMM_VIRTIO_QUEUE_NOTIFY, queue);
}

/* Ports are few, so that packets meet connections. */
static void send_packet(struct fuzz_guest *guest, struct fuzz_input *input)
{
	uint8_t op = fuzz_u8(input), ports = fuzz_u8(input), how = fuzz_u8(input);
	uint8_t bytes[VMM_VSOCK_HEADER_BYTES] = { 0 };
	uint32_t length = how & 1 ? (uint32_t)fuzz_u8(input) << (how >> 4) : 0;
	uint32_t chained = length;
	uint16_t head = guest->queues[VMM_VSOCK_QUEUE_TX].next_desc;
	uint32_t host_port = ports & 0x80 ? ports & 0xf : VMM_VSOCK_HOST_PORT_FIRST + (ports & 0xf);

	base_store_u64(bytes, CID);
	base_store_u64(bytes + 8, VMM_VSOCK_HOST_CID);
	base_store_u32(bytes + 16, ports >> 4 & 7);
	base_store_u32(bytes + 20, host_port);
	base_store_u16(bytes + 28, VMM_VSOCK_TYPE_STREAM);
	base_store_u16(bytes + 30, op & 0xf);
	base_store_u32(bytes + 32, op >> 4);
	base_store_u32(bytes + 36, how & 2 ? fuzz_u32(input) : 65536);
	base_store_u32(bytes + 40, how & 4 ? fuzz_u32(input) : 0);
	if (how & 8) { /* one field is a lie */
		uint8_t where = fuzz_u8(input);

		bytes[where % sizeof(bytes)] ^= (uint8_t)(where / sizeof(bytes) + 1);
		chained = fuzz_u8(input);
	}
	base_store_u32(bytes + 24, base_load_u32(bytes + 24) ^ length);
	fuzz_guest_add(guest, VMM_VSOCK_QUEUE_TX, fuzz_guest_put(guest, bytes, sizeof(bytes)),
		       sizeof(bytes), false, chained > 0);
	if (chained > 0) {
		fuzz_guest_add(guest, VMM_VSOCK_QUEUE_TX, FUZZ_DATA_GPA, MIN(chained, 0xb000u),
			       false, chained > 0xb000);
	}
	if (chained > 0xb000) {
		fuzz_guest_add(guest, VMM_VSOCK_QUEUE_TX, FUZZ_DATA_GPA, 0xb000, false, false);
	}
	fuzz_guest_offer(guest, VMM_VSOCK_QUEUE_TX, head);
	fuzz_guest_write(guest, VMM_VIRTIO_QUEUE_NOTIFY, VMM_VSOCK_QUEUE_TX);
}

static void special(struct fuzz_guest *guest, struct fuzz_input *input, unsigned op)
{
	switch (op % 8) {
	case 0:
		post_buffers(guest, input, VMM_VSOCK_QUEUE_RX);
		break;
	case 1:
		post_buffers(guest, input, VMM_VSOCK_QUEUE_EVENT);
		break;
	case 2:
	case 3:
	case 4:
		send_packet(guest, input);
		break;
	default:
		client_act(world_of(guest), input);
		return;
	}
	fuzz_loop_settle(&guest->loop);
}

/* A claimant's stream may come before a restored VM runs. */
static void loaded(struct fuzz_guest *guest, struct fuzz_input *input)
{
	uint8_t how = fuzz_u8(input);

	if (how & 1) {
		struct world *world = world_of(guest);
		int stream = make_stream(world, how);

		(void)!send(world->clients[how % CLIENTS_MAX], "identity", 8, MSG_NOSIGNAL);
		vmm_virtio_vsock_attach(guest->device, stream, how >> 4);
	}
}

static void make_listener(struct world *world)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX }; /* the kernel picks an abstract name */

	world->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	world->address_size = sizeof(world->address);
	FUZZ_CHECK(bind(world->listener, (struct sockaddr *)&any, sizeof(sa_family_t)) == 0 &&
		   getsockname(world->listener, (struct sockaddr *)&world->address,
			       &world->address_size) == 0 &&
		   listen(world->listener, CLIENTS_MAX) == 0 &&
		   fcntl(world->listener, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
}

/* Clients that were not accepted must not turn up in the next input. */
static void clean_up(struct world *world)
{
	int fd;

	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		world->clients[i] = base_fd_close(world->clients[i]);
	}
	while ((fd = accept(world->listener, NULL, NULL)) >= 0) {
		close(fd);
	}
	memset(world->asked, 0, sizeof(world->asked));
	world->n_asked = 0;
	world->policy = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world world = {
		.guest = { .make = make, .special = special, .loaded = loaded },
		.listener = -1,
	};

	if (world.listener < 0) {
		make_listener(&world);
		memset(world.clients, 0xff, sizeof(world.clients));
		world.guest.host.vsock_connect = on_connect;
	}
	fuzz_guest_run(&world.guest, data, size);
	clean_up(&world);
	return 0;
}
