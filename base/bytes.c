/* SPDX-License-Identifier: Apache-2.0 */

/* Bounded little-endian reading and writing. No state, any thread. */

#include "base/bytes.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

const void *base_reader_bytes(struct base_reader *reader, size_t size)
{
	if (reader->result < 0 || size > reader->size - reader->position) {
		reader->result = -EBADMSG;
		return NULL;
	}

	const void *bytes = reader->data + reader->position;

	reader->position += size;
	return bytes;
}

uint8_t base_reader_u8(struct base_reader *reader)
{
	const uint8_t *p = base_reader_bytes(reader, 1);

	return p ? *p : 0;
}

uint16_t base_reader_u16(struct base_reader *reader)
{
	const void *p = base_reader_bytes(reader, 2);

	return p ? base_load_u16(p) : 0;
}

uint32_t base_reader_u32(struct base_reader *reader)
{
	const void *p = base_reader_bytes(reader, 4);

	return p ? base_load_u32(p) : 0;
}

uint64_t base_reader_u64(struct base_reader *reader)
{
	const void *p = base_reader_bytes(reader, 8);

	return p ? base_load_u64(p) : 0;
}

void base_reader_copy(struct base_reader *reader, void *out, size_t size)
{
	const void *p = base_reader_bytes(reader, size);

	if (p) {
		memcpy(out, p, size);
	} else {
		memset(out, 0, size);
	}
}

size_t base_reader_left(const struct base_reader *reader)
{
	return reader->size - reader->position;
}

int base_reader_finish(const struct base_reader *reader)
{
	if (reader->result < 0 || reader->position != reader->size) {
		return -EBADMSG;
	}
	return 0;
}

void base_writer_deinit(struct base_writer *writer)
{
	free(writer->data);
	*writer = (struct base_writer){ 0 };
}

/* Room for size more bytes; NULL after a failure. */
static uint8_t *writer_extend(struct base_writer *writer, size_t size)
{
	if (writer->result < 0) {
		return NULL;
	}
	if (size > writer->room - writer->size) {
		size_t room = MAX(writer->room * 2, writer->size + size);
		uint8_t *grown = realloc(writer->data, MAX(room, (size_t)256));

		if (!grown) {
			writer->result = -ENOMEM;
			return NULL;
		}
		writer->data = grown;
		writer->room = MAX(room, (size_t)256);
	}

	uint8_t *p = writer->data + writer->size;

	writer->size += size;
	return p;
}

void base_writer_bytes(struct base_writer *writer, const void *data, size_t size)
{
	uint8_t *p = writer_extend(writer, size);

	if (p && size > 0) {
		memcpy(p, data, size);
	}
}

void base_writer_u8(struct base_writer *writer, uint8_t value)
{
	base_writer_bytes(writer, &value, 1);
}

void base_writer_u16(struct base_writer *writer, uint16_t value)
{
	uint8_t *p = writer_extend(writer, 2);

	if (p) {
		base_store_u16(p, value);
	}
}

void base_writer_u32(struct base_writer *writer, uint32_t value)
{
	uint8_t *p = writer_extend(writer, 4);

	if (p) {
		base_store_u32(p, value);
	}
}

void base_writer_u64(struct base_writer *writer, uint64_t value)
{
	uint8_t *p = writer_extend(writer, 8);

	if (p) {
		base_store_u64(p, value);
	}
}

void base_writer_patch_u32(struct base_writer *writer, size_t position, uint32_t value)
{
	if (writer->result < 0) {
		return;
	}
	assert(position + 4 <= writer->size);
	base_store_u32(writer->data + position, value);
}
