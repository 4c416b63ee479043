/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The place that VMMs are started from.
 *
 * Happy path: everything that has a path is opened; then the spawner moves into namespaces of its
 * own, mounts an empty file system and makes it the root, from which the host's is detached. What
 * was opened stays open; paths lead nowhere from now on.
 *
 * A VMM that is linked dynamically (that is: a build with sanitizers, whose run-times have no
 * static kind) needs its loader and its libraries, and the sanitizers look at /proc/self. So for
 * such a one, and only then, /usr, /lib, /lib64 and /proc are bound into that root, read-only.
 *
 * Failure: the step that failed is named. Nothing is undone, since the spawner ends then.
 * Once, before anything else; one thread.
 */

#include "pool/spawner_internal.h"

#include "base/fd.h"
#include "vmm/control.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where the new root is mounted: it is there on every host, and what it hides is open by then. */
#define ROOT_POINT "/dev"
/* A few directories, no files. */
#define ROOT_OPTIONS "mode=0555,size=4k,nr_inodes=16"
/* Descriptors below are a VMM's. */
#define FD_FLOOR 16

_Static_assert(VMM_CONTROL_FD + 1 < FD_FLOOR && VMM_KVM_FD + 1 < FD_FLOOR, "below the floor");

/* --- descriptors --- */

/* Descriptors that are received later come to lie above as well. */
static int fill_below_floor(int devnull)
{
	int fd;

	do {
		fd = fcntl(devnull, F_DUPFD, 0);
	} while (fd >= 0 && fd < FD_FLOOR);
	if (fd < 0) {
		return -errno;
	}
	base_fd_close(fd);
	return 0;
}

static int open_devices(struct spawner *spawner, struct base_error *error)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0) {
		return base_error_set_errno(error, -errno, "opening /dev/null");
	}
	spawner->devnull = fcntl(fd, F_DUPFD_CLOEXEC, FD_FLOOR);
	spawner->manager = fcntl(SPAWNER_CONTROL_FD, F_DUPFD_CLOEXEC, FD_FLOOR);
	base_fd_close(fd);
	if (spawner->devnull < 0 || spawner->manager < 0) {
		return base_error_set_errno(error, -errno, "descriptor %d", SPAWNER_CONTROL_FD);
	}
	r = fill_below_floor(spawner->devnull);
	if (r < 0) {
		return base_error_set_errno(error, r, "duplicating a descriptor");
	}
	spawner->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (spawner->kvm < 0) {
		spawner->kvm = spawner->devnull;
	}
	return 0;
}

static int open_paths(struct spawner *spawner, const char *program, struct base_error *error)
{
	spawner->program = open(program, O_PATH | O_CLOEXEC);
	if (spawner->program < 0) {
		return base_error_set_errno(error, -errno, "%s", program);
	}
	spawner->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (spawner->proc < 0) {
		return base_error_set_errno(error, -errno, "opening /proc");
	}
	return 0;
}

/* Whether it asks for a loader. What cannot be read or is no ELF file is left to execve(). */
static bool is_dynamic(const char *program)
{
	_cleanup_fd_ int fd = open(program, O_RDONLY | O_CLOEXEC);
	Elf64_Phdr segment;
	Elf64_Ehdr header;

	if (fd < 0 || base_fd_pread_full(fd, &header, sizeof(header), 0) < 0 ||
	    memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
	    header.e_ident[EI_CLASS] != ELFCLASS64) {
		return false;
	}
	for (unsigned i = 0; i < header.e_phnum; i++) {
		off_t offset = (off_t)(header.e_phoff + i * sizeof(segment));

		if (base_fd_pread_full(fd, &segment, sizeof(segment), offset) < 0) {
			return false;
		}
		if (segment.p_type == PT_INTERP) {
			return true;
		}
	}
	return false;
}

/* --- user namespace --- */

static int write_file(const struct spawner *spawner, const char *name, const char *text)
{
	_cleanup_fd_ int fd = openat(spawner->proc, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int spawner_place_map_ids(const struct spawner *spawner, uid_t uid, gid_t gid)
{
	char users[32], groups[32];
	int r;

	snprintf(users, sizeof(users), "%u %u 1", uid, uid);
	snprintf(groups, sizeof(groups), "%u %u 1", gid, gid);
	r = write_file(spawner, "self/setgroups", "deny");
	r = r ?: write_file(spawner, "self/uid_map", users);
	return r ?: write_file(spawner, "self/gid_map", groups);
}

/* --- root --- */

/* Binds a directory of the host with all that is mounted below it. One that the host lacks is left
 * out. */
static int bind_directory(const char *path, struct base_error *error)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
	};
	_cleanup_fd_ int tree = -1;
	char target[64];

	tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (tree < 0 && errno == ENOENT) {
		return 0;
	}
	snprintf(target, sizeof(target), ROOT_POINT "%s", path);
	if (tree < 0 || mkdir(target, 0555) < 0 ||
	    mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof(attributes)) <
		    0 ||
	    move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
		return base_error_set_errno(error, -errno, "binding %s", path);
	}
	return 0;
}

static int make_root(bool dynamic, struct base_error *error)
{
	static const char *const needed[] = { "/usr", "/lib", "/lib64", "/proc" };
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	/* Nothing that happens here shows on the host. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return base_error_set_errno(error, -errno, "cutting the mounts off the host's");
	}
	if (mount("none", ROOT_POINT, "tmpfs", flags, ROOT_OPTIONS) < 0) {
		return base_error_set_errno(error, -errno, "mounting an empty root");
	}
	for (size_t i = 0; dynamic && i < ARRAY_SIZE(needed); i++) {
		int r = bind_directory(needed[i], error);

		if (r < 0) {
			return r;
		}
	}
	if (mount(NULL, ROOT_POINT, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0) {
		return base_error_set_errno(error, -errno, "making the empty root read-only");
	}
	return 0;
}

/* The old root comes to lie on top of the new one, where it is detached. */
static int enter_root(struct base_error *error)
{
	if (chdir(ROOT_POINT) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) {
		return base_error_set_errno(error, -errno, "changing to the empty root");
	}
	if (umount2(".", MNT_DETACH) < 0) {
		return base_error_set_errno(error, -errno, "detaching the host's root");
	}
	return 0;
}

static int enter_namespaces(struct spawner *spawner, struct base_error *error)
{
	bool user = spawner->place == SPAWNER_PLACE_USER;
	int r;

	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
		    (user ? CLONE_NEWUSER : 0)) < 0) {
		return base_error_set_errno(error, -errno, "making namespaces");
	}
	if (user) {
		r = spawner_place_map_ids(spawner, spawner->uid, spawner->gid);
		if (r < 0) {
			return base_error_set_errno(error, r, "mapping ids %u and %u", spawner->uid,
						    spawner->gid);
		}
	}
	if (sethostname("sandbox", strlen("sandbox")) < 0 || setdomainname("", 0) < 0) {
		return base_error_set_errno(error, -errno, "setting the host's name");
	}
	return 0;
}

/* What all VMMs inherit. Only ever less than it was. */
static int lower_limits(struct base_error *error)
{
	static const int none[] = { RLIMIT_CORE, RLIMIT_MSGQUEUE, RLIMIT_RTPRIO };
	const struct rlimit zero = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		if (setrlimit((__rlimit_resource_t)none[i], &zero) < 0) {
			return base_error_set_errno(error, -errno, "lowering a limit");
		}
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		return base_error_set_errno(error, -errno, "giving up new privileges");
	}
	return 0;
}

int spawner_place_enter(struct spawner *spawner, const char *program, struct base_error *error)
{
	bool dynamic = is_dynamic(program);
	int r = open_devices(spawner, error);

	spawner->uid = geteuid();
	spawner->gid = getegid();
	r = r ?: open_paths(spawner, program, error);
	if (r == 0 && spawner->place != SPAWNER_PLACE_HOST) {
		r = enter_namespaces(spawner, error);
		r = r ?: make_root(dynamic, error);
		r = r ?: enter_root(error);
	}
	if (r == 0 && chdir("/") < 0) {
		return base_error_set_errno(error, -errno, "going to the root directory");
	}
	return r ?: lower_limits(error);
}
