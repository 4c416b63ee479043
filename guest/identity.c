/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Identities of sandboxes: random bytes from the kernel, put into the agent's request.
 *
 * Only getrandom() can fail. No state; any thread.
 */

#include "guest/identity.h"

#include "base/random.h"
#include "base/util.h"

#include <assert.h>
#include <msgpack.h>
#include <string.h>

/* 16 random bytes as a UUID of version 4, variant 1 (RFC 9562). */
static void format_uuid(uint8_t bytes[16], char out[37])
{
	static const uint8_t groups[] = { 4, 2, 2, 2, 6 };

	bytes[6] = (bytes[6] & 0x0f) | 0x40;
	bytes[8] = (bytes[8] & 0x3f) | 0x80;
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		base_hex(bytes, groups[i], out);
		bytes += groups[i];
		out += 2 * groups[i];
		if (i + 1 < ARRAY_SIZE(groups)) {
			*out++ = '-';
		}
	}
}

int guest_identity_generate(struct guest_identity *ret_identity)
{
	struct {
		uint8_t seed[GUEST_SEED_BYTES];
		uint8_t machine_id[16];
		uint8_t boot_id[16];
		uint8_t hostname[4];
	} random;
	int r = base_random(&random, sizeof(random));

	if (r < 0) {
		return r;
	}
	memcpy(ret_identity->seed, random.seed, sizeof(random.seed));
	base_hex(random.machine_id, sizeof(random.machine_id), ret_identity->machine_id);
	format_uuid(random.boot_id, ret_identity->boot_id);
	strcpy(ret_identity->hostname, "sandbox-");
	base_hex(random.hostname, sizeof(random.hostname), ret_identity->hostname + 8);
	explicit_bzero(&random, sizeof(random));
	return 0;
}

struct buffer {
	uint8_t *data;
	size_t size;
};

/* For msgpack_packer: everything fits, since all fields are of fixed or bounded length. */
static int buffer_write(void *data, const char *bytes, size_t size)
{
	struct buffer *buffer = data;

	assert(buffer->size + size <= GUEST_IDENTITY_REQUEST_MAX);
	memcpy(buffer->data + buffer->size, bytes, size);
	buffer->size += size;
	return 0;
}

static void pack_text(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str_with_body(packer, text, strlen(text));
}

static void pack_number(msgpack_packer *packer, const char *key, uint64_t value)
{
	pack_text(packer, key);
	msgpack_pack_uint64(packer, value);
}

static void pack_string(msgpack_packer *packer, const char *key, const char *value)
{
	pack_text(packer, key);
	pack_text(packer, value);
}

/* The map that is the one parameter of `identity`. */
static void pack_params(msgpack_packer *packer, const struct guest_identity *identity,
			uint64_t generation, const struct guest_identity_clock *clock, bool touch)
{
	msgpack_pack_map(packer, touch ? 9 : 8);
	pack_text(packer, "seed");
	msgpack_pack_bin_with_body(packer, identity->seed, sizeof(identity->seed));
	pack_string(packer, "machine_id", identity->machine_id);
	pack_string(packer, "boot_id", identity->boot_id);
	pack_string(packer, "hostname", identity->hostname);
	pack_number(packer, "generation", generation);
	pack_number(packer, "realtime_ns", clock->realtime_ns);
	pack_number(packer, "tsc", clock->tsc);
	pack_number(packer, "tsc_khz", clock->tsc_khz);
	if (touch) {
		pack_text(packer, "touch");
		msgpack_pack_true(packer);
	}
}

size_t guest_identity_encode_params(const struct guest_identity *identity, uint64_t generation,
				    const struct guest_identity_clock *clock, bool touch,
				    uint8_t buffer[GUEST_IDENTITY_REQUEST_MAX])
{
	struct buffer out = { .data = buffer };
	msgpack_packer packer;

	msgpack_packer_init(&packer, &out, buffer_write);
	pack_params(&packer, identity, generation, clock, touch);
	return out.size;
}

size_t guest_identity_encode(const struct guest_identity *identity, uint64_t generation,
			     const struct guest_identity_clock *clock, bool touch,
			     uint8_t buffer[GUEST_IDENTITY_REQUEST_MAX])
{
	struct buffer out = { .data = buffer };
	msgpack_packer packer;

	msgpack_packer_init(&packer, &out, buffer_write);
	msgpack_pack_array(&packer, 4);
	msgpack_pack_uint8(&packer, 0); /* request */
	msgpack_pack_uint8(&packer, 0); /* its id, which the acknowledgement repeats */
	pack_text(&packer, "identity");
	msgpack_pack_array(&packer, 1);
	pack_params(&packer, identity, generation, clock, touch);
	return out.size;
}

void guest_identity_wipe(struct guest_identity *identity)
{
	explicit_bzero(identity, sizeof(*identity));
}
