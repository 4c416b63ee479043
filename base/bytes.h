/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Little-endian bytes: reading with bounds, writing into a growing buffer.
 *
 * Both remember the first failure and are then inert, so a sequence of fields is checked once at
 * its end: base_reader_finish() and base_writer_result() return it. Reads after a failure give
 * zeros.
 */

#include "base/util.h"

#include <stdbool.h>

struct base_reader {
	const uint8_t *data; /* borrowed */
	size_t size;
	size_t position;
	int result; /* 0 or -EBADMSG: somebody read past the end */
};

static inline struct base_reader base_reader_init(const void *data, size_t size)
{
	return (struct base_reader){ .data = data, .size = size };
}

/* The next size bytes (borrowed from the buffer), or NULL past the end. */
const void *base_reader_bytes(struct base_reader *reader, size_t size);
uint8_t base_reader_u8(struct base_reader *reader);
uint16_t base_reader_u16(struct base_reader *reader);
uint32_t base_reader_u32(struct base_reader *reader);
uint64_t base_reader_u64(struct base_reader *reader);
/* Copies size bytes to out; zeros when there are not enough. */
void base_reader_copy(struct base_reader *reader, void *out, size_t size);
size_t base_reader_left(const struct base_reader *reader);
/* 0 when all was read without a failure and nothing is left; -EBADMSG otherwise. */
int base_reader_finish(const struct base_reader *reader);

struct base_writer {
	uint8_t *data; /* owned */
	size_t size;
	size_t room;
	int result; /* 0 or -ENOMEM */
};

void base_writer_deinit(struct base_writer *writer);
void base_writer_bytes(struct base_writer *writer, const void *data, size_t size);
void base_writer_u8(struct base_writer *writer, uint8_t value);
void base_writer_u16(struct base_writer *writer, uint16_t value);
void base_writer_u32(struct base_writer *writer, uint32_t value);
void base_writer_u64(struct base_writer *writer, uint64_t value);
/* Overwrites four bytes written before, for lengths known later. */
void base_writer_patch_u32(struct base_writer *writer, size_t position, uint32_t value);
static inline int base_writer_result(const struct base_writer *writer)
{
	return writer->result;
}
#define _cleanup_writer_ _cleanup_(base_writer_deinit)

static inline uint16_t base_load_u16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t base_load_u32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)base_load_u16(b) | (uint32_t)base_load_u16(b + 2) << 16;
}

static inline uint64_t base_load_u64(const void *p)
{
	const uint8_t *b = p;

	return (uint64_t)base_load_u32(b) | (uint64_t)base_load_u32(b + 4) << 32;
}

static inline void base_store_u16(void *p, uint16_t value)
{
	uint8_t *b = p;

	b[0] = (uint8_t)value;
	b[1] = (uint8_t)(value >> 8);
}

static inline void base_store_u32(void *p, uint32_t value)
{
	base_store_u16(p, (uint16_t)value);
	base_store_u16((uint8_t *)p + 2, (uint16_t)(value >> 16));
}

static inline void base_store_u64(void *p, uint64_t value)
{
	base_store_u32(p, (uint32_t)value);
	base_store_u32((uint8_t *)p + 4, (uint32_t)(value >> 32));
}
