/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The vsock device: what its parts share. virtio_vsock.c is the device
 * (virtio 1.2, section 5.10) and takes the guest's packets, virtio_vsock_rx.c makes packets for it,
 * virtio_vsock_stream.c serves the Unix sockets of the host.
 *
 * A connection is known to the guest by a pair of ports. Bytes from the guest go straight to the
 * socket; what it does not take waits in a buffer whose size is the credit that the guest gets.
 * Bytes to the guest stay in the socket until the guest has credit and a receive buffer for them,
 * so nothing is lost and nobody buffers without bound. What the buffers of all connections may come
 * to is promised out of one sum (vmm_virtio_vsock_limit()): the bound holds if no host reads at
 * all.
 */

#include "vmm/control.h"
#include "vmm/virtio_internal.h"

#include <sys/queue.h>

#define VMM_VSOCK_HOST_CID 2

enum {
	VMM_VSOCK_QUEUE_RX,
	VMM_VSOCK_QUEUE_TX,
	VMM_VSOCK_QUEUE_EVENT,
	VMM_VSOCK_QUEUES,
};
#define VMM_VSOCK_QUEUE_SIZE 128

/* Packets: a header of VMM_VSOCK_HEADER_BYTES, then `length` bytes. */
#define VMM_VSOCK_HEADER_BYTES 44
#define VMM_VSOCK_TYPE_STREAM  1

enum {
	VMM_VSOCK_OP_REQUEST = 1,
	VMM_VSOCK_OP_RESPONSE = 2,
	VMM_VSOCK_OP_RST = 3,
	VMM_VSOCK_OP_SHUTDOWN = 4,
	VMM_VSOCK_OP_RW = 5,
	VMM_VSOCK_OP_CREDIT_UPDATE = 6,
	VMM_VSOCK_OP_CREDIT_REQUEST = 7,
};

struct vmm_vsock_header {
	uint64_t src_cid;
	uint64_t dst_cid;
	uint32_t src_port;
	uint32_t dst_port;
	uint32_t length;
	uint16_t type;
	uint16_t op;
	uint32_t flags;
	uint32_t buffer_bytes; /* buf_alloc */
	uint32_t forwarded;    /* fwd_cnt */
};

/* The most connections, half-closed and half-open ones included. The guest's next request is
 * refused, the host's next client waits in the listener's backlog. */
#define VMM_VSOCK_CONNECTIONS_MAX VMM_LIMIT_CONNECTIONS_MAX

/* At most VMM_CONNECTS_MAX of the guest's requests wait for the VM's owner; more are refused. */

/* What the guest may send ahead of the host's reader, for each connection; the last that the limit
 * of the VM has room for get less, but not less than a page. */
#define VMM_VSOCK_BUFFER_BYTES	   65536u
#define VMM_VSOCK_BUFFER_BYTES_MIN 4096u
_Static_assert(VMM_LIMIT_VSOCK_BYTES_MIN == VMM_VSOCK_BUFFER_BYTES_MIN, "room for one");
_Static_assert(VMM_LIMIT_VSOCK_BYTES_MAX == VMM_VSOCK_CONNECTIONS_MAX * VMM_VSOCK_BUFFER_BYTES,
	       "room for all");

/* The most payload of one packet, either way. */
#define VMM_VSOCK_PACKET_BYTES_MAX 65536u

/* What may follow an attach()ed connection's request before the guest has answered: Linux takes it,
 * since its listener makes the connection at once, and its smallest buffer is larger. */
#define VMM_VSOCK_EARLY_BYTES_MAX 16384u

/* RST packets that wait for a receive buffer; what does not fit is dropped. */
#define VMM_VSOCK_RESETS_MAX 256

/* How long a client may take to say where it wants to: it holds one of few connections meanwhile.
 */
#define VMM_VSOCK_HANDSHAKE_MS 10000

/* "CONNECT 4294967295\n" and some slack. */
#define VMM_VSOCK_LINE_MAX 32

/* Host ports of connections that the host opens. They only ever go up, across restores too, so that
 * a late packet of an old connection never meets a new one. */
#define VMM_VSOCK_HOST_PORT_FIRST 0x40000000u
#define VMM_VSOCK_PORT_ANY	  UINT32_MAX

enum vmm_vsock_state {
	VMM_VSOCK_HANDSHAKE,   /* reading CONNECT; the guest knows nothing */
	VMM_VSOCK_REQUESTED,   /* the guest is (to be) asked */
	VMM_VSOCK_ANNOUNCED,   /* the guest asked, the host has not answered; no socket yet */
	VMM_VSOCK_ESTABLISHED, /* either direction may be shut already */
	VMM_VSOCK_CLOSING,     /* the host is gone; waits for the guest to agree; no socket */
	VMM_VSOCK_FLUSHING,    /* the guest is gone; the buffer goes out, then the socket closes */
};

/* Packets owed to the guest. */
#define VMM_VSOCK_OWE_REQUEST  0x1u
#define VMM_VSOCK_OWE_RESPONSE 0x2u
#define VMM_VSOCK_OWE_CREDIT   0x4u

/* Directions in SHUTDOWN packets, as seen by their sender. */
#define VMM_VSOCK_SHUT_RCV  1u
#define VMM_VSOCK_SHUT_SEND 2u
#define VMM_VSOCK_SHUT_BOTH (VMM_VSOCK_SHUT_RCV | VMM_VSOCK_SHUT_SEND)

struct vmm_vsock_connection {
	struct vmm_vsock *vsock;
	TAILQ_ENTRY(vmm_vsock_connection) all;
	TAILQ_ENTRY(vmm_vsock_connection) ready; /* in vsock->ready while is_ready */
	bool is_ready;

	struct vmm_source source; /* the socket, owned; -1: none */
	uint32_t interest;	  /* epoll events in force while source.added */
	enum vmm_vsock_state state;
	bool attached; /* no CONNECT and OK lines; may send early */
	uint64_t id;   /* of vsock_connect() */
	uint32_t host_port;
	uint32_t guest_port;
	uint32_t owed;

	/* Host to guest. */
	bool readable; /* the socket may have bytes or an end */
	bool hung_up;  /* the socket's peer is gone; it is out of the loop, reads still work */
	uint32_t shut; /* SHUT_SEND: the host sends no more. SHUT_RCV: it takes no more */
	uint32_t told; /* the part of shut that the guest knows */
	bool asked;    /* a credit request is unanswered */
	uint32_t sent; /* bytes, modulo 2^32 as in the packets */
	uint32_t peer_buffer_bytes;
	uint32_t peer_forwarded;

	/* Guest to host. */
	uint32_t guest_shut;	 /* what the guest shut down, as it sees it */
	uint32_t received;	 /* bytes */
	uint32_t forwarded;	 /* of these, on their way to the reader */
	uint32_t forwarded_told; /* of these, known to the guest */
	uint8_t *buffer;	 /* a ring of buffer_size, made when first needed */
	uint32_t buffer_size;	 /* the credit that the guest was promised */
	uint32_t buffer_start;
	uint32_t buffer_bytes;

	char line[VMM_VSOCK_LINE_MAX];
	uint32_t line_bytes;
	uint64_t deadline_ns; /* of the handshake */
};

TAILQ_HEAD(vmm_vsock_list, vmm_vsock_connection);

struct vmm_vsock_reset {
	uint32_t host_port;
	uint32_t guest_port;
};

/* The transport reset event, which tells a guest that its connections are gone. */
enum vmm_vsock_event {
	VMM_VSOCK_EVENT_NONE,
	VMM_VSOCK_EVENT_OWED,	/* the guest has no buffer for it yet */
	VMM_VSOCK_EVENT_PLACED, /* the guest has not looked at it yet */
};

struct vmm_vsock {
	struct vmm_virtio virtio;
	uint8_t config[8]; /* le64 guest_cid */
	uint32_t cid;
	struct vmm_source listener; /* owned; fd -1: none */
	struct vmm_timer timer;	    /* armed for the earliest deadline of a handshake */
	struct vmm_vsock_list connections;
	struct vmm_vsock_list ready; /* has a packet for the guest; served in turn */
	unsigned n_connections;
	unsigned connections_max;	      /* the limits of this VM */
	uint64_t buffer_bytes_max;	      /* of what is promised below */
	uint64_t promised_bytes;	      /* the buffer_size of all connections */
	uint64_t refused;		      /* connections beyond the limits */
	struct vmm_vsock_connection *serving; /* cleared when it is freed meanwhile */
	uint64_t last_id;
	unsigned n_asked; /* connections that the VM's owner has been asked for and not answered;
			     the guest may have forgotten them */
	uint32_t last_host_port;
	struct vmm_vsock_reset resets[VMM_VSOCK_RESETS_MAX]; /* a ring */
	unsigned resets_start;
	unsigned n_resets;
	enum vmm_vsock_event event;
	uint16_t event_avail; /* the driver's index when the event was placed; it moves when the
				 driver gives the buffer back */
};

/* Guest side (virtio_vsock.c). */

/* Resets the guest's end, closes the host's and frees the connection. */
void vmm_vsock_abort(struct vmm_vsock_connection *connection);
/* Gives the connection a host port and has it ask the guest for a connection to `port`. */
void vmm_vsock_request(struct vmm_vsock_connection *connection, uint32_t port);

/* Packets for the guest (virtio_vsock_rx.c). */

/* The guest's end of a connection exists, or may by now. */
bool vmm_vsock_guest_knows(const struct vmm_vsock_connection *connection);
/* Queues an RST for a pair of ports. */
void vmm_vsock_reset_guest(struct vmm_vsock *vsock, uint32_t host_port, uint32_t guest_port);
/* Puts the connection in line when it has something for the guest. */
void vmm_vsock_wake(struct vmm_vsock_connection *connection);
/* Fills the guest's receive buffers. May free connections. */
void vmm_vsock_pump(struct vmm_vsock *vsock);
/* Puts an owed transport reset event into the event queue, when there is a buffer. */
void vmm_vsock_place_event(struct vmm_vsock *vsock);
/* Notices that the guest has dealt with the event. */
void vmm_vsock_check_event(struct vmm_vsock *vsock);

/* Host side (virtio_vsock_stream.c). */

/* fd (consumed) may be -1. NULL when there is no memory or there are too many. */
struct vmm_vsock_connection *vmm_vsock_connection_new(struct vmm_vsock *vsock, int fd,
						      enum vmm_vsock_state state);
/* Closes the socket, tells nobody. */
void vmm_vsock_connection_free(struct vmm_vsock_connection *connection);
/* Brings what the loop watches in line with what the connection can take now. */
void vmm_vsock_connection_watch(struct vmm_vsock_connection *connection);
/* Closes the socket: both sides are done with it. */
void vmm_vsock_connection_close_socket(struct vmm_vsock_connection *connection);
/* Reads for the guest. >0 bytes, 0: the end, -EAGAIN, or what broke the socket. */
ssize_t vmm_vsock_connection_read(struct vmm_vsock_connection *connection, struct iovec *iov,
				  unsigned n_iov);
/* Takes bytes from the guest, within its credit. */
int vmm_vsock_connection_write(struct vmm_vsock_connection *connection, const struct iovec *iov,
			       unsigned n_iov, uint32_t size);
/* Sends "OK <port>" to a client that said CONNECT. */
void vmm_vsock_connection_greet(struct vmm_vsock_connection *connection);
/* Applies what the guest shut down, once the buffer is empty. May free the connection. */
void vmm_vsock_connection_settle(struct vmm_vsock_connection *connection);
/* A guest's or the owner's connection was refused. */
void vmm_vsock_count_refusal(struct vmm_vsock *vsock);
/* Whether the limits allow another connection. */
bool vmm_vsock_has_room(const struct vmm_vsock *vsock);
/* Ends the handshakes that have taken too long. */
void vmm_vsock_handshakes_due(struct vmm_timer *timer);
/* Watches the listener while there is room for another connection. */
void vmm_vsock_listener_watch(struct vmm_vsock *vsock);
