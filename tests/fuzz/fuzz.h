/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A fuzz target: one function that takes any bytes and must neither crash nor leak. libFuzzer
 * calls it with bytes that it makes up, replay.c with the files of the target's corpus.
 */

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
