/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The mounts, in the order of the code below. Any root image works as it is: mount points that it
 * lacks are made in the overlay. What is not here was left out because each mount and each file
 * costs kernel time in every template's boot and pages in its snapshot.
 *
 *   /          overlay: the root image (read-only) below, a tmpfs above
 *   /proc /sys /dev /dev/pts /dev/shm /run /sys/fs/cgroup
 *   /etc/machine-id and /proc/sys/kernel/random/boot_id: bind mounts of two files in that tmpfs,
 *              which the agent rewrites through a mapping when the VM gets its identity
 *
 * A failure ends the boot; the caller says why and resets the machine. One thread.
 */

#include "guest/agent/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* COMMAND_LINE_SIZE of x86 Linux. */
#define CMDLINE_MAX 2048
/* How long the root's block device may take to appear. */
#define ROOT_WAIT_MS 10000
#define ROOT_POLL_MS 20
/* As systemd sets them: many programs mistake a high soft limit for a need to close it all. */
#define NOFILE_SOFT 1024
#define NOFILE_HARD 524288
/* Written to vm.stat_interval, whose default is 1. */
#define STATISTICS_SECONDS "60"
/* Written to vm.percpu_pagelist_high_fraction: of all memory, so small a part that the kernel's
 * least length of such a list, four batches, counts. */
#define PAGELIST_FRACTION "1000000"

#define LOWER	"/lower"
#define OVERLAY "/overlay"
#define ROOT	"/newroot"

struct parameters {
	char cmdline[CMDLINE_MAX + 1];
	const char *root;
	const char *fstype;
	bool fault_reseed;
};

static int make_mount(const char *source, const char *target, const char *type, unsigned long flags,
		      const char *data, struct base_error *error)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST) {
		return base_error_set_errno(error, -errno, "cannot make the directory %s", target);
	}
	if (mount(source, target, type, flags, data) < 0) {
		return base_error_set_errno(error, -errno, "cannot mount %s (%s) at %s", source,
					    type ? type : "moved or bound", target);
	}
	return 0;
}

/* The text after the prefix when the word starts with it, or NULL. */
static const char *value_of(const char *word, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(word, prefix, length) == 0 ? word + length : NULL;
}

static int read_parameters(struct parameters *parameters, struct base_error *error)
{
	ssize_t n = -1;
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);

	parameters->root = "/dev/vda";
	parameters->fstype = "erofs";
	parameters->fault_reseed = false;
	if (fd >= 0) {
		n = read(fd, parameters->cmdline, CMDLINE_MAX);
		close(fd);
	}
	if (n < 0) {
		return base_error_set_errno(error, -errno, "cannot read /proc/cmdline");
	}
	parameters->cmdline[n] = '\0';
	for (char *rest = NULL, *word = strtok_r(parameters->cmdline, " \n", &rest); word;
	     word = strtok_r(NULL, " \n", &rest)) {
		const char *value;

		if ((value = value_of(word, GUEST_PARAM_ROOT))) {
			parameters->root = value;
		} else if ((value = value_of(word, GUEST_PARAM_FSTYPE))) {
			parameters->fstype = value;
		} else if ((value = value_of(word, GUEST_PARAM_FAULT))) {
			if (strcmp(value, "reseed") != 0) {
				return base_error_set(error, -EINVAL, "unknown parameter %s", word);
			}
			parameters->fault_reseed = true;
		}
	}
	return 0;
}

static void wait_for_device(const char *path)
{
	const struct timespec pause = { .tv_nsec = ROOT_POLL_MS * NSEC_PER_MSEC };

	/* When it does not come, the mount gives the error. */
	for (int i = 0; i < ROOT_WAIT_MS / ROOT_POLL_MS && access(path, F_OK) < 0; i++) {
		nanosleep(&pause, NULL);
	}
}

static int mount_root(const struct parameters *parameters, struct base_error *error)
{
	int r;

	wait_for_device(parameters->root);
	r = make_mount(parameters->root, LOWER, parameters->fstype, MS_RDONLY, NULL, error);
	if (r < 0) {
		return r;
	}
	r = make_mount("tmpfs", OVERLAY, "tmpfs", 0, "mode=0755", error);
	if (r < 0) {
		return r;
	}
	if (mkdir(OVERLAY "/upper", 0755) < 0 || mkdir(OVERLAY "/work", 0755) < 0) {
		return base_error_set_errno(error, -errno, "cannot make directories in " OVERLAY);
	}
	return make_mount("overlay", ROOT, "overlay", 0,
			  "lowerdir=" LOWER ",upperdir=" OVERLAY "/upper,workdir=" OVERLAY "/work",
			  error);
}

static int mount_system(struct base_error *error)
{
	static const struct {
		const char *source, *target, *type;
		unsigned long flags;
		const char *data;
	} mounts[] = {
		{ "/proc", ROOT "/proc", NULL, MS_MOVE, NULL },
		{ "/dev", ROOT "/dev", NULL, MS_MOVE, NULL },
		{ "devpts", ROOT "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		  "mode=0620,ptmxmode=0666,gid=5" },
		{ "tmpfs", ROOT "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777" },
		{ "sysfs", ROOT "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL },
		{ "cgroup2", ROOT "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  NULL },
		{ "tmpfs", ROOT "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755" },
	};
	static const struct {
		const char *target, *path;
	} links[] = {
		{ "/proc/self/fd", ROOT "/dev/fd" },
		{ "/proc/self/fd/0", ROOT "/dev/stdin" },
		{ "/proc/self/fd/1", ROOT "/dev/stdout" },
		{ "/proc/self/fd/2", ROOT "/dev/stderr" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		int r = make_mount(mounts[i].source, mounts[i].target, mounts[i].type,
				   mounts[i].flags, mounts[i].data, error);

		if (r < 0) {
			return r;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		if (symlink(links[i].target, links[i].path) < 0 && errno != EEXIST) {
			return base_error_set_errno(error, -errno, "cannot make %s", links[i].path);
		}
	}
	/* The mode that mkdir was told passed the mask. */
	if (mkdir(ROOT "/tmp", 0777) == 0 && chmod(ROOT "/tmp", 01777) < 0) {
		return base_error_set_errno(error, -errno, "cannot make /tmp");
	}
	return 0;
}

static int bind_file(const char *source, const char *target, struct base_error *error)
{
	if (mount(source, target, NULL, MS_BIND, NULL) < 0) {
		return base_error_set_errno(error, -errno, "cannot bind a file over %s", target);
	}
	return 0;
}

static int place_identity(struct agent_identity *identity, struct base_error *error)
{
	int r = agent_identity_create_files(identity, OVERLAY "/machine-id", OVERLAY "/boot-id");
	int fd;

	if (r < 0) {
		return base_error_set_errno(error, r, "cannot make the identity files");
	}
	if (mkdir(ROOT "/etc", 0755) < 0 && errno != EEXIST) {
		return base_error_set_errno(error, -errno, "cannot make /etc");
	}
	/* Made when the image has none; a dangling link is replaced. */
	fd = open(ROOT "/etc/machine-id", O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0444);
	if (fd < 0 && errno == ELOOP && unlink(ROOT "/etc/machine-id") == 0) {
		fd = open(ROOT "/etc/machine-id", O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	}
	if (fd < 0) {
		return base_error_set_errno(error, -errno, "cannot make /etc/machine-id");
	}
	close(fd);
	r = bind_file(OVERLAY "/machine-id", ROOT "/etc/machine-id", error);
	if (r < 0) {
		return r;
	}
	return bind_file(OVERLAY "/boot-id", ROOT "/proc/sys/kernel/random/boot_id", error);
}

static int switch_root(struct base_error *error)
{
	/* Its pages are free once nobody runs it from there; we do, so the text stays. */
	unlink("/init");
	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0) {
		return base_error_set_errno(error, -errno, "cannot make the root image the root");
	}
	return 0;
}

static int bring_up_loopback(struct base_error *error)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = 0;

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) {
		r = -errno;
	}
	if (fd >= 0) {
		close(fd);
	}
	/* A kernel without IPv4 has no such thing. */
	if (r < 0 && r != -EAFNOSUPPORT) {
		return base_error_set_errno(error, r, "cannot bring up the loopback interface");
	}
	return 0;
}

static int set_limits(struct base_error *error)
{
	const struct rlimit files = { .rlim_cur = NOFILE_SOFT, .rlim_max = NOFILE_HARD };
	const struct rlimit core = { .rlim_cur = 0, .rlim_max = RLIM_INFINITY };

	if (setrlimit(RLIMIT_NOFILE, &files) < 0 || setrlimit(RLIMIT_CORE, &core) < 0) {
		return base_error_set_errno(error, -errno, "cannot set resource limits");
	}
	return 0;
}

static int set_sysctl(const char *path, const char *value, struct base_error *error)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = 0;

	if (fd < 0 && errno == ENOENT) {
		return 0; /* a kernel without it */
	}
	if (fd < 0 || write(fd, value, strlen(value)) < 0) {
		r = -errno;
	}
	if (fd >= 0) {
		close(fd);
	}
	return r < 0 ? base_error_set_errno(error, r, "cannot set %s", path) : 0;
}

/*
 * The kernel gathers statistics from its CPUs every second, which an idle sandbox would wake up
 * for. They also do so by themselves when they have nothing else to do. But only with the
 * statistics do lists of free pages become shorter that each CPU keeps for itself, up to an eighth
 * of the memory, and those are not given back to the host. So these are kept short from the start.
 */
static int calm_statistics(struct base_error *error)
{
	int r = set_sysctl("/proc/sys/vm/stat_interval", STATISTICS_SECONDS, error);

	return r
		       ?: set_sysctl("/proc/sys/vm/percpu_pagelist_high_fraction",
				     PAGELIST_FRACTION, error);
}

int agent_boot(struct agent_boot *ret_boot, struct agent_identity *identity,
	       struct base_error *error)
{
	struct parameters parameters;
	int r;

	umask(022);
	r = make_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, error);
	if (r == 0) {
		r = make_mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755", error);
	}
	if (r == 0) {
		r = read_parameters(&parameters, error);
	}
	if (r == 0) {
		r = mount_root(&parameters, error);
	}
	if (r == 0) {
		r = mount_system(error);
	}
	if (r == 0) {
		r = place_identity(identity, error);
	}
	if (r == 0) {
		r = switch_root(error);
	}
	if (r == 0) {
		r = bring_up_loopback(error);
	}
	if (r == 0) {
		r = set_limits(error);
	}
	if (r == 0) {
		r = calm_statistics(error);
	}
	if (r == 0) {
		ret_boot->fault_reseed = parameters.fault_reseed;
	}
	return r;
}
