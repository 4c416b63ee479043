/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Questions about this host's KVM: which kind it is, what CPU its guests see, how fast it is.
 *
 * Stateless; any thread. The probe makes a VM of its own and takes it down again.
 */

#include "vmm/vmm.h"

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

const char *vmm_host_kind_name(enum vmm_host_kind kind)
{
	switch (kind) {
	case VMM_HOST_VMX:
		return "vmx";
	case VMM_HOST_SVM:
		return "svm";
	case VMM_HOST_PVM:
		return "pvm";
	}
	return "unknown";
}

int vmm_host_kind_detect(enum vmm_host_kind *ret_kind)
{
	static const struct {
		const char *path;
		enum vmm_host_kind kind;
	} modules[] = {
		/* kvm-pvm first: a host that has it loaded has it because the others cannot work.
		 */
		{ "/sys/module/kvm_pvm", VMM_HOST_PVM },
		{ "/sys/module/kvm_intel", VMM_HOST_VMX },
		{ "/sys/module/kvm_amd", VMM_HOST_SVM },
	};
	unsigned eax, ebx, ecx, edx;

	if (access("/dev/kvm", F_OK) < 0) {
		return -ENODEV;
	}
	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		if (access(modules[i].path, F_OK) == 0) {
			*ret_kind = modules[i].kind;
			return 0;
		}
	}
	/* No module directory to be seen (a minimal /sys): ask the CPU. */
	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 5))) {
		*ret_kind = VMM_HOST_VMX;
		return 0;
	}
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 2))) {
		*ret_kind = VMM_HOST_SVM;
		return 0;
	}
	return -ENODEV;
}

int vmm_host_fingerprint(int kvm_fd, uint64_t *ret_fingerprint)
{
	enum vmm_host_kind kind;
	struct vmm_cpuid base;
	int r;

	r = vmm_host_kind_detect(&kind);
	if (r < 0) {
		return r;
	}
	r = vmm_cpuid_base(kvm_fd, kind, &base);
	if (r < 0) {
		return r;
	}
	*ret_fingerprint = vmm_cpuid_fingerprint(&base);
	return 0;
}

static int probe_vm(int kvm_fd, void *memory, struct vmm_host_report *report,
		    struct base_error *error)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_userspace_memory_region region = {
		.memory_size = KIB(64),
		.userspace_addr = (uint64_t)(uintptr_t)memory,
	};
	_cleanup_fd_ int vm_fd = -1;
	uint64_t start = base_clock_monotonic_ns();

	vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	if (vm_fd < 0) {
		return base_error_set_errno(error, -errno, "creating a VM");
	}
	report->create_vm_ns = base_clock_monotonic_ns() - start;
	if (ioctl(vm_fd, KVM_ENABLE_CAP, &split) < 0) {
		return base_error_set_errno(error, -errno, "enabling the split irqchip");
	}
	start = base_clock_monotonic_ns();
	if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
		return base_error_set_errno(error, -errno, "setting a memory slot");
	}
	report->memslot_ns = base_clock_monotonic_ns() - start;
	start = base_clock_monotonic_ns();
	vm_fd = base_fd_close(vm_fd);
	report->destroy_ns = base_clock_monotonic_ns() - start;
	return 0;
}

int vmm_host_probe(struct vmm_host_report *ret_report, struct base_error *error)
{
	struct vmm_host_report report = {};
	_cleanup_fd_ int kvm_fd = -1;
	void *memory;
	int r;

	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0) {
		return base_error_set_errno(error, -errno, "opening /dev/kvm");
	}
	r = vmm_host_kind_detect(&report.kind);
	if (r < 0) {
		return base_error_set_errno(error, r, "finding out the kind of KVM");
	}
	report.api_version = ioctl(kvm_fd, KVM_GET_API_VERSION, 0);
	if (report.api_version < 0) {
		return base_error_set_errno(error, -errno, "asking for the KVM API version");
	}
	report.has_split_irqchip = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP) > 0;
	report.has_immediate_exit = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) > 0;
	r = vmm_host_fingerprint(kvm_fd, &report.fingerprint);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the CPUID table of KVM");
	}
	memory = mmap(NULL, KIB(64), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		return base_error_set_errno(error, -errno, "mapping memory");
	}
	r = probe_vm(kvm_fd, memory, &report, error);
	munmap(memory, KIB(64));
	if (r < 0) {
		return r;
	}
	*ret_report = report;
	return 0;
}
