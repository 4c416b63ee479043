/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The files of a snapshot, format version 2. docs/formats.md says the same with examples.
 *
 * All integers are little-endian. A digest is XXH3-128 in its canonical byte order, the one that
 * its hexadecimal text shows. Padding and reserved bytes are zero, and a reader refuses others. No
 * byte of any file is unchecked: whatever is changed, cut off or added is refused, or it decodes to
 * the same memory (an LZ4 stream has more than one spelling).
 *
 * manifest
 *
 *       0   8  magic "WARMBOXM"
 *       8   4  version
 *      12   4  length n of the map
 *      16   n  msgpack map, the keys of manifest.c, each exactly once
 *    16+n  16  digest of the n + 16 bytes before; the file ends here
 *
 * state
 *
 *    Opaque here; the manifest has its size and digest.
 *
 * memory
 *
 *       0   8  magic "WARMBOXR"
 *       8   4  version
 *      12   4  bytes of guest memory a chunk covers: SNAPSHOT_CHUNK_BYTES
 *      16   8  bytes of guest memory, a multiple of SNAPSHOT_PAGE_BYTES
 *      24   8  number of chunks c: memory / chunk, rounded up
 *      32   8  pages in the working set w: at most SNAPSHOT_WS_PAGES_MAX and half of the memory
 *      40   8  where the data begins: the end of what stands here, rounded up to
 *              SNAPSHOT_DATA_ALIGN
 *      48   8  bytes of data; the file ends after them
 *      56   8  reserved, 0
 *      64      c table entries of 24 bytes:
 *                 0  8  offset in the file; 0 when not stored
 *                 8  4  bytes stored; 0 when not stored
 *                12  1  encoding: 0 zeros, not stored; 1 raw; 2 one LZ4 block
 *                13  3  reserved, 0
 *                16  8  XXH3-64 of the decoded chunk; 0 when not stored
 *              w page numbers of 4 bytes, in the order in which they are wanted; inside the
 *              memory, none twice
 *              w / SNAPSHOT_WS_BLOCK_PAGES, rounded up, times 8 bytes: XXH3-64 of each block
 *              zeros up to the data
 *              data: the w pages, raw and in that order, then the stored chunks in the order of
 *              the table, without a gap
 *
 *    The manifest's chunk_table_digest covers everything in front of the data. A raw chunk is as
 *    long as the memory it covers, an LZ4 chunk is shorter.
 *
 *    A page of the working set is stored twice: alone, and in its chunk. So chunks are decoded
 *    without knowing of the working set, and what is lost by a page that the working set lacks is
 *    time and nothing else.
 */

#include "snapshot/snapshot.h"

#define SNAPSHOT_MANIFEST_MAGIC		"WARMBOXM"
#define SNAPSHOT_MANIFEST_HEADER_BYTES	16
#define SNAPSHOT_MANIFEST_TRAILER_BYTES 16
#define SNAPSHOT_MANIFEST_MAX_BYTES	KIB(16)

#define SNAPSHOT_MEMORY_MAGIC	     "WARMBOXR"
#define SNAPSHOT_MEMORY_HEADER_BYTES 64
#define SNAPSHOT_TABLE_ENTRY_BYTES   24
#define SNAPSHOT_WS_CHECKSUM_BYTES   8
#define SNAPSHOT_DATA_ALIGN	     KIB(4) /* so that O_DIRECT can read the data */

#define SNAPSHOT_MAGIC_BYTES	8
#define SNAPSHOT_VCPUS_MAX	255
#define SNAPSHOT_CID_MIN	3	   /* 0 to 2 are reserved, as is UINT32_MAX */
#define SNAPSHOT_DISK_MAX_BYTES GIB(16384) /* no file system here holds larger files */

_Static_assert(sizeof(SNAPSHOT_MANIFEST_MAGIC) - 1 == SNAPSHOT_MAGIC_BYTES, "magic");
_Static_assert(sizeof(SNAPSHOT_MEMORY_MAGIC) - 1 == SNAPSHOT_MAGIC_BYTES, "magic");
_Static_assert(SNAPSHOT_MANIFEST_HEADER_BYTES == SNAPSHOT_MAGIC_BYTES + 4 + 4, "manifest header");
_Static_assert(SNAPSHOT_MEMORY_HEADER_BYTES == SNAPSHOT_MAGIC_BYTES + 2 * 4 + 6 * 8,
	       "memory header");
_Static_assert(SNAPSHOT_TABLE_ENTRY_BYTES == 8 + 4 + 1 + 3 + 8, "table entry");
_Static_assert(SNAPSHOT_DIGEST_LENGTH == 2 * SNAPSHOT_MANIFEST_TRAILER_BYTES, "digest");
_Static_assert(SNAPSHOT_CHUNK_BYTES % SNAPSHOT_PAGE_BYTES == 0, "chunks are whole pages");
_Static_assert(SNAPSHOT_MEMORY_MAX_BYTES / SNAPSHOT_PAGE_BYTES <= UINT32_MAX, "page numbers");
_Static_assert(SNAPSHOT_MANIFEST_MAX_BYTES > SNAPSHOT_CMDLINE_MAX + SNAPSHOT_DISKS_MAX * 128 + 2048,
	       "the largest manifest fits");

/* memory_bytes must be valid (at most SNAPSHOT_MEMORY_MAX_BYTES). */
static inline uint64_t snapshot_format_chunk_count(uint64_t memory_bytes)
{
	return (memory_bytes + SNAPSHOT_CHUNK_BYTES - 1) / SNAPSHOT_CHUNK_BYTES;
}

/* The most pages that a working set of this memory can have. */
static inline uint64_t snapshot_format_ws_max(uint64_t memory_bytes)
{
	return MIN(memory_bytes / SNAPSHOT_PAGE_BYTES / 2, (uint64_t)SNAPSHOT_WS_PAGES_MAX);
}

static inline uint64_t snapshot_format_ws_blocks(uint64_t ws_pages)
{
	return (ws_pages + SNAPSHOT_WS_BLOCK_PAGES - 1) / SNAPSHOT_WS_BLOCK_PAGES;
}

/* Where the padding in front of the data begins; ws_pages must be valid. */
static inline uint64_t snapshot_format_table_end(uint64_t n_chunks, uint64_t ws_pages)
{
	return SNAPSHOT_MEMORY_HEADER_BYTES + n_chunks * SNAPSHOT_TABLE_ENTRY_BYTES +
	       ws_pages * sizeof(uint32_t) +
	       snapshot_format_ws_blocks(ws_pages) * SNAPSHOT_WS_CHECKSUM_BYTES;
}

static inline uint64_t snapshot_format_data_offset(uint64_t n_chunks, uint64_t ws_pages)
{
	return base_align_up(snapshot_format_table_end(n_chunks, ws_pages), SNAPSHOT_DATA_ALIGN);
}

/* Pages in a block of the working set; block must be one. */
static inline uint32_t snapshot_format_ws_block_pages(uint64_t ws_pages, uint64_t block)
{
	return (uint32_t)MIN((uint64_t)SNAPSHOT_WS_BLOCK_PAGES,
			     ws_pages - block * SNAPSHOT_WS_BLOCK_PAGES);
}

/* Bytes of guest memory that chunk n covers; n must be a chunk. */
static inline uint32_t snapshot_format_chunk_covers(uint64_t memory_bytes, uint64_t n)
{
	return (uint32_t)MIN(SNAPSHOT_CHUNK_BYTES, memory_bytes - n * SNAPSHOT_CHUNK_BYTES);
}

static inline bool snapshot_format_memory_bytes_valid(uint64_t memory_bytes)
{
	return memory_bytes > 0 && memory_bytes <= SNAPSHOT_MEMORY_MAX_BYTES &&
	       memory_bytes % SNAPSHOT_PAGE_BYTES == 0;
}
