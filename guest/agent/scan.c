/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A pushdown scan over msgpack tokens. It stops at token boundaries and goes on from there when
 * more bytes have come, so that a message in many small pieces is looked at once. Pure; no state
 * but the caller's.
 */

#include "guest/agent/scan.h"

#include "base/util.h"

#include <errno.h>

struct token {
	uint64_t size;	   /* bytes with header and payload */
	uint64_t children; /* values that follow and belong to it */
};

enum shape {
	INVALID,
	BYTES,
	ARRAY,
	MAP,
};

/* First bytes 0xc0 to 0xdf: bytes of a big-endian length, further fixed bytes, what the length
 * counts. */
static const struct {
	uint8_t length_bytes, fixed, shape;
} forms[32] = {
	[0x00] = { 0, 0, BYTES },						       /* nil */
	[0x02] = { 0, 0, BYTES },						       /* false */
	[0x03] = { 0, 0, BYTES },						       /* true */
	[0x04] = { 1, 0, BYTES },						       /* bin */
	[0x05] = { 2, 0, BYTES },  [0x06] = { 4, 0, BYTES }, [0x07] = { 1, 1, BYTES }, /* ext */
	[0x08] = { 2, 1, BYTES },  [0x09] = { 4, 1, BYTES }, [0x0a] = { 0, 4, BYTES }, /* float */
	[0x0b] = { 0, 8, BYTES },  [0x0c] = { 0, 1, BYTES },			       /* uint */
	[0x0d] = { 0, 2, BYTES },  [0x0e] = { 0, 4, BYTES }, [0x0f] = { 0, 8, BYTES },
	[0x10] = { 0, 1, BYTES }, /* int */
	[0x11] = { 0, 2, BYTES },  [0x12] = { 0, 4, BYTES }, [0x13] = { 0, 8, BYTES },
	[0x14] = { 0, 2, BYTES }, /* fixext */
	[0x15] = { 0, 3, BYTES },  [0x16] = { 0, 5, BYTES }, [0x17] = { 0, 9, BYTES },
	[0x18] = { 0, 17, BYTES }, [0x19] = { 1, 0, BYTES }, /* str */
	[0x1a] = { 2, 0, BYTES },  [0x1b] = { 4, 0, BYTES }, [0x1c] = { 2, 0, ARRAY },
	[0x1d] = { 4, 0, ARRAY },  [0x1e] = { 2, 0, MAP },   [0x1f] = { 4, 0, MAP },
};

/* The token at p, of which size >= 1 bytes are there. 1, 0 when its header is not complete, or
 * -EBADMSG. */
static int read_token(const uint8_t *p, size_t size, struct token *ret_token)
{
	struct token token = { .size = 1 };

	if (p[0] >= 0xc0 && p[0] < 0xe0) {
		unsigned length_bytes = forms[p[0] - 0xc0].length_bytes;
		uint64_t length = 0;

		if (size < 1 + length_bytes) {
			return 0;
		}
		for (unsigned i = 0; i < length_bytes; i++) {
			length = length << 8 | p[1 + i];
		}
		token.size += length_bytes + forms[p[0] - 0xc0].fixed;
		switch (forms[p[0] - 0xc0].shape) {
		case BYTES:
			token.size += length;
			break;
		case ARRAY:
			token.children = length;
			break;
		case MAP:
			token.children = 2 * length;
			break;
		default:
			return -EBADMSG;
		}
	} else if ((p[0] & 0xf0) == 0x80) {
		token.children = 2 * (p[0] & 0x0f);
	} else if ((p[0] & 0xf0) == 0x90) {
		token.children = p[0] & 0x0f;
	} else if ((p[0] & 0xe0) == 0xa0) {
		token.size += p[0] & 0x1f;
	}
	*ret_token = token;
	return 1;
}

int agent_scan_step(struct agent_scan *scan, const uint8_t *data, size_t size)
{
	while (scan->position < size) {
		struct token token;
		int r = read_token(data + scan->position, size - scan->position, &token);

		if (r <= 0) {
			return r == 0 && size >= GUEST_MESSAGE_MAX_BYTES ? -EMSGSIZE : r;
		}
		/* Every value that is still to come takes a byte at least. */
		if (token.size + token.children > GUEST_MESSAGE_MAX_BYTES - scan->position ||
		    token.children >= AGENT_VALUES_MAX - scan->values) {
			return -EMSGSIZE;
		}
		if (token.size > size - scan->position) {
			return 0;
		}
		scan->position += token.size;
		scan->values++;
		if (scan->depth > 0) {
			scan->left[scan->depth - 1]--;
		}
		if (token.children > 0) {
			if (scan->depth == GUEST_NESTING_MAX) {
				return -EMSGSIZE;
			}
			scan->left[scan->depth++] = (uint32_t)token.children;
		}
		while (scan->depth > 0 && scan->left[scan->depth - 1] == 0) {
			scan->depth--;
		}
		if (scan->depth == 0) {
			return 1;
		}
	}
	/* A message of the largest size that still wants more. */
	return scan->position >= GUEST_MESSAGE_MAX_BYTES ? -EMSGSIZE : 0;
}
