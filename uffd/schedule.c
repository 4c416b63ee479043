/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What is read next, of all images.
 *
 * Three kinds of read, in this order: chunks that a fault waits for, with their neighbours in
 * memory and file that are waited for as well, into small buffers; the working set, in large
 * pieces, front to back; and in the background the other chunks, in the order of the file, about a
 * megabyte at a time. A background read starts only while nothing is waited for and the working set
 * is in memory, within the image's limit of bytes in a second, and few at once, since what is in
 * the disk's queue is in front of the next fault. Images take turns.
 *
 * A finished read is cut into pieces for the workers. Those that somebody waits for are urgent; a
 * fault on a chunk that is read already makes its piece urgent where it lies. What a read lacks (a
 * file system may refuse O_DIRECT only now, a disk may fail, a file may be cut) is read through the
 * plain descriptor by a worker, whose error counts.
 *
 * An image that failed or is gone is not looked at; what is under way for it comes back here and
 * frees its buffer. Main thread, but for finish_run().
 */

#include "uffd/pager.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>

/* Background reads in the ring at once: enough to keep a disk busy while one is decoded. */
#define BACKGROUND_READS_MAX 3

/* --- one read --- */

static struct uffd_read *read_new(struct uffd_image *image, enum uffd_read_kind kind)
{
	struct uffd_pager *pager = image->pager;
	struct uffd_buffer *buffer = uffd_buffer_get(
		&pager->ring, kind == UFFD_READ_DEMAND ? UFFD_BUFFER_SMALL : UFFD_BUFFER_LARGE);

	if (!buffer) {
		return NULL;
	}

	struct uffd_read *read = &pager->reads[buffer - pager->ring.buffers];

	read->image = image;
	read->buffer = buffer;
	read->kind = kind;
	read->size = read->got = 0;
	read->n_pieces = read->n_left = 0;
	base_list_init(&read->job.link);
	image->n_reads++;
	return read;
}

static void read_free(struct uffd_read *read)
{
	read->image->n_reads--;
	uffd_buffer_put(&read->image->pager->ring, read->buffer);
	read->image = NULL;
}

static void submit(struct uffd_read *read)
{
	struct uffd_image *image = read->image;

	image->counters.read_bytes += read->size;
	image->pager->n_background += read->kind == UFFD_READ_BACKGROUND;
	uffd_ring_read_buffer(&image->pager->ring,
			      image->direct ? image->direct_fd : image->file_fd, read->buffer,
			      (unsigned)base_align_up(read->size, UFFD_DIRECT_ALIGN),
			      read->file_offset, UFFD_TAG_READ, read);
}

static struct uffd_piece *add_piece(struct uffd_read *read, uint64_t first, uint64_t end)
{
	struct uffd_piece *piece = &read->pieces[read->n_pieces++];

	*piece = (struct uffd_piece){ .read = read, .first = first, .end = end };
	base_list_init(&piece->job.link);
	return piece;
}

/* Adds stored chunk n behind those that the read has. False when it does not belong there. */
static bool add_chunk(struct uffd_read *read, uint64_t n)
{
	const struct snapshot_chunk *chunk = snapshot_memory_chunk(read->image->memory, n);
	struct uffd_piece *piece = read->n_pieces > 0 ? &read->pieces[read->n_pieces - 1] : NULL;

	if (!piece) {
		read->file_offset = chunk->offset & ~(UFFD_DIRECT_ALIGN - 1);
	} else if (chunk->offset != read->file_offset + read->size ||
		   read->size >= UFFD_LARGE_TARGET_BYTES) {
		return false;
	}
	if (!piece || n - piece->first >= UFFD_PIECE_CHUNKS) {
		if (read->n_pieces == UFFD_READ_PIECES) {
			return false;
		}
		piece = add_piece(read, n, n);
	}
	piece->end = n + 1;
	read->size = chunk->offset + chunk->length - read->file_offset;
	read->image->chunks[n].state = UFFD_CHUNK_READING;
	return true;
}

/* --- what is asked for --- */

static bool is_wanted(const struct uffd_image *image, uint64_t n)
{
	return n < image->n_chunks && image->chunks[n].state == UFFD_CHUNK_WANTED;
}

static bool has_demand(struct uffd_image *image)
{
	while (image->next_wanted < image->n_wanted &&
	       !is_wanted(image, image->wanted[image->next_wanted])) {
		image->next_wanted++;
	}
	return image->next_wanted < image->n_wanted;
}

/* The chunk that has waited longest, and around it what else is waited for. */
static bool read_demand(struct uffd_image *image)
{
	struct uffd_read *read = has_demand(image) ? read_new(image, UFFD_READ_DEMAND) : NULL;

	if (!read) {
		return false;
	}

	uint64_t oldest = image->wanted[image->next_wanted];
	uint64_t first = oldest, n;

	while (oldest - first + 1 < UFFD_SMALL_CHUNKS && first > 0 && is_wanted(image, first - 1)) {
		first--;
	}
	for (n = first; n - first < UFFD_SMALL_CHUNKS && is_wanted(image, n); n++) {
		if (!add_chunk(read, n)) {
			break;
		}
	}
	submit(read);
	return true;
}

void uffd_schedule_want(struct uffd_image *image, uint64_t n)
{
	struct uffd_pager *pager = image->pager;

	if (image->chunks[n].state == UFFD_CHUNK_ABSENT) {
		image->chunks[n].state = UFFD_CHUNK_WANTED;
		image->wanted[image->n_wanted++] = (uint32_t)n;
		pager->n_demand++;
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(pager->reads); i++) {
		struct uffd_read *read = &pager->reads[i];

		if (read->image != image || read->kind == UFFD_READ_WORKING_SET) {
			continue;
		}
		/* Before it is read there is nothing to hurry: hand_out() sees that it is awaited.
		 */
		for (unsigned p = 0; read->n_left > 0 && p < read->n_pieces; p++) {
			if (n >= read->pieces[p].first && n < read->pieces[p].end) {
				uffd_workers_hurry(&pager->workers, &read->pieces[p].job);
			}
		}
	}
}

void uffd_schedule_forget(struct uffd_image *image)
{
	while (image->state == UFFD_IMAGE_FILLING && has_demand(image)) {
		image->chunks[image->wanted[image->next_wanted]].state = UFFD_CHUNK_ABSENT;
		image->pager->n_demand--;
	}
}

/* --- what is read ahead --- */

static bool has_working_set(const struct uffd_image *image)
{
	return image->ws_left > 0 && image->next_page < snapshot_memory_ws_pages(image->memory);
}

static bool read_working_set(struct uffd_image *image)
{
	struct uffd_read *read =
		has_working_set(image) ? read_new(image, UFFD_READ_WORKING_SET) : NULL;

	if (!read) {
		return false;
	}

	uint64_t first = image->next_page;
	uint64_t end = MIN(first + UFFD_LARGE_TARGET_BYTES / SNAPSHOT_PAGE_BYTES,
			   snapshot_memory_ws_pages(image->memory));

	read->file_offset = snapshot_memory_ws_offset(image->memory) + first * SNAPSHOT_PAGE_BYTES;
	read->size = (end - first) * SNAPSHOT_PAGE_BYTES;
	for (uint64_t i = first; i < end; i += UFFD_PIECE_PAGES) {
		add_piece(read, i, MIN(i + UFFD_PIECE_PAGES, end));
	}
	image->next_page = end;
	submit(read);
	return true;
}

/* The first chunk that nobody has asked for and that is to be read, or the end. */
static uint64_t next_absent(const struct uffd_image *image, uint64_t n)
{
	while (n < image->n_chunks &&
	       (image->chunks[n].state != UFFD_CHUNK_ABSENT ||
		snapshot_memory_chunk(image->memory, n)->encoding == SNAPSHOT_CHUNK_ZERO)) {
		n++;
	}
	return n;
}

static bool read_background(struct uffd_image *image, uint64_t now_ns)
{
	struct uffd_pager *pager = image->pager;

	image->next_background = next_absent(image, image->next_background);
	if (image->next_background == image->n_chunks || image->background_ns > now_ns ||
	    pager->n_background >= BACKGROUND_READS_MAX) {
		return false;
	}

	struct uffd_read *read = read_new(image, UFFD_READ_BACKGROUND);
	uint64_t bytes = 0, n = image->next_background;

	if (!read) {
		return false;
	}
	for (; n < image->n_chunks && add_chunk(read, n); n = next_absent(image, n)) {
		bytes += uffd_image_covers(image, n);
	}
	image->next_background = n;
	if (image->background_bytes_per_s > 0) {
		/* A read has 4 MiB of guest memory at most: the product fits. */
		image->background_ns =
			now_ns + bytes * NSEC_PER_SEC / image->background_bytes_per_s;
	}
	submit(read);
	return true;
}

/* --- turns --- */

/* One read of the image, if there is one to start in this phase. */
static bool start(struct uffd_image *image, enum uffd_read_kind kind, uint64_t now_ns)
{
	if (image->state != UFFD_IMAGE_FILLING) {
		return false;
	}
	switch (kind) {
	case UFFD_READ_DEMAND:
		return read_demand(image);
	case UFFD_READ_WORKING_SET:
		return read_working_set(image);
	default:
		return image->pager->n_demand == 0 && image->ws_left == 0 &&
		       read_background(image, now_ns);
	}
}

static void start_all(struct uffd_pager *pager, enum uffd_read_kind kind, uint64_t now_ns)
{
	bool started;

	do {
		started = false;
		BASE_LIST_FOR_EACH(link, &pager->images)
		{
			started |= start(CONTAINER_OF(link, struct uffd_image, link), kind, now_ns);
		}
	} while (started);
}

uint64_t uffd_schedule(struct uffd_pager *pager)
{
	uint64_t now_ns = base_clock_monotonic_ns(), deadline_ns = UINT64_MAX;

	if (!base_list_is_empty(&pager->images)) {
		struct base_link *first = pager->images.next;

		base_list_remove(first);
		base_list_append(&pager->images, first);
	}
	start_all(pager, UFFD_READ_DEMAND, now_ns);
	start_all(pager, UFFD_READ_WORKING_SET, now_ns);
	start_all(pager, UFFD_READ_BACKGROUND, now_ns);
	BASE_LIST_FOR_EACH(link, &pager->images)
	{
		struct uffd_image *image = CONTAINER_OF(link, struct uffd_image, link);

		if (image->state == UFFD_IMAGE_FILLING && image->background_ns > now_ns) {
			deadline_ns = MIN(deadline_ns, image->background_ns);
		}
	}
	return deadline_ns;
}

/* --- what was read --- */

/* What of the piece is still to be written; whether somebody waits for any of it. */
static bool look_at(struct uffd_piece *piece)
{
	const struct uffd_image *image = piece->read->image;
	bool awaited = false;

	for (uint64_t n = piece->first; n < piece->end; n++) {
		const struct uffd_chunk *chunk = &image->chunks[n];
		bool stored = chunk->state == UFFD_CHUNK_READING;

		piece->missing[n - piece->first] =
			stored ? (uint16_t)(uffd_image_pages(image, n) & ~chunk->present) : 0;
		awaited |= stored && chunk->awaited;
	}
	return awaited;
}

static void count_chunk(struct uffd_read *read)
{
	if (read->kind == UFFD_READ_DEMAND) {
		read->image->counters.demand_chunks++;
		read->image->pager->n_demand--;
	} else {
		read->image->counters.background_chunks++;
	}
}

/* The pages of a piece are there now. */
static void piece_written(struct uffd_piece *piece)
{
	struct uffd_image *image = piece->read->image;

	if (piece->read->kind == UFFD_READ_WORKING_SET) {
		const uint32_t *pages = snapshot_memory_ws(image->memory);

		for (uint64_t i = piece->first; i < piece->end; i++) {
			uint64_t n = pages[i] / UFFD_CHUNK_PAGES;

			uffd_image_present(image, n, (uint16_t)(1U << pages[i] % UFFD_CHUNK_PAGES),
					   true);
			uffd_vm_wake_chunk(image, n);
		}
		return;
	}
	for (uint64_t n = piece->first; n < piece->end; n++) {
		if (image->chunks[n].state == UFFD_CHUNK_READING) {
			image->chunks[n].state = UFFD_CHUNK_PRESENT;
			count_chunk(piece->read);
			uffd_image_present(image, n, piece->missing[n - piece->first], false);
			uffd_vm_wake_chunk(image, n);
		}
	}
}

static void piece_done(struct uffd_job *job)
{
	struct uffd_piece *piece = CONTAINER_OF(job, struct uffd_piece, job);
	struct uffd_read *read = piece->read;

	if (piece->result < 0) {
		uffd_image_fail(read->image, piece->result, piece->error);
		free(piece->error);
		read->image->pager->n_demand -=
			read->kind == UFFD_READ_DEMAND ? piece->end - piece->first : 0;
	} else {
		piece_written(piece);
	}
	if (--read->n_left == 0) {
		read_free(read);
	}
}

static void hand_out(struct uffd_read *read)
{
	struct uffd_pager *pager = read->image->pager;

	read->n_left = read->n_pieces;
	for (unsigned i = 0; i < read->n_pieces; i++) {
		struct uffd_piece *piece = &read->pieces[i];
		bool urgent = read->kind != UFFD_READ_BACKGROUND;

		if (read->kind != UFFD_READ_WORKING_SET) {
			urgent |= look_at(piece);
		}
		piece->job.run = uffd_fill_run;
		piece->job.done = piece_done;
		/* The main thread takes the first one itself. */
		uffd_workers_push(&pager->workers, &piece->job,
				  urgent ? UFFD_JOB_URGENT : UFFD_JOB_BACKGROUND,
				  !urgent || pager->again);
		pager->again |= urgent;
	}
}

/* Nothing of it is going to be written. */
static void abandon(struct uffd_read *read)
{
	for (unsigned i = 0; read->kind == UFFD_READ_DEMAND && i < read->n_pieces; i++) {
		read->image->pager->n_demand -=
			(unsigned)(read->pieces[i].end - read->pieces[i].first);
	}
	read_free(read);
}

/* On a worker: reads what the ring did not. */
static void finish_run(struct uffd_job *job, uint8_t *scratch)
{
	struct uffd_read *read = CONTAINER_OF(job, struct uffd_read, job);

	read->job_result =
		base_fd_pread_full(read->image->file_fd, read->buffer->data + read->got,
				   read->size - read->got, (off_t)(read->file_offset + read->got));
}

static void finish_done(struct uffd_job *job)
{
	struct uffd_read *read = CONTAINER_OF(job, struct uffd_read, job);

	if (read->job_result == -ENODATA) {
		uffd_image_fail(read->image, -EBADMSG, "memory: size: the file was cut while open");
	} else if (read->job_result < 0) {
		struct base_error error = { 0 };

		base_error_set_errno(&error, read->job_result, "memory: cannot read it");
		uffd_image_fail(read->image, read->job_result, error.text);
	}
	if (read->image->state == UFFD_IMAGE_FILLING) {
		hand_out(read);
	} else {
		abandon(read);
	}
}

void uffd_schedule_read_done(struct uffd_read *read, int result)
{
	struct uffd_image *image = read->image;
	struct uffd_pager *pager = image->pager;

	pager->n_background -= read->kind == UFFD_READ_BACKGROUND;
	if (result == -EINVAL) {
		image->direct = false; /* the file system takes the flag and refuses the read */
	}
	read->got = MIN((size_t)MAX(result, 0), read->size);
	if (image->state != UFFD_IMAGE_FILLING) {
		abandon(read);
	} else if (read->got == read->size) {
		hand_out(read);
	} else {
		read->job.run = finish_run;
		read->job.done = finish_done;
		uffd_workers_push(&pager->workers, &read->job, UFFD_JOB_BLOCKING, true);
	}
}
