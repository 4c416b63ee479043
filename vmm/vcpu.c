/* SPDX-License-Identifier: Apache-2.0 */

/*
 * vCPUs: one thread each, which enters the guest and handles its exits.
 *
 * A thread is parked (waiting on vm->wake), or in KVM_RUN without a lock, or handling an exit with
 * the device lock. To stop it: clear vm->running, set immediate_exit, send the signal. KVM_RUN then
 * returns EINTR, after it has completed the I/O of the exit before, and only then does the thread
 * park: a parked vCPU has nothing half-done that its saved registers would not show. What a vCPU
 * cannot go on from ends the VM with a text, and the thread parks until the process exits.
 */

#include "vmm/vm.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define KICK_SIGNAL SIGUSR1

/* The deepest that a vCPU thread gets is XRSTOR, with two images of VMM_XSAVE_BYTES_MAX. A small
 * stack lies in the page of page tables that the mappings beside it need as well. */
#define STACK_BYTES KIB(256)

/* The one instruction that kvm-pvm's emulator lacks and that can be left out: it only waits for
 * pending x87 exceptions, which a kernel does not have. */
#define OPCODE_FWAIT 0x9b

static void on_kick(int number)
{
	(void)number;
}

int vmm_vcpu_setup_signal(void)
{
	struct sigaction action = { .sa_handler = on_kick };

	sigemptyset(&action.sa_mask);
	return sigaction(KICK_SIGNAL, &action, NULL) < 0 ? -errno : 0;
}

int vmm_vcpu_set_cpuid(struct vmm_vcpu *vcpu, const struct vmm_cpuid *cpuid,
		       struct base_error *error)
{
	uint64_t digest = vmm_cpuid_fingerprint(cpuid);

	if (vcpu->cpuid_digest == digest) {
		return 0;
	}
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0) {
		return base_error_set_errno(error, -errno, "setting the CPUID table of vCPU %u",
					    vcpu->index);
	}
	vcpu->cpuid_digest = digest;
	return 0;
}

int vmm_vcpu_init(struct vmm_vcpu *vcpu, struct vmm_vm *vm, unsigned index,
		  const struct vmm_cpuid *cpuid, struct base_error *error)
{
	void *run;

	*vcpu = (struct vmm_vcpu){ .vm = vm, .index = index, .fd = -1, .parked = true };
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (vcpu->fd < 0) {
		return base_error_set_errno(error, -errno, "creating vCPU %u", index);
	}
	run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED) {
		return base_error_set_errno(error, -errno, "mapping the run area of vCPU %u",
					    index);
	}
	vcpu->run = run;
	return vmm_vcpu_set_cpuid(vcpu, cpuid, error);
}

void vmm_vcpu_kick(struct vmm_vcpu *vcpu)
{
	pid_t tid = __atomic_load_n(&vcpu->tid, __ATOMIC_SEQ_CST);

	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	/* Without a thread id it has yet to look whether it may run. Not pthread_kill(), which
	 * takes four system calls. */
	if (tid > 0) {
		(void)tgkill(vcpu->vm->pid, tid, KICK_SIGNAL);
	}
}

static void handle_io(struct vmm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)vcpu->run + run->io.data_offset;

	vcpu->vm->counters.port_exits++;
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			vmm_ports_write(vcpu->vm, run->io.port, data, run->io.size);
		} else {
			vmm_ports_read(vcpu->vm, run->io.port, data, run->io.size);
		}
	}
}

static void handle_mmio(struct vmm_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	unsigned length = MIN(run->mmio.len, (uint32_t)sizeof(run->mmio.data));

	vcpu->vm->counters.mmio_exits++;
	if (run->mmio.is_write) {
		vmm_mmio_write(vcpu->vm, run->mmio.phys_addr, run->mmio.data, length);
	} else {
		vmm_mmio_read(vcpu->vm, run->mmio.phys_addr, run->mmio.data, length);
	}
}

/* KVM could not emulate an instruction. Steps over fwait, executes XSAVE and XRSTOR; anything else
 * ends the VM. */
static void handle_emulation_failure(struct vmm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	uint8_t bytes[15] = {};
	char text[3 * sizeof(bytes) + 1] = "unknown";
	unsigned size = 0;
	struct kvm_regs regs;
	int r;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0) {
		vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, errno, "reading the registers of vCPU %u",
			   vcpu->index);
		return;
	}
	if (run->emulation_failure.ndata >= 3 &&
	    (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
		size = MIN((unsigned)run->emulation_failure.insn_size, (unsigned)sizeof(bytes));
		memcpy(bytes, run->emulation_failure.insn_bytes, size);
	}
	vcpu->vm->counters.stepped++;
	if (size >= 1 && bytes[0] == OPCODE_FWAIT && vcpu->vm->kind == VMM_HOST_PVM) {
		regs.rip++;
		if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0) {
			vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, errno,
				   "setting the registers of vCPU %u", vcpu->index);
		}
		return;
	}
	r = vcpu->vm->kind == VMM_HOST_PVM ? vmm_pvm_xsave_step(vcpu, bytes, size, &regs) : 1;
	if (r == 0) {
		return;
	}
	if (r < 0) {
		vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, -r,
			   "vCPU %u: saving or restoring the extended state at %#llx: %s",
			   vcpu->index, regs.rip, strerror(-r));
		return;
	}
	for (unsigned i = 0; i < size; i++) {
		snprintf(text + 3 * i, 4, "%02x ", bytes[i]);
	}
	vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, EIO,
		   "vCPU %u: KVM cannot emulate the instruction at %#llx (bytes: %s)", vcpu->index,
		   regs.rip, text);
}

static void handle_internal_error(struct vmm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
		handle_emulation_failure(vcpu);
		return;
	}
	vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, EIO, "vCPU %u: KVM internal error %u (data %#llx)",
		   vcpu->index, run->internal.suberror,
		   run->internal.ndata ? run->internal.data[0] : 0);
}

static void handle_exit(struct vmm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(vcpu);
		break;
	case KVM_EXIT_MMIO:
		handle_mmio(vcpu);
		break;
	case KVM_EXIT_IOAPIC_EOI:
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SHUTDOWN:
		vmm_vm_end(vcpu->vm, VMM_EXIT_RESET, 0, "the guest crashed (triple fault)");
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		vmm_vm_end(vcpu->vm, VMM_EXIT_RESET, 0, "the guest ended itself (system event %u)",
			   run->system_event.type);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		handle_internal_error(vcpu);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, EIO,
			   "vCPU %u: KVM failed to enter the guest (reason %#llx)", vcpu->index,
			   run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, EIO, "vCPU %u: unexpected exit %u of KVM",
			   vcpu->index, run->exit_reason);
		break;
	}
}

/* Waits until the VM runs. */
static void wait_for_run(struct vmm_vcpu *vcpu)
{
	struct vmm_vm *vm = vcpu->vm;

	pthread_mutex_lock(&vm->run_lock);
	while (!vm->running) {
		if (!vcpu->parked) {
			vcpu->parked = true;
			pthread_cond_signal(&vm->parking);
		}
		pthread_cond_wait(&vm->wake, &vm->run_lock);
	}
	vcpu->parked = false;
	pthread_mutex_unlock(&vm->run_lock);
}

/* One KVM_RUN. 0 or -errno. */
static int enter(struct vmm_vcpu *vcpu)
{
	struct vmm_vm *vm = vcpu->vm;
	int r;

	if (__atomic_load_n(&vm->entered_pending, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&vm->entered_pending, false, __ATOMIC_RELAXED)) {
		vm->callbacks.entered(vm->callbacks.userdata, base_clock_monotonic_ns());
	}
	r = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	__atomic_add_fetch(&vm->counters.exits, 1, __ATOMIC_RELAXED);
	return r;
}

/* What KVM_RUN came back for. False: the VM is over. */
static bool handle_return(struct vmm_vcpu *vcpu, int r)
{
	struct vmm_vm *vm = vcpu->vm;
	bool goes_on;

	pthread_mutex_lock(&vm->loop->lock);
	if (r == 0) {
		handle_exit(vcpu);
	} else if (r != -EAGAIN) {
		vmm_vm_end(vm, VMM_EXIT_FAILURE, -r, "vCPU %u: KVM_RUN: %s", vcpu->index,
			   strerror(-r));
	}
	goes_on = !vm->is_over;
	pthread_mutex_unlock(&vm->loop->lock);
	return goes_on;
}

static void *vcpu_main(void *argument)
{
	struct vmm_vcpu *vcpu = argument;
	const struct filter *filter =
		vcpu->vm->kind == VMM_HOST_PVM ? &filter_vmm_vcpu_pvm : &filter_vmm_vcpu;
	bool may_park = true;
	int r;

	__atomic_store_n(&vcpu->tid, gettid(), __ATOMIC_SEQ_CST);
	r = filter_install(filter, vcpu->vm->filters);
	if (r < 0) {
		pthread_mutex_lock(&vcpu->vm->loop->lock);
		vmm_vm_end(vcpu->vm, VMM_EXIT_FAILURE, -r, "filtering the system calls of vCPU %u",
			   vcpu->index);
		pthread_mutex_unlock(&vcpu->vm->loop->lock);
	}
	for (;;) {
		if (may_park) {
			wait_for_run(vcpu);
		}
		r = enter(vcpu);
		may_park = r == -EINTR || !handle_return(vcpu, r);
	}
	return NULL;
}

int vmm_vcpu_start(struct vmm_vcpu *vcpu, struct base_error *error)
{
	pthread_attr_t attributes;
	sigset_t all, old;
	int r;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	/* Only the kick may interrupt a vCPU thread. */
	sigfillset(&all);
	sigdelset(&all, KICK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&vcpu->thread, &attributes, vcpu_main, vcpu);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r < 0) {
		return base_error_set_errno(error, r, "starting the thread of vCPU %u",
					    vcpu->index);
	}
	return 0;
}
