/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Opens what a template is built from and finds the mistakes that are cheap to find: a file that is
 * not there or not of its kind, a host without KVM, sizes that make no sense. What is wrong inside
 * a kernel the VMM says, when it loads it. Any thread.
 */

#include "cli/build_inputs.h"

#include "base/bytes.h"
#include "base/fd.h"
#include "guest/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define KERNEL_MAX_BYTES    MIB(256)
#define INITRAMFS_MAX_BYTES MIB(256)

/* Where file systems carry their magic numbers: EROFS erofs_super_block.magic at 1024, ext4
 * s_magic at 1024 + 56. */
#define EROFS_MAGIC_OFFSET 1024
#define EROFS_MAGIC	   0xe0f5e1e2u
#define EXT4_MAGIC_OFFSET  1080
#define EXT4_MAGIC	   0xef53u
#define ROOT_HEAD_BYTES	   1082

/* bzImage: "HdrS" at 0x202 of the setup header. */
#define BZIMAGE_MAGIC_OFFSET 0x202
#define KERNEL_HEAD_BYTES    0x206

static int open_input(const char *what, const char *path, uint64_t limit, int *ret_fd,
		      struct stat *ret_stat, struct base_error *error)
{
	_cleanup_fd_ int fd = -1;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		return base_error_set_errno(error, -errno, "cannot open the %s %s", what, path);
	}
	if (fstat(fd, ret_stat) < 0) {
		return base_error_set_errno(error, -errno, "cannot look at the %s %s", what, path);
	}
	if (!S_ISREG(ret_stat->st_mode)) {
		return base_error_set(error, -EINVAL, "the %s %s is not a regular file", what,
				      path);
	}
	if (ret_stat->st_size == 0) {
		return base_error_set(error, -EINVAL, "the %s %s is empty", what, path);
	}
	if ((uint64_t)ret_stat->st_size > limit) {
		return base_error_set(error, -EFBIG, "the %s %s is larger than %u MiB", what, path,
				      (unsigned)(limit >> 20));
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int check_kernel(int fd, const char *path, struct base_error *error)
{
	char head[KERNEL_HEAD_BYTES] = {};

	if (pread(fd, head, sizeof(head), 0) < 0) {
		return base_error_set_errno(error, -errno, "cannot read the kernel %s", path);
	}
	if (memcmp(head, "\177ELF", 4) == 0 ||
	    memcmp(head + BZIMAGE_MAGIC_OFFSET, "HdrS", 4) == 0) {
		return 0;
	}
	return base_error_set(error, -ENOEXEC,
			      "%s is not a Linux kernel: neither an ELF vmlinux nor a bzImage",
			      path);
}

static int check_initramfs(int fd, const char *path, struct base_error *error)
{
	static const struct {
		const char *magic;
		size_t size;
	} kinds[] = {
		{ "070701", 6 },
		{ "070702", 6 },
		{ "\x1f\x8b", 2 },
		{ "\xfd"
		  "7zXZ",
		  5 },
		{ "BZh", 3 },
		{ "\x28\xb5\x2f\xfd", 4 },
		{ "\x02\x21\x4c\x18", 4 },
		{ "\x5d\0\0", 3 },
	};
	char head[8] = {};

	if (pread(fd, head, sizeof(head), 0) < 0) {
		return base_error_set_errno(error, -errno, "cannot read the initramfs %s", path);
	}
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (memcmp(head, kinds[i].magic, kinds[i].size) == 0) {
			return 0;
		}
	}
	return base_error_set(error, -EINVAL, "%s is not an initramfs (a cpio archive)", path);
}

/* The name under which the guest mounts it. */
static int check_root(int fd, const char *path, const char **ret_fstype, struct base_error *error)
{
	uint8_t head[ROOT_HEAD_BYTES] = {};

	if (pread(fd, head, sizeof(head), 0) < 0) {
		return base_error_set_errno(error, -errno, "cannot read the root image %s", path);
	}
	if (base_load_u32(head + EROFS_MAGIC_OFFSET) == EROFS_MAGIC) {
		*ret_fstype = "erofs";
		return 0;
	}
	if (base_load_u16(head + EXT4_MAGIC_OFFSET) == EXT4_MAGIC) {
		*ret_fstype = "ext4";
		return 0;
	}
	return base_error_set(error, -EINVAL,
			      "%s is not a root image: neither an EROFS nor an ext4 file system",
			      path);
}

static int check_host(struct cli_build_inputs *inputs, struct base_error *error)
{
	_cleanup_fd_ int kvm = -1;
	int r;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0 && (errno == EACCES || errno == EPERM)) {
		return base_error_set(error, -errno,
				      "no permission to use /dev/kvm: be root, or in the group "
				      "that owns it (usually kvm)");
	}
	if (kvm < 0) {
		return base_error_set_errno(error, -errno,
					    "cannot open /dev/kvm, which booting a template needs "
					    "('warmbox doctor' says more)");
	}
	r = vmm_host_kind_detect(&inputs->host_kind);
	r = r ?: vmm_host_fingerprint(kvm, &inputs->host_fingerprint);
	return r < 0 ? base_error_set_errno(error, r, "cannot find out what this host's KVM is")
		     : 0;
}

static int check_sizes(const struct cli_build_params *params, struct base_error *error)
{
	if (!snapshot_name_is_valid(params->name)) {
		return base_error_set(error, -EINVAL,
				      "'%s' is not a template name: use a-z, 0-9, '.', '_' and "
				      "'-', at most %d, the first a letter or digit",
				      params->name, SNAPSHOT_NAME_MAX);
	}
	if (params->memory_bytes < CLI_BUILD_MEMORY_MIN_BYTES ||
	    params->memory_bytes > VMM_MEMORY_MAX_BYTES ||
	    params->memory_bytes % SNAPSHOT_CHUNK_BYTES != 0) {
		return base_error_set(error, -EINVAL, "memory must be from %u to %u MiB",
				      (unsigned)(CLI_BUILD_MEMORY_MIN_BYTES >> 20),
				      (unsigned)(VMM_MEMORY_MAX_BYTES >> 20));
	}
	if (params->n_vcpus < 1 || params->n_vcpus > VMM_VCPUS_MAX) {
		return base_error_set(error, -EINVAL, "vCPUs must be from 1 to %d", VMM_VCPUS_MAX);
	}
	return 0;
}

int cli_build_inputs_open(struct cli_build_inputs *inputs, const struct cli_build_params *params,
			  const char *base_cmdline, struct base_error *error)
{
	const char *fstype = NULL;
	struct stat st;
	int r, n;

	r = check_sizes(params, error);
	r = r ?: check_host(inputs, error);
	r = r
		    ?: open_input("kernel", params->kernel_path, KERNEL_MAX_BYTES,
				  &inputs->kernel_fd, &st, error);
	r = r ?: check_kernel(inputs->kernel_fd, params->kernel_path, error);
	r = r
		    ?: open_input("initramfs", params->initramfs_path, INITRAMFS_MAX_BYTES,
				  &inputs->initramfs_fd, &st, error);
	r = r ?: check_initramfs(inputs->initramfs_fd, params->initramfs_path, error);
	r = r
		    ?: open_input("root image", params->root_image_path, INT64_MAX,
				  &inputs->root_fd, &inputs->root_stat, error);
	r = r ?: check_root(inputs->root_fd, params->root_image_path, &fstype, error);
	r = r ?: snapshot_digest_fd(inputs->kernel_fd, inputs->kernel_digest, error);
	if (r < 0) {
		return r;
	}
	n = snprintf(inputs->cmdline, sizeof(inputs->cmdline), "%s " GUEST_PARAM_FSTYPE "%s%s%s",
		     base_cmdline, fstype, params->cmdline ? " " : "",
		     params->cmdline ? params->cmdline : "");
	if (n >= (int)sizeof(inputs->cmdline)) {
		return base_error_set(error, -E2BIG, "the kernel parameters are too long");
	}
	return 0;
}

void cli_build_inputs_close(struct cli_build_inputs *inputs)
{
	base_fd_close(inputs->kernel_fd);
	base_fd_close(inputs->initramfs_fd);
	base_fd_close(inputs->root_fd);
	*inputs = CLI_BUILD_INPUTS_NONE;
}

int cli_build_inputs_unchanged(const struct cli_build_inputs *inputs,
			       const struct cli_build_params *params, struct base_error *error)
{
	const struct stat *before = &inputs->root_stat;
	struct stat after;

	if (fstat(inputs->root_fd, &after) < 0) {
		return base_error_set_errno(error, -errno, "cannot look at the root image %s",
					    params->root_image_path);
	}
	if (before->st_size != after.st_size || before->st_mtim.tv_sec != after.st_mtim.tv_sec ||
	    before->st_mtim.tv_nsec != after.st_mtim.tv_nsec) {
		return base_error_set(error, -ESTALE,
				      "the root image %s was changed while the template was built",
				      params->root_image_path);
	}
	return 0;
}
