/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What makes a restored sandbox different from every other one: docs/protocol.md, "Identity".
 */

#include "base/util.h"
#include "guest/agent.h"

#include <stdbool.h>

/* Room for an encoded request; one is about 350 bytes long. */
#define POOL_IDENTITY_REQUEST_MAX 512

struct pool_identity {
	uint8_t seed[GUEST_SEED_BYTES];
	char machine_id[33]; /* 32 hexadecimal digits */
	char boot_id[37];    /* UUID, version 4 */
	char hostname[17];   /* "sandbox-" and 8 hexadecimal digits */
};

/* The present time as the VMM gave it when it loaded the state. */
struct pool_identity_clock {
	uint64_t realtime_ns;
	uint64_t tsc;
	uint64_t tsc_khz;
};

/* Fills buffer with random bytes from the kernel. 0 or -errno. */
int pool_random(void *buffer, size_t size);

/* Writes 2 * size hexadecimal digits and a NUL. */
void pool_hex(const uint8_t *bytes, size_t size, char *out);

/* A new identity, unlike any other. 0 or -errno. */
int pool_identity_generate(struct pool_identity *ret_identity);

/* Encodes the agent's `identity` request; touch: it rehearses an exec before it acknowledges.
 * Returns its length (at most POOL_IDENTITY_REQUEST_MAX).
 */
size_t pool_identity_encode(const struct pool_identity *identity, uint64_t generation,
			    const struct pool_identity_clock *clock, bool touch,
			    uint8_t buffer[POOL_IDENTITY_REQUEST_MAX]);

/* Forgets the secret part. */
void pool_identity_wipe(struct pool_identity *identity);
