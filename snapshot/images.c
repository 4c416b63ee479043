/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Root images in the store, named by the digest of their content.
 *
 * Adding one: digest the source; when no image of that digest and size is there, copy into tmp/
 * (sharing extents where the file system can), digest the copy, sync, rename into images/ under
 * the store's lock. A failure leaves nothing behind. An added image is pinned by a shared lock
 * until a snapshot that names it is published or the store handle is freed, so that a sweep by
 * somebody else does not take it away in between. Any thread; everything blocks on disk.
 */

#include "snapshot/store.h"

#include "base/fd.h"
#include "snapshot/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BUFFER_BYTES MIB(1)

void snapshot_image_name(const char *digest, char ret_name[SNAPSHOT_FILE_NAME_MAX])
{
	snprintf(ret_name, SNAPSHOT_FILE_NAME_MAX, "%s" SNAPSHOT_IMAGE_SUFFIX, digest);
}

/* --- pins --- */

/* fd is consumed, on failure too. */
static int pin(struct snapshot_store *store, const char *digest, int fd)
{
	int r = 0;

	/* Shared locks, and exclusive ones only below the store's lock: this does not wait. */
	if (flock(fd, LOCK_SH) < 0) {
		r = -errno;
		base_fd_close(fd);
		return r;
	}
	pthread_mutex_lock(&store->pins_lock);

	struct snapshot_pin *grown =
		realloc(store->pins, (store->n_pins + 1) * sizeof(*store->pins));

	if (grown) {
		store->pins = grown;
		store->pins[store->n_pins].fd = fd;
		memcpy(store->pins[store->n_pins].digest, digest, SNAPSHOT_DIGEST_LENGTH + 1);
		store->n_pins++;
	} else {
		r = -ENOMEM;
		base_fd_close(fd);
	}
	pthread_mutex_unlock(&store->pins_lock);
	return r;
}

void snapshot_images_unpin(struct snapshot_store *store, const struct snapshot_manifest *manifest)
{
	pthread_mutex_lock(&store->pins_lock);
	for (uint32_t disk = 0; disk < manifest->n_disks; disk++) {
		for (size_t i = 0; i < store->n_pins; i++) {
			if (strcmp(store->pins[i].digest, manifest->disks[disk].digest) == 0) {
				base_fd_close(store->pins[i].fd);
				store->pins[i] = store->pins[--store->n_pins];
				break;
			}
		}
	}
	pthread_mutex_unlock(&store->pins_lock);
}

bool snapshot_images_unpin_all(struct snapshot_store *store)
{
	bool any = store->n_pins > 0;

	for (size_t i = 0; i < store->n_pins; i++) {
		base_fd_close(store->pins[i].fd);
	}
	free(store->pins);
	store->pins = NULL;
	store->n_pins = 0;
	return any;
}

/* --- adding --- */

/* Opens the image of that digest. 0, -ENOENT, or -EBADMSG when its size is not the one expected. */
static int open_present(struct snapshot_store *store, const char *digest, uint64_t size_bytes,
			int *ret_fd, struct base_error *error)
{
	char name[SNAPSHOT_FILE_NAME_MAX];
	_cleanup_fd_ int fd = -1;
	uint64_t size;

	snapshot_image_name(digest, name);
	if (faccessat(store->images_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT) {
		return base_error_set(error, -ENOENT, "images/%s: missing", name);
	}

	int r = snapshot_store_open_file(store->images_fd, name, &fd, &size, error);

	if (r < 0) {
		return base_error_prefix(error, r, "images");
	}
	if (size != size_bytes) {
		return base_error_set(error, -EBADMSG,
				      "images/%s: size: %" PRIu64 " bytes instead of %" PRIu64,
				      name, size, size_bytes);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A new locked file in tmp/. */
static int make_temporary(struct snapshot_store *store, char ret_name[SNAPSHOT_FILE_NAME_MAX],
			  int *ret_fd, struct base_error *error)
{
	char id[SNAPSHOT_ID_LENGTH + 1];
	_cleanup_fd_ int lock = -1;
	int r = snapshot_store_lock(store, LOCK_EX, &lock, error);

	if (r < 0) {
		return r;
	}
	r = snapshot_store_new_id(id);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot make an id");
	}
	snprintf(ret_name, SNAPSHOT_FILE_NAME_MAX, "%s.image", id);

	int fd = openat(store->tmp_fd, ret_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			0600);

	if (fd < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot make a file in %s/tmp", store->path);
	}
	/* Nobody else can have it yet. */
	flock(fd, LOCK_EX | LOCK_NB);
	*ret_fd = fd;
	return 0;
}

static int copy_by_hand(int from, int to, uint64_t offset, uint64_t size)
{
	_cleanup_free_ uint8_t *buffer = malloc(COPY_BUFFER_BYTES);

	if (!buffer) {
		return -ENOMEM;
	}
	while (offset < size) {
		size_t n = (size_t)MIN(COPY_BUFFER_BYTES, size - offset);
		int r = base_fd_pread_full(from, buffer, n, (off_t)offset);

		if (r == 0) {
			r = base_fd_pwrite_full(to, buffer, n, (off_t)offset);
		}
		if (r < 0) {
			return r;
		}
		offset += n;
	}
	return 0;
}

/* Shares the extents where possible, else copies inside the kernel, else by hand. */
static int copy_content(int from, int to, uint64_t size)
{
	off_t in = 0, out = 0;

	if (ioctl(to, FICLONE, from) == 0) {
		return 0;
	}
	while ((uint64_t)in < size) {
		ssize_t n = copy_file_range(from, &in, to, &out, size - (uint64_t)in, 0);

		if (n < 0) {
			int r = -errno;

			if (r == -EINTR) {
				continue;
			}
			if (r == -ENOSPC || r == -EIO || r == -EDQUOT || r == -EFBIG) {
				return r;
			}
			break; /* not between these two files */
		}
		if (n == 0) {
			break; /* some file systems answer so instead of refusing */
		}
	}
	return copy_by_hand(from, to, (uint64_t)in, size);
}

/* Makes the copy durable, and sure that it is what was digested. */
static int finish_copy(int fd, const struct snapshot_disk *disk, struct base_error *error)
{
	char digest[SNAPSHOT_DIGEST_LENGTH + 1];
	int r = snapshot_digest_fd(fd, digest, error);

	if (r < 0) {
		return r;
	}
	if (strcmp(digest, disk->digest) != 0) {
		return base_error_set(error, -EBUSY, "the image changed while it was copied");
	}
	if (fchmod(fd, 0400) < 0 || fsync(fd) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot sync the image");
	}
	return 0;
}

/* Gives the copy its name, unless somebody else was first, and pins what has the name then. */
static int publish_copy(struct snapshot_store *store, const char *temporary,
			const struct snapshot_disk *disk, struct base_error *error)
{
	char name[SNAPSHOT_FILE_NAME_MAX];
	_cleanup_fd_ int lock = -1, present = -1;
	int r = snapshot_store_lock(store, LOCK_EX, &lock, error);

	if (r < 0) {
		return r;
	}
	if (open_present(store, disk->digest, disk->size_bytes, &present, NULL) < 0) {
		snapshot_image_name(disk->digest, name);
		if (renameat(store->tmp_fd, temporary, store->images_fd, name) < 0 ||
		    fsync(store->images_fd) < 0) {
			r = -errno;
			return base_error_set_errno(error, r, "cannot publish images/%s", name);
		}
		r = open_present(store, disk->digest, disk->size_bytes, &present, error);
		if (r < 0) {
			return r;
		}
	}
	r = pin(store, disk->digest, TAKE_FD(present));
	return r < 0 ? base_error_set_errno(error, r, "cannot pin the image") : 0;
}

/* Copies source to images/ and pins it. */
static int copy_image(struct snapshot_store *store, int source, const struct snapshot_disk *disk,
		      struct base_error *error)
{
	char temporary[SNAPSHOT_FILE_NAME_MAX];
	_cleanup_fd_ int fd = -1;
	int r = make_temporary(store, temporary, &fd, error);

	if (r < 0) {
		return r;
	}
	r = copy_content(source, fd, disk->size_bytes);
	if (r < 0) {
		base_error_set_errno(error, r, "cannot copy the image to %s/tmp", store->path);
	} else {
		r = finish_copy(fd, disk, error);
	}
	if (r == 0) {
		/* A shared lock keeps sweeps away as well, and lets the pin pass. */
		flock(fd, LOCK_SH);
		r = publish_copy(store, temporary, disk, error);
	}
	/* Nothing is there when it has got its name. */
	unlinkat(store->tmp_fd, temporary, 0);
	return r;
}

int snapshot_store_add_image(struct snapshot_store *store, int fd, struct snapshot_disk *ret_disk,
			     struct base_error *error)
{
	struct snapshot_disk disk = { .read_only = true };
	_cleanup_fd_ int lock = -1, present = -1;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "root image");
	}
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 ||
	    (uint64_t)st.st_size > SNAPSHOT_DISK_MAX_BYTES) {
		return base_error_set(error, -EINVAL,
				      "the root image is empty, too large or no regular file");
	}
	disk.size_bytes = (uint64_t)st.st_size;
	r = snapshot_digest_fd(fd, disk.digest, error);
	if (r < 0) {
		return base_error_prefix(error, r, "root image");
	}

	r = snapshot_store_lock(store, LOCK_SH, &lock, error);
	if (r < 0) {
		return r;
	}
	/* A present image of another size is damaged and replaced by the copy. */
	r = open_present(store, disk.digest, disk.size_bytes, &present, NULL);
	if (r == 0) {
		r = pin(store, disk.digest, TAKE_FD(present));
		if (r < 0) {
			return base_error_set_errno(error, r, "cannot pin the image");
		}
	} else {
		lock = base_fd_close(lock);
		r = copy_image(store, fd, &disk, error);
		if (r < 0) {
			return r;
		}
	}
	*ret_disk = disk;
	return 0;
}

int snapshot_store_open_image(struct snapshot_store *store, const struct snapshot_disk *disk,
			      int *ret_fd, struct base_error *error)
{
	if (!snapshot_hex_is_valid(disk->digest, SNAPSHOT_DIGEST_LENGTH)) {
		return base_error_set(error, -EINVAL, "not the digest of an image");
	}

	int r = open_present(store, disk->digest, disk->size_bytes, ret_fd, error);

	/* For a snapshot that names it, a missing image is damage. */
	return r == -ENOENT ? -EBADMSG : r;
}
