/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The kernel's interfaces, and room: memory, disk, limits. Only looks; nothing is changed.
 */

#include "cli/doctor.h"

#include "base/fd.h"
#include "cli/cli.h"
#include "uffd/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MEMORY_LOW_BYTES GIB(1)
#define DISK_LOW_BYTES	 GIB(1)
#define DISK_FULL_BYTES	 MIB(64)
#define NOFILE_LOW	 4096
#define KERNEL_MAJOR_MIN 5
#define KERNEL_MINOR_MIN 15
#define CACHE_DEFAULT	 "/var/cache/warmbox"
#define PATH_BYTES	 4096

static void check_version(cli_finding_fn report, void *userdata)
{
	struct utsname name;
	unsigned major = 0, minor = 0;
	bool old;

	uname(&name);
	old = sscanf(name.release, "%u.%u", &major, &minor) != 2 || major < KERNEL_MAJOR_MIN ||
	      (major == KERNEL_MAJOR_MIN && minor < KERNEL_MINOR_MIN);
	cli_doctor_report(report, userdata, "kernel", old ? CLI_VERDICT_FAIL : CLI_VERDICT_OK,
			  old ? "Use Linux 5.15 or later; 6.1 is what it is tested with." : NULL,
			  "Linux %s on %s", name.release, name.machine);
}

static void check_uring(cli_finding_fn report, void *userdata)
{
	struct io_uring ring;
	int r = io_uring_queue_init(8, &ring, 0);

	if (r == 0) {
		io_uring_queue_exit(&ring);
		cli_doctor_report(report, userdata, "io_uring", CLI_VERDICT_OK, NULL,
				  "io_uring may be used");
		return;
	}
	cli_doctor_report(report, userdata, "io_uring", CLI_VERDICT_FAIL,
			  "Allow it: sysctl kernel.io_uring_disabled=0; in a container, allow the "
			  "io_uring system calls in its seccomp profile.",
			  "io_uring cannot be used: %s", strerrordesc_np(-r));
}

/* A userfaultfd that also sees faults taken inside KVM. */
static int open_userfaultfd(void)
{
	_cleanup_fd_ int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd = -1;

	if (device >= 0) {
		fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC);
	}
	if (fd < 0) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	}
	return fd < 0 ? -errno : fd;
}

static void check_userfaultfd(cli_finding_fn report, void *userdata)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM };
	_cleanup_fd_ int fd = open_userfaultfd();

	if (fd < 0) {
		cli_doctor_report(
			report, userdata, "userfaultfd", CLI_VERDICT_WARN,
			"Memory images are then loaded whole before the first use. To allow "
			"it: be root, give access to /dev/userfaultfd, or sysctl "
			"vm.unprivileged_userfaultfd=1.",
			"userfaultfd cannot be used: %s", strerrordesc_np(-fd));
	} else if (ioctl(fd, UFFDIO_API, &api) < 0) {
		cli_doctor_report(report, userdata, "userfaultfd", CLI_VERDICT_WARN,
				  "Memory images are then loaded whole before the first use.",
				  "userfaultfd does not support shared memory");
	} else {
		cli_doctor_report(report, userdata, "userfaultfd", CLI_VERDICT_OK, NULL,
				  "userfaultfd may be used, with shared memory");
	}
}

static void check_memfd(cli_finding_fn report, void *userdata)
{
	struct base_error error = {};
	int r = uffd_host_check(&error);

	cli_doctor_report(report, userdata, "memfd", r < 0 ? CLI_VERDICT_FAIL : CLI_VERDICT_OK,
			  r == -ENOTSUP
				  ? "Turn them off: echo never > "
				    "/sys/kernel/mm/transparent_hugepage/shmem_enabled, and the "
				    "same for each size below hugepages-*/shmem_enabled."
				  : NULL,
			  "%s", r < 0 ? error.text : "memory images can be filled page by page");
}

static void check_cgroup(cli_finding_fn report, void *userdata)
{
	struct statfs fs;
	bool v2;

	if (statfs("/sys/fs/cgroup", &fs) < 0) {
		cli_doctor_report(report, userdata, "cgroup", CLI_VERDICT_WARN,
				  "Mount it: mount -t cgroup2 none /sys/fs/cgroup.",
				  "no cgroups at /sys/fs/cgroup");
		return;
	}
	v2 = fs.f_type == CGROUP2_SUPER_MAGIC;
	cli_doctor_report(
		report, userdata, "cgroup", v2 ? CLI_VERDICT_OK : CLI_VERDICT_WARN,
		v2 ? NULL
		   : "Boot with systemd.unified_cgroup_hierarchy=1: with version 1 a sandbox that "
		     "is restored without a shell waits tens of milliseconds for its limits.",
		"cgroup version %s; whether sandboxes have limits, warmbox health says",
		v2 ? "2" : "1");
}

void cli_doctor_check_kernel(cli_finding_fn report, void *userdata)
{
	check_version(report, userdata);
	check_uring(report, userdata);
	check_userfaultfd(report, userdata);
	check_memfd(report, userdata);
	check_cgroup(report, userdata);
}

/* A line "<name>: <n> kB" of /proc/meminfo in bytes; 0 when there is none. */
static uint64_t meminfo_bytes(const char *name)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_fd_ int fd = -1;
	uint64_t kib = 0;
	char *line;
	size_t size;

	fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || base_fd_read_file(fd, KIB(64), &text, &size) < 0) {
		return 0;
	}
	line = strstr(text, name);
	if (!line || sscanf(line + strlen(name), ": %" SCNu64, &kib) != 1) {
		return 0;
	}
	return kib * 1024;
}

static void check_memory(cli_finding_fn report, void *userdata)
{
	uint64_t available = meminfo_bytes("MemAvailable");
	char left[CLI_FORMAT_MAX], all[CLI_FORMAT_MAX];
	bool low = available < MEMORY_LOW_BYTES;

	cli_doctor_report(report, userdata, "memory", low ? CLI_VERDICT_WARN : CLI_VERDICT_OK,
			  low ? "Keep pools small (warmbox pool TEMPLATE --set N) and templates' "
				"memory too."
			      : NULL,
			  "%s of %s available", cli_format_bytes(left, available),
			  cli_format_bytes(all, meminfo_bytes("MemTotal")));
}

/* Space where path is, or where it would be made. */
static void check_disk(const char *name, const char *path, cli_finding_fn report, void *userdata)
{
	char there[PATH_BYTES], left[CLI_FORMAT_MAX];
	enum cli_verdict verdict;
	struct statvfs fs;
	uint64_t bytes;
	char *slash;

	snprintf(there, sizeof(there), "%s", path);
	while (statvfs(there, &fs) < 0) {
		slash = errno == ENOENT ? strrchr(there, '/') : NULL;
		if (!slash || slash[1] == '\0') {
			cli_doctor_report(report, userdata, name, CLI_VERDICT_FAIL,
					  "Make the directory, or name another one.",
					  "cannot look at %s: %s", there, strerrordesc_np(errno));
			return;
		}
		slash[slash == there ? 1 : 0] = '\0';
	}
	bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	verdict = bytes < DISK_FULL_BYTES  ? CLI_VERDICT_FAIL
		  : bytes < DISK_LOW_BYTES ? CLI_VERDICT_WARN
					   : CLI_VERDICT_OK;
	cli_doctor_report(report, userdata, name, verdict,
			  verdict == CLI_VERDICT_OK ? NULL
						    : "Free some space; a template takes some "
						      "hundred megabytes with its root image.",
			  "%s free at %s", cli_format_bytes(left, bytes), path);
}

static const char *limit_text(char buffer[CLI_FORMAT_MAX], rlim_t limit)
{
	if (limit == RLIM_INFINITY) {
		return "unlimited";
	}
	snprintf(buffer, CLI_FORMAT_MAX, "%" PRIu64, (uint64_t)limit);
	return buffer;
}

static void check_limits(cli_finding_fn report, void *userdata)
{
	char soft[CLI_FORMAT_MAX], hard[CLI_FORMAT_MAX];
	struct rlimit files, locked;
	bool low;

	getrlimit(RLIMIT_NOFILE, &files);
	low = files.rlim_max < NOFILE_LOW;
	cli_doctor_report(
		report, userdata, "limit_nofile", low ? CLI_VERDICT_WARN : CLI_VERDICT_OK,
		low ? "The daemon needs a few descriptors a sandbox: raise it (ulimit -Hn, or "
		      "LimitNOFILE= in its unit)."
		    : NULL,
		"open files: %s, at most %s", limit_text(soft, files.rlim_cur),
		limit_text(hard, files.rlim_max));
	getrlimit(RLIMIT_MEMLOCK, &locked);
	low = locked.rlim_max < MIB(8) && geteuid() != 0;
	cli_doctor_report(
		report, userdata, "limit_memlock", low ? CLI_VERDICT_WARN : CLI_VERDICT_OK,
		low ? "Image loading registers buffers with io_uring: raise it to 8 MiB or more "
		      "(ulimit -Hl, or LimitMEMLOCK= in the daemon's unit)."
		    : NULL,
		"locked memory: %s bytes, at most %s", limit_text(soft, locked.rlim_cur),
		limit_text(hard, locked.rlim_max));
}

void cli_doctor_check_resources(const char *store_path, cli_finding_fn report, void *userdata)
{
	const char *cache = getenv("WARMBOX_CACHE");

	check_memory(report, userdata);
	check_disk("store", store_path, report, userdata);
	check_disk("cache", cache && *cache ? cache : CACHE_DEFAULT, report, userdata);
	check_limits(report, userdata);
}
