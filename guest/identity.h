/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The host's side of what makes a restored guest different from every other one: docs/protocol.md,
 * "Identity".
 */

#include "guest/agent.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room for an encoded request; one is about 350 bytes long. */
#define GUEST_IDENTITY_REQUEST_MAX 512

struct guest_identity {
	uint8_t seed[GUEST_SEED_BYTES];
	char machine_id[33]; /* 32 hexadecimal digits */
	char boot_id[37];    /* UUID, version 4 */
	char hostname[17];   /* "sandbox-" and 8 hexadecimal digits */
};

/* The present time as the VMM gave it when it loaded the state. */
struct guest_identity_clock {
	uint64_t realtime_ns;
	uint64_t tsc;
	uint64_t tsc_khz;
};

/* A new identity, unlike any other. 0 or -errno. */
int guest_identity_generate(struct guest_identity *ret_identity);

/* Encodes the agent's `identity` request, which it answers with GUEST_IDENTITY_ACK; touch: it
 * rehearses an exec before that. Returns its length (at most GUEST_IDENTITY_REQUEST_MAX). */
size_t guest_identity_encode(const struct guest_identity *identity, uint64_t generation,
			     const struct guest_identity_clock *clock, bool touch,
			     uint8_t buffer[GUEST_IDENTITY_REQUEST_MAX]);

/* The same, but only its one parameter, for who has a client that makes requests. */
size_t guest_identity_encode_params(const struct guest_identity *identity, uint64_t generation,
				    const struct guest_identity_clock *clock, bool touch,
				    uint8_t buffer[GUEST_IDENTITY_REQUEST_MAX]);

/* Forgets the secret part. */
void guest_identity_wipe(struct guest_identity *identity);
