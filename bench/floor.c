/* SPDX-License-Identifier: Apache-2.0 */

/*
 * bench-floor: a bare process that does by hand, and in a straight line, the KVM calls of a
 * restore: what warmbox-vmm is compared with. No devices, no threads, no protocol, no checks of
 * what it reads. bench/floor.h says how it is started. A call that fails ends it with status 1 and
 * the call's name.
 */

#include "bench/floor.h"

#include "base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define IRQ_PINS 24

#define MUST(call)                           \
	do {                                 \
		if ((call) < 0) {            \
			perror(#call);       \
			_exit(EXIT_FAILURE); \
		}                            \
	} while (0)

static struct floor_state state;
static struct floor_stamps stamps;
static int kvm_fd, vm_fd, vcpu_fd;

static void make_vm(void)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { IRQ_PINS } };
	struct kvm_userspace_memory_region region = {};
	struct stat info;
	void *memory;

	stamps.start = base_clock_monotonic_ns();
	MUST(kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC));
	MUST(vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0));
	MUST(ioctl(vm_fd, KVM_ENABLE_CAP, &split));
	stamps.vm = base_clock_monotonic_ns();
	MUST(fstat(FLOOR_MEMORY_FD, &info));
	memory = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_NORESERVE, FLOOR_MEMORY_FD, 0);
	region.memory_size = (uint64_t)info.st_size;
	region.userspace_addr = (uint64_t)(uintptr_t)memory;
	MUST(ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &region));
	stamps.memslot = base_clock_monotonic_ns();
	MUST(vcpu_fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0));
	stamps.vcpu = base_clock_monotonic_ns();
}

/* The MSRs of the list that can be read; the TSC and its deadline stay KVM's. */
static void capture_msrs(void)
{
	struct {
		uint32_t n; /* the head of struct kvm_msr_list */
		uint32_t indices[512];
	} list = { .n = 512 };
	struct {
		uint32_t n, padding; /* the head of struct kvm_msrs */
		struct kvm_msr_entry entry;
	} one;

	MUST(ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, &list));
	for (uint32_t i = 0; i < list.n && state.msrs.n < FLOOR_MSRS; i++) {
		one.n = 1;
		one.entry = (struct kvm_msr_entry){ .index = list.indices[i] };
		if (ioctl(vcpu_fd, KVM_GET_MSRS, &one) == 1 &&
		    ioctl(vcpu_fd, KVM_SET_MSRS, &one) == 1) {
			state.msrs.entries[state.msrs.n++] = one.entry;
		}
	}
}

static int capture(void)
{
	make_vm();
	state.cpuid.n = FLOOR_CPUID;
	MUST(ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &state.cpuid));
	MUST(ioctl(vcpu_fd, KVM_SET_CPUID2, &state.cpuid));
	MUST(ioctl(vcpu_fd, KVM_GET_MP_STATE, &state.mp_state));
	MUST(ioctl(vcpu_fd, KVM_GET_REGS, &state.regs));
	MUST(ioctl(vcpu_fd, KVM_GET_SREGS2, &state.sregs));
	MUST(ioctl(vcpu_fd, KVM_GET_XSAVE2, state.xsave));
	MUST(ioctl(vcpu_fd, KVM_GET_XCRS, &state.xcrs));
	MUST(ioctl(vcpu_fd, KVM_GET_DEBUGREGS, &state.debugregs));
	MUST(ioctl(vcpu_fd, KVM_GET_LAPIC, &state.lapic));
	capture_msrs();
	MUST(ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &state.events));
	MUST(ioctl(vm_fd, KVM_GET_CLOCK, &state.clock));
	state.clock.flags = 0;
	return write(FLOOR_STATE_FD, &state, sizeof(state)) == sizeof(state) ? 0 : 1;
}

static void load(void)
{
	MUST(pread(FLOOR_STATE_FD, &state, sizeof(state), 0));
	MUST(ioctl(vcpu_fd, KVM_SET_CPUID2, &state.cpuid));
	MUST(ioctl(vcpu_fd, KVM_SET_MP_STATE, &state.mp_state));
	MUST(ioctl(vcpu_fd, KVM_SET_REGS, &state.regs));
	MUST(ioctl(vcpu_fd, KVM_SET_SREGS2, &state.sregs));
	MUST(ioctl(vcpu_fd, KVM_SET_XSAVE, state.xsave));
	MUST(ioctl(vcpu_fd, KVM_SET_XCRS, &state.xcrs));
	MUST(ioctl(vcpu_fd, KVM_SET_DEBUGREGS, &state.debugregs));
	MUST(ioctl(vcpu_fd, KVM_SET_LAPIC, &state.lapic));
	MUST(ioctl(vcpu_fd, KVM_SET_MSRS, &state.msrs));
	MUST(ioctl(vcpu_fd, KVM_SET_VCPU_EVENTS, &state.events));
	MUST(ioctl(vm_fd, KVM_SET_CLOCK, &state.clock));
	stamps.loaded = base_clock_monotonic_ns();
}

/* One entry that KVM is told to come back from at once. */
static void enter(void)
{
	int bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run =
		mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);

	run->immediate_exit = 1;
	stamps.entry = base_clock_monotonic_ns();
	(void)ioctl(vcpu_fd, KVM_RUN, 0);
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1) {
		return capture();
	}
	make_vm();
	load();
	enter();
	return write(FLOOR_STAMPS_FD, &stamps, sizeof(stamps)) == sizeof(stamps) ? 0 : 1;
}
