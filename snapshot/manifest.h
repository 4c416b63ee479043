/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The manifest file: struct to bytes and back. No file is touched here. */

#include "base/bytes.h"
#include "snapshot/format.h"

/* Every rule on the values of a manifest. 0, or -EBADMSG with "manifest: <key>: why". */
int snapshot_manifest_validate(const struct snapshot_manifest *manifest, struct base_error *error);

/* Appends the whole file for a valid manifest to writer. 0, -EBADMSG (not valid) or -ENOMEM. */
int snapshot_manifest_encode(const struct snapshot_manifest *manifest, struct base_writer *writer,
			     struct base_error *error);

/* Reads a whole file: header, digest, map, every value. 0, -EBADMSG or -ENOMEM. */
int snapshot_manifest_decode(const void *data, size_t size, struct snapshot_manifest *ret_manifest,
			     struct base_error *error);

/* The map alone, without header and digest: what is left when somebody recomputed the digest. */
int snapshot_manifest_decode_map(const void *data, size_t size,
				 struct snapshot_manifest *ret_manifest, struct base_error *error);
