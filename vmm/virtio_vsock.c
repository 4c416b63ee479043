/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The vsock device: packets to and from the guest, connections as the guest sees them.
 *
 * Happy path, host to guest: REQUEST goes out, RESPONSE comes back, then RW packets are read from
 * the socket straight into the guest's receive buffers as far as its credit goes; connections take
 * turns, one packet each. Guest to host: REQUEST comes in, the VM's owner is asked for a stream,
 * RESPONSE goes out, and RW payload goes from guest memory to the socket.
 *
 * Failures: a packet that does not belong to a connection, or that breaks the protocol or the
 * credit, is answered with RST and only its own connection suffers; a packet with lengths or CIDs
 * that make no sense is dropped; a malformed descriptor chain breaks the device.
 *
 * Freezing: connections do not survive drain(). The guest is told with a transport reset event, and
 * until it has given that event's buffer back nothing else is put into its receive queue: it would
 * be free to handle the event last and reset the new connections with the old. Before the first
 * resume of a loaded device, attach() puts the request and the bytes that are there already into
 * the receive queue. Runs in the main thread under the device lock.
 */

#include "vmm/virtio_vsock.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#define DEVICE_ID_VSOCK 19

#define ASSUMED_PEER_BUFFER 65536u

static struct vmm_vsock *vsock_of(struct vmm_virtio *device)
{
	return CONTAINER_OF(device, struct vmm_vsock, virtio);
}

static void decode_header(const uint8_t *bytes, struct vmm_vsock_header *header)
{
	*header = (struct vmm_vsock_header){
		.src_cid = base_load_u64(bytes),
		.dst_cid = base_load_u64(bytes + 8),
		.src_port = base_load_u32(bytes + 16),
		.dst_port = base_load_u32(bytes + 20),
		.length = base_load_u32(bytes + 24),
		.type = base_load_u16(bytes + 28),
		.op = base_load_u16(bytes + 30),
		.flags = base_load_u32(bytes + 32),
		.buffer_bytes = base_load_u32(bytes + 36),
		.forwarded = base_load_u32(bytes + 40),
	};
}

static struct vmm_vsock_connection *find(struct vmm_vsock *vsock, uint32_t host_port,
					 uint32_t guest_port)
{
	struct vmm_vsock_connection *connection;

	TAILQ_FOREACH(connection, &vsock->connections, all)
	{
		if (connection->host_port == host_port && connection->guest_port == guest_port &&
		    vmm_vsock_guest_knows(connection)) {
			return connection;
		}
	}
	return NULL;
}

void vmm_vsock_abort(struct vmm_vsock_connection *connection)
{
	if (vmm_vsock_guest_knows(connection)) {
		vmm_vsock_reset_guest(connection->vsock, connection->host_port,
				      connection->guest_port);
	}
	vmm_vsock_connection_free(connection);
}

/* The guest is done with the connection; its last bytes may still have to go out. */
static void let_go(struct vmm_vsock_connection *connection)
{
	if (connection->state != VMM_VSOCK_ESTABLISHED) {
		vmm_vsock_connection_free(connection);
		return;
	}
	connection->state = VMM_VSOCK_FLUSHING;
	connection->owed = 0;
	vmm_vsock_connection_settle(connection);
}

void vmm_vsock_request(struct vmm_vsock_connection *connection, uint32_t port)
{
	struct vmm_vsock *vsock = connection->vsock;

	do {
		vsock->last_host_port++;
		if (vsock->last_host_port < VMM_VSOCK_HOST_PORT_FIRST ||
		    vsock->last_host_port == VMM_VSOCK_PORT_ANY) {
			vsock->last_host_port = VMM_VSOCK_HOST_PORT_FIRST;
		}
	} while (find(vsock, vsock->last_host_port, port));
	connection->host_port = vsock->last_host_port;
	connection->guest_port = port;
	connection->peer_buffer_bytes = ASSUMED_PEER_BUFFER;
	connection->state = VMM_VSOCK_REQUESTED;
	connection->owed = VMM_VSOCK_OWE_REQUEST;
	vmm_vsock_wake(connection);
}

static void handle_request(struct vmm_vsock *vsock, const struct vmm_vsock_header *header)
{
	const struct vmm_virtio_host *host = vsock->virtio.host;
	struct vmm_vsock_connection *connection = NULL;
	uint64_t id = ++vsock->last_id;

	/* Counted by answers, not by connections: the guest can take a request back and make
	 * another one while the first is still on its way. */
	if (vsock->n_asked < VMM_CONNECTS_MAX) {
		connection = vmm_vsock_connection_new(vsock, -1, VMM_VSOCK_ANNOUNCED);
	}
	if (!connection) {
		vmm_vsock_reset_guest(vsock, header->dst_port, header->src_port);
		vmm_vsock_count_refusal(vsock);
		return;
	}
	connection->id = id;
	connection->host_port = header->dst_port;
	connection->guest_port = header->src_port;
	connection->peer_buffer_bytes = header->buffer_bytes;
	connection->peer_forwarded = header->forwarded;
	vsock->n_asked++;
	/* The answer may come from within the call. */
	if (host->vsock_connect(host->userdata, id, header->dst_port) < 0) {
		vmm_virtio_vsock_connected(&vsock->virtio, id, -ECONNREFUSED, -1);
	}
}

static void handle_response(struct vmm_vsock_connection *connection)
{
	connection->state = VMM_VSOCK_ESTABLISHED;
	if (connection->hung_up) {
		connection->shut |= VMM_VSOCK_SHUT_RCV; /* its last bytes are still wanted */
	} else if (!connection->attached) {
		vmm_vsock_connection_greet(connection);
	}
	vmm_vsock_connection_watch(connection);
	vmm_vsock_wake(connection);
}

static void handle_shutdown(struct vmm_vsock_connection *connection, uint32_t flags)
{
	connection->guest_shut |= flags & VMM_VSOCK_SHUT_BOTH;
	if (connection->guest_shut == VMM_VSOCK_SHUT_BOTH) {
		vmm_vsock_reset_guest(connection->vsock, connection->host_port,
				      connection->guest_port);
		let_go(connection);
		return;
	}
	vmm_vsock_connection_settle(connection);
	vmm_vsock_wake(connection);
}

static void handle_data(struct vmm_vsock_connection *connection,
			const struct vmm_virtio_chain *chain, const struct vmm_vsock_header *header)
{
	struct iovec payload[VMM_VIRTIO_QUEUE_SIZE_MAX];
	uint32_t room = connection->buffer_size - (connection->received - connection->forwarded);
	unsigned n;

	if (connection->state == VMM_VSOCK_CLOSING) {
		return; /* sent before the guest knew that nobody takes it */
	}
	if (header->length > room || (connection->guest_shut & VMM_VSOCK_SHUT_SEND)) {
		vmm_vsock_abort(connection);
		return;
	}
	n = vmm_virtio_iov_slice(chain->iov, chain->n_out, VMM_VSOCK_HEADER_BYTES, header->length,
				 payload);
	if (vmm_vsock_connection_write(connection, payload, n, header->length) < 0) {
		vmm_vsock_abort(connection);
		return;
	}
	vmm_vsock_connection_watch(connection);
	vmm_vsock_wake(connection);
}

/* Whether the guest may send the packet in the connection's state. */
static bool op_allowed(const struct vmm_vsock_connection *connection, uint16_t op)
{
	switch (connection->state) {
	case VMM_VSOCK_REQUESTED:
		return op == VMM_VSOCK_OP_RESPONSE || op == VMM_VSOCK_OP_RST;
	case VMM_VSOCK_ANNOUNCED:
		return op == VMM_VSOCK_OP_RST;
	default: /* ESTABLISHED, CLOSING */
		return op == VMM_VSOCK_OP_RST || op == VMM_VSOCK_OP_SHUTDOWN ||
		       op == VMM_VSOCK_OP_RW || op == VMM_VSOCK_OP_CREDIT_UPDATE ||
		       op == VMM_VSOCK_OP_CREDIT_REQUEST;
	}
}

static void handle_known(struct vmm_vsock_connection *connection,
			 const struct vmm_virtio_chain *chain,
			 const struct vmm_vsock_header *header)
{
	if (!op_allowed(connection, header->op)) {
		vmm_vsock_abort(connection);
		return;
	}
	connection->peer_buffer_bytes = header->buffer_bytes;
	connection->peer_forwarded = header->forwarded;
	connection->asked = false;
	switch (header->op) {
	case VMM_VSOCK_OP_RESPONSE:
		handle_response(connection);
		break;
	case VMM_VSOCK_OP_RST:
		let_go(connection);
		break;
	case VMM_VSOCK_OP_SHUTDOWN:
		handle_shutdown(connection, header->flags);
		break;
	case VMM_VSOCK_OP_RW:
		handle_data(connection, chain, header);
		break;
	case VMM_VSOCK_OP_CREDIT_REQUEST:
		if (connection->state == VMM_VSOCK_ESTABLISHED) {
			connection->owed |= VMM_VSOCK_OWE_CREDIT;
		}
		vmm_vsock_wake(connection);
		break;
	default: /* VMM_VSOCK_OP_CREDIT_UPDATE */
		vmm_vsock_wake(connection);
		break;
	}
}

static void handle_packet(struct vmm_vsock *vsock, const struct vmm_virtio_chain *chain)
{
	struct vmm_vsock_connection *connection;
	uint8_t bytes[VMM_VSOCK_HEADER_BYTES];
	struct vmm_vsock_header header;

	if (vmm_virtio_iov_read(chain->iov, chain->n_out, 0, bytes, sizeof(bytes)) <
	    sizeof(bytes)) {
		return;
	}
	decode_header(bytes, &header);
	if (header.src_cid != vsock->cid || header.dst_cid != VMM_VSOCK_HOST_CID ||
	    header.length > VMM_VSOCK_PACKET_BYTES_MAX ||
	    header.length > chain->out_bytes - VMM_VSOCK_HEADER_BYTES) {
		return;
	}
	connection = find(vsock, header.dst_port, header.src_port);
	if (header.type != VMM_VSOCK_TYPE_STREAM) {
		connection = NULL; /* of another type, whatever its ports */
	} else if (header.op == VMM_VSOCK_OP_REQUEST) {
		if (connection) {
			/* The guest has forgotten the old one. */
			vmm_vsock_connection_free(connection);
		}
		handle_request(vsock, &header);
		return;
	}
	if (connection) {
		handle_known(connection, chain, &header);
	} else if (header.op != VMM_VSOCK_OP_RST) {
		vmm_vsock_reset_guest(vsock, header.dst_port, header.src_port);
	}
}

static void serve_tx(struct vmm_vsock *vsock)
{
	struct vmm_virtio *device = &vsock->virtio;
	unsigned taken = 0;

	while (taken < VMM_VSOCK_QUEUE_SIZE && vmm_virtio_pop(device, VMM_VSOCK_QUEUE_TX)) {
		uint16_t head = device->chain.head;

		handle_packet(vsock, &device->chain);
		vmm_virtio_queue_push(&device->queues[VMM_VSOCK_QUEUE_TX], head, 0);
		taken++;
	}
	if (taken > 0) {
		vmm_virtio_queue_interrupt(device, VMM_VSOCK_QUEUE_TX);
	}
	if (taken == VMM_VSOCK_QUEUE_SIZE) {
		vmm_virtio_kick(device, VMM_VSOCK_QUEUE_TX); /* others want their turn */
	}
}

static void vsock_notify(struct vmm_virtio *device, unsigned queue)
{
	struct vmm_vsock *vsock = vsock_of(device);

	if (queue == VMM_VSOCK_QUEUE_TX) {
		serve_tx(vsock);
	} else if (queue == VMM_VSOCK_QUEUE_EVENT) {
		vmm_vsock_place_event(vsock);
	}
	vmm_vsock_pump(vsock);
}

static void vsock_activate(struct vmm_virtio *device)
{
	vmm_vsock_listener_watch(vsock_of(device));
}

/* Closes what the guest knows of. Returns whether there was any for a reset event to end. */
static bool close_known(struct vmm_vsock *vsock, bool send_resets)
{
	struct vmm_vsock_connection *connection = TAILQ_FIRST(&vsock->connections);
	bool any = false;

	while (connection) {
		struct vmm_vsock_connection *next = TAILQ_NEXT(connection, all);

		if (connection->state == VMM_VSOCK_ANNOUNCED && send_resets) {
			/* The event is for connections that are established. */
			vmm_vsock_abort(connection);
		} else if (vmm_vsock_guest_knows(connection)) {
			vmm_vsock_connection_free(connection);
			any = true;
		}
		connection = next;
	}
	return any;
}

static void vsock_reset(struct vmm_virtio *device)
{
	struct vmm_vsock *vsock = vsock_of(device);

	close_known(vsock, false);
	vsock->n_resets = 0;
	vsock->event = VMM_VSOCK_EVENT_NONE;
	vmm_loop_remove(device->host->loop, &vsock->listener);
}

static int vsock_drain(struct vmm_virtio *device)
{
	struct vmm_vsock *vsock = vsock_of(device);
	struct vmm_vsock_connection *connection;
	bool any = close_known(vsock, true);

	while ((connection = TAILQ_FIRST(&vsock->ready))) {
		TAILQ_REMOVE(&vsock->ready, connection, ready);
		connection->is_ready = false;
	}
	vmm_vsock_pump(vsock); /* the resets */
	vmm_vsock_check_event(vsock);
	if (any && vsock->event == VMM_VSOCK_EVENT_NONE) {
		vsock->event = VMM_VSOCK_EVENT_OWED;
	}
	vmm_vsock_place_event(vsock);
	device->run = VMM_VIRTIO_DRAINED;
	vmm_vsock_listener_watch(vsock);
	TAILQ_FOREACH(connection, &vsock->connections, all)
	{
		vmm_vsock_connection_watch(connection);
	}
	return 0;
}

static void vsock_resume(struct vmm_virtio *device)
{
	struct vmm_vsock *vsock = vsock_of(device);
	struct vmm_vsock_connection *connection;

	vmm_vsock_listener_watch(vsock);
	TAILQ_FOREACH(connection, &vsock->connections, all)
	{
		vmm_vsock_connection_watch(connection);
		vmm_vsock_wake(connection);
	}
}

static void vsock_save(const struct vmm_virtio *device, struct base_writer *writer)
{
	const struct vmm_vsock *vsock = CONTAINER_OF(device, const struct vmm_vsock, virtio);

	base_writer_u32(writer, vsock->cid);
	base_writer_u32(writer, vsock->last_host_port);
	base_writer_u32(writer, vsock->event);
	base_writer_u16(writer, vsock->event_avail);
}

static int vsock_load(struct vmm_virtio *device, struct base_reader *reader,
		      struct base_error *error)
{
	struct vmm_vsock *vsock = vsock_of(device);
	uint32_t cid = base_reader_u32(reader);
	uint32_t last_host_port = base_reader_u32(reader);
	uint32_t event = base_reader_u32(reader);

	vsock->event_avail = base_reader_u16(reader);
	if (cid != vsock->cid) {
		return base_error_set(error, -EBADMSG,
				      "virtio device %u: the state has vsock CID %u, this VM %u",
				      device->slot, cid, vsock->cid);
	}
	if (last_host_port < VMM_VSOCK_HOST_PORT_FIRST - 1 ||
	    last_host_port == VMM_VSOCK_PORT_ANY) {
		return base_error_set(error, -EBADMSG, "virtio device %u: invalid last host port",
				      device->slot);
	}
	if (event > VMM_VSOCK_EVENT_PLACED) {
		return base_error_set(error, -EBADMSG, "virtio device %u: invalid reset event",
				      device->slot);
	}
	vsock->last_host_port = last_host_port;
	vsock->event = event;
	return 0;
}

static void vsock_free(struct vmm_virtio *device)
{
	struct vmm_vsock *vsock = vsock_of(device);
	struct vmm_vsock_connection *connection;

	vmm_loop_remove(device->host->loop, &vsock->listener);
	vmm_loop_disarm(device->host->loop, &vsock->timer);
	vsock->listener.fd = base_fd_close(vsock->listener.fd);
	while ((connection = TAILQ_FIRST(&vsock->connections))) {
		vmm_vsock_connection_free(connection);
	}
	vmm_virtio_deinit(device);
	free(vsock);
}

static const struct vmm_virtio_ops vsock_ops = {
	.device_id = DEVICE_ID_VSOCK,
	.n_queues = VMM_VSOCK_QUEUES,
	.queue_size_max = VMM_VSOCK_QUEUE_SIZE,
	.activate = vsock_activate,
	.notify = vsock_notify,
	.reset = vsock_reset,
	.drain = vsock_drain,
	.resume = vsock_resume,
	.save = vsock_save,
	.load = vsock_load,
	.free = vsock_free,
};

/* An unconnected socket stands for no listener; epoll would report it hung up for ever. */
static int check_listener(int listener, bool *ret_listens)
{
	int listens = 0, flags;
	socklen_t size = sizeof(listens);

	if (getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0) {
		return -errno;
	}
	flags = fcntl(listener, F_GETFL);
	if (flags < 0 || fcntl(listener, F_SETFL, flags | O_NONBLOCK) < 0) {
		return -errno;
	}
	*ret_listens = listens != 0;
	return 0;
}

int vmm_virtio_vsock_new(const struct vmm_virtio_host *host, unsigned slot, uint32_t cid,
			 int listener, struct vmm_virtio **ret_device, struct base_error *error)
{
	_cleanup_free_ struct vmm_vsock *vsock = calloc(1, sizeof(*vsock));
	bool listens = false;
	int r;

	if (!vsock) {
		return base_error_set_errno(error, -ENOMEM, "make the vsock device");
	}
	if (cid <= VMM_VSOCK_HOST_CID || cid == UINT32_MAX) {
		return base_error_set(error, -EINVAL, "vsock CID %u is reserved", cid);
	}
	r = check_listener(listener, &listens);
	if (r < 0) {
		return base_error_set_errno(error, r, "use the vsock listener");
	}
	vsock->cid = cid;
	base_store_u64(vsock->config, cid);
	vsock->virtio.config = vsock->config;
	vsock->virtio.config_size = sizeof(vsock->config);
	vsock->listener.fd = -1;
	vsock->timer = (struct vmm_timer){ .fn = vmm_vsock_handshakes_due, .userdata = vsock };
	vsock->last_host_port = VMM_VSOCK_HOST_PORT_FIRST - 1;
	vsock->connections_max = VMM_VSOCK_CONNECTIONS_MAX;
	vsock->buffer_bytes_max = VMM_LIMIT_VSOCK_BYTES_MAX;
	TAILQ_INIT(&vsock->connections);
	TAILQ_INIT(&vsock->ready);
	r = vmm_virtio_init(&vsock->virtio, &vsock_ops, host, slot, error);
	if (r < 0) {
		return r;
	}
	if (listens) {
		vsock->listener.fd = listener;
	} else {
		base_fd_close(listener);
	}
	*ret_device = &TAKE_PTR(vsock)->virtio;
	return 0;
}

void vmm_virtio_vsock_limit(struct vmm_virtio *device, unsigned connections, uint64_t bytes)
{
	struct vmm_vsock *vsock = vsock_of(device);

	vsock->connections_max = connections > 0 ? connections : VMM_VSOCK_CONNECTIONS_MAX;
	vsock->buffer_bytes_max = bytes > 0 ? bytes : VMM_LIMIT_VSOCK_BYTES_MAX;
	vmm_vsock_listener_watch(vsock);
}

uint64_t vmm_virtio_vsock_limited(const struct vmm_virtio *device)
{
	return CONTAINER_OF(device, const struct vmm_vsock, virtio)->refused;
}

int vmm_virtio_vsock_attach(struct vmm_virtio *device, int stream, uint32_t port)
{
	struct vmm_vsock *vsock = vsock_of(device);
	struct vmm_vsock_connection *connection;

	if (port == VMM_VSOCK_PORT_ANY) {
		base_fd_close(stream);
		return -EINVAL;
	}
	connection = vmm_vsock_connection_new(vsock, stream, VMM_VSOCK_REQUESTED);
	if (!connection) {
		vmm_vsock_count_refusal(vsock);
		return -EBUSY;
	}
	connection->attached = true;
	connection->readable = true;
	vmm_vsock_request(connection, port);
	vmm_vsock_connection_watch(connection);
	vmm_vsock_pump(vsock);
	return 0;
}

void vmm_virtio_vsock_connected(struct vmm_virtio *device, uint64_t id, int result, int stream)
{
	struct vmm_vsock *vsock = vsock_of(device);
	struct vmm_vsock_connection *connection;

	if (vsock->n_asked > 0) {
		vsock->n_asked--;
	}
	TAILQ_FOREACH(connection, &vsock->connections, all)
	{
		if (connection->state == VMM_VSOCK_ANNOUNCED && connection->id == id) {
			break;
		}
	}
	if (!connection || result < 0 || stream < 0) {
		base_fd_close(stream);
		if (connection) {
			vmm_vsock_abort(connection);
			vmm_vsock_pump(vsock);
		}
		return;
	}
	connection->source.fd = stream;
	connection->state = VMM_VSOCK_ESTABLISHED;
	connection->readable = true;
	connection->owed = VMM_VSOCK_OWE_RESPONSE;
	vmm_vsock_connection_watch(connection);
	vmm_vsock_wake(connection);
	vmm_vsock_pump(vsock);
}

void vmm_virtio_vsock_refuse(struct vmm_virtio *device)
{
	struct vmm_vsock *vsock = vsock_of(device);
	struct vmm_vsock_connection *connection = TAILQ_FIRST(&vsock->connections);

	while (connection) {
		struct vmm_vsock_connection *next = TAILQ_NEXT(connection, all);

		if (connection->state == VMM_VSOCK_ANNOUNCED) {
			vmm_vsock_abort(connection);
		}
		connection = next;
	}
	vmm_vsock_pump(vsock);
}
