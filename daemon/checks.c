/* SPDX-License-Identifier: Apache-2.0 */

/* Checks at the start of the daemon, before there is an event loop. They leave nothing behind but
 * the runtime directory. */

#include "daemon/checks.h"

#include "base/fd.h"
#include "base/log.h"
#include "rpc/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define KVM_DEVICE   "/dev/kvm"
#define LOCK_STEP_MS 20

int daemon_check_kvm(struct base_error *error)
{
	_cleanup_fd_ int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		return 0;
	}

	int r = -errno;

	switch (-r) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return base_error_set(error, r,
				      KVM_DEVICE " is missing: load the KVM module of this CPU "
						 "(kvm_intel, kvm_amd or kvm_pvm), or use a host "
						 "that offers virtualization");
	case EACCES:
	case EPERM:
		return base_error_set(error, r,
				      "no permission to open " KVM_DEVICE
				      ": run warmboxd as root, or as a member of the group that "
				      "owns it");
	default:
		return base_error_set_errno(error, r, "cannot open " KVM_DEVICE);
	}
}

/* --- programs --- */

/* <directory of this program>/<relative>, when that can be executed. */
static int find_beside(const char *relative, char **ret_path)
{
	char program[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	char candidate[PATH_MAX];
	char *slash;

	if (n < 0) {
		return -errno;
	}
	program[n] = '\0';
	slash = strrchr(program, '/');
	if (!slash) {
		return -ENOENT;
	}
	*slash = '\0';
	if ((size_t)snprintf(candidate, sizeof(candidate), "%s/%s", program, relative) >=
	    sizeof(candidate)) {
		return -ENAMETOOLONG;
	}
	if (access(candidate, X_OK) < 0) {
		return -errno;
	}
	*ret_path = realpath(candidate, NULL);
	return *ret_path ? 0 : -errno;
}

/* What is configured; else what is beside this program; else what is installed. */
static int find_program(char **path, const char *in_build_tree, const char *name,
			const char *installed)
{
	if (!*path && find_beside(in_build_tree, path) < 0 && find_beside(name, path) < 0) {
		int r = daemon_config_override(path, installed);

		if (r < 0) {
			return r;
		}
	}
	return access(*path, X_OK) < 0 ? -errno : 0;
}

static int find_helper(char **path, const char *in_build_tree, const char *name,
		       const char *installed, const char *what, struct base_error *error)
{
	int r = find_program(path, in_build_tree, name, installed);

	if (r < 0) {
		return base_error_set_errno(error, r,
					    "cannot execute the %s program %s (install it, or say "
					    "where it is in the configuration)",
					    what, *path ?: installed);
	}
	return 0;
}

int daemon_check_programs(struct daemon_config *config, struct base_error *error)
{
	int r = find_program(&config->vmm, "../vmm/warmbox-vmm", "warmbox-vmm", DAEMON_VMM_PATH);

	if (r < 0) {
		return base_error_set_errno(error, r,
					    "cannot execute the VMM program %s (install it, or say "
					    "where it is with --vmm)",
					    config->vmm ?: DAEMON_VMM_PATH);
	}
	r = find_helper(&config->spawner, "../pool/warmbox-spawner", "warmbox-spawner",
			DAEMON_SPAWNER_PATH, "spawner", error);
	if (r == 0) {
		r = find_helper(&config->pager, "../uffd/warmbox-pager", "warmbox-pager",
				DAEMON_PAGER_PATH, "pager", error);
	}
	return r;
}

/* --- group and runtime directory --- */

int daemon_check_group(const struct daemon_config *config, gid_t *ret_group,
		       struct base_error *error)
{
	const struct group *group;

	*ret_group = RPC_GROUP_UNCHANGED;
	if (!config->group) {
		return 0;
	}
	errno = 0;
	group = getgrnam(config->group);
	if (!group) {
		return base_error_set(error, errno ? -errno : -ENOENT,
				      "there is no group %s: create it, or configure another",
				      config->group);
	}
	*ret_group = group->gr_gid;
	return 0;
}

/* Parents get the usual mode; the directory itself is for its group. */
static int make_directory(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);

	if (!copy) {
		return -ENOMEM;
	}
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST) {
			return -errno;
		}
		*slash = '/';
	}
	return mkdir(copy, 0750) < 0 && errno != EEXIST ? -errno : 0;
}

/* A process that was killed holds its locks until the kernel has taken it down. */
static int lock_patiently(int fd)
{
	int r = -EWOULDBLOCK;

	for (int waited_ms = 0; waited_ms <= DAEMON_LOCK_WAIT_MS; waited_ms += LOCK_STEP_MS) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
			return 0;
		}
		r = -errno;
		if (r != -EWOULDBLOCK) {
			break;
		}
		poll(NULL, 0, LOCK_STEP_MS);
	}
	return r;
}

int daemon_check_runtime_dir(const struct daemon_config *config, gid_t group, int *ret_fd,
			     struct base_error *error)
{
	const char *path = config->runtime_dir;
	_cleanup_fd_ int fd = -1;
	int r = make_directory(path);

	if (r < 0) {
		return base_error_set_errno(error, r,
					    "cannot make the runtime directory %s (become root, or "
					    "choose another with --runtime-dir)",
					    path);
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		return base_error_set_errno(error, -errno, "cannot open the runtime directory %s",
					    path);
	}
	r = lock_patiently(fd);
	if (r == -EWOULDBLOCK) {
		return base_error_set(error, -EADDRINUSE,
				      "another warmboxd uses the runtime directory %s; stop it, or "
				      "choose another with --runtime-dir",
				      path);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot lock %s", path);
	}
	if (access(path, W_OK | X_OK) < 0 ||
	    (group != RPC_GROUP_UNCHANGED && fchown(fd, (uid_t)-1, group) < 0)) {
		return base_error_set_errno(error, -errno,
					    "cannot use the runtime directory %s (become root, or "
					    "choose another with --runtime-dir)",
					    path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void daemon_raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max) {
		return;
	}
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
		log_warning("cannot raise the limit of open files to %llu",
			    (unsigned long long)limit.rlim_max);
	}
}

void daemon_raise_priority(void)
{
	if (setpriority(PRIO_PROCESS, 0, DAEMON_PRIORITY) < 0) {
		log_debug("cannot raise the daemon's priority: %s", strerrordesc_np(errno));
	}
}
