/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Random bytes from the kernel, and how they are written. Any thread.
 */

#include <stddef.h>
#include <stdint.h>

/* Fills buffer with random bytes, getrandom(2). 0 or -errno. */
int base_random(void *buffer, size_t size);

/* Writes 2 * size lower-case hexadecimal digits and a NUL. */
void base_hex(const uint8_t *bytes, size_t size, char *out);
