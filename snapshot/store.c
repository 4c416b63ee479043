/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The store: its directories, its lock, and its names.
 *
 * A store holds one descriptor for each directory and reaches everything by single names below
 * them, without following links; a template's link is read and checked, never followed. Names
 * change only under the exclusive lock. Functions fail with -errno and leave the store as it was;
 * leftovers of a crash are swept by the next change. Any thread; everything blocks on disk.
 */

#include "snapshot/store.h"

#include "base/fd.h"
#include "snapshot/digest.h"
#include "snapshot/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

bool snapshot_name_is_valid(const char *name)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	size_t length = strnlen(name, SNAPSHOT_NAME_MAX + 1);

	return length > 0 && length <= SNAPSHOT_NAME_MAX && strchr(first, name[0]) &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

/* mkdir -p, for the store only: 0700, since guest memory is nobody else's business. */
static int make_path(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);

	if (!copy) {
		return -ENOMEM;
	}
	for (char *slash = copy;;) {
		slash = strchr(slash + 1, '/');
		if (slash) {
			*slash = '\0';
		}
		if (mkdir(copy, 0700) < 0 && errno != EEXIST) {
			return -errno;
		}
		if (!slash) {
			return 0;
		}
		*slash = '/';
	}
}

static int open_directory(struct snapshot_store *store, const char *name, bool create, int *ret_fd,
			  struct base_error *error)
{
	int r;

	if (create && mkdirat(store->root_fd, name, 0700) < 0 && errno != EEXIST) {
		r = -errno;
		return base_error_set_errno(error, r, "store %s: cannot make %s", store->path,
					    name);
	}

	int fd = openat(store->root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "store %s: cannot open %s", store->path,
					    name);
	}
	*ret_fd = fd;
	return 0;
}

static int open_directories(struct snapshot_store *store, bool create, struct base_error *error)
{
	int r;

	if (create) {
		r = make_path(store->path);
		if (r < 0) {
			return base_error_set_errno(error, r, "cannot make the store %s",
						    store->path);
		}
	}
	store->root_fd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->root_fd < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot open the store %s", store->path);
	}

	const struct {
		const char *name;
		int *ret_fd;
	} directories[] = {
		{ "images", &store->images_fd },
		{ "snapshots", &store->snapshots_fd },
		{ "templates", &store->templates_fd },
		{ "tmp", &store->tmp_fd },
	};

	for (size_t i = 0; i < ARRAY_SIZE(directories); i++) {
		r = open_directory(store, directories[i].name, create, directories[i].ret_fd,
				   error);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

int snapshot_store_open(const char *path, bool create, struct snapshot_store **ret_store,
			struct base_error *error)
{
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = calloc(1, sizeof(*store));

	if (!store) {
		return base_error_set_errno(error, -ENOMEM, "store");
	}
	store->root_fd = store->images_fd = store->snapshots_fd = -1;
	store->templates_fd = store->tmp_fd = -1;
	pthread_mutex_init(&store->pins_lock, NULL);
	store->path = strdup(path);
	if (!store->path) {
		return base_error_set_errno(error, -ENOMEM, "store");
	}
	if (path[0] == '\0') {
		return base_error_set(error, -EINVAL, "the path of the store is empty");
	}

	int r = open_directories(store, create, error);

	if (r < 0) {
		return r;
	}
	*ret_store = TAKE_PTR(store);
	return 0;
}

/* Images that were added for a snapshot that never came go with the handle. */
static void drop_pinned_images(struct snapshot_store *store)
{
	_cleanup_fd_ int lock = -1;

	if (snapshot_images_unpin_all(store) &&
	    snapshot_store_lock(store, LOCK_EX, &lock, NULL) == 0) {
		snapshot_store_sweep(store);
	}
}

void snapshot_store_free(struct snapshot_store *store)
{
	if (!store) {
		return;
	}
	drop_pinned_images(store);
	base_fd_close(store->images_fd);
	base_fd_close(store->snapshots_fd);
	base_fd_close(store->templates_fd);
	base_fd_close(store->tmp_fd);
	base_fd_close(store->root_fd);
	pthread_mutex_destroy(&store->pins_lock);
	free(store->path);
	free(store);
}

int snapshot_store_lock(struct snapshot_store *store, int operation, int *ret_fd,
			struct base_error *error)
{
	_cleanup_fd_ int fd = openat(store->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		int r = -errno;

		return base_error_set_errno(error, r, "cannot open the store %s", store->path);
	}
	while (flock(fd, operation) < 0) {
		int r = -errno;

		if (r != -EINTR) {
			return base_error_set_errno(error, r, "cannot lock the store %s",
						    store->path);
		}
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int snapshot_store_resolve(struct snapshot_store *store, const char *name,
			   char ret_id[SNAPSHOT_ID_LENGTH + 1], struct base_error *error)
{
	char target[SNAPSHOT_LINK_LENGTH + 2];
	ssize_t n = readlinkat(store->templates_fd, name, target, sizeof(target));
	int r = n < 0 ? -errno : 0;

	if (r == -ENOENT) {
		return base_error_set(error, r, "there is no template %s in %s", name, store->path);
	}
	if (r < 0 && r != -EINVAL) { /* EINVAL: not a link */
		return base_error_set_errno(error, r, "templates/%s", name);
	}
	if (n == (ssize_t)SNAPSHOT_LINK_LENGTH) {
		target[n] = '\0';
		if (strncmp(target, SNAPSHOT_LINK_PREFIX, sizeof(SNAPSHOT_LINK_PREFIX) - 1) == 0 &&
		    snapshot_hex_is_valid(target + sizeof(SNAPSHOT_LINK_PREFIX) - 1,
					  SNAPSHOT_ID_LENGTH)) {
			memcpy(ret_id, target + sizeof(SNAPSHOT_LINK_PREFIX) - 1,
			       SNAPSHOT_ID_LENGTH + 1);
			return 0;
		}
	}
	return base_error_set(error, -EBADMSG,
			      "templates/%s: link: not a link to a snapshot of this store", name);
}

int snapshot_store_new_id(char ret_id[SNAPSHOT_ID_LENGTH + 1])
{
	uint8_t random[SNAPSHOT_ID_LENGTH / 2];

	/* At most 256 bytes: never partial, never interrupted once the pool is up. */
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
		return -EIO;
	}
	snapshot_hex(random, sizeof(random), ret_id);
	return 0;
}

int snapshot_store_read_directory(int dir_fd, DIR **ret_dir)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}

	DIR *dir = fdopendir(fd);

	if (!dir) {
		int r = -errno;

		base_fd_close(fd);
		return r;
	}
	*ret_dir = dir;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int append_name(char ***names, size_t *n, const char *name)
{
	char **grown = realloc(*names, (*n + 1) * sizeof(*grown));

	if (!grown) {
		return -ENOMEM;
	}
	*names = grown;
	grown[*n] = strdup(name);
	if (!grown[*n]) {
		return -ENOMEM;
	}
	(*n)++;
	return 0;
}

int snapshot_store_list(struct snapshot_store *store, char ***ret_names, size_t *ret_n,
			struct base_error *error)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	char **names = NULL;
	size_t n = 0;
	int r = snapshot_store_read_directory(store->templates_fd, &dir);

	while (r == 0) {
		errno = 0;

		struct dirent *entry = readdir(dir);

		if (!entry) {
			r = -errno;
			break;
		}
		if (snapshot_name_is_valid(entry->d_name)) {
			r = append_name(&names, &n, entry->d_name);
		}
	}
	if (r < 0) {
		for (size_t i = 0; i < n; i++) {
			free(names[i]);
		}
		free(names);
		return base_error_set_errno(error, r, "cannot list the templates of %s",
					    store->path);
	}
	if (n > 0) {
		qsort(names, n, sizeof(*names), compare_names);
	}
	*ret_names = names;
	*ret_n = n;
	return 0;
}

int snapshot_store_remove(struct snapshot_store *store, const char *name, struct base_error *error)
{
	_cleanup_fd_ int lock = -1;
	int r;

	if (!snapshot_name_is_valid(name)) {
		return base_error_set(error, -EINVAL, "'%s' is not a template name", name);
	}
	r = snapshot_store_lock(store, LOCK_EX, &lock, error);
	if (r < 0) {
		return r;
	}
	if (unlinkat(store->templates_fd, name, 0) < 0) {
		r = -errno;
		if (r == -ENOENT) {
			return base_error_set(error, r, "there is no template %s in %s", name,
					      store->path);
		}
		return base_error_set_errno(error, r, "cannot remove the template %s", name);
	}
	/* The name must be gone for good before what it meant goes. */
	if (fsync(store->templates_fd) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot sync the removal of %s", name);
	}
	snapshot_store_sweep(store);
	return 0;
}

int snapshot_store_open_file(int dir_fd, const char *name, int *ret_fd, uint64_t *ret_size,
			     struct base_error *error)
{
	/* O_NONBLOCK: a FIFO in the file's place must not hang us before fstat() refuses it. */
	_cleanup_fd_ int fd =
		openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0) {
		r = -errno;
		if (r == -ENOENT) {
			return base_error_set(error, -EBADMSG, "%s: missing", name);
		}
		if (r == -ELOOP) {
			return base_error_set(error, -EBADMSG, "%s: not a regular file", name);
		}
		return base_error_set_errno(error, r, "%s: cannot open it", name);
	}
	if (fstat(fd, &st) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "%s", name);
	}
	if (!S_ISREG(st.st_mode)) {
		return base_error_set(error, -EBADMSG, "%s: not a regular file", name);
	}
	*ret_fd = TAKE_FD(fd);
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

int snapshot_store_read_manifest(int dir_fd, struct snapshot_manifest *ret_manifest,
				 struct base_error *error)
{
	_cleanup_free_ char *data = NULL;
	_cleanup_fd_ int fd = -1;
	uint64_t file_bytes;
	size_t size;
	int r = snapshot_store_open_file(dir_fd, SNAPSHOT_MANIFEST_FILE, &fd, &file_bytes, error);

	if (r < 0) {
		return r;
	}
	r = base_fd_read_file(fd, SNAPSHOT_MANIFEST_MAX_BYTES, &data, &size);
	if (r == -EFBIG) {
		return base_error_set(error, -EBADMSG, "manifest: length: the file is too large");
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "manifest: cannot read it");
	}
	return snapshot_manifest_decode(data, size, ret_manifest, error);
}
