/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the guest is told of its CPU: KVM's supported table, filtered, with the topology of this VM.
 */

#include "vmm/vmm.h"

#include <linux/kvm.h>

#define VMM_CPUID_ENTRIES_MAX 256

/* struct kvm_cpuid2 with room for the most entries. */
struct vmm_cpuid {
	uint32_t n_entries;
	uint32_t padding;
	struct kvm_cpuid_entry2 entries[VMM_CPUID_ENTRIES_MAX];
};
_Static_assert(offsetof(struct vmm_cpuid, entries) == offsetof(struct kvm_cpuid2, entries),
	       "layout of the KVM API");

/* Reads KVM's supported table and filters it for this kind of host. 0 or -errno. */
int vmm_cpuid_base(int kvm_fd, enum vmm_host_kind kind, struct vmm_cpuid *ret_cpuid);

/* The table of vCPU `index` of n_vcpus: base with APIC id and topology put in. -E2BIG when it does
 * not fit. */
int vmm_cpuid_for_vcpu(const struct vmm_cpuid *base, unsigned index, unsigned n_vcpus,
		       struct vmm_cpuid *ret_cpuid);

/* XXH64 over the table of the only vCPU of a VM. */
uint64_t vmm_cpuid_fingerprint(const struct vmm_cpuid *base);
