/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The CPUID table of the guest.
 *
 * KVM says what it can support; what this VMM does not save and restore, and what needs a
 * hypercall where hypercalls do not work, is taken out; APIC ids and topology are put in per vCPU.
 * Stateless; any thread.
 */

#include "vmm/cpuid.h"

#include "base/bytes.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <xxhash.h>

#define LEAF_FEATURES	     0x1u
#define LEAF_CACHES	     0x4u
#define LEAF_POWER	     0x6u
#define LEAF_PERFMON	     0xau
#define LEAF_TOPOLOGY	     0xbu
#define LEAF_SGX	     0x12u
#define LEAF_TRACE	     0x14u
#define LEAF_TOPOLOGY_V2     0x1fu
#define LEAF_KVM_FEATURES    0x40000001u
#define LEAF_AMD_FEATURES    0x80000001u
#define LEAF_AMD_SIZES	     0x80000008u
#define LEAF_AMD_SVM	     0x8000000au
#define LEAF_AMD_CACHES	     0x8000001du
#define LEAF_AMD_TOPOLOGY    0x8000001eu
#define LEAF_AMD_PERFMON_V2  0x80000022u
#define LEAF_AMD_TOPOLOGY_V2 0x80000026u

#define FEATURE_ECX_VMX		 (1u << 5)
#define FEATURE_ECX_X2APIC	 (1u << 21)
#define FEATURE_ECX_TSC_DEADLINE (1u << 24)
#define FEATURE_ECX_HYPERVISOR	 (1u << 31)
#define FEATURE_EDX_HTT		 (1u << 28)
#define POWER_EAX_ARAT		 (1u << 2)
#define AMD_FEATURE_ECX_SVM	 (1u << 2)

#define BIT_OF(n) (1u << (n))
/* Paravirtual features whose state KVM_GET_MSRS covers. No async page faults: an announcement that
 * is outstanding when a snapshot is taken would never come. */
#define PV_ALLOWED                                                            \
	(BIT_OF(KVM_FEATURE_CLOCKSOURCE) | BIT_OF(KVM_FEATURE_NOP_IO_DELAY) | \
	 BIT_OF(KVM_FEATURE_CLOCKSOURCE2) | BIT_OF(KVM_FEATURE_PV_EOI) |      \
	 BIT_OF(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT))
/* These call the hypervisor; on kvm-pvm an emulated vmcall never returns. */
#define PV_ALLOWED_WITH_HYPERCALLS                                         \
	(BIT_OF(KVM_FEATURE_PV_UNHALT) | BIT_OF(KVM_FEATURE_PV_SEND_IPI) | \
	 BIT_OF(KVM_FEATURE_PV_SCHED_YIELD))

static void clear_registers(struct kvm_cpuid_entry2 *entry)
{
	entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
}

static void filter_entry(struct kvm_cpuid_entry2 *entry, enum vmm_host_kind kind)
{
	switch (entry->function) {
	case LEAF_FEATURES:
		entry->ebx &= 0x0000ffff;
		entry->ecx &= ~FEATURE_ECX_VMX;
		entry->ecx |=
			FEATURE_ECX_X2APIC | FEATURE_ECX_TSC_DEADLINE | FEATURE_ECX_HYPERVISOR;
		entry->edx &= ~FEATURE_EDX_HTT;
		break;
	case LEAF_POWER:
		/* The LAPIC timer is KVM's: it never stops. */
		entry->eax = POWER_EAX_ARAT;
		entry->ebx = entry->ecx = entry->edx = 0;
		break;
	case LEAF_PERFMON:
	case LEAF_SGX:
	case LEAF_TRACE:
	case LEAF_AMD_SVM:
	case LEAF_AMD_PERFMON_V2:
		clear_registers(entry);
		break;
	case LEAF_KVM_FEATURES:
		entry->eax &= PV_ALLOWED | (kind == VMM_HOST_PVM ? 0 : PV_ALLOWED_WITH_HYPERCALLS);
		entry->edx = 0;
		break;
	case LEAF_AMD_FEATURES:
		entry->ecx &= ~AMD_FEATURE_ECX_SVM;
		break;
	default:
		break;
	}
}

/* Leaves that describe the host's topology, or depend on the CPU that asks. */
static bool is_topology(uint32_t function)
{
	return function == LEAF_TOPOLOGY || function == LEAF_TOPOLOGY_V2 ||
	       function == LEAF_AMD_TOPOLOGY || function == LEAF_AMD_TOPOLOGY_V2;
}

int vmm_cpuid_base(int kvm_fd, enum vmm_host_kind kind, struct vmm_cpuid *ret_cpuid)
{
	uint32_t kept = 0;

	memset(ret_cpuid, 0, sizeof(*ret_cpuid));
	ret_cpuid->n_entries = VMM_CPUID_ENTRIES_MAX;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, ret_cpuid) < 0) {
		return -errno;
	}
	for (uint32_t i = 0; i < ret_cpuid->n_entries; i++) {
		struct kvm_cpuid_entry2 entry = ret_cpuid->entries[i];

		if (is_topology(entry.function)) {
			continue;
		}
		filter_entry(&entry, kind);
		ret_cpuid->entries[kept++] = entry;
	}
	ret_cpuid->n_entries = kept;
	return 0;
}

static unsigned bits_for(unsigned n)
{
	unsigned bits = 0;

	while ((1u << bits) < n) {
		bits++;
	}
	return bits;
}

/* One package of n_vcpus cores with one thread each. */
static void add_topology_leaf(struct vmm_cpuid *cpuid, unsigned index, unsigned n_vcpus)
{
	struct kvm_cpuid_entry2 *entry = &cpuid->entries[cpuid->n_entries];

	for (unsigned level = 0; level < 3; level++, entry++) {
		*entry = (struct kvm_cpuid_entry2){
			.function = LEAF_TOPOLOGY,
			.index = level,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.ecx = level,
			.edx = index,
		};
		if (level == 0) {
			entry->ebx = 1;
			entry->ecx |= 1 << 8;
		} else if (level == 1) {
			entry->eax = bits_for(n_vcpus);
			entry->ebx = n_vcpus;
			entry->ecx |= 2 << 8;
		}
		cpuid->n_entries++;
	}
}

static void place_entry(struct kvm_cpuid_entry2 *entry, unsigned index, unsigned n_vcpus)
{
	switch (entry->function) {
	case LEAF_FEATURES:
		entry->ebx = (entry->ebx & 0xffff) | n_vcpus << 16 | index << 24;
		if (n_vcpus > 1) {
			entry->edx |= FEATURE_EDX_HTT;
		}
		break;
	case LEAF_CACHES:
		/* No cache is shared, n_vcpus cores in the package. */
		entry->eax &= ~0xffffc000u;
		if (entry->eax & 0x1f) {
			entry->eax |= (n_vcpus - 1) << 26;
		}
		break;
	case LEAF_AMD_SIZES:
		entry->ecx = (n_vcpus - 1) | bits_for(n_vcpus) << 12;
		break;
	case LEAF_AMD_CACHES:
		entry->eax &= ~0x03ffc000u;
		break;
	default:
		break;
	}
}

int vmm_cpuid_for_vcpu(const struct vmm_cpuid *base, unsigned index, unsigned n_vcpus,
		       struct vmm_cpuid *ret_cpuid)
{
	if (base->n_entries + 3 > VMM_CPUID_ENTRIES_MAX) {
		return -E2BIG;
	}
	*ret_cpuid = *base;
	for (uint32_t i = 0; i < ret_cpuid->n_entries; i++) {
		place_entry(&ret_cpuid->entries[i], index, n_vcpus);
	}
	add_topology_leaf(ret_cpuid, index, n_vcpus);
	return 0;
}

uint64_t vmm_cpuid_fingerprint(const struct vmm_cpuid *base)
{
	XXH64_state_t *state = XXH64_createState();
	uint64_t hash;

	if (!state) {
		return 0;
	}
	XXH64_reset(state, 0);
	for (uint32_t i = 0; i < base->n_entries; i++) {
		const struct kvm_cpuid_entry2 *entry = &base->entries[i];
		uint8_t bytes[28];

		base_store_u32(bytes, entry->function);
		base_store_u32(bytes + 4, entry->index);
		base_store_u32(bytes + 8, entry->flags);
		base_store_u32(bytes + 12, entry->eax);
		base_store_u32(bytes + 16, entry->ebx);
		base_store_u32(bytes + 20, entry->ecx);
		base_store_u32(bytes + 24, entry->edx);
		XXH64_update(state, bytes, sizeof(bytes));
	}
	hash = XXH64_digest(state);
	XXH64_freeState(state);
	return hash;
}
