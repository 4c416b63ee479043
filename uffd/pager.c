/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The life of an image.
 *
 * IMAGE makes it and a worker opens it; then faults and the schedule fill it. When no page is
 * missing and no read or job is left that could still write, its VMs are let go, so many in a round
 * that the faults of other images need not wait long, and a worker seals the memfd, which waits for
 * pages that something holds pinned and is tried again when they stay so. Then everything is given
 * back but the id.
 *
 * What goes wrong is said once, in the reply to IMAGE or as an event, and is the end of this image
 * alone. IMAGE_GONE ends any: it waits for what is under way, a worker closes what there is (the
 * last descriptor of a memfd frees its pages, which takes long), and only then it is answered. With
 * the process, all of it ends at once: the kernel gives back what it holds.
 *
 * Main thread, but for the three run functions.
 */

#include "uffd/pager.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* VMs that are let go in a row: each takes a lock of its process, about 10 µs in all. */
#define RELEASES_A_ROUND 32
#define SEAL_RETRY_NS	 (100 * NSEC_PER_MSEC)

static void start_job(struct uffd_image *image, void (*run)(struct uffd_job *, uint8_t *),
		      void (*done)(struct uffd_job *))
{
	image->job.run = run;
	image->job.done = done;
	image->job_runs = true;
	image->job_result = 0;
	uffd_workers_push(&image->pager->workers, &image->job, UFFD_JOB_BLOCKING, true);
}

static void give_back(struct uffd_image *image)
{
	image->memfd = base_fd_close(image->memfd);
	image->file_fd = base_fd_close(image->file_fd);
	image->direct_fd = base_fd_close(image->direct_fd);
	snapshot_memory_free(TAKE_PTR(image->memory));
	free(TAKE_PTR(image->chunks));
	free(TAKE_PTR(image->wanted));
}

static void image_free(struct uffd_image *image)
{
	base_list_remove(&image->link);
	image->pager->n_images--;
	give_back(image);
	free(image);
}

/* --- its beginning --- */

struct uffd_image *uffd_image_find(struct uffd_pager *pager, uint64_t id)
{
	BASE_LIST_FOR_EACH(link, &pager->images)
	{
		struct uffd_image *image = CONTAINER_OF(link, struct uffd_image, link);

		if (image->id == id && image->state != UFFD_IMAGE_CLOSING) {
			return image;
		}
	}
	return NULL;
}

/* Its seals, or -EINVAL. */
static int check_memfd(int memfd, uint64_t bytes, struct base_error *error)
{
	struct stat st;
	int flags = fcntl(memfd, F_GETFL), seals = fcntl(memfd, F_GET_SEALS);

	if (fstat(memfd, &st) < 0 || flags < 0 || seals < 0 || (flags & O_ACCMODE) != O_RDWR) {
		return base_error_set(error, -EINVAL, "image: not a writable memfd");
	}
	if ((uint64_t)st.st_size != bytes) {
		return base_error_set(error, -EINVAL,
				      "image: the memfd has %llu bytes instead of %llu",
				      (unsigned long long)st.st_size, (unsigned long long)bytes);
	}
	if (!(seals & F_SEAL_SHRINK) || !(seals & F_SEAL_GROW)) {
		return base_error_set(error, -EINVAL, "image: the memfd's size is not sealed");
	}
	if (!(seals & F_SEAL_WRITE) && seals & (F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)) {
		return base_error_set(error, -EINVAL,
				      "image: the memfd is sealed and cannot be filled");
	}
	return seals;
}

static int check_file(int fd, struct base_error *error)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		return base_error_set(error, -EINVAL, "memory: not a regular file");
	}
	return 0;
}

static int open_arrays(struct uffd_image *image)
{
	image->n_chunks = snapshot_memory_chunk_count(image->memory);
	image->chunks = calloc(image->n_chunks, sizeof(*image->chunks));
	image->wanted = calloc(image->n_chunks, sizeof(*image->wanted));
	if (!image->chunks || !image->wanted) {
		return -ENOMEM;
	}
	for (uint64_t n = 0; n < image->n_chunks; n++) {
		if (snapshot_memory_chunk(image->memory, n)->encoding != SNAPSHOT_CHUNK_ZERO) {
			image->missing_bytes += uffd_image_covers(image, n);
		}
	}

	const uint32_t *pages = snapshot_memory_ws(image->memory);

	image->ws_left = image->flags & PAGER_FILL_NO_WORKING_SET
				 ? 0
				 : snapshot_memory_ws_pages(image->memory);
	for (uint64_t i = 0; i < image->ws_left; i++) {
		image->chunks[pages[i] / UFFD_CHUNK_PAGES].coming |=
			(uint16_t)(1U << pages[i] % UFFD_CHUNK_PAGES);
	}
	return 0;
}

/* On a worker. */
static void open_run(struct uffd_job *job, uint8_t *scratch)
{
	struct uffd_image *image = CONTAINER_OF(job, struct uffd_image, job);
	char path[64];
	int r = snapshot_memory_open(image->file_fd, image->bytes, image->table_digest,
				     &image->memory, &image->job_error);

	if (r == 0 && (r = open_arrays(image)) < 0) {
		base_error_set_errno(&image->job_error, r, "image");
	}
	if (r == 0) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", image->file_fd);
		image->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
		image->direct = image->direct_fd >= 0;
	}
	image->job_result = r;
}

static void drop_vms(struct uffd_image *image)
{
	BASE_LIST_FOR_EACH(link, &image->vms)
	{
		uffd_vm_drop(CONTAINER_OF(link, struct uffd_vm, link));
	}
}

static void open_done(struct uffd_job *job)
{
	struct uffd_image *image = CONTAINER_OF(job, struct uffd_image, job);
	bool closing = image->state == UFFD_IMAGE_CLOSING;
	int r = closing ? -ECANCELED : image->job_result;

	image->job_runs = false;
	uffd_control_reply(image->pager, PAGER_OP_IMAGE, image->image_sequence, r,
			   closing ? "the image is gone" : image->job_error.text);
	if (r == 0) {
		image->state = UFFD_IMAGE_FILLING;
		BASE_LIST_FOR_EACH(link, &image->vms)
		{
			uffd_vm_read(CONTAINER_OF(link, struct uffd_vm, link));
		}
	} else if (!closing) {
		drop_vms(image);
		image_free(image);
	}
}

static void image_init(struct uffd_image *image, struct uffd_pager *pager,
		       const struct base_message *request, int memfd, int file_fd)
{
	*image = (struct uffd_image){
		.pager = pager,
		.id = request->arg[0],
		.start_ns = base_clock_monotonic_ns(),
		.memfd = memfd,
		.file_fd = file_fd,
		.direct_fd = -1,
		.bytes = request->arg[1],
		.background_bytes_per_s = request->arg[2],
		.flags = request->arg[3],
		.image_sequence = request->sequence,
	};
	memcpy(image->table_digest, request->text, SNAPSHOT_DIGEST_LENGTH);
	base_list_init(&image->vms);
	base_list_init(&image->job.link);
	base_list_append(&pager->images, &image->link);
	pager->n_images++;
}

static int check(struct uffd_pager *pager, const struct base_message *request, int memfd,
		 int file_fd, struct base_error *error)
{
	if (uffd_image_find(pager, request->arg[0])) {
		return base_error_set(error, -EEXIST, "there is an image of this id");
	}
	if (pager->n_images >= PAGER_IMAGES_MAX) {
		return base_error_set(error, -EMFILE, "there are %u images already",
				      PAGER_IMAGES_MAX);
	}
	if (request->text_length != SNAPSHOT_DIGEST_LENGTH) {
		return base_error_set(error, -EINVAL, "the chunk table's digest is no digest");
	}
	if (request->arg[3] & ~(uint64_t)PAGER_FILL_NO_WORKING_SET) {
		return base_error_set(error, -EINVAL, "there is no such flag");
	}

	int r = check_file(file_fd, error);

	return r < 0 ? r : check_memfd(memfd, request->arg[1], error);
}

static void send_complete(struct uffd_image *image);

int uffd_image_new(struct uffd_pager *pager, const struct base_message *request, int memfd,
		   int file_fd, struct base_error *error)
{
	_cleanup_fd_ int owned_memfd = memfd, owned_file_fd = file_fd;
	int seals = check(pager, request, memfd, file_fd, error);

	if (seals < 0) {
		return seals;
	}

	struct uffd_image *image = malloc(sizeof(*image));

	if (!image) {
		return base_error_set_errno(error, -ENOMEM, "image");
	}
	image_init(image, pager, request, TAKE_FD(owned_memfd), TAKE_FD(owned_file_fd));
	if (seals & F_SEAL_WRITE) {
		/* Nobody but a pager can have sealed it, and it does so last. */
		uffd_control_reply(pager, PAGER_OP_IMAGE, image->image_sequence, 0, NULL);
		give_back(image);
		image->state = UFFD_IMAGE_COMPLETE;
		send_complete(image);
	} else {
		start_job(image, open_run, open_done);
	}
	return 0;
}

/* --- filling --- */

void uffd_image_present(struct uffd_image *image, uint64_t n, uint16_t pages, bool from_working_set)
{
	struct uffd_chunk *chunk = &image->chunks[n];
	uint16_t added = pages & (uint16_t)~chunk->present, came = pages & chunk->coming;
	uint64_t bytes = (uint64_t)__builtin_popcount(added) * SNAPSHOT_PAGE_BYTES;

	chunk->present |= added;
	chunk->coming &= (uint16_t)~came;
	image->missing_bytes -= bytes;
	image->counters.filled_bytes += bytes;
	image->counters.working_set_bytes += from_working_set ? bytes : 0;
	if (chunk->present == uffd_image_pages(image, n) && chunk->state == UFFD_CHUNK_ABSENT) {
		chunk->state = UFFD_CHUNK_PRESENT; /* the working set had all of it */
	}
	if (came == 0) {
		return;
	}
	image->ws_left -= (unsigned)__builtin_popcount(came);
	if (image->ws_left == 0) {
		struct base_message event = {
			.op = PAGER_EVENT_PREFETCHED,
			.arg = { image->id, base_clock_monotonic_ns() - image->start_ns,
				 snapshot_memory_ws_pages(image->memory) * SNAPSHOT_PAGE_BYTES },
		};

		uffd_control_send(image->pager, &event);
	}
}

void uffd_image_fail(struct uffd_image *image, int r, const char *text)
{
	struct base_message event = {
		.op = PAGER_EVENT_FAILED,
		.result = r,
		.arg = { image->id },
	};

	if (image->state == UFFD_IMAGE_FAILED || image->state == UFFD_IMAGE_CLOSING) {
		return;
	}
	uffd_schedule_forget(image);
	image->state = UFFD_IMAGE_FAILED;
	base_message_set_text(&event, text ? text : strerror(-r));
	uffd_control_send(image->pager, &event);
}

void uffd_image_count(const struct uffd_image *image, uint64_t arg[BASE_MESSAGE_ARGS])
{
	const struct uffd_counters *counters = &image->counters;

	arg[0] = counters->filled_bytes;
	arg[1] = counters->working_set_bytes;
	arg[2] = counters->read_bytes;
	arg[3] = counters->faults;
	arg[4] = counters->faults_present;
	arg[5] = counters->demand_chunks;
	arg[6] = counters->background_chunks;
	arg[7] = (image->direct ? PAGER_IMAGE_DIRECT : 0) |
		 (image->state == UFFD_IMAGE_COMPLETE ? PAGER_IMAGE_COMPLETE : 0);
}

/* --- its ends --- */

static void send_complete(struct uffd_image *image)
{
	uint64_t counts[BASE_MESSAGE_ARGS];

	uffd_image_count(image, counts);

	struct base_message event = {
		.op = PAGER_EVENT_COMPLETE,
		.arg = { image->id, base_clock_monotonic_ns() - image->start_ns, counts[0],
			 counts[1], counts[2], counts[3], counts[5], counts[7] },
	};

	uffd_control_send(image->pager, &event);
}

/* On a worker. No read, piece or VM of the image is left. */
static void seal_run(struct uffd_job *job, uint8_t *scratch)
{
	struct uffd_image *image = CONTAINER_OF(job, struct uffd_image, job);

	if (fcntl(image->memfd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
		image->job_result = -errno;
		return;
	}
	give_back(image);
}

static void seal_done(struct uffd_job *job)
{
	struct uffd_image *image = CONTAINER_OF(job, struct uffd_image, job);
	struct base_error error = { 0 };

	image->job_runs = false;
	if (image->state == UFFD_IMAGE_CLOSING) {
		return;
	}
	if (image->job_result == -EBUSY) {
		image->retry_ns = base_clock_monotonic_ns() + SEAL_RETRY_NS;
	} else if (image->job_result < 0) {
		base_error_set_errno(&error, image->job_result, "cannot seal the image");
		uffd_image_fail(image, image->job_result, error.text);
	} else {
		image->state = UFFD_IMAGE_COMPLETE;
		send_complete(image);
	}
}

/* On a worker. */
static void close_run(struct uffd_job *job, uint8_t *scratch)
{
	give_back(CONTAINER_OF(job, struct uffd_image, job));
}

static void close_done(struct uffd_job *job)
{
	struct uffd_image *image = CONTAINER_OF(job, struct uffd_image, job);

	uffd_control_reply(image->pager, PAGER_OP_IMAGE_GONE, image->gone_sequence, 0, NULL);
	image_free(image);
}

void uffd_image_gone(struct uffd_image *image, uint64_t sequence)
{
	drop_vms(image);
	uffd_schedule_forget(image);
	image->state = UFFD_IMAGE_CLOSING;
	image->gone_sequence = sequence;
}

static void release_vms(struct uffd_image *image)
{
	unsigned released = 0;

	BASE_LIST_FOR_EACH(link, &image->vms)
	{
		if (released++ == RELEASES_A_ROUND) {
			image->pager->again = true;
			return;
		}
		uffd_vm_release(CONTAINER_OF(link, struct uffd_vm, link));
	}
	image->state = UFFD_IMAGE_SEALING;
}

void uffd_images_orphaned(struct uffd_pager *pager)
{
	BASE_LIST_FOR_EACH(link, &pager->images)
	{
		struct uffd_image *image = CONTAINER_OF(link, struct uffd_image, link);

		image->background_bytes_per_s = 0;
		image->background_ns = 0;
		if (base_list_is_empty(&image->vms) && image->state == UFFD_IMAGE_FILLING) {
			uffd_image_gone(image, 0);
		}
	}
}

bool uffd_images_done(const struct uffd_pager *pager)
{
	BASE_LIST_FOR_EACH(link, &pager->images)
	{
		const struct uffd_image *image = CONTAINER_OF(link, struct uffd_image, link);

		if (image->state != UFFD_IMAGE_COMPLETE && image->state != UFFD_IMAGE_FAILED) {
			return false;
		}
	}
	return true;
}

uint64_t uffd_image_advance(struct uffd_image *image)
{
	if (image->state == UFFD_IMAGE_FILLING && image->missing_bytes == 0 &&
	    image->n_reads == 0) {
		image->state = UFFD_IMAGE_FILLED;
	}
	if (image->state == UFFD_IMAGE_FILLED) {
		release_vms(image);
	}
	if (image->state == UFFD_IMAGE_SEALING && !image->job_runs) {
		if (image->retry_ns > base_clock_monotonic_ns()) {
			return image->retry_ns;
		}
		start_job(image, seal_run, seal_done);
	}
	if (image->state == UFFD_IMAGE_CLOSING && !image->job_runs && image->n_reads == 0) {
		start_job(image, close_run, close_done);
	}
	return UINT64_MAX;
}
