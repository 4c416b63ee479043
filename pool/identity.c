/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Identities of sandboxes: random bytes from the kernel, put into the agent's request.
 *
 * Only getrandom() can fail. No state; any thread.
 */

#include "pool/identity.h"

#include <assert.h>
#include <errno.h>
#include <msgpack.h>
#include <string.h>
#include <sys/random.h>

int pool_random(void *buffer, size_t size)
{
	uint8_t *p = buffer;

	while (size > 0) {
		ssize_t n = getrandom(p, size, 0);

		if (n < 0) {
			if (errno == EINTR) {
				continue;
			}
			return -errno;
		}
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

void pool_hex(const uint8_t *bytes, size_t size, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < size; i++) {
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
	*out = '\0';
}

/* 16 random bytes as a UUID of version 4, variant 1 (RFC 9562). */
static void format_uuid(uint8_t bytes[16], char out[37])
{
	static const uint8_t groups[] = { 4, 2, 2, 2, 6 };

	bytes[6] = (bytes[6] & 0x0f) | 0x40;
	bytes[8] = (bytes[8] & 0x3f) | 0x80;
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		pool_hex(bytes, groups[i], out);
		bytes += groups[i];
		out += 2 * groups[i];
		if (i + 1 < ARRAY_SIZE(groups)) {
			*out++ = '-';
		}
	}
}

int pool_identity_generate(struct pool_identity *ret_identity)
{
	struct {
		uint8_t seed[GUEST_SEED_BYTES];
		uint8_t machine_id[16];
		uint8_t boot_id[16];
		uint8_t hostname[4];
	} random;
	int r = pool_random(&random, sizeof(random));

	if (r < 0) {
		return r;
	}
	memcpy(ret_identity->seed, random.seed, sizeof(random.seed));
	pool_hex(random.machine_id, sizeof(random.machine_id), ret_identity->machine_id);
	format_uuid(random.boot_id, ret_identity->boot_id);
	strcpy(ret_identity->hostname, "sandbox-");
	pool_hex(random.hostname, sizeof(random.hostname), ret_identity->hostname + 8);
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

	assert(buffer->size + size <= POOL_IDENTITY_REQUEST_MAX);
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

size_t pool_identity_encode(const struct pool_identity *identity, uint64_t generation,
			    const struct pool_identity_clock *clock, bool touch,
			    uint8_t buffer[POOL_IDENTITY_REQUEST_MAX])
{
	struct buffer out = { .data = buffer };
	msgpack_packer packer;

	msgpack_packer_init(&packer, &out, buffer_write);
	msgpack_pack_array(&packer, 4);
	msgpack_pack_uint8(&packer, 0); /* request */
	msgpack_pack_uint8(&packer, 0); /* its id, which the acknowledgement repeats */
	pack_text(&packer, "identity");
	msgpack_pack_array(&packer, 1);
	msgpack_pack_map(&packer, touch ? 9 : 8);
	pack_text(&packer, "seed");
	msgpack_pack_bin_with_body(&packer, identity->seed, sizeof(identity->seed));
	pack_string(&packer, "machine_id", identity->machine_id);
	pack_string(&packer, "boot_id", identity->boot_id);
	pack_string(&packer, "hostname", identity->hostname);
	pack_number(&packer, "generation", generation);
	pack_number(&packer, "realtime_ns", clock->realtime_ns);
	pack_number(&packer, "tsc", clock->tsc);
	pack_number(&packer, "tsc_khz", clock->tsc_khz);
	if (touch) {
		pack_text(&packer, "touch");
		msgpack_pack_true(&packer);
	}
	return out.size;
}

void pool_identity_wipe(struct pool_identity *identity)
{
	explicit_bzero(identity, sizeof(*identity));
}
