/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Guest memory: one mapping, and the bounds check in front of it.
 *
 * Lazy memory has holes that another process fills when they are touched. Any access to it, from
 * here or from KVM, then waits for that process; the descriptor of the registration is kept so that
 * it cannot lapse when that process dies, since a hole would then read as zeros.
 *
 * The vCPU threads, the main thread and the guest itself all reach the mapping at once; nothing
 * here takes a lock and no content is trusted.
 */

#include "vmm/memory.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What one page of page tables maps. */
#define TABLE_SPAN_BYTES MIB(2)

#define PAGE_BYTES UINT64_C(4096)

/* An unmapped range that starts where a page of page tables does: so none is needed for a part. */
static int reserve(uint64_t size_bytes, void **ret_base)
{
	uint8_t *range = mmap(NULL, size_bytes + TABLE_SPAN_BYTES, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before;

	if (range == MAP_FAILED) {
		return -errno;
	}
	before = -(uint64_t)(uintptr_t)range % TABLE_SPAN_BYTES;
	if (before > 0) {
		munmap(range, before);
	}
	munmap(range + before + size_bytes, TABLE_SPAN_BYTES - before);
	*ret_base = range + before;
	return 0;
}

int vmm_memory_init(struct vmm_memory *memory, int fd, uint64_t size_bytes, bool shared)
{
	struct stat info;
	void *base = NULL;
	int r;

	if (fstat(fd, &info) < 0) {
		return -errno;
	}
	if (!S_ISREG(info.st_mode) || info.st_size < 0 || (uint64_t)info.st_size != size_bytes ||
	    size_bytes == 0) {
		return -EINVAL;
	}
	r = reserve(size_bytes, &base);
	if (r < 0) {
		return r;
	}
	/* A private mapping may have more pages to write than the host has memory: the pool decides
	 * how many VMs there are, not the overcommit heuristic. */
	if (mmap(base, size_bytes, PROT_READ | PROT_WRITE,
		 (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE | MAP_FIXED, fd,
		 0) == MAP_FAILED) {
		r = -errno;
		munmap(base, size_bytes);
		return r;
	}
	*memory = (struct vmm_memory){
		.base = base,
		.size_bytes = size_bytes,
		.shared = shared,
		.userfault_fd = -1,
		.image_fd = -1,
	};
	return 0;
}

void vmm_memory_deinit(struct vmm_memory *memory)
{
	if (memory->base) {
		munmap(memory->base, memory->size_bytes);
		memory->base = NULL;
		memory->size_bytes = 0;
		memory->userfault_fd = base_fd_close(memory->userfault_fd);
		memory->image_fd = base_fd_close(memory->image_fd);
	}
}

int vmm_memory_make_lazy(struct vmm_memory *memory, int image_fd, int device_fd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM };
	struct uffdio_register region = {
		.range = { (uint64_t)(uintptr_t)memory->base, memory->size_bytes },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	_cleanup_fd_ int image = fcntl(image_fd, F_DUPFD_CLOEXEC, 0);
	_cleanup_fd_ int fd = -1;

	if (image < 0) {
		return -errno;
	}
	/* Not UFFD_USER_MODE_ONLY: most faults are KVM's. */
	fd = ioctl(device_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	}
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &region) < 0) {
		return -errno;
	}
	memory->userfault_fd = TAKE_FD(fd);
	memory->image_fd = TAKE_FD(image);
	return 0;
}

bool vmm_memory_is_whole(const struct vmm_memory *memory)
{
	int seals = memory->image_fd >= 0 ? fcntl(memory->image_fd, F_GET_SEALS) : F_SEAL_WRITE;

	return seals >= 0 && seals & F_SEAL_WRITE;
}

void *vmm_memory_at(const struct vmm_memory *memory, gpa_t gpa, uint64_t length)
{
	if (gpa > memory->size_bytes || length > memory->size_bytes - gpa) {
		return NULL;
	}
	return memory->base + gpa;
}

int vmm_memory_discard(const struct vmm_memory *memory, gpa_t gpa, uint64_t length,
		       uint64_t *ret_bytes)
{
	uint64_t first, end;

	if (!vmm_memory_at(memory, gpa, length)) {
		return -EFAULT;
	}
	*ret_bytes = 0;
	first = base_align_up(gpa, PAGE_BYTES);
	end = (gpa + length) & ~(PAGE_BYTES - 1);
	/* Both keep the mapping as it is, and with it a userfaultfd's registration. */
	if (first < end && madvise(memory->base + first, end - first,
				   memory->shared ? MADV_REMOVE : MADV_DONTNEED) == 0) {
		*ret_bytes = end - first;
	}
	return 0;
}

int vmm_memory_read(const struct vmm_memory *memory, gpa_t gpa, void *out, uint64_t length)
{
	const void *p = vmm_memory_at(memory, gpa, length);

	if (!p) {
		return -EFAULT;
	}
	memcpy(out, p, length);
	return 0;
}

int vmm_memory_write(const struct vmm_memory *memory, gpa_t gpa, const void *data, uint64_t length)
{
	void *p = vmm_memory_at(memory, gpa, length);

	if (!p) {
		return -EFAULT;
	}
	memcpy(p, data, length);
	return 0;
}
