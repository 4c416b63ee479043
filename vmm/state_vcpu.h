/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The state of one vCPU: out of KVM, to bytes and back, into KVM. Only while its thread is parked.
 */

#include "base/bytes.h"
#include "base/error.h"
#include "vmm/vm.h"

#define VMM_MSRS_MAX 512

/* struct kvm_msrs with room for the most entries, and the TSC behind them. */
struct vmm_msrs {
	uint32_t n_entries;
	uint32_t padding;
	struct kvm_msr_entry entries[VMM_MSRS_MAX + 1];
};

struct vmm_vcpu_state {
	struct kvm_mp_state mp_state;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	uint32_t xsave_bytes;
	uint8_t xsave[VMM_XSAVE_BYTES_MAX];
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	uint32_t tsc_khz;
	struct vmm_cpuid cpuid;
	struct vmm_msrs msrs;
	uint64_t tsc;	       /* MSR_IA32_TSC when the others were read */
	uint64_t tsc_deadline; /* 0: no timer armed */
	struct kvm_vcpu_events events;
};

/* Reads everything from KVM. 0 or -errno. */
int vmm_vcpu_state_get(const struct vmm_vcpu *vcpu, struct vmm_vcpu_state *ret_state,
		       struct base_error *error);

void vmm_vcpu_state_write(const struct vmm_vcpu_state *state, struct base_writer *writer);
/* Checks counts and sizes; what values mean is for KVM to check. *ret_state must be zeroed, or have
 * been read before. 0 or -EBADMSG. */
int vmm_vcpu_state_read(struct vmm_vcpu_state *ret_state, struct base_reader *reader,
			struct base_error *error);

/* Of a new vCPU: whether this host kind leaves a guest's TSC at the host's. 0 or -errno. */
int vmm_vcpu_state_probe(const struct vmm_vcpu *vcpu, bool *ret_tsc_is_fixed,
			 struct base_error *error);

/*
 * Puts everything into KVM; the vCPU must be new, and the state is of no use afterwards. Where the
 * guest's TSC cannot be moved, the armed timer is moved instead. 0 or -errno.
 */
int vmm_vcpu_state_set(struct vmm_vcpu *vcpu, struct vmm_vcpu_state *state,
		       struct base_error *error);

/* What the guest's RDTSC gives now. 0 or -errno. */
int vmm_vcpu_state_tsc(const struct vmm_vcpu *vcpu, uint64_t *ret_tsc, struct base_error *error);
