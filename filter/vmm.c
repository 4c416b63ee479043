/* SPDX-License-Identifier: Apache-2.0 */

/*
 * System calls of warmbox-vmm.
 *
 *    main thread   setup ──▶ loaded          a sandbox: from the moment that it has a state
 *                     └────▶ booted          a template that is built (and what a test saves)
 *    vCPU threads  setup ──▶ vcpu, vcpu_pvm  before they wait for a state
 *
 * A later stage comes on top of an earlier one, so what it allows is allowed by `setup` as well. No
 * stage opens anything, makes a socket or a process, or maps code.
 */

#include "filter/rules.h"

#include "vmm/control.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

/* USERFAULTFD_IOC_NEW of newer headers. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define PTHREAD_FLAGS                                                                       \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | \
	 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

#define ONLY_VTX      "only VT-x wants it"
#define FALLBACK_VDSO "only where the vDSO cannot read the clock source"

/* Whoever runs beside a guest. */
static const struct filter_rule every_thread[] = {
	ALLOW(futex, "locks and conditions"),
	ALLOW(write, "eventfds: kicks of queues, the end of the VM; the console; the log"),
	ALLOW(poll, "whether the console takes a byte, whether a client hung up"),
	ALLOW(sendmsg, "answers and events to the manager; bytes to a client of vsock"),
	ALLOW(epoll_ctl, "sockets of vsock enter and leave the loop"),
	ALLOW_IF(ioctl, "an interrupt for the guest", IS(1, KVM_SIGNAL_MSI)),
	RARELY(clock_gettime, "times of events", FALLBACK_VDSO),
};

static const struct filter_rule vcpu[] = {
	ALLOW_IF(ioctl, "enters the guest", IS(1, KVM_RUN)),
	ALLOW_IF(ioctl, "says where the guest failed", IS(1, KVM_GET_REGS)),
	ALLOW(rt_sigreturn, "the signal that gets a vCPU out of the guest"),
	RARELY(ftruncate, "a console file that is full begins anew", "tests/guest shows it"),
	RARELY(lseek, "a console file that is full begins anew", "tests/guest shows it"),
};

/* kvm-pvm's emulator lacks instructions, which the vCPU's thread executes instead. */
static const struct filter_rule vcpu_pvm[] = {
	ALLOW_IF(ioctl, "steps over fwait, XSAVE, XRSTOR", IS(1, KVM_SET_REGS)),
	ALLOW_IF(ioctl, "XSAVE: mode and page tables", IS(1, KVM_GET_SREGS)),
	ALLOW_IF(ioctl, "XSAVE that faults: CR2", IS(1, KVM_SET_SREGS)),
	ALLOW_IF(ioctl, "XSAVE: which features are on", IS(1, KVM_GET_XCRS)),
	ALLOW_IF(ioctl, "XSAVE: the state", IS(1, KVM_GET_XSAVE2)),
	RARELY_IF(ioctl, "XSAVE: the state", "kernels before 5.17", IS(1, KVM_GET_XSAVE)),
	ALLOW_IF(ioctl, "XRSTOR: the state", IS(1, KVM_SET_XSAVE)),
	ALLOW_IF(ioctl, "XSAVE that faults", IS(1, KVM_GET_VCPU_EVENTS)),
	ALLOW_IF(ioctl, "XSAVE that faults", IS(1, KVM_SET_VCPU_EVENTS)),
};

/* The main thread while it serves a VM that has a state. */
static const struct filter_rule serve[] = {
	ALLOW(epoll_wait, "the loop"),
	ALLOW(read, "eventfds"),
	ALLOW(recvmsg, "requests of the manager; bytes of a client of vsock"),
	ALLOW(recvfrom,
	      "the line that a client of vsock begins with, and what is left of its bytes"),
	ALLOW(sendto, "the line that answers it"),
	ALLOW(accept4, "clients of vsock"),
	ALLOW(shutdown, "one direction of a stream ends"),
	ALLOW(close, "streams that are over, descriptors of requests"),
	ALLOW(io_uring_enter, "disks, on a ring that is restricted to reads and writes"),
	ALLOW(getrandom, "the entropy device"),
	ALLOW_IF(madvise, "pages that the guest gives back; the heap", IS(2, MADV_DONTNEED)),
	ALLOW_IF(mmap, "a block of the heap: anonymous, private, no code",
		 IS(2, PROT_READ | PROT_WRITE), IS(3, MAP_PRIVATE | MAP_ANONYMOUS)),
	ALLOW(munmap, "a block of the heap is given back"),
	ALLOW(brk, "the heap"),
	ALLOW_IF(tgkill, "gets a vCPU out of the guest", IS(2, SIGUSR1)),
	ALLOW_IF(ioctl, "tells the guest that it was stopped", IS(1, KVM_KVMCLOCK_CTRL)),
	ALLOW(setpriority, "somebody waits for this VM now"),
	ALLOW(exit_group, "the end"),
	ALLOW_IF(fcntl, "is the image of lazy memory complete", IS(1, F_GET_SEALS)),
	/* A successor of the manager takes over (vmm/successor.c). */
	ALLOW_IF(setsockopt, "how long a send to it may take", IS(1, SOL_SOCKET),
		 IS(2, SO_SNDTIMEO)),
	ALLOW_IF(dup3, "its socket takes the place of the old one", IS(1, VMM_CONTROL_FD)),
	ALLOW(setitimer, "how long it may take"),
	ALLOW(rt_sigreturn, "that it takes too long is found out by a signal"),
	RARELY(restart_syscall, "a wait with a time-out goes on",
	       "only after the process was stopped and continued"),
};

/* Reads the state of a VM and writes it to files. */
static const struct filter_rule save[] = {
	ALLOW(pwrite64, "writes state and memory"),
	ALLOW(newfstatat, "whether the files fit"),
	ALLOW(mremap, "the buffer of the state grows"),
	ALLOW_IF(madvise, "pages that the guest gives back", IS(2, MADV_REMOVE)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_MP_STATE)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_REGS)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_SREGS2)),
	RARELY_IF(ioctl, "saves a vCPU", "kernels before 5.17", IS(1, KVM_GET_XSAVE)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_XSAVE2)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_XCRS)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_DEBUGREGS)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_LAPIC)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_TSC_KHZ)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_CPUID2)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_MSR_INDEX_LIST)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_MSRS)),
	ALLOW_IF(ioctl, "saves a vCPU", IS(1, KVM_GET_VCPU_EVENTS)),
	ALLOW_IF(ioctl, "saves the clock", IS(1, KVM_GET_CLOCK)),
};

/* Makes the VM and its threads, gives it a state. */
static const struct filter_rule setup[] = {
	/* The VM. */
	ALLOW_IF(ioctl, "is this KVM", IS(1, KVM_GET_API_VERSION)),
	ALLOW_IF(ioctl, "what KVM can do", IS(1, KVM_CHECK_EXTENSION)),
	ALLOW_IF(ioctl, "how large a run area is", IS(1, KVM_GET_VCPU_MMAP_SIZE)),
	ALLOW_IF(ioctl, "what the guest may see of the CPU", IS(1, KVM_GET_SUPPORTED_CPUID)),
	ALLOW_IF(ioctl, "makes the VM", IS(1, KVM_CREATE_VM)),
	RARELY_IF(ioctl, "makes the VM", ONLY_VTX, IS(1, KVM_SET_TSS_ADDR)),
	RARELY_IF(ioctl, "makes the VM", ONLY_VTX, IS(1, KVM_SET_IDENTITY_MAP_ADDR)),
	ALLOW_IF(ioctl, "makes the VM", IS(1, KVM_ENABLE_CAP)),
	ALLOW_IF(ioctl, "makes the VM", IS(1, KVM_SET_USER_MEMORY_REGION)),
	ALLOW_IF(ioctl, "makes the VM", IS(1, KVM_CREATE_VCPU)),
	ALLOW_IF(ioctl, "makes the VM", IS(1, KVM_IOEVENTFD)),
	/* Its state. */
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_TSC_KHZ)),
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_CPUID2)),
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_MP_STATE)),
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_SREGS2)),
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_XCRS)),
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_DEBUGREGS)),
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_LAPIC)),
	ALLOW_IF(ioctl, "loads a vCPU", IS(1, KVM_SET_MSRS)),
	ALLOW_IF(ioctl, "loads the clock", IS(1, KVM_SET_CLOCK)),
	ALLOW(pread64, "reads a state, a kernel"),
	ALLOW(fcntl, "flags of descriptors; whether a state is sealed"),
	/* Memory that fills as it is touched. */
	ALLOW_IF(ioctl, "a userfaultfd", IS(1, USERFAULTFD_IOC_NEW)),
	ALLOW(userfaultfd, "a userfaultfd, where there is no device for it"),
	ALLOW_IF(ioctl, "lazy memory", IS(1, UFFDIO_API)),
	ALLOW_IF(ioctl, "lazy memory", IS(1, UFFDIO_REGISTER)),
	/* Memory, devices, the loop. */
	ALLOW_IF(mmap, "guest memory, run areas, rings, stacks", LACKS(2, PROT_EXEC)),
	ALLOW_IF(mprotect, "stacks", LACKS(2, PROT_EXEC)),
	ALLOW(memfd_create, "a kernel that comes out of a bzImage"),
	ALLOW(eventfd2, "queues of devices"),
	ALLOW(epoll_create1, "the loop"),
	ALLOW(getsockopt, "what kind of socket it was given"),
	ALLOW(setsockopt, "how long a send may take"),
	ALLOW(io_uring_setup, "disks"),
	ALLOW(io_uring_register, "restricts the ring of a disk"),
	/* The process and its threads. */
	ALLOW_IF(clone, "a thread", IS(0, PTHREAD_FLAGS)),
	ANSWER(clone3, ENOSYS, "a thread: its flags cannot be seen, so the C library takes clone"),
	ALLOW(set_robust_list, "a thread"),
	ALLOW(rseq, "a thread"),
	ALLOW(gettid, "a thread"),
	ALLOW(getpid, "threads are signalled by it"),
	ALLOW(rt_sigprocmask, "a thread"),
	ALLOW(rt_sigaction, "signals"),
	ALLOW(setpgid, "priorities are set for the group"),
	ALLOW_IF(prctl, "no new privileges, before a filter", IS(0, PR_SET_NO_NEW_PRIVS)),
	ALLOW_IF(prctl, "nobody looks into it", IS(0, PR_SET_DUMPABLE)),
	ALLOW(seccomp, "the filters of the stages that follow"),
};

static const struct filter_stage stages[] = {
	{ "setup",
	  { LIST(vcpu), LIST(vcpu_pvm), LIST(every_thread), LIST(serve), LIST(save),
	    LIST(setup) } },
	{ "booted", { LIST(every_thread), LIST(serve), LIST(save) } },
	{ "loaded", { LIST(every_thread), LIST(serve) } },
	{ "vcpu", { LIST(vcpu), LIST(every_thread) } },
	{ "vcpu_pvm", { LIST(vcpu), LIST(vcpu_pvm), LIST(every_thread) } },
};

const struct filter_program filter_program_vmm = {
	"vmm",
	stages,
	sizeof(stages) / sizeof(stages[0]),
};
