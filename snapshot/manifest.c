/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The manifest: one table says which keys there are, of which kind, and where they live in the
 * struct; encoding and decoding both walk it, and one function has every rule on the values.
 *
 * Decoding: header, length and digest first, then a walk over the bare msgpack items that refuses
 * types and counts no manifest has (msgpack-c allocates what a count claims), then msgpack-c, then
 * the table, then the rules. Each failure is -EBADMSG and names the key. No state, any thread.
 */

#include "snapshot/manifest.h"

#include "snapshot/digest.h"

#include <errno.h>
#include <msgpack.h>
#include <stdio.h>
#include <string.h>

/* Keys, values and the containers themselves; the largest manifest has about seventy. */
#define MANIFEST_ITEMS_MAX 128
/* How much of an unknown key is worth repeating. */
#define KEY_SHOWN_MAX 32

enum field_kind {
	FIELD_TEXT, /* char[room], NUL-terminated */
	FIELD_U32,
	FIELD_U64,
	FIELD_BOOL,
	FIELD_DISKS,
};

struct field {
	const char *key;
	enum field_kind kind;
	size_t offset;
	size_t room;
};

#define FIELD(type, key_, kind_, member)                                          \
	{                                                                         \
		.key = (key_), .kind = (kind_), .offset = offsetof(type, member), \
		.room = sizeof(((type *)NULL)->member)                            \
	}
#define MANIFEST_FIELD(key, kind, member) FIELD(struct snapshot_manifest, key, kind, member)
#define DISK_FIELD(key, kind, member)	  FIELD(struct snapshot_disk, key, kind, member)

static const struct field manifest_fields[] = {
	MANIFEST_FIELD("id", FIELD_TEXT, id),
	MANIFEST_FIELD("parent", FIELD_TEXT, parent),
	MANIFEST_FIELD("template", FIELD_TEXT, template_name),
	MANIFEST_FIELD("created_ns", FIELD_U64, created_realtime_ns),
	MANIFEST_FIELD("host_kind", FIELD_U32, host_kind),
	MANIFEST_FIELD("host_fingerprint", FIELD_U64, host_fingerprint),
	MANIFEST_FIELD("memory_bytes", FIELD_U64, memory_bytes),
	MANIFEST_FIELD("vcpus", FIELD_U32, n_vcpus),
	MANIFEST_FIELD("cid", FIELD_U32, guest_cid),
	MANIFEST_FIELD("kernel", FIELD_TEXT, kernel_digest),
	MANIFEST_FIELD("cmdline", FIELD_TEXT, cmdline),
	MANIFEST_FIELD("disks", FIELD_DISKS, disks),
	MANIFEST_FIELD("resident", FIELD_BOOL, has_resident),
	MANIFEST_FIELD("state_bytes", FIELD_U64, state_bytes),
	MANIFEST_FIELD("state_digest", FIELD_TEXT, state_digest),
	MANIFEST_FIELD("memory_file_bytes", FIELD_U64, memory_file_bytes),
	MANIFEST_FIELD("chunk_table_digest", FIELD_TEXT, chunk_table_digest),
	MANIFEST_FIELD("stored_chunks", FIELD_U64, stored_chunks),
	MANIFEST_FIELD("zero_chunks", FIELD_U64, zero_chunks),
	MANIFEST_FIELD("working_set_pages", FIELD_U64, ws_pages),
};

static const struct field disk_fields[] = {
	DISK_FIELD("digest", FIELD_TEXT, digest),
	DISK_FIELD("size_bytes", FIELD_U64, size_bytes),
	DISK_FIELD("read_only", FIELD_BOOL, read_only),
};

_Static_assert(ARRAY_SIZE(manifest_fields) <= 32, "`seen` has a bit for each");
_Static_assert(1 + 2 * ARRAY_SIZE(manifest_fields) +
			       SNAPSHOT_DISKS_MAX * (1 + 2 * ARRAY_SIZE(disk_fields)) <=
		       MANIFEST_ITEMS_MAX,
	       "the largest manifest has fewer items");

static int bad(struct base_error *error, const char *key, const char *why)
{
	return base_error_set(error, -EBADMSG, "manifest: %s: %s", key, why);
}

/* --- rules --- */

static int validate_disks(const struct snapshot_manifest *m, struct base_error *error)
{
	if (m->n_disks > SNAPSHOT_DISKS_MAX) {
		return bad(error, "disks", "too many");
	}
	for (uint32_t i = 0; i < m->n_disks; i++) {
		const struct snapshot_disk *disk = &m->disks[i];

		if (!snapshot_hex_is_valid(disk->digest, SNAPSHOT_DIGEST_LENGTH)) {
			return bad(error, "disks: digest", "not a digest");
		}
		if (disk->size_bytes == 0 || disk->size_bytes > SNAPSHOT_DISK_MAX_BYTES) {
			return bad(error, "disks: size_bytes", "out of range");
		}
		if (!disk->read_only) {
			return bad(error, "disks: read_only",
				   "a writable disk is not possible in this version");
		}
	}
	return 0;
}

/* What the writer fills in by itself. */
static int validate_files(const struct snapshot_manifest *m, struct base_error *error)
{
	uint64_t n_chunks = snapshot_format_chunk_count(m->memory_bytes);
	uint64_t data_offset, ws_bytes;

	if (m->state_bytes == 0 || m->state_bytes > SNAPSHOT_STATE_MAX_BYTES) {
		return bad(error, "state_bytes", "out of range");
	}
	if (!snapshot_hex_is_valid(m->state_digest, SNAPSHOT_DIGEST_LENGTH)) {
		return bad(error, "state_digest", "not a digest");
	}
	if (!snapshot_hex_is_valid(m->chunk_table_digest, SNAPSHOT_DIGEST_LENGTH)) {
		return bad(error, "chunk_table_digest", "not a digest");
	}
	if (m->stored_chunks > n_chunks || m->zero_chunks != n_chunks - m->stored_chunks) {
		return bad(error, "stored_chunks", "stored and zero chunks do not add up");
	}
	if (m->ws_pages > snapshot_format_ws_max(m->memory_bytes)) {
		return bad(error, "working_set_pages", "out of range");
	}
	data_offset = snapshot_format_data_offset(n_chunks, m->ws_pages);
	ws_bytes = m->ws_pages * SNAPSHOT_PAGE_BYTES;
	if (m->memory_file_bytes < data_offset + ws_bytes ||
	    m->memory_file_bytes > data_offset + ws_bytes + m->memory_bytes) {
		return bad(error, "memory_file_bytes", "out of range");
	}
	return 0;
}

static bool text_is_printable(const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f) {
			return false;
		}
	}
	return true;
}

int snapshot_manifest_validate(const struct snapshot_manifest *m, struct base_error *error)
{
	if (!snapshot_hex_is_valid(m->id, SNAPSHOT_ID_LENGTH)) {
		return bad(error, "id", "not 32 hexadecimal digits");
	}
	if (m->parent[0]) {
		return bad(error, "parent", "a parent is not possible in this version");
	}
	if (!snapshot_name_is_valid(m->template_name)) {
		return bad(error, "template", "not a valid name");
	}
	if (m->created_realtime_ns == 0 || m->created_realtime_ns > INT64_MAX) {
		return bad(error, "created_ns", "out of range");
	}
	if (!snapshot_format_memory_bytes_valid(m->memory_bytes)) {
		return bad(error, "memory_bytes", "out of range, or not whole pages");
	}
	if (m->n_vcpus == 0 || m->n_vcpus > SNAPSHOT_VCPUS_MAX) {
		return bad(error, "vcpus", "out of range");
	}
	if (m->guest_cid < SNAPSHOT_CID_MIN || m->guest_cid == UINT32_MAX) {
		return bad(error, "cid", "reserved number");
	}
	if (m->kernel_digest[0] &&
	    !snapshot_hex_is_valid(m->kernel_digest, SNAPSHOT_DIGEST_LENGTH)) {
		return bad(error, "kernel", "neither empty nor a digest");
	}
	if (!text_is_printable(m->cmdline)) {
		return bad(error, "cmdline", "has a control character");
	}

	int r = validate_disks(m, error);

	return r < 0 ? r : validate_files(m, error);
}

/* --- encoding --- */

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

static void pack_disks(msgpack_packer *packer, const struct snapshot_manifest *manifest);

static void pack_fields(msgpack_packer *packer, const struct field *fields, size_t n_fields,
			const void *object)
{
	msgpack_pack_map(packer, n_fields);
	for (const struct field *f = fields; f < fields + n_fields; f++) {
		const void *value = (const char *)object + f->offset;

		pack_text(packer, f->key);
		switch (f->kind) {
		case FIELD_TEXT:
			pack_text(packer, value);
			break;
		case FIELD_U32:
			msgpack_pack_uint32(packer, *(const uint32_t *)value);
			break;
		case FIELD_U64:
			msgpack_pack_uint64(packer, *(const uint64_t *)value);
			break;
		case FIELD_BOOL:
			if (*(const bool *)value) {
				msgpack_pack_true(packer);
			} else {
				msgpack_pack_false(packer);
			}
			break;
		case FIELD_DISKS:
			pack_disks(packer, object);
			break;
		}
	}
}

static void pack_disks(msgpack_packer *packer, const struct snapshot_manifest *manifest)
{
	msgpack_pack_array(packer, manifest->n_disks);
	for (uint32_t i = 0; i < manifest->n_disks; i++) {
		pack_fields(packer, disk_fields, ARRAY_SIZE(disk_fields), &manifest->disks[i]);
	}
}

int snapshot_manifest_encode(const struct snapshot_manifest *manifest, struct base_writer *writer,
			     struct base_error *error)
{
	size_t start = writer->size;
	int r = snapshot_manifest_validate(manifest, error);

	if (r < 0) {
		return r;
	}
	base_writer_bytes(writer, SNAPSHOT_MANIFEST_MAGIC, SNAPSHOT_MAGIC_BYTES);
	base_writer_u32(writer, SNAPSHOT_FORMAT_VERSION);
	base_writer_u32(writer, 0); /* the length, patched below */

	msgpack_packer packer;

	msgpack_packer_init(&packer, writer, pack_bytes);
	pack_fields(&packer, manifest_fields, ARRAY_SIZE(manifest_fields), manifest);
	r = base_writer_result(writer);
	if (r < 0) {
		return base_error_set_errno(error, r, "manifest");
	}
	base_writer_patch_u32(writer, start + SNAPSHOT_MAGIC_BYTES + 4,
			      (uint32_t)(writer->size - start - SNAPSHOT_MANIFEST_HEADER_BYTES));

	uint8_t digest[SNAPSHOT_DIGEST_BYTES];

	snapshot_digest_bytes(writer->data + start, writer->size - start, digest);
	base_writer_bytes(writer, digest, sizeof(digest));
	r = base_writer_result(writer);
	return r < 0 ? base_error_set_errno(error, r, "manifest") : 0;
}

/* --- decoding --- */

/*
 * Walks the items without making any, so that msgpack-c afterwards meets only the types a manifest
 * has and counts that are really there.
 */
static int walk_items(const void *data, size_t size, struct base_error *error)
{
	struct base_reader reader = base_reader_init(data, size);
	uint64_t pending = 1, items = 0;

	for (; pending > 0 && reader.result == 0; pending--) {
		uint8_t type = base_reader_u8(&reader);

		if (++items > MANIFEST_ITEMS_MAX) {
			return bad(error, "map", "too many items");
		}
		if (type <= 0x7f || type == 0xc2 || type == 0xc3) { /* small integer, boolean */
			continue;
		} else if (type <= 0x8f) {
			pending += 2 * (uint64_t)(type & 0x0f);
		} else if (type <= 0x9f) {
			pending += type & 0x0f;
		} else if (type <= 0xbf) {
			base_reader_bytes(&reader, type & 0x1f);
		} else if (type >= 0xcc && type <= 0xcf) { /* unsigned of 1, 2, 4, 8 bytes */
			base_reader_bytes(&reader, (size_t)1 << (type - 0xcc));
		} else if (type == 0xd9 || type == 0xda) { /* strings with 1, 2 bytes of length */
			const uint8_t *length = base_reader_bytes(&reader, type == 0xd9 ? 1 : 2);

			if (length) {
				base_reader_bytes(&reader, type == 0xd9 ? length[0]
									: (size_t)length[0] << 8 |
										  length[1]);
			}
		} else if (type == 0xde) { /* map with 2 bytes of count */
			const uint8_t *count = base_reader_bytes(&reader, 2);

			pending += count ? 2 * ((uint64_t)count[0] << 8 | count[1]) : 0;
		} else {
			return bad(error, "map", "has a type that no manifest has");
		}
	}
	if (base_reader_finish(&reader) < 0) {
		return bad(error, "map", "is cut off or has bytes after its end");
	}
	return 0;
}

static int unpack_fields(const msgpack_object *map, const struct field *fields, size_t n_fields,
			 const char *where, void *ret_object, struct base_error *error);

static int unpack_disks(const msgpack_object *value, struct snapshot_manifest *ret_manifest,
			struct base_error *error)
{
	if (value->type != MSGPACK_OBJECT_ARRAY) {
		return bad(error, "disks", "not an array");
	}
	if (value->via.array.size > SNAPSHOT_DISKS_MAX) {
		return bad(error, "disks", "too many");
	}
	ret_manifest->n_disks = value->via.array.size;
	for (uint32_t i = 0; i < value->via.array.size; i++) {
		int r = unpack_fields(&value->via.array.ptr[i], disk_fields,
				      ARRAY_SIZE(disk_fields), "disks: ", &ret_manifest->disks[i],
				      error);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* NULL, or why the value does not fit the field. */
static const char *unpack_value(const msgpack_object *value, const struct field *field,
				void *ret_value)
{
	switch (field->kind) {
	case FIELD_TEXT:
		if (value->type != MSGPACK_OBJECT_STR) {
			return "not a string";
		}
		if (value->via.str.size >= field->room) {
			return "too long";
		}
		if (value->via.str.size > 0) {
			if (memchr(value->via.str.ptr, '\0', value->via.str.size)) {
				return "has a NUL byte";
			}
			memcpy(ret_value, value->via.str.ptr, value->via.str.size);
		}
		return NULL;
	case FIELD_BOOL:
		if (value->type != MSGPACK_OBJECT_BOOLEAN) {
			return "not a boolean";
		}
		*(bool *)ret_value = value->via.boolean;
		return NULL;
	case FIELD_U32:
		if (value->type != MSGPACK_OBJECT_POSITIVE_INTEGER || value->via.u64 > UINT32_MAX) {
			return "not an unsigned 32-bit integer";
		}
		*(uint32_t *)ret_value = (uint32_t)value->via.u64;
		return NULL;
	case FIELD_U64:
		if (value->type != MSGPACK_OBJECT_POSITIVE_INTEGER) {
			return "not an unsigned integer";
		}
		*(uint64_t *)ret_value = value->via.u64;
		return NULL;
	case FIELD_DISKS:
		break;
	}
	return "not decodable";
}

static const struct field *find_field(const struct field *fields, size_t n_fields,
				      const msgpack_object *key)
{
	for (const struct field *f = fields; f < fields + n_fields; f++) {
		if (key->via.str.size == strlen(f->key) &&
		    memcmp(key->via.str.ptr, f->key, key->via.str.size) == 0) {
			return f;
		}
	}
	return NULL;
}

static int unknown_key(const msgpack_object *key, const char *where, struct base_error *error)
{
	char shown[KEY_SHOWN_MAX + 1] = { 0 };

	for (size_t i = 0; i < MIN((size_t)key->via.str.size, (size_t)KEY_SHOWN_MAX); i++) {
		char c = key->via.str.ptr[i];

		shown[i] = c > 0x20 && c < 0x7f ? c : '?';
	}
	return base_error_set(error, -EBADMSG, "manifest: %s%s: unknown key", where, shown);
}

static int unpack_pair(const msgpack_object_kv *pair, const struct field *field, const char *where,
		       void *ret_object, struct base_error *error)
{
	if (field->kind == FIELD_DISKS) {
		return unpack_disks(&pair->val, ret_object, error);
	}

	const char *why = unpack_value(&pair->val, field, (char *)ret_object + field->offset);

	if (why) {
		return base_error_set(error, -EBADMSG, "manifest: %s%s: %s", where, field->key,
				      why);
	}
	return 0;
}

/* ret_object must be all zeros. */
static int unpack_fields(const msgpack_object *map, const struct field *fields, size_t n_fields,
			 const char *where, void *ret_object, struct base_error *error)
{
	uint32_t seen = 0;

	if (map->type != MSGPACK_OBJECT_MAP) {
		return base_error_set(error, -EBADMSG, "manifest: %smap: not a map", where);
	}
	for (uint32_t i = 0; i < map->via.map.size; i++) {
		const msgpack_object_kv *pair = &map->via.map.ptr[i];

		if (pair->key.type != MSGPACK_OBJECT_STR) {
			return base_error_set(error, -EBADMSG,
					      "manifest: %smap: has a key that is no string",
					      where);
		}

		const struct field *field = find_field(fields, n_fields, &pair->key);

		if (!field) {
			return unknown_key(&pair->key, where, error);
		}

		uint32_t bit = UINT32_C(1) << (field - fields);

		if (seen & bit) {
			return base_error_set(error, -EBADMSG, "manifest: %s%s: given twice", where,
					      field->key);
		}
		seen |= bit;

		int r = unpack_pair(pair, field, where, ret_object, error);

		if (r < 0) {
			return r;
		}
	}
	for (size_t i = 0; i < n_fields; i++) {
		if (!(seen & UINT32_C(1) << i)) {
			return base_error_set(error, -EBADMSG, "manifest: %s%s: missing", where,
					      fields[i].key);
		}
	}
	return 0;
}

int snapshot_manifest_decode_map(const void *data, size_t size,
				 struct snapshot_manifest *ret_manifest, struct base_error *error)
{
	struct snapshot_manifest manifest = { 0 };
	int r = walk_items(data, size, error);

	if (r < 0) {
		return r;
	}

	msgpack_unpacked unpacked;
	size_t offset = 0;

	msgpack_unpacked_init(&unpacked);
	switch (msgpack_unpack_next(&unpacked, data, size, &offset)) {
	case MSGPACK_UNPACK_SUCCESS:
		r = unpack_fields(&unpacked.data, manifest_fields, ARRAY_SIZE(manifest_fields), "",
				  &manifest, error);
		break;
	case MSGPACK_UNPACK_NOMEM_ERROR:
		/* Also what msgpack-c says to nesting deeper than it follows. */
		r = bad(error, "map", "nested too deeply, or no memory");
		break;
	default:
		r = bad(error, "map", "not msgpack");
		break;
	}
	msgpack_unpacked_destroy(&unpacked);
	if (r == 0) {
		r = snapshot_manifest_validate(&manifest, error);
	}
	if (r == 0) {
		*ret_manifest = manifest;
	}
	return r;
}

int snapshot_manifest_decode(const void *data, size_t size, struct snapshot_manifest *ret_manifest,
			     struct base_error *error)
{
	struct base_reader reader = base_reader_init(data, size);

	if (size < SNAPSHOT_MANIFEST_HEADER_BYTES + SNAPSHOT_MANIFEST_TRAILER_BYTES) {
		return bad(error, "header", "the file is cut off");
	}
	if (memcmp(base_reader_bytes(&reader, SNAPSHOT_MAGIC_BYTES), SNAPSHOT_MANIFEST_MAGIC,
		   SNAPSHOT_MAGIC_BYTES) != 0) {
		return bad(error, "magic", "not a snapshot manifest");
	}

	uint32_t version = base_reader_u32(&reader);
	uint32_t length = base_reader_u32(&reader);

	if (version != SNAPSHOT_FORMAT_VERSION) {
		return base_error_set(error, -EBADMSG,
				      "manifest: version: %u, but only %u can be read", version,
				      SNAPSHOT_FORMAT_VERSION);
	}
	if (size > SNAPSHOT_MANIFEST_MAX_BYTES ||
	    length != size - SNAPSHOT_MANIFEST_HEADER_BYTES - SNAPSHOT_MANIFEST_TRAILER_BYTES) {
		return base_error_set(error, -EBADMSG,
				      "manifest: length: %u does not fit a file of %zu bytes",
				      length, size);
	}

	const void *map = base_reader_bytes(&reader, length);
	uint8_t digest[SNAPSHOT_DIGEST_BYTES];

	snapshot_digest_bytes(data, SNAPSHOT_MANIFEST_HEADER_BYTES + length, digest);
	if (memcmp(base_reader_bytes(&reader, sizeof(digest)), digest, sizeof(digest)) != 0) {
		return bad(error, "digest", "the content is damaged");
	}
	return snapshot_manifest_decode_map(map, length, ret_manifest, error);
}
