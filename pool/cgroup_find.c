/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Finding the hierarchies of cgroups and the pool's place in them; see cgroup_tree.h.
 *
 * /proc/self/cgroup names this process's cgroup in each hierarchy, /proc/self/mountinfo where the
 * hierarchies are mounted and which part of them can be seen there. Of version 2 there is one,
 * with a list of its controllers; of version 1 one for each set of controllers.
 *
 * Runs at start, on whatever thread starts.
 */

#include "base/fd.h"
#include "pool/cgroup_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROC_FILE_MAX MIB(4)
#define DAEMON_WEIGHT "300" /* three times that of an ordinary process: nice -5 */

static const struct {
	const char *v1, *v2;
	unsigned bit;
} controller_names[] = {
	{ "memory", "memory", POOL_CGROUP_MEMORY },
	{ "cpu", "cpu", POOL_CGROUP_CPU },
	{ "pids", "pids", POOL_CGROUP_PIDS },
	{ "blkio", "io", POOL_CGROUP_IO },
};

/* The controllers in a list of names; separators is what stands between them. */
static unsigned parse_controllers(const char *list, const char *separators, bool v2)
{
	unsigned found = 0;

	while (*list) {
		size_t length = strcspn(list, separators);

		for (size_t i = 0; i < ARRAY_SIZE(controller_names); i++) {
			const char *name = v2 ? controller_names[i].v2 : controller_names[i].v1;

			if (strlen(name) == length && strncmp(list, name, length) == 0) {
				found |= controller_names[i].bit;
			}
		}
		list += length;
		list += strspn(list, separators);
	}
	return found;
}

static char *read_whole(const char *path)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text;
	size_t size;

	return fd >= 0 && base_fd_read_file(fd, PROC_FILE_MAX, &text, &size) == 0 ? text : NULL;
}

/* --- mountinfo --- */

struct mount {
	bool v2;
	unsigned controllers; /* of version 1 */
	char root[POOL_CGROUP_PATH_MAX], point[POOL_CGROUP_PATH_MAX];
};

/* Undoes mountinfo's \ooo, in which blanks and the like are written. */
static void copy_path(char *out, const char *in)
{
	char *end = out + POOL_CGROUP_PATH_MAX - 1;
	unsigned code;

	while (*in && out < end) {
		if (in[0] == '\\' && sscanf(in + 1, "%3o", &code) == 1) {
			*out++ = (char)code;
			in += 4;
		} else {
			*out++ = *in++;
		}
	}
	*out = '\0';
}

/* "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw". False: not a cgroup. */
static bool parse_mount(char *line, struct mount *mount)
{
	char *save, *fields[5], *type, *options;
	char *rest = strstr(line, " - ");

	if (!rest) {
		return false;
	}
	*rest = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		fields[i] = strtok_r(i == 0 ? line : NULL, " ", &save);
		if (!fields[i]) {
			return false;
		}
	}
	type = strtok_r(rest + 3, " ", &save);
	(void)strtok_r(NULL, " ", &save);
	options = strtok_r(NULL, " ", &save);
	if (!type || !options || (strcmp(type, "cgroup2") != 0 && strcmp(type, "cgroup") != 0)) {
		return false;
	}
	mount->v2 = strcmp(type, "cgroup2") == 0;
	mount->controllers = parse_controllers(options, ",", false);
	copy_path(mount->root, fields[3]);
	copy_path(mount->point, fields[4]);
	return true;
}

/* A cgroup's path, seen through a mount. -ENOENT: it cannot be seen there. */
static int path_through(const struct mount *mount, const char *cgroup, char *out)
{
	size_t length = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
	int n;

	if (strncmp(cgroup, mount->root, length) != 0 ||
	    (cgroup[length] != '/' && cgroup[length] != '\0')) {
		return -ENOENT;
	}
	cgroup += length;
	n = snprintf(out, POOL_CGROUP_PATH_MAX, "%s%s", mount->point,
		     strcmp(cgroup, "/") == 0 ? "" : cgroup);
	return n < POOL_CGROUP_PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* The directory of a cgroup in the hierarchy of version 2 (v2) or of a controller of version 1. */
static int find_directory(const char *mountinfo, bool v2, unsigned controller, const char *cgroup,
			  char *out)
{
	_cleanup_free_ char *text = read_whole(mountinfo);
	char *save;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		struct mount mount;

		if (parse_mount(line, &mount) && mount.v2 == v2 &&
		    (v2 || (mount.controllers & controller)) &&
		    path_through(&mount, cgroup, out) == 0) {
			return 0;
		}
	}
	return -ENOENT;
}

/* --- the pool's directories --- */

/* Makes the pool's directory below `own` and takes it for the controllers. */
static int add_root(struct pool_cgroup_tree *tree, const char *own, const char *name,
		    unsigned controllers)
{
	struct pool_cgroup_root *root = &tree->roots[tree->n_roots];
	int n = snprintf(root->path, sizeof(root->path), "%s/" POOL_CGROUP_PREFIX "%s", own, name);
	bool made;

	if ((size_t)n >= sizeof(root->path)) {
		return -ENAMETOOLONG;
	}
	made = mkdir(root->path, 0755) == 0;
	if (!made && errno != EEXIST) {
		return -errno;
	}
	root->fd = open(root->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root->fd < 0 || faccessat(root->fd, "cgroup.procs", W_OK, 0) < 0) {
		int r = -errno;

		root->fd = base_fd_close(root->fd);
		if (made) {
			rmdir(root->path);
		}
		return r;
	}
	root->controllers = controllers;
	tree->controllers |= controllers;
	tree->n_roots++;
	return 0;
}

/* Together, on one CPU, sandboxes weigh as much as one other process there: what else is in this
 * process's cgroup, itself first, does not wait behind however many run. */
static void set_root_weight(const struct pool_cgroup_tree *tree)
{
	struct pool_cgroup_limits limits = {
		.cpu_weight = (unsigned)MIN(POOL_CGROUP_WEIGHT_DEFAULT *
						    MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L),
					    (long)POOL_CGROUP_WEIGHT_MAX),
	};

	(void)pool_cgroup_tree_set(tree, ".", &limits);
}

/* --- version 2 --- */

/* Writes "+<name>" for each controller; those that this cannot be done for are left out. -EBUSY:
 * there are processes in the cgroup. */
static int enable(const char *directory, unsigned wanted, unsigned *ret_enabled)
{
	_cleanup_fd_ int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : 0;

	*ret_enabled = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(controller_names); i++) {
		char text[16];
		int written;

		if (!(wanted & controller_names[i].bit)) {
			continue;
		}
		snprintf(text, sizeof(text), "+%s", controller_names[i].v2);
		written = pool_cgroup_write(fd, NULL, "cgroup.subtree_control", text);
		if (written == 0) {
			*ret_enabled |= controller_names[i].bit;
		} else if (written != -ENOENT && written != -EOPNOTSUPP && written != -EINVAL) {
			r = written;
		}
	}
	return r;
}

/* This process, with all its threads, to the leaf beside the sandboxes. */
static int move_to_leaf(const char *own)
{
	_cleanup_fd_ int fd = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || (mkdirat(fd, POOL_CGROUP_DAEMON, 0755) < 0 && errno != EEXIST)) {
		return -errno;
	}
	return pool_cgroup_write(fd, POOL_CGROUP_DAEMON, "cgroup.procs", "0");
}

/* Beside all sandboxes the daemon has, on a CPU, what its nice value would have it. */
static void raise_leaf(const char *own)
{
	_cleanup_fd_ int fd = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		(void)pool_cgroup_write(fd, POOL_CGROUP_DAEMON, "cpu.weight", DAEMON_WEIGHT);
	}
}

static unsigned available_v2(const char *own)
{
	char path[POOL_CGROUP_PATH_MAX + 32];
	_cleanup_free_ char *text = NULL;

	snprintf(path, sizeof(path), "%s/cgroup.controllers", own);
	text = read_whole(path);
	return text ? parse_controllers(text, " \n", true) : 0;
}

static void leave_leaf_out(char *own)
{
	char *slash = strrchr(own, '/');

	if (slash && strcmp(slash + 1, POOL_CGROUP_DAEMON) == 0) {
		*slash = '\0';
	}
}

static int open_v2(struct pool_cgroup_tree *tree, char *own, const char *name, unsigned wanted,
		   struct base_error *error)
{
	unsigned enabled;
	int r;

	leave_leaf_out(own);
	wanted &= available_v2(own);
	if (wanted == 0) {
		return -ENOTSUP;
	}
	r = enable(own, wanted, &enabled);
	if (r == -EBUSY) {
		r = move_to_leaf(own);
		if (r == 0) {
			r = enable(own, wanted, &enabled);
		}
	}
	if (r == -EBUSY) {
		return base_error_set(error, r,
				      "other processes share the cgroup %s: run warmboxd as a "
				      "systemd service with Delegate=yes, or with systemd-run "
				      "--scope -p Delegate=yes",
				      own);
	}
	if (r == 0) {
		tree->version = 2;
		r = add_root(tree, own, name, enabled);
	}
	if (r == 0) {
		raise_leaf(own);
		r = enable(tree->roots[0].path, enabled, &enabled);
		tree->controllers = tree->roots[0].controllers = enabled;
	}
	return r < 0 ? base_error_set_errno(error, r,
					    "cgroup %s: not delegated to this process (systemd: "
					    "Delegate=yes)",
					    own)
		     : 0;
}

/* --- version 1 --- */

/* The hierarchies are tried on their own: what one of them refuses is limited by the others. */
static int open_v1(struct pool_cgroup_tree *tree, const char *cgroups, const char *mountinfo,
		   const char *name, unsigned wanted, struct base_error *error)
{
	_cleanup_free_ char *copy = strdup(cgroups);
	char own[POOL_CGROUP_PATH_MAX], *save;
	int r = -ENOTSUP;

	tree->version = 1;
	for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *names = strchr(line, ':');
		char *path = names ? strchr(names + 1, ':') : NULL;
		unsigned controllers;
		int added;

		if (!path) {
			continue;
		}
		*path++ = '\0';
		controllers = parse_controllers(names + 1, ",", false) & wanted;
		if (controllers == 0 ||
		    find_directory(mountinfo, false, controllers, path, own) < 0) {
			continue;
		}
		added = add_root(tree, own, name, controllers);
		if (added < 0 && r == -ENOTSUP) {
			r = base_error_set_errno(error, added, "cgroup %s", own);
		}
	}
	return tree->n_roots > 0 ? 0 : r;
}

/* --- both --- */

/* What a cgroup of ours has files for; not everything is configured into every kernel. */
static void look_at_files(struct pool_cgroup_tree *tree)
{
	static const char *const io_files[] = { "io.weight", "io.bfq.weight", "blkio.bfq.weight",
						"blkio.weight" };

	for (unsigned i = 0; i < tree->n_roots; i++) {
		int fd = tree->roots[i].fd;

		tree->swap |= faccessat(fd, "memory.swap.max", W_OK, 0) == 0 ||
			      faccessat(fd, "memory.memsw.limit_in_bytes", W_OK, 0) == 0;
		for (size_t k = 0; k < ARRAY_SIZE(io_files) && !tree->io_file; k++) {
			if (faccessat(fd, io_files[k], W_OK, 0) == 0) {
				tree->io_file = io_files[k];
			}
		}
	}
}

int pool_cgroup_tree_open(struct pool_cgroup_tree *tree, const struct pool_cgroup_source *source,
			  const char *name, unsigned wanted, struct base_error *error)
{
	const char *mountinfo = source->mountinfo ?: "/proc/self/mountinfo";
	_cleanup_free_ char *cgroups = read_whole(source->cgroup ?: "/proc/self/cgroup");
	char own[POOL_CGROUP_PATH_MAX];
	const char *v2;
	int r = -ENOTSUP;

	*tree = (struct pool_cgroup_tree){ 0 };
	if (!cgroups) {
		return base_error_set(error, -ENOTSUP, "this host has no cgroups");
	}
	v2 = strncmp(cgroups, "0::", 3) == 0 ? cgroups : strstr(cgroups, "\n0::");
	if (v2) {
		_cleanup_free_ char *path = strdup(strstr(v2, "::") + 2);

		if (!path) {
			return -ENOMEM;
		}
		path[strcspn(path, "\n")] = '\0';
		if (find_directory(mountinfo, true, 0, path, own) == 0) {
			r = open_v2(tree, own, name, wanted, error);
		}
	}
	if (r == -ENOTSUP) {
		r = open_v1(tree, cgroups, mountinfo, name, wanted, error);
	}
	if (r < 0) {
		pool_cgroup_tree_close(tree, true);
		return r == -ENOTSUP ? base_error_set(error, r,
						      "no cgroup controllers for memory, CPU or "
						      "processes are mounted here")
				     : r;
	}
	look_at_files(tree);
	set_root_weight(tree);
	return 0;
}
