/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Messages between the programs of this project: what the control protocols (vmm/control.h,
 * uffd/control.h, pool/spawner.h) have in common.
 *
 * Transport: one SOCK_SEQPACKET Unix socket. One packet is one struct base_message: a fixed
 * little-endian header, `text_length` bytes of text, and descriptors (SCM_RIGHTS).
 *
 * Every request gets exactly one reply with the same `op` and `sequence`, unless its protocol says
 * that it gets none; result is 0 or -errno, and on failure the text says why. Events carry sequence
 * 0 and may come at any time.
 */

#include "base/error.h"
#include "base/util.h"

#define BASE_MESSAGE_ARGS     8
#define BASE_MESSAGE_TEXT_MAX 2048
#define BASE_MESSAGE_FDS_MAX  12

/* On the wire as it stands here; x86-64 is little-endian. */
struct base_message {
	uint32_t op;
	int32_t result;	   /* 0 or -errno; 0 in requests */
	uint64_t sequence; /* chosen by the requester, >= 1; 0 in events */
	uint64_t arg[BASE_MESSAGE_ARGS];
	uint32_t text_length; /* bytes of text in use; not NUL-terminated on the wire */
	uint32_t reserved;    /* 0 */
	/* NUL-terminated by the receiver; only text_length bytes are sent. */
	char text[BASE_MESSAGE_TEXT_MAX + 1];
};

_Static_assert(offsetof(struct base_message, text) == 88, "wire layout");

/* What must be set of a message that is sent: everything before the text. */
#define BASE_MESSAGE_HEADER_BYTES offsetof(struct base_message, text)

/* Sets the text and its length, cutting it to its limit. */
void base_message_set_text(struct base_message *message, const char *text);

/* Sends one message (text_length and text must be set). fds are borrowed. 0 or -errno (-EAGAIN on a
 * full non-blocking socket, -EINVAL past a limit). */
int base_message_send(int socket, const struct base_message *message, const int *fds, size_t n_fds);

/*
 * Receives one message; blocks when the socket does. Validates size, text and reserved fields.
 * 1: a message, fds owned by the caller. 0: the peer closed. <0: -errno; -EBADMSG for a malformed
 * packet.
 */
int base_message_receive(int socket, struct base_message *ret_message,
			 int fds[BASE_MESSAGE_FDS_MAX], size_t *ret_n_fds);

typedef void (*base_message_event_fn)(void *userdata, const struct base_message *event);

/*
 * Blocking helper for tests, the builder and the doctor: sends a request with the given sequence
 * and waits for its reply. `peer` names the other side in errors ("VMM"). Events that arrive
 * meanwhile go to on_event (may be NULL; then they are dropped). timeout_ms < 0 waits for ever.
 *
 * 0 with *ret_reply and *ret_fd (each may be NULL), the reply's -errno with its text in error,
 * -ETIMEDOUT, or -ECONNRESET when the peer is gone. *ret_fd is the reply's first descriptor, owned
 * by the caller, or -1; others are closed.
 */
int base_message_call(int socket, const char *peer, const struct base_message *request,
		      const int *fds, size_t n_fds, int timeout_ms, base_message_event_fn on_event,
		      void *userdata, struct base_message *ret_reply, int *ret_fd,
		      struct base_error *error);
