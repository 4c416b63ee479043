/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* XXH3-128 in the two forms that the formats use. Guards against damage, not against forgery. */

#include "snapshot/snapshot.h"

#define SNAPSHOT_DIGEST_BYTES (SNAPSHOT_DIGEST_LENGTH / 2)

/* Of a buffer: as bytes, and as text. */
void snapshot_digest_bytes(const void *data, size_t size,
			   uint8_t ret_digest[SNAPSHOT_DIGEST_BYTES]);
void snapshot_digest_text(const void *data, size_t size,
			  char ret_digest[SNAPSHOT_DIGEST_LENGTH + 1]);

/* 0, or -EBADMSG with "<field>: digest: why" when the buffer does not have this digest. */
int snapshot_digest_check(const char *field, const void *data, size_t size, const char *expected,
			  struct base_error *error);

/* Lower-case hexadecimal of size bytes, NUL-terminated. */
void snapshot_hex(const uint8_t *data, size_t size, char *ret_text);

/* True when text is exactly length lower-case hexadecimal digits. */
bool snapshot_hex_is_valid(const char *text, size_t length);
