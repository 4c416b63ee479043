/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What bench-restore and bench-floor agree on.
 *
 * bench-floor is the least that a process can do to get a restored VM to its first entry. It is
 * started with descriptors in the places below, makes the VM, loads the state and enters it once,
 * and writes a struct floor_stamps to FLOOR_STAMPS_FD. With the argument "capture" it writes the
 * state of a new vCPU to FLOOR_STATE_FD instead, which later runs then load: what the values are
 * makes no difference to how long KVM takes to set them.
 */

#include <linux/kvm.h>
#include <stdint.h>

#define FLOOR_STAMPS_FD 3
#define FLOOR_MEMORY_FD 4
#define FLOOR_STATE_FD	5

#define FLOOR_XSAVE_BYTES 16384
#define FLOOR_MSRS	  128
#define FLOOR_CPUID	  256

/* CLOCK_MONOTONIC ns. */
struct floor_stamps {
	uint64_t start, vm, memslot, vcpu, loaded, entry;
};

struct floor_state {
	struct {
		uint32_t n, padding; /* the head of struct kvm_cpuid2 */
		struct kvm_cpuid_entry2 entries[FLOOR_CPUID];
	} cpuid;
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	uint8_t xsave[FLOOR_XSAVE_BYTES];
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct {
		uint32_t n, padding; /* the head of struct kvm_msrs */
		struct kvm_msr_entry entries[FLOOR_MSRS];
	} msrs;
	struct kvm_vcpu_events events;
	struct kvm_clock_data clock;
};
