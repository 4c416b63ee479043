/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The bytes of the journal.
 *
 * Writing: msgpack-c packs a map of what the record's type has. Reading: a record is taken when its
 * checksum is right and its payload is as this file writes it; unknown keys are passed over. Bytes
 * that are no record are passed over one by one, and counted. What is read is checked like anything
 * from outside, though whoever can write the file is the daemon's own user.
 *
 * No state, any thread.
 */

#include "pool/journal.h"

#include <errno.h>
#include <msgpack.h>
#include <string.h>
#include <xxhash.h>

/* --- fields --- */

enum kind { KIND_TEXT, KIND_U64, KIND_PID, KIND_BOOL, KIND_LABELS };

#define BIT(type) (1U << (type))
#define PROCESS	  (BIT(POOL_JOURNAL_PAGER) | BIT(POOL_JOURNAL_STARTED) | BIT(POOL_JOURNAL_LEASED))
#define LEASED	  BIT(POOL_JOURNAL_LEASED)
#define RENEWED	  BIT(POOL_JOURNAL_RENEWED)
#define ENDED	  BIT(POOL_JOURNAL_ENDED)
#define NAMED	  (BIT(POOL_JOURNAL_STARTED) | LEASED | RENEWED | ENDED)

#define TEXT(field)                                             \
	KIND_TEXT, offsetof(struct pool_journal_record, field), \
		sizeof(((struct pool_journal_record *)NULL)->field)
#define OTHER(kind, field) kind, offsetof(struct pool_journal_record, field), 0

static const struct field {
	const char *key;
	unsigned types; /* that have it */
	enum kind kind;
	size_t offset;
	size_t room; /* of texts, with the final NUL */
} fields[] = {
	{ "id", NAMED, TEXT(id) },
	{ "pid", PROCESS, OTHER(KIND_PID, pid) },
	{ "start", PROCESS, OTHER(KIND_U64, start_ticks) },
	{ "token", LEASED, TEXT(token) },
	{ "tenant", LEASED, TEXT(tenant) },
	{ "template", LEASED, TEXT(template_name) },
	{ "snapshot", LEASED, TEXT(snapshot_id) },
	{ "socket", LEASED, TEXT(socket_path) },
	{ "acquired", LEASED, OTHER(KIND_U64, acquired_ns) },
	{ "expires", LEASED | RENEWED, OTHER(KIND_U64, expires_ns) },
	{ "ttl", LEASED | RENEWED, OTHER(KIND_U64, ttl_ms) },
	{ "bound", LEASED, OTHER(KIND_BOOL, bound) },
	{ "labels", LEASED, OTHER(KIND_LABELS, labels) },
	{ "cause", ENDED, TEXT(cause) },
};

/* --- writing --- */

static int pack_bytes(void *userdata, const char *data, size_t size)
{
	struct base_writer *writer = userdata;

	base_writer_bytes(writer, data, size);
	return writer->result;
}

static void pack_text(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str_with_body(packer, text, strlen(text));
}

static void pack_labels(msgpack_packer *packer, const struct pool_journal_record *record)
{
	msgpack_pack_map(packer, record->n_labels);
	for (size_t i = 0; i < record->n_labels; i++) {
		pack_text(packer, record->labels[i].key);
		pack_text(packer, record->labels[i].value);
	}
}

static void pack_field(msgpack_packer *packer, const struct field *field,
		       const struct pool_journal_record *record)
{
	const void *value = (const char *)record + field->offset;

	pack_text(packer, field->key);
	switch (field->kind) {
	case KIND_TEXT:
		pack_text(packer, value);
		break;
	case KIND_U64:
		msgpack_pack_uint64(packer, *(const uint64_t *)value);
		break;
	case KIND_PID:
		msgpack_pack_uint64(packer, (uint64_t) * (const int *)value);
		break;
	case KIND_BOOL:
		if (*(const bool *)value) {
			msgpack_pack_true(packer);
		} else {
			msgpack_pack_false(packer);
		}
		break;
	case KIND_LABELS:
		pack_labels(packer, record);
		break;
	}
}

static void pack_record(struct base_writer *writer, const struct pool_journal_record *record)
{
	msgpack_packer packer;
	size_t n = 0;

	msgpack_packer_init(&packer, writer, pack_bytes);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		n += (fields[i].types & BIT(record->type)) != 0;
	}
	msgpack_pack_map(&packer, n);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (fields[i].types & BIT(record->type)) {
			pack_field(&packer, &fields[i], record);
		}
	}
}

/* Of a whole record but the checksum itself, which is its last eight bytes of header. */
static uint64_t checksum(const uint8_t *header, const uint8_t *payload, size_t length)
{
	return XXH3_64bits_withSeed(payload, length,
				    XXH3_64bits(header, POOL_JOURNAL_RECORD_HEADER_BYTES - 8));
}

void pool_journal_put_header(struct base_writer *writer, const char *boot_id)
{
	char id[POOL_JOURNAL_BOOT_ID_BYTES] = { 0 };
	size_t start = writer->size;

	memcpy(id, boot_id, strnlen(boot_id, sizeof(id)));
	base_writer_bytes(writer, POOL_JOURNAL_MAGIC, strlen(POOL_JOURNAL_MAGIC));
	base_writer_u32(writer, POOL_JOURNAL_VERSION);
	base_writer_u32(writer, 0);
	base_writer_bytes(writer, id, sizeof(id));
	base_writer_u32(writer, 0);
	if (writer->result == 0) {
		base_writer_u64(writer, XXH3_64bits(writer->data + start, writer->size - start));
	}
}

void pool_journal_put(struct base_writer *writer, const struct pool_journal_record *record)
{
	size_t start = writer->size;

	base_writer_u32(writer, POOL_JOURNAL_RECORD_MAGIC);
	base_writer_u32(writer, record->type);
	base_writer_u32(writer, 0); /* the length; then, after a reserved word, the checksum */
	base_writer_u32(writer, 0);
	base_writer_u64(writer, 0);
	pack_record(writer, record);
	if (writer->result < 0) {
		return;
	}

	uint8_t *header = writer->data + start;
	uint8_t *payload = header + POOL_JOURNAL_RECORD_HEADER_BYTES;
	size_t length = writer->size - start - POOL_JOURNAL_RECORD_HEADER_BYTES;

	base_store_u32(header + 8, (uint32_t)length);
	base_store_u64(header + 16, checksum(header, payload, length));
}

/* --- reading --- */

struct label_room {
	struct pool_label labels[POOL_LABELS_MAX];
	char text[POOL_LABELS_MAX * 2 * (POOL_LABEL_BYTES_MAX + 1)];
};

static void bad(struct base_reader *reader)
{
	reader->result = -EBADMSG;
}

/* Copies a string that fits into room bytes with a final NUL, and has none in it. */
static void read_text(struct base_reader *reader, char *out, size_t room)
{
	uint8_t type = base_reader_u8(reader);
	size_t length = 0;
	const void *text;

	if ((type & 0xe0) == 0xa0) {
		length = type & 0x1f;
	} else if (type == 0xd9) {
		length = base_reader_u8(reader);
	} else if (type == 0xda) {
		length = (size_t)base_reader_u8(reader) << 8;
		length |= base_reader_u8(reader);
	} else {
		bad(reader);
	}
	text = base_reader_bytes(reader, length);
	if (!text || length >= room || memchr(text, '\0', length)) {
		bad(reader);
		return;
	}
	memcpy(out, text, length);
	out[length] = '\0';
}

static uint64_t read_uint(struct base_reader *reader)
{
	uint8_t type = base_reader_u8(reader);
	uint64_t value = 0;

	if (type <= 0x7f) {
		return type;
	}
	if (type < 0xcc || type > 0xcf) {
		bad(reader);
		return 0;
	}
	for (unsigned i = 0; i < 1U << (type - 0xcc); i++) {
		value = value << 8 | base_reader_u8(reader);
	}
	return value;
}

static size_t read_map(struct base_reader *reader)
{
	uint8_t type = base_reader_u8(reader);
	size_t n;

	if ((type & 0xf0) == 0x80) {
		return type & 0x0f;
	}
	if (type != 0xde) {
		bad(reader);
		return 0;
	}
	n = (size_t)base_reader_u8(reader) << 8;
	return n | base_reader_u8(reader);
}

static bool read_bool(struct base_reader *reader)
{
	uint8_t type = base_reader_u8(reader);

	if (type != 0xc2 && type != 0xc3) {
		bad(reader);
	}
	return type == 0xc3;
}

static void read_labels(struct base_reader *reader, struct pool_journal_record *record,
			struct label_room *room)
{
	size_t n = read_map(reader);
	char *text = room->text;

	if (n > POOL_LABELS_MAX) {
		bad(reader);
		return;
	}
	for (size_t i = 0; i < 2 * n && reader->result == 0; i++) {
		const char **at = i % 2 ? &room->labels[i / 2].value : &room->labels[i / 2].key;

		read_text(reader, text, POOL_LABEL_BYTES_MAX + 1);
		if (reader->result == 0) {
			*at = text;
			text += strlen(text) + 1;
		}
	}
	record->labels = room->labels;
	record->n_labels = n;
}

static void read_field(struct base_reader *reader, const struct field *field,
		       struct pool_journal_record *record, struct label_room *room)
{
	void *value = (char *)record + field->offset;
	uint64_t number;

	switch (field->kind) {
	case KIND_TEXT:
		read_text(reader, value, field->room);
		break;
	case KIND_U64:
		*(uint64_t *)value = read_uint(reader);
		break;
	case KIND_PID:
		number = read_uint(reader);
		if (number == 0 || number > INT32_MAX) {
			bad(reader);
		}
		*(int *)value = (int)number;
		break;
	case KIND_BOOL:
		*(bool *)value = read_bool(reader);
		break;
	case KIND_LABELS:
		read_labels(reader, record, room);
		break;
	}
}

/* What a later version may have added: a number, a boolean or a string. */
static void skip_value(struct base_reader *reader)
{
	char text[POOL_LABEL_BYTES_MAX + 1];
	uint8_t type = reader->position < reader->size ? reader->data[reader->position] : 0xc1;

	if (type <= 0x7f || (type >= 0xcc && type <= 0xcf)) {
		read_uint(reader);
	} else if (type == 0xc2 || type == 0xc3) {
		read_bool(reader);
	} else {
		read_text(reader, text, sizeof(text));
	}
}

static int find_field(const char *key, enum pool_journal_type type)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (strcmp(fields[i].key, key) == 0 && fields[i].types & BIT(type)) {
			return (int)i;
		}
	}
	return -1;
}

static bool id_is_valid(const char *id)
{
	return strspn(id, "0123456789abcdef") == POOL_SANDBOX_ID_LENGTH &&
	       id[POOL_SANDBOX_ID_LENGTH] == '\0';
}

/* Each field of the type once. */
static bool read_payload(const uint8_t *payload, size_t length, struct pool_journal_record *record,
			 struct label_room *room)
{
	struct base_reader reader = base_reader_init(payload, length);
	size_t n = read_map(&reader);
	unsigned seen = 0, wanted = 0;

	for (size_t i = 0; i < n && reader.result == 0; i++) {
		char key[16] = "";
		int field;

		read_text(&reader, key, sizeof(key));
		field = find_field(key, record->type);
		if (field < 0) {
			skip_value(&reader);
		} else if (seen & BIT(field)) {
			bad(&reader);
		} else {
			seen |= BIT(field);
			read_field(&reader, &fields[field], record, room);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		wanted |= fields[i].types & BIT(record->type) ? BIT(i) : 0;
	}
	return base_reader_finish(&reader) == 0 && seen == wanted &&
	       (record->type == POOL_JOURNAL_PAGER || id_is_valid(record->id));
}

/* The length of the record that begins there, or 0: none does. */
static size_t read_record(const uint8_t *data, size_t size, struct pool_journal_record *record,
			  struct label_room *room)
{
	const uint8_t *payload = data + POOL_JOURNAL_RECORD_HEADER_BYTES;
	uint32_t type, length;

	if (size < POOL_JOURNAL_RECORD_HEADER_BYTES ||
	    base_load_u32(data) != POOL_JOURNAL_RECORD_MAGIC || base_load_u32(data + 12) != 0) {
		return 0;
	}
	type = base_load_u32(data + 4);
	length = base_load_u32(data + 8);
	if (type < POOL_JOURNAL_PAGER || type > POOL_JOURNAL_ENDED ||
	    length > POOL_JOURNAL_PAYLOAD_MAX || length > size - POOL_JOURNAL_RECORD_HEADER_BYTES ||
	    base_load_u64(data + 16) != checksum(data, payload, length)) {
		return 0;
	}
	memset(record, 0, sizeof(*record));
	record->type = (enum pool_journal_type)type;
	return read_payload(payload, length, record, room)
		       ? POOL_JOURNAL_RECORD_HEADER_BYTES + length
		       : 0;
}

static int check_header(const uint8_t *data, size_t size, const char *boot_id)
{
	const size_t body = POOL_JOURNAL_HEADER_BYTES - 8;

	if (size < POOL_JOURNAL_HEADER_BYTES ||
	    memcmp(data, POOL_JOURNAL_MAGIC, strlen(POOL_JOURNAL_MAGIC)) != 0) {
		return -EBADMSG;
	}
	if (base_load_u64(data + body) != XXH3_64bits(data, body)) {
		return -EBADMSG;
	}
	if (base_load_u32(data + 8) != POOL_JOURNAL_VERSION) {
		return -ENOTSUP;
	}
	return memcmp(data + 16, boot_id, POOL_JOURNAL_BOOT_ID_BYTES) == 0 ? 0 : -ESTALE;
}

int pool_journal_parse(const void *data, size_t size, const char *boot_id,
		       void (*fn)(void *userdata, const struct pool_journal_record *record),
		       void *userdata, struct pool_journal_found *ret_found)
{
	struct pool_journal_found found = { 0 };
	struct pool_journal_record record;
	struct label_room room;
	const uint8_t *bytes = data;
	int r = check_header(bytes, size, boot_id);

	if (r < 0) {
		return r;
	}
	for (size_t at = POOL_JOURNAL_HEADER_BYTES; at < size;) {
		size_t length = read_record(bytes + at, size - at, &record, &room);

		if (length > 0) {
			found.n_records++;
			fn(userdata, &record);
			at += length;
			continue;
		}
		if (found.damaged_bytes++ == 0) {
			found.damaged_at = at;
		}
		at++;
	}
	*ret_found = found;
	return 0;
}
