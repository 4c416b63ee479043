/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Images: opening a snapshot, and giving it back when its last user is gone.
 *
 * Happy path: a worker opens the snapshot, makes the memfd for its memory and opens its disks; the
 * pager fills the memfd while sandboxes use it (pool/pager.c). The template and its sandboxes share
 * the image; the last of them hands it to a worker again, which closes it.
 *
 * Failure: what was opened until then is closed with the image. Without a worker it is closed on
 * the loop's thread. Memory that cannot be filled is the end of whoever uses it: a page that is
 * missing cannot be made up.
 *
 * Shut-down: the pool waits for workers, and what it holds itself is closed by pool_free().
 *
 * Runs on the loop's thread but for pool_image_load() and close_work().
 */

#include "pool/image.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/internal.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>

struct pool_image *pool_image_new(struct pool *pool)
{
	struct pool_image *image = malloc(sizeof(*image));

	if (!image) {
		return NULL;
	}
	*image = (struct pool_image){
		.pool = pool,
		.n_refs = 1,
		.memory_fd = -1,
		.disk_fds = { -1, -1, -1, -1 },
	};
	_Static_assert(SNAPSHOT_DISKS_MAX == 4, "as many initialisers as disks");
	base_list_init(&image->sandboxes);
	pool_pager_image_init(&image->pager);
	return image;
}

static void image_close(struct pool_image *image)
{
	for (unsigned i = 0; i < SNAPSHOT_DISKS_MAX; i++) {
		base_fd_close(image->disk_fds[i]);
	}
	base_fd_close(image->memory_fd);
	base_fd_close(image->pager.fd);
	snapshot_free(image->snapshot);
}

static void close_work(uv_work_t *work)
{
	image_close(CONTAINER_OF(work, struct pool_image, work));
}

static void close_done(uv_work_t *work, int status)
{
	struct pool_image *image = CONTAINER_OF(work, struct pool_image, work);

	image->pool->n_working--;
	pool_kick(image->pool);
	free(image);
}

struct pool_image *pool_image_ref(struct pool_image *image)
{
	image->n_refs++;
	return image;
}

void pool_image_unref(struct pool_image *image)
{
	if (!image || --image->n_refs > 0) {
		return;
	}
	pool_pager_remove(&image->pool->pager, image);
	if (!image->pool->stopped &&
	    uv_queue_work(image->pool->loop, &image->work, close_work, close_done) == 0) {
		image->pool->n_working++;
		return;
	}
	image_close(image);
	free(image);
}

/* Asked once here, since it takes each VMM longer than making its VM does. */
static void look_at_host(struct pool_image *image)
{
	_cleanup_fd_ int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	(void)vmm_host_kind_detect(&image->host_kind);
	(void)vmm_host_fingerprint(kvm_fd, &image->host_fingerprint);
}

static int open_all(struct pool_image *image, struct snapshot_store *store, const char *name,
		    struct base_error *error)
{
	int r;

	r = snapshot_open(store, name, &image->snapshot, error);
	if (r < 0) {
		return r;
	}

	const struct snapshot_manifest *manifest = snapshot_manifest(image->snapshot);

	look_at_host(image);
	for (; image->n_disks < manifest->n_disks; image->n_disks++) {
		r = snapshot_store_open_image(store, &manifest->disks[image->n_disks],
					      &image->disk_fds[image->n_disks], error);
		if (r < 0) {
			/* A missing disk is not a missing template. */
			return r == -ENOENT ? -EBADMSG : r;
		}
	}
	/* Its size cannot change. Writing is for the pager, who in the end takes that from itself.
	 */
	r = base_fd_memfd("warmbox-image", manifest->memory_bytes, &image->pager.fd);
	if (r == 0) {
		r = base_fd_reopen_readonly(image->pager.fd, &image->memory_fd);
	}
	if (r < 0) {
		return base_error_set_errno(error, r == -ENOENT ? -EIO : r,
					    "making the memory image");
	}
	return 0;
}

int pool_image_load(struct pool_image *image, struct snapshot_store *store, const char *name,
		    struct base_error *error)
{
	uint64_t start_ns = base_clock_monotonic_ns();
	int r = open_all(image, store, name, error);

	image->load_ns = base_clock_monotonic_ns() - start_ns;
	return r;
}

void pool_image_opened(struct pool_image *image, int r, const char *text)
{
	if (image->template) {
		pool_template_opened(image->template, r, text);
	}
}

void pool_image_completed(struct pool_image *image)
{
	log_debug("image %s: complete after %.1f ms, %.1f MiB, %llu faults", pool_image_id(image),
		  (double)image->pager.complete_ns / (double)NSEC_PER_MSEC,
		  (double)image->pager.filled_bytes / (double)MIB(1),
		  (unsigned long long)image->pager.faults_total);
	if (image->template) {
		image->template->load_failures = 0;
	}
}

/* Those that are not leased have been ended with the template's image. */
static void end_leases(struct pool_image *image)
{
	BASE_LIST_FOR_EACH(link, &image->sandboxes)
	{
		struct pool_sandbox *sandbox = CONTAINER_OF(link, struct pool_sandbox, image_link);

		if (sandbox->state == POOL_SANDBOX_LEASED) {
			sandbox->template->died_total++;
			pool_lease_end(image->pool, sandbox->lease, POOL_CAUSE_IMAGE_FAILED);
		}
	}
}

void pool_image_failed(struct pool_image *image, const char *text)
{
	base_log(BASE_LOG_ERROR, "image %s: %s", pool_image_id(image), text);
	end_leases(image);
	if (image->template) {
		pool_template_image_failed(image->template, text);
	}
}
