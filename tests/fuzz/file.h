/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An input as a file, for parsers that read a descriptor. */

#include "tests/fuzz/fuzz.h"

/* The one file, with these bytes and no others, at offset 0; the descriptor lasts as long as the
 * process. */
int fuzz_file(const uint8_t *data, size_t size);
/* Its path. */
const char *fuzz_file_path(void);
