/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Finds where a msgpack value ends, before anything is decoded or allocated. What passes is
 * well-formed and within the limits, so that decoding it costs memory in proportion to what was
 * sent.
 */

#include "guest/agent.h"

#include <stddef.h>
#include <stdint.h>

/* Values (each element, key and container) in a message; bounds what decoding allocates. */
#define AGENT_VALUES_MAX 32768

/* All zeros at the start of a message. */
struct agent_scan {
	size_t position; /* bytes known to be good */
	unsigned depth;
	unsigned values;
	uint32_t left[GUEST_NESTING_MAX]; /* values still to come, per open container */
};

/*
 * data is the message from its first byte (the same bytes at every call, and perhaps more), size
 * what has arrived. 1: complete, scan->position is its length. 0: more is needed. -EBADMSG: not
 * msgpack. -EMSGSIZE: larger, deeper or of more values than allowed.
 */
int agent_scan_step(struct agent_scan *scan, const uint8_t *data, size_t size);
