/* SPDX-License-Identifier: Apache-2.0 */

/* Digests of buffers and whole files. No state, any thread; blocks on the file's disk. */

#include "snapshot/digest.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define READ_BYTES MIB(1)

static inline void free_state(XXH3_state_t **state)
{
	XXH3_freeState(*state);
}

void snapshot_hex(const uint8_t *data, size_t size, char *ret_text)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < size; i++) {
		*ret_text++ = digits[data[i] >> 4];
		*ret_text++ = digits[data[i] & 15];
	}
	*ret_text = '\0';
}

bool snapshot_hex_is_valid(const char *text, size_t length)
{
	return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

static void canonical(XXH128_hash_t hash, uint8_t ret_digest[SNAPSHOT_DIGEST_BYTES])
{
	XXH128_canonical_t bytes;

	_Static_assert(sizeof(bytes.digest) == SNAPSHOT_DIGEST_BYTES, "XXH3-128");
	XXH128_canonicalFromHash(&bytes, hash);
	memcpy(ret_digest, bytes.digest, SNAPSHOT_DIGEST_BYTES);
}

void snapshot_digest_bytes(const void *data, size_t size, uint8_t ret_digest[SNAPSHOT_DIGEST_BYTES])
{
	canonical(XXH3_128bits(data, size), ret_digest);
}

void snapshot_digest_text(const void *data, size_t size,
			  char ret_digest[SNAPSHOT_DIGEST_LENGTH + 1])
{
	uint8_t bytes[SNAPSHOT_DIGEST_BYTES];

	snapshot_digest_bytes(data, size, bytes);
	snapshot_hex(bytes, sizeof(bytes), ret_digest);
}

int snapshot_digest_check(const char *field, const void *data, size_t size, const char *expected,
			  struct base_error *error)
{
	char digest[SNAPSHOT_DIGEST_LENGTH + 1];

	snapshot_digest_text(data, size, digest);
	if (strcmp(digest, expected) != 0) {
		return base_error_set(error, -EBADMSG, "%s: digest: the content is damaged", field);
	}
	return 0;
}

int snapshot_digest_fd(int fd, char ret_digest[SNAPSHOT_DIGEST_LENGTH + 1],
		       struct base_error *error)
{
	_cleanup_(free_state) XXH3_state_t *state = XXH3_createState();
	_cleanup_free_ uint8_t *buffer = malloc(READ_BYTES);
	uint8_t bytes[SNAPSHOT_DIGEST_BYTES];
	off_t offset = 0;

	if (!state || !buffer) {
		return base_error_set_errno(error, -ENOMEM, "digest");
	}
	XXH3_128bits_reset(state);

	for (;;) {
		ssize_t n = pread(fd, buffer, READ_BYTES, offset);

		if (n < 0) {
			int r = -errno;

			if (r == -EINTR) {
				continue;
			}
			return base_error_set_errno(error, r, "cannot read the file to digest");
		}
		if (n == 0) {
			break;
		}
		XXH3_128bits_update(state, buffer, (size_t)n);
		offset += n;
	}
	canonical(XXH3_128bits_digest(state), bytes);
	snapshot_hex(bytes, sizeof(bytes), ret_digest);
	return 0;
}
