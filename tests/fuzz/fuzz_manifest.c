/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The manifest reader. An input is tried as a file, and, since a digest stops nearly everything
 * that a fuzzer makes up, its map alone as well. What is accepted must come back from encoding.
 */

#include "base/bytes.h"
#include "snapshot/manifest.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void check(const struct snapshot_manifest *manifest)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct snapshot_manifest again;

	if (snapshot_manifest_encode(manifest, &writer, NULL) < 0 ||
	    snapshot_manifest_decode(writer.data, writer.size, &again, NULL) < 0 ||
	    memcmp(manifest, &again, sizeof(again)) != 0) {
		abort();
	}
}

static void try_map(const uint8_t *data, size_t size)
{
	struct snapshot_manifest manifest;
	struct base_error error = { 0 };

	if (snapshot_manifest_decode_map(data, size, &manifest, &error) == 0) {
		check(&manifest);
	} else if (strncmp(error.text, "manifest: ", 10) != 0) {
		abort(); /* a refusal names the file */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapshot_manifest manifest;

	if (snapshot_manifest_decode(data, size, &manifest, NULL) == 0) {
		check(&manifest);
	}
	if (size > SNAPSHOT_MANIFEST_MAX_BYTES) {
		return 0; /* no map that long reaches the decoder */
	}
	try_map(data, size);
	if (size > SNAPSHOT_MANIFEST_HEADER_BYTES + SNAPSHOT_MANIFEST_TRAILER_BYTES) {
		try_map(data + SNAPSHOT_MANIFEST_HEADER_BYTES,
			size - SNAPSHOT_MANIFEST_HEADER_BYTES - SNAPSHOT_MANIFEST_TRAILER_BYTES);
	}
	return 0;
}
