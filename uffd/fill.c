/* SPDX-License-Identifier: Apache-2.0 */

/*
 * From what was read to pages of the memfd.
 *
 * A chunk is decoded into scratch memory, its checksum is compared, and only then are the pages
 * that are missing written, with write(). Never through a mapping: a fault elsewhere finds a page
 * that a store has begun to fill, half-filled, and takes it. write() instead puts a page into the
 * file locked, fills it and then lets go of it, so that others see all of it or wait. That holds
 * while the source cannot vanish in the middle of a page, when the kernel would let go of what it
 * has with zeros behind it: scratch and buffers are registered with the ring and so pinned. It also
 * needs memfds of small pages, which uffd_host_check() makes sure of.
 *
 * Writing a page that is there already, with the same bytes, disturbs nobody. Any thread; what goes
 * wrong is left in the piece.
 */

#include "uffd/pager.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static int write_pages(const struct uffd_image *image, uint64_t page, uint64_t n_pages,
		       const uint8_t *data)
{
	return base_fd_pwrite_full(image->memfd, data, n_pages * SNAPSHOT_PAGE_BYTES,
				   (off_t)(page * SNAPSHOT_PAGE_BYTES));
}

/* Writes those pages of a chunk that are set in `missing`, each run of them at once. */
static int write_chunk(const struct uffd_image *image, uint64_t n, uint16_t missing,
		       const uint8_t *data)
{
	for (unsigned first = 0, end; first < UFFD_CHUNK_PAGES; first = end) {
		end = first + 1;
		if (!(missing & 1U << first)) {
			continue;
		}
		while (end < UFFD_CHUNK_PAGES && missing & 1U << end) {
			end++;
		}

		int r = write_pages(image, n * UFFD_CHUNK_PAGES + first, end - first,
				    data + first * SNAPSHOT_PAGE_BYTES);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int fill_chunks(const struct uffd_piece *piece, uint8_t *scratch, struct base_error *error)
{
	const struct uffd_read *read = piece->read;
	const struct uffd_image *image = read->image;

	for (uint64_t n = piece->first; n < piece->end; n++) {
		const struct snapshot_chunk *chunk = snapshot_memory_chunk(image->memory, n);
		uint16_t missing = piece->missing[n - piece->first];

		if (!missing) {
			continue;
		}

		int r = snapshot_memory_decode(
			image->memory, n, read->buffer->data + (chunk->offset - read->file_offset),
			scratch, error);

		if (r < 0) {
			return r;
		}
		r = write_chunk(image, n, missing, scratch);
		if (r < 0) {
			return base_error_set_errno(error, r, "cannot fill the image");
		}
	}
	return 0;
}

/* Pages of the working set lie one after the other in the order in which they are wanted; where
 * that is also their order in memory, they are written at once. */
static int write_working_set(const struct uffd_image *image, uint64_t first, uint64_t end,
			     const uint8_t *data)
{
	const uint32_t *pages = snapshot_memory_ws(image->memory);

	for (uint64_t i = first, run; i < end; i = run) {
		run = i + 1;
		while (run < end && pages[run] == pages[run - 1] + 1) {
			run++;
		}

		int r = write_pages(image, pages[i], run - i,
				    data + (i - first) * SNAPSHOT_PAGE_BYTES);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int fill_working_set(const struct uffd_piece *piece, struct base_error *error)
{
	const struct uffd_read *read = piece->read;
	const struct uffd_image *image = read->image;
	uint64_t offset = snapshot_memory_ws_offset(image->memory) - read->file_offset;
	const uint8_t *data = read->buffer->data + offset + piece->first * SNAPSHOT_PAGE_BYTES;

	for (uint64_t i = piece->first; i < piece->end; i += SNAPSHOT_WS_BLOCK_PAGES) {
		int r = snapshot_memory_ws_check(image->memory, i / SNAPSHOT_WS_BLOCK_PAGES,
						 data + (i - piece->first) * SNAPSHOT_PAGE_BYTES,
						 error);

		if (r < 0) {
			return r;
		}
	}

	int r = write_working_set(image, piece->first, piece->end, data);

	return r < 0 ? base_error_set_errno(error, r, "cannot fill the image") : 0;
}

void uffd_fill_run(struct uffd_job *job, uint8_t *scratch)
{
	struct uffd_piece *piece = CONTAINER_OF(job, struct uffd_piece, job);
	struct base_error error = { 0 };

	piece->result = piece->read->kind == UFFD_READ_WORKING_SET
				? fill_working_set(piece, &error)
				: fill_chunks(piece, scratch, &error);
	if (piece->result < 0) {
		piece->error = strdup(error.text);
	}
}

int uffd_fill_zero(const struct uffd_image *image, uint64_t n)
{
	int r;

	do {
		r = fallocate(image->memfd, 0, (off_t)(n * SNAPSHOT_CHUNK_BYTES),
			      (off_t)uffd_image_covers(image, n));
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}
