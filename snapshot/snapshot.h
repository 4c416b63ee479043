/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Snapshots on disk: the store, writing one, opening one, reading its memory.
 *
 * A store is a directory:
 *
 *    images/<digest>.img       root images, by XXH3-128 of their content, shared by templates
 *    snapshots/<id>/           manifest, state, memory: immutable once published
 *    templates/<name>          symbolic link to ../snapshots/<id>: what the name means now
 *    tmp/                      half-made things; whatever no live process has locked is removed by
 * the next writer
 *
 * Publishing: write into tmp/, fsync the files and the directory, rename into snapshots/, fsync,
 * then replace the template's link atomically. The exact formats stand in snapshot/format.h and
 * docs/formats.md.
 *
 * Everything read is hostile input: each function returns -EBADMSG with the file and the field in
 * `error` for whatever does not hold. No function here runs on an event loop: they block on disk.
 */

#include "base/error.h"
#include "base/util.h"

#include <stdbool.h>

#define SNAPSHOT_FORMAT_VERSION	  2
#define SNAPSHOT_CHUNK_BYTES	  KIB(64)
#define SNAPSHOT_PAGE_BYTES	  KIB(4)
#define SNAPSHOT_WS_BLOCK_PAGES	  16	/* of the working set, under one checksum */
#define SNAPSHOT_WS_PAGES_MAX	  65536 /* and at most half of the memory */
#define SNAPSHOT_NAME_MAX	  64 /* template names: [a-z0-9][a-z0-9._-]*, at most this many bytes */
#define SNAPSHOT_ID_LENGTH	  32 /* 128 random bits in lower-case hexadecimal */
#define SNAPSHOT_DIGEST_LENGTH	  32 /* XXH3-128 in lower-case hexadecimal */
#define SNAPSHOT_DISKS_MAX	  4
#define SNAPSHOT_ARGV_MAX	  64
#define SNAPSHOT_CMDLINE_MAX	  2048
#define SNAPSHOT_STATE_MAX_BYTES  MIB(4)
#define SNAPSHOT_MEMORY_MAX_BYTES GIB(64)

struct snapshot_disk {
	char digest[SNAPSHOT_DIGEST_LENGTH + 1]; /* of the image in images/ */
	uint64_t size_bytes;
	bool read_only; /* always true in format version 2 */
};

/* What is known of a snapshot. Strings are NUL-terminated in memory and length-prefixed on disk. */
struct snapshot_manifest {
	char id[SNAPSHOT_ID_LENGTH + 1];
	char parent[SNAPSHOT_ID_LENGTH + 1]; /* empty: none; format version 2 refuses any other */
	char template_name[SNAPSHOT_NAME_MAX + 1];
	uint64_t created_realtime_ns;
	uint32_t host_kind;	   /* enum vmm_host_kind, opaque here */
	uint64_t host_fingerprint; /* vmm_host_fingerprint(), opaque here */
	uint64_t memory_bytes;
	uint32_t n_vcpus;
	uint32_t guest_cid;
	char kernel_digest[SNAPSHOT_DIGEST_LENGTH + 1];
	char cmdline[SNAPSHOT_CMDLINE_MAX + 1]; /* for people */
	struct snapshot_disk disks[SNAPSHOT_DISKS_MAX];
	uint32_t n_disks;
	bool has_resident; /* a resident process waits in the guest */

	/* Filled by the writer; checked by the reader. */
	uint64_t state_bytes;
	char state_digest[SNAPSHOT_DIGEST_LENGTH + 1];
	uint64_t memory_file_bytes;
	char chunk_table_digest[SNAPSHOT_DIGEST_LENGTH + 1];
	uint64_t stored_chunks, zero_chunks;
	uint64_t ws_pages; /* in the working set */
};

/* --- store --- */

struct snapshot_store;

/* Opens the store at path, making the directories when create is set. The path is kept; thread-safe
 * afterwards. */
int snapshot_store_open(const char *path, bool create, struct snapshot_store **ret_store,
			struct base_error *error);
void snapshot_store_free(struct snapshot_store *store);
BASE_DEFINE_CLEANUP(struct snapshot_store *, snapshot_store_free)

/* True for a name that may name a template. */
bool snapshot_name_is_valid(const char *name);

/* Names of all templates, sorted; an array of n strings, freed by the caller (each and the array).
 */
int snapshot_store_list(struct snapshot_store *store, char ***ret_names, size_t *ret_n,
			struct base_error *error);

/* The id that a template's name means now, or the id itself where a snapshot is asked for by it.
 * Waits for a publication or removal that is under way. -ENOENT. */
int snapshot_store_lookup(struct snapshot_store *store, const char *name_or_id,
			  char ret_id[SNAPSHOT_ID_LENGTH + 1], struct base_error *error);

/* Takes a root image in: copies (reflink where possible) fd's content to images/ under its digest
 * unless it is there already. It stays there until a snapshot that names it is published through
 * this handle and removed again, or, without one, until the handle is freed. */
int snapshot_store_add_image(struct snapshot_store *store, int fd, struct snapshot_disk *ret_disk,
			     struct base_error *error);

/* Opens a disk image of a manifest read-only and checks its size (its digest only in
 * snapshot_verify()). */
int snapshot_store_open_image(struct snapshot_store *store, const struct snapshot_disk *disk,
			      int *ret_fd, struct base_error *error);

/* Removes the template's name, its snapshot when no other name points to it, and images that no
 * snapshot names. -ENOENT. */
int snapshot_store_remove(struct snapshot_store *store, const char *name, struct base_error *error);

/* XXH3-128 of a whole file in hexadecimal. */
int snapshot_digest_fd(int fd, char ret_digest[SNAPSHOT_DIGEST_LENGTH + 1],
		       struct base_error *error);

/* --- writing --- */

struct snapshot_writer;

/* Starts a snapshot in tmp/. Freed without publish, it leaves nothing behind. */
int snapshot_writer_new(struct snapshot_store *store, struct snapshot_writer **ret_writer,
			struct base_error *error);
void snapshot_writer_free(struct snapshot_writer *writer);
BASE_DEFINE_CLEANUP(struct snapshot_writer *, snapshot_writer_free)

/* An empty writable file that becomes `state`; borrowed from the writer. It must have something in
 * it, and nobody may write to it any more, when the snapshot is published. */
int snapshot_writer_state_fd(struct snapshot_writer *writer);

/*
 * Names the working set: n page numbers in the order in which they are wanted, which are copied.
 * Before snapshot_writer_memory(), and only when there is one. Of these pages the ones that are all
 * zero are left out, then what is past the limit at the end. -EINVAL there: a page is not inside
 * the memory, or in the list twice.
 */
int snapshot_writer_working_set(struct snapshot_writer *writer, const uint32_t *pages, size_t n,
				struct base_error *error);

/* Reads the guest's memory from a memfd (borrowed; holes are skipped), compresses it on n_threads
 * (0: all cores) and writes `memory`. progress (may be NULL) is called now and then from the
 * calling thread. */
int snapshot_writer_memory(struct snapshot_writer *writer, int memory_fd, uint64_t memory_bytes,
			   unsigned n_threads,
			   void (*progress)(void *userdata, uint64_t done_bytes,
					    uint64_t total_bytes),
			   void *userdata, struct base_error *error);

/* Completes the manifest (id, creation time when 0, digests, sizes), syncs and publishes under
 * manifest->template_name, replacing what the name meant before (the old snapshot is removed when
 * no name is left for it; sandboxes that use it keep their descriptors). On success *manifest holds
 * what was written. */
int snapshot_writer_publish(struct snapshot_writer *writer, struct snapshot_manifest *manifest,
			    struct base_error *error);

/* --- reading --- */

/* An open snapshot: manifest parsed, state and chunk table read and checked against their digests.
 */
struct snapshot;

/* Opens a template by name, or a snapshot by id. Holds its files open: a later removal does not
 * disturb it. -ENOENT. */
int snapshot_open(struct snapshot_store *store, const char *name_or_id,
		  struct snapshot **ret_snapshot, struct base_error *error);
void snapshot_free(struct snapshot *snapshot);
BASE_DEFINE_CLEANUP(struct snapshot *, snapshot_free)

const struct snapshot_manifest *snapshot_manifest(const struct snapshot *snapshot);

/* A memfd, sealed against all change, that holds the state; borrowed. The same bytes serve every
 * restore: read it with pread(), since all who hold it share one offset. */
int snapshot_state_fd(const struct snapshot *snapshot);

/* Its memory; borrowed. */
const struct snapshot_memory *snapshot_memory(const struct snapshot *snapshot);

/* --- the memory file --- */

/* Where each chunk of guest memory lies in a memory file, and the working set: the pages that a
 * sandbox needs first, stored once more, raw and one after the other. Immutable: any thread may use
 * it. */
struct snapshot_memory;

enum snapshot_encoding {
	SNAPSHOT_CHUNK_ZERO = 0, /* not stored; offset and length are 0 */
	SNAPSHOT_CHUNK_RAW = 1,
	SNAPSHOT_CHUNK_LZ4 = 2,
};

struct snapshot_chunk {
	uint64_t offset;   /* in the memory file */
	uint32_t length;   /* bytes stored; 1..SNAPSHOT_CHUNK_BYTES */
	uint8_t encoding;  /* enum snapshot_encoding */
	uint64_t checksum; /* XXH3-64 of the decoded chunk */
};

/* Reads and checks everything in front of the data. fd is borrowed: the object keeps a duplicate.
 * memory_bytes and table_digest are those of the manifest. -EBADMSG says "memory: <field>: why". */
int snapshot_memory_open(int fd, uint64_t memory_bytes, const char *table_digest,
			 struct snapshot_memory **ret_memory, struct base_error *error);
void snapshot_memory_free(struct snapshot_memory *memory);
BASE_DEFINE_CLEANUP(struct snapshot_memory *, snapshot_memory_free)

/* The file; borrowed, read-only, offsets as in the chunks. */
int snapshot_memory_fd(const struct snapshot_memory *memory);
/* Bytes of guest memory. */
uint64_t snapshot_memory_bytes(const struct snapshot_memory *memory);

/* Chunk n covers guest memory from n * SNAPSHOT_CHUNK_BYTES; the last may be shorter. */
uint64_t snapshot_memory_chunk_count(const struct snapshot_memory *memory);
/* How many of them are stored. */
uint64_t snapshot_memory_stored_chunks(const struct snapshot_memory *memory);
/* Already validated: inside the file, not overlapping the table, length within bounds. */
const struct snapshot_chunk *snapshot_memory_chunk(const struct snapshot_memory *memory,
						   uint64_t n);
/* Decodes stored bytes (chunk->length of them) of chunk n to out (as many bytes as the chunk
 * covers) and checks the checksum; -EBADMSG. */
int snapshot_memory_decode(const struct snapshot_memory *memory, uint64_t n, const void *stored,
			   void *out, struct base_error *error);

/* The working set: page numbers (guest address / SNAPSHOT_PAGE_BYTES), all inside guest memory,
 * none twice, in the order in which they are wanted; as many as snapshot_memory_ws_pages(), 0 when
 * the template has none. A page that is all zero is not in it. */
uint64_t snapshot_memory_ws_pages(const struct snapshot_memory *memory);
const uint32_t *snapshot_memory_ws(const struct snapshot_memory *memory);
/* Where its pages begin in the file, without a gap; a multiple of SNAPSHOT_PAGE_BYTES. */
uint64_t snapshot_memory_ws_offset(const struct snapshot_memory *memory);
/* Checks the content of block b, pages b * SNAPSHOT_WS_BLOCK_PAGES and on of the working set (the
 * last block may have fewer), against its checksum; -EBADMSG. */
int snapshot_memory_ws_check(const struct snapshot_memory *memory, uint64_t block, const void *data,
			     struct base_error *error);

/* Reads everything: all digests, all chunks, all disks. 0 or the first fault found. */
int snapshot_verify(struct snapshot_store *store, const char *name, struct base_error *error);
