/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A fuzz target: one function that takes any bytes and must neither crash nor leak. libFuzzer
 * calls it with bytes that it makes up, replay.c with the files of the target's corpus.
 *
 * A target is deterministic: no threads, no clock, nothing left of an input when it returns. Where
 * plain bytes would never get past the first check, an input is a list of operations, taken from
 * the front with the functions below; behind its end everything is zero.
 */

#include "base/bytes.h"
#include "base/util.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold. Not assert(): also where that is compiled out. */
#define FUZZ_CHECK(condition)                                                                   \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                \
		}                                                                               \
	} while (0)

struct fuzz_input {
	const uint8_t *data;
	size_t left;
};

static inline uint64_t fuzz_take(struct fuzz_input *input, size_t size)
{
	uint8_t bytes[8] = { 0 };
	size_t n = MIN(size, input->left);

	memcpy(bytes, input->data, n);
	input->data += n;
	input->left -= n;
	return base_load_u64(bytes);
}

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
	return (uint8_t)fuzz_take(input, 1);
}

static inline uint16_t fuzz_u16(struct fuzz_input *input)
{
	return (uint16_t)fuzz_take(input, 2);
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
	return (uint32_t)fuzz_take(input, 4);
}

static inline uint64_t fuzz_u64(struct fuzz_input *input)
{
	return fuzz_take(input, 8);
}

/* The next bytes, at most max of them: a length byte says how many. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *input, size_t max, size_t *ret_size)
{
	/* Not inside MIN(): a system header's would take two bytes. */
	size_t n = fuzz_u8(input);
	const uint8_t *bytes = input->data;

	n = MIN(n, max);
	n = MIN(n, input->left);
	input->data += n;
	input->left -= n;
	*ret_size = n;
	return bytes;
}
