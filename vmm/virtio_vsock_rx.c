/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Vsock packets for the guest.
 *
 * Happy path: something changes (bytes in a socket, credit, a state) and the connection is woken,
 * which puts it in line; pump() then takes one receive buffer after the other and lets the
 * connections write one packet each in turn, until nobody has anything to say, or the guest's
 * buffers are used up; its next kick goes on.
 *
 * Failures: a socket that breaks resets its connection; a receive buffer without room for a header
 * and a byte breaks the device. Runs in the main thread under the device lock.
 */

#include "vmm/virtio_vsock.h"

#include <errno.h>

#define EVENT_TRANSPORT_RESET 0

static void encode_header(const struct vmm_vsock_header *header, uint8_t *bytes)
{
	base_store_u64(bytes, header->src_cid);
	base_store_u64(bytes + 8, header->dst_cid);
	base_store_u32(bytes + 16, header->src_port);
	base_store_u32(bytes + 20, header->dst_port);
	base_store_u32(bytes + 24, header->length);
	base_store_u16(bytes + 28, header->type);
	base_store_u16(bytes + 30, header->op);
	base_store_u32(bytes + 32, header->flags);
	base_store_u32(bytes + 36, header->buffer_bytes);
	base_store_u32(bytes + 40, header->forwarded);
}

bool vmm_vsock_guest_knows(const struct vmm_vsock_connection *connection)
{
	switch (connection->state) {
	case VMM_VSOCK_REQUESTED:
		return !(connection->owed & VMM_VSOCK_OWE_REQUEST);
	case VMM_VSOCK_ANNOUNCED:
	case VMM_VSOCK_ESTABLISHED:
	case VMM_VSOCK_CLOSING:
		return true;
	default:
		return false;
	}
}

static uint32_t credit(const struct vmm_vsock_connection *connection)
{
	uint32_t on_the_way = connection->sent - connection->peer_forwarded;
	uint32_t limit = connection->peer_buffer_bytes;

	if (connection->state == VMM_VSOCK_REQUESTED) {
		limit = connection->attached ? VMM_VSOCK_EARLY_BYTES_MAX : 0;
	}
	return on_the_way < limit ? limit - on_the_way : 0;
}

/* Only the flags that the guest has not been told yet. */
static uint32_t shutdown_owed(const struct vmm_vsock_connection *connection)
{
	return connection->state == VMM_VSOCK_ESTABLISHED ? connection->shut & ~connection->told
							  : 0;
}

/* The socket may have bytes that the guest may be sent, credit or not. */
static bool has_input(const struct vmm_vsock_connection *connection)
{
	if (!connection->readable || connection->source.fd < 0 ||
	    (connection->shut & VMM_VSOCK_SHUT_SEND) ||
	    (connection->guest_shut & VMM_VSOCK_SHUT_RCV)) {
		return false;
	}
	return connection->state == VMM_VSOCK_ESTABLISHED ||
	       (connection->state == VMM_VSOCK_REQUESTED && connection->attached &&
		!(connection->owed & VMM_VSOCK_OWE_REQUEST));
}

static bool has_packet(const struct vmm_vsock_connection *connection)
{
	if (connection->owed != 0 || shutdown_owed(connection) != 0) {
		return true;
	}
	if (!has_input(connection)) {
		return false;
	}
	return credit(connection) > 0 ||
	       (connection->state == VMM_VSOCK_ESTABLISHED && !connection->asked);
}

/*
 * The guest stops at the end of its credit. It is told of more when it has half of it left, but not
 * of every byte that a slow reader takes.
 */
static bool owes_credit(const struct vmm_vsock_connection *connection)
{
	uint32_t unseen = connection->received - connection->forwarded_told;
	uint32_t news = connection->forwarded - connection->forwarded_told;

	return connection->state == VMM_VSOCK_ESTABLISHED && news > 0 &&
	       unseen > connection->buffer_size / 2 &&
	       (connection->buffer_bytes == 0 || news >= connection->buffer_size / 4);
}

void vmm_vsock_wake(struct vmm_vsock_connection *connection)
{
	if (owes_credit(connection)) {
		connection->owed |= VMM_VSOCK_OWE_CREDIT;
	}
	if (!connection->is_ready && has_packet(connection)) {
		TAILQ_INSERT_TAIL(&connection->vsock->ready, connection, ready);
		connection->is_ready = true;
	}
}

void vmm_vsock_reset_guest(struct vmm_vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	if (vsock->n_resets < VMM_VSOCK_RESETS_MAX) {
		unsigned end = (vsock->resets_start + vsock->n_resets) % VMM_VSOCK_RESETS_MAX;

		vsock->resets[end] = (struct vmm_vsock_reset){ host_port, guest_port };
		vsock->n_resets++;
	}
}

/*
 * Packets for the guest. Each of these writes one packet into the chain and returns its length, or
 * 0 when it turned out that there is none.
 */

static int write_packet(struct vmm_vsock_connection *connection, const struct iovec *in,
			unsigned n_in, uint16_t op, uint32_t flags, uint32_t length)
{
	uint8_t bytes[VMM_VSOCK_HEADER_BYTES];
	struct vmm_vsock_header header = {
		.src_cid = VMM_VSOCK_HOST_CID,
		.dst_cid = connection->vsock->cid,
		.src_port = connection->host_port,
		.dst_port = connection->guest_port,
		.length = length,
		.type = VMM_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buffer_bytes = connection->buffer_size,
		.forwarded = connection->forwarded,
	};

	connection->forwarded_told = connection->forwarded;
	connection->owed &= ~VMM_VSOCK_OWE_CREDIT;
	encode_header(&header, bytes);
	vmm_virtio_iov_write(in, n_in, 0, bytes, sizeof(bytes));
	return (int)(VMM_VSOCK_HEADER_BYTES + length);
}

static int write_reset(struct vmm_vsock *vsock, const struct iovec *in, unsigned n_in)
{
	struct vmm_vsock_reset *reset = &vsock->resets[vsock->resets_start];
	struct vmm_vsock_connection nobody = {
		.vsock = vsock,
		.host_port = reset->host_port,
		.guest_port = reset->guest_port,
	};

	vsock->resets_start = (vsock->resets_start + 1) % VMM_VSOCK_RESETS_MAX;
	vsock->n_resets--;
	return write_packet(&nobody, in, n_in, VMM_VSOCK_OP_RST, 0, 0);
}

/* Input as a packet. -ECONNRESET: the socket broke, the connection is freed. */
static int write_data(struct vmm_vsock_connection *connection, const struct iovec *in,
		      unsigned n_in, uint64_t room)
{
	struct iovec payload[VMM_VIRTIO_QUEUE_SIZE_MAX];
	uint32_t limit = MIN(credit(connection), VMM_VSOCK_PACKET_BYTES_MAX);
	uint64_t size = MIN(room - VMM_VSOCK_HEADER_BYTES, (uint64_t)limit);
	unsigned n_payload = vmm_virtio_iov_slice(in, n_in, VMM_VSOCK_HEADER_BYTES, size, payload);
	ssize_t n = vmm_vsock_connection_read(connection, payload, n_payload);

	if (n == 0) {
		connection->shut |= VMM_VSOCK_SHUT_SEND;
		if (connection->hung_up) {
			connection->shut |= VMM_VSOCK_SHUT_RCV;
		}
	}
	if (n < 0 && (n != -EAGAIN || connection->hung_up)) {
		vmm_vsock_abort(connection);
		return -ECONNRESET;
	}
	/* Less than asked for: empty for now, and the loop says when that changes. */
	if (n < (ssize_t)size && !connection->hung_up) {
		connection->readable = false;
		vmm_vsock_connection_watch(connection);
	}
	if (n <= 0) {
		return 0;
	}
	connection->sent += (uint32_t)n;
	return write_packet(connection, in, n_in, VMM_VSOCK_OP_RW, 0, (uint32_t)n);
}

static int write_shutdown(struct vmm_vsock_connection *connection, const struct iovec *in,
			  unsigned n_in)
{
	connection->told = connection->shut;
	if (connection->shut == VMM_VSOCK_SHUT_BOTH) {
		connection->state = VMM_VSOCK_CLOSING;
		connection->owed = 0;
		connection->buffer_bytes = 0;
		vmm_vsock_connection_close_socket(connection);
	}
	return write_packet(connection, in, n_in, VMM_VSOCK_OP_SHUTDOWN, connection->shut, 0);
}

/* Whatever the connection needs most to say. -ECONNRESET: the connection is freed. */
static int write_next(struct vmm_vsock_connection *connection, const struct iovec *in,
		      unsigned n_in, uint64_t room)
{
	if (connection->owed & VMM_VSOCK_OWE_REQUEST) {
		connection->owed &= ~VMM_VSOCK_OWE_REQUEST;
		return write_packet(connection, in, n_in, VMM_VSOCK_OP_REQUEST, 0, 0);
	}
	if (connection->owed & VMM_VSOCK_OWE_RESPONSE) {
		connection->owed &= ~VMM_VSOCK_OWE_RESPONSE;
		return write_packet(connection, in, n_in, VMM_VSOCK_OP_RESPONSE, 0, 0);
	}
	/* A host that is gone has most often said all it had to: one packet for both directions. */
	if (shutdown_owed(connection) &&
	    !(connection->hung_up && has_input(connection) && credit(connection) > 0)) {
		return write_shutdown(connection, in, n_in);
	}
	if (connection->owed & VMM_VSOCK_OWE_CREDIT) {
		return write_packet(connection, in, n_in, VMM_VSOCK_OP_CREDIT_UPDATE, 0, 0);
	}
	if (has_input(connection) && credit(connection) > 0) {
		return write_data(connection, in, n_in, room);
	}
	if (has_input(connection) && connection->state == VMM_VSOCK_ESTABLISHED &&
	    !connection->asked) {
		connection->asked = true;
		return write_packet(connection, in, n_in, VMM_VSOCK_OP_CREDIT_REQUEST, 0, 0);
	}
	return 0;
}

/* One packet into the chain: resets first, then the connections in turn. 0: nobody has any. */
static int fill_chain(struct vmm_vsock *vsock)
{
	const struct vmm_virtio_chain *chain = &vsock->virtio.chain;
	const struct iovec *in = chain->iov + chain->n_out;

	for (;;) {
		struct vmm_vsock_connection *connection = TAILQ_FIRST(&vsock->ready);
		int n;

		if (vsock->n_resets > 0) {
			return write_reset(vsock, in, chain->n_in);
		}
		if (!connection) {
			return 0;
		}
		n = write_next(connection, in, chain->n_in, chain->in_bytes);
		if (n < 0) {
			continue; /* it is gone, its reset is next */
		}
		TAILQ_REMOVE(&vsock->ready, connection, ready);
		connection->is_ready = false;
		vmm_vsock_wake(connection);
		if (n > 0) {
			return n;
		}
	}
}

void vmm_vsock_check_event(struct vmm_vsock *vsock)
{
	const struct vmm_virtio_queue *queue = &vsock->virtio.queues[VMM_VSOCK_QUEUE_EVENT];

	if (vsock->event == VMM_VSOCK_EVENT_PLACED &&
	    vmm_virtio_queue_avail_index(queue) != vsock->event_avail) {
		vsock->event = VMM_VSOCK_EVENT_NONE;
	}
}

void vmm_vsock_place_event(struct vmm_vsock *vsock)
{
	struct vmm_virtio *device = &vsock->virtio;
	const struct vmm_virtio_chain *chain = &device->chain;
	uint8_t event[4];

	if (vsock->event != VMM_VSOCK_EVENT_OWED ||
	    !vmm_virtio_pop(device, VMM_VSOCK_QUEUE_EVENT)) {
		return;
	}
	base_store_u32(event, EVENT_TRANSPORT_RESET);
	if (vmm_virtio_iov_write(chain->iov + chain->n_out, chain->n_in, 0, event, sizeof(event)) <
	    sizeof(event)) {
		vmm_virtio_needs_reset(device);
		return;
	}
	vsock->event = VMM_VSOCK_EVENT_PLACED;
	vsock->event_avail = vmm_virtio_queue_avail_index(&device->queues[VMM_VSOCK_QUEUE_EVENT]);
	vmm_virtio_queue_push(&device->queues[VMM_VSOCK_QUEUE_EVENT], chain->head, sizeof(event));
	vmm_virtio_queue_interrupt(device, VMM_VSOCK_QUEUE_EVENT);
}

void vmm_vsock_pump(struct vmm_vsock *vsock)
{
	struct vmm_virtio *device = &vsock->virtio;
	unsigned filled = 0;

	vmm_vsock_check_event(vsock);
	if (device->run == VMM_VIRTIO_DRAINED || vsock->event != VMM_VSOCK_EVENT_NONE) {
		return;
	}
	while (filled < VMM_VSOCK_QUEUE_SIZE &&
	       (vsock->n_resets > 0 || !TAILQ_EMPTY(&vsock->ready)) &&
	       vmm_virtio_pop(device, VMM_VSOCK_QUEUE_RX)) {
		int n;

		if (device->chain.in_bytes < VMM_VSOCK_HEADER_BYTES + 1) {
			vmm_virtio_needs_reset(device);
			break;
		}
		n = fill_chain(vsock);
		if (n == 0) {
			vmm_virtio_queue_unpop(&device->queues[VMM_VSOCK_QUEUE_RX]);
			break;
		}
		vmm_virtio_queue_push(&device->queues[VMM_VSOCK_QUEUE_RX], device->chain.head,
				      (uint32_t)n);
		filled++;
	}
	if (filled > 0) {
		vmm_virtio_queue_interrupt(device, VMM_VSOCK_QUEUE_RX);
	}
	if (filled == VMM_VSOCK_QUEUE_SIZE) {
		vmm_virtio_kick(device, VMM_VSOCK_QUEUE_RX); /* others want their turn */
	}
}
