/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Images: loading a snapshot, and giving it back when its last user is gone.
 *
 * Happy path: a worker opens the snapshot, fills its memory image and opens its disks. The template
 * and its sandboxes share it; the last of them hands it to a worker again, which closes it.
 *
 * Failure: what was opened until then is closed with the image. Without a worker it is closed on
 * the loop's thread.
 *
 * Shut-down: the pool waits for workers, and what it holds itself is closed by pool_free().
 *
 * Runs on the loop's thread but for pool_image_load() and close_work().
 */

#include "pool/image.h"

#include "base/clock.h"
#include "base/fd.h"
#include "pool/internal.h"
#include "uffd/uffd.h"
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
	return image;
}

static void image_close(struct pool_image *image)
{
	for (unsigned i = 0; i < SNAPSHOT_DISKS_MAX; i++) {
		base_fd_close(image->disk_fds[i]);
	}
	base_fd_close(image->memory_fd);
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
	if (!image->pool->stopped &&
	    uv_queue_work(image->pool->loop, &image->work, close_work, close_done) == 0) {
		image->pool->n_working++;
		return;
	}
	image_close(image);
	free(image);
}

/* Asked once here, since it takes each VMM longer than making its VM does. */
static uint64_t look_at_host(void)
{
	_cleanup_fd_ int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	uint64_t fingerprint = 0;

	(void)vmm_host_fingerprint(kvm_fd, &fingerprint);
	return fingerprint;
}

static int open_all(struct pool_image *image, struct snapshot_store *store, const char *name,
		    struct base_error *error)
{
	_cleanup_fd_ int memory = -1;
	int r;

	r = snapshot_open(store, name, &image->snapshot, error);
	if (r < 0) {
		return r;
	}

	const struct snapshot_manifest *manifest = snapshot_manifest(image->snapshot);

	image->host_fingerprint = look_at_host();
	for (; image->n_disks < manifest->n_disks; image->n_disks++) {
		r = snapshot_store_open_image(store, &manifest->disks[image->n_disks],
					      &image->disk_fds[image->n_disks], error);
		if (r < 0) {
			/* A missing disk is not a missing template. */
			return r == -ENOENT ? -EBADMSG : r;
		}
	}
	r = uffd_image_load(image->snapshot, 0, &memory, NULL, error);
	if (r < 0) {
		return r == -ENOENT ? -EIO : r;
	}
	r = base_fd_reopen_readonly(memory, &image->memory_fd);
	if (r < 0) {
		return base_error_set_errno(error, r, "reopening the memory image read-only");
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
