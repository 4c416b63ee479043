/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The guest's side of a vsock device for unit tests: its rings and packets, and the clients at the
 * device's real Unix socket. One thread: guest, main loop and clients in turn. What goes wrong in
 * here fails the test; so does a packet that has not come after five seconds.
 */

#include "virtio_driver.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CID	      42u
#define RX_BUFFERS    16
#define RX_BYTES      4096u
#define TX_BYTES      65536u
#define HEADER	      44u
#define GUEST_BUFFER  65536u
#define DEVICE_BUFFER 65536u

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

/* cmocka set-up and tear-down; *state is a struct fixture with a running driver, RX_BUFFERS receive
 * buffers and an event buffer. */
int vsock_setup(void **state);
int vsock_teardown(void **state);
/* Puts a fresh device into the fixture; what was there is the caller's to free. */
void vsock_new_device(struct fixture *f);

void vsock_post_rx(struct fixture *f, unsigned n);
/* Gives a receive buffer back under its old head. */
void vsock_repost_rx(struct fixture *f, uint16_t head);
/* Returns the buffer's head. */
uint16_t vsock_post_event(struct fixture *f);

/* The next packet for the guest, if there is one; its buffer is posted again. */
bool vsock_try_receive(struct fixture *f, struct packet *packet);
/* Waits for it. */
void vsock_receive(struct fixture *f, struct packet *packet);
/* Waits for it; it must be of this kind. */
void vsock_expect(struct fixture *f, uint16_t op, struct packet *packet);
/* Nothing comes once the loop has settled. */
void vsock_expect_nothing(struct fixture *f);

/* A packet of the connection, without payload and flags. */
struct packet vsock_make_packet(const struct guest *guest, uint16_t op);
/* Sends a packet whose descriptors have chain_bytes of payload (from memory at f->tx). */
void vsock_send_packet(struct fixture *f, const struct packet *packet, uint32_t chain_bytes);
void vsock_reply(struct fixture *f, const struct guest *guest, uint16_t op, uint32_t flags);
void vsock_send_data(struct fixture *f, struct guest *guest, const void *data, uint32_t size);

/* A stream connected to the device's socket, the caller's to close. */
int vsock_client(struct fixture *f);
void vsock_say(int fd, const char *text);
/* Reads exactly the text, blocking. */
void vsock_hear(int fd, const char *text);
void vsock_hear_end(int fd);
void vsock_hear_nothing(int fd);

/* The guest answers the device's request for the port. */
struct guest vsock_accept_request(struct fixture *f, uint32_t port);
/* A client connected to a guest port. */
struct guest vsock_establish(struct fixture *f, uint32_t port, int *ret_fd);

/* A byte stream that any offset can be checked in. */
uint8_t vsock_stream_byte(uint64_t offset, uint64_t salt);
