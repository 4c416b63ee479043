/* SPDX-License-Identifier: Apache-2.0 */

/* Host kind, CPUID table and probe; skipped where there is no KVM. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "vmm/cpuid.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int kvm_fd = -1;
static const struct kvm_cpuid_entry2 none = { .index = UINT32_MAX };

/* Function 0 with index ~0 for an entry that is not there. */
static const struct kvm_cpuid_entry2 *find(const struct vmm_cpuid *cpuid, uint32_t function,
					   uint32_t index)
{
	for (uint32_t i = 0; i < cpuid->n_entries; i++) {
		if (cpuid->entries[i].function == function && cpuid->entries[i].index == index) {
			return &cpuid->entries[i];
		}
	}
	return &none;
}

static void test_names(void **state)
{
	assert_string_equal(vmm_host_kind_name(VMM_HOST_VMX), "vmx");
	assert_string_equal(vmm_host_kind_name(VMM_HOST_SVM), "svm");
	assert_string_equal(vmm_host_kind_name(VMM_HOST_PVM), "pvm");
	assert_string_equal(vmm_host_kind_name((enum vmm_host_kind)0), "unknown");
}

static void test_probe(void **state)
{
	struct vmm_host_report report;
	struct base_error error = {};

	if (kvm_fd < 0) {
		skip();
	}
	if (vmm_host_probe(&report, &error) < 0) {
		fail_msg("%s", error.text);
	}
	assert_int_equal(report.api_version, 12);
	assert_true(report.has_split_irqchip && report.has_immediate_exit);
	assert_string_not_equal(vmm_host_kind_name(report.kind), "unknown");
	assert_true(report.create_vm_ns > 0 && report.memslot_ns > 0 && report.destroy_ns > 0);
}

static void test_fingerprint(void **state)
{
	uint64_t first = 0, second = 1;
	struct vmm_cpuid base;

	if (kvm_fd < 0) {
		skip();
	}
	assert_int_equal(vmm_host_fingerprint(kvm_fd, &first), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(vmm_host_fingerprint(kvm_fd, &second), 0);
		assert_true(first == second);
	}
	assert_int_equal(vmm_cpuid_base(kvm_fd, VMM_HOST_PVM, &base), 0);
	first = vmm_cpuid_fingerprint(&base);
	base.entries[base.n_entries / 2].ecx ^= 1;
	assert_true(vmm_cpuid_fingerprint(&base) != first);
}

static void test_filter(void **state)
{
	struct vmm_cpuid pvm, svm;

	if (kvm_fd < 0) {
		skip();
	}
	assert_int_equal(vmm_cpuid_base(kvm_fd, VMM_HOST_PVM, &pvm), 0);
	assert_int_equal(vmm_cpuid_base(kvm_fd, VMM_HOST_SVM, &svm), 0);
	/* x2APIC, TSC deadline, hypervisor; no VMX. */
	assert_int_equal(find(&pvm, 1, 0)->ecx & (1u << 21 | 1u << 24 | 1u << 31 | 1u << 5),
			 1u << 21 | 1u << 24 | 1u << 31);
	/* kvmclock; no hypercalls on kvm-pvm; no async page faults anywhere. */
	assert_int_equal(find(&pvm, 0x40000001, 0)->eax & (1u << 3 | 0x3a90), 1u << 3);
	assert_int_equal(find(&svm, 0x40000001, 0)->eax & (1u << 4 | 1u << 10 | 1u << 14), 0);
	assert_ptr_equal(find(&pvm, 0xb, 0), &none);
}

static void test_topology(void **state)
{
	struct vmm_cpuid base, cpuid;

	if (kvm_fd < 0) {
		skip();
	}
	assert_int_equal(vmm_cpuid_base(kvm_fd, VMM_HOST_PVM, &base), 0);
	assert_int_equal(vmm_cpuid_for_vcpu(&base, 4, 5, &cpuid), 0);
	assert_int_equal(find(&cpuid, 1, 0)->ebx >> 16, 4 << 8 | 5);
	assert_true(find(&cpuid, 1, 0)->edx & 1u << 28);
	assert_int_equal(find(&cpuid, 0xb, 0)->edx, 4);
	assert_int_equal(find(&cpuid, 0xb, 1)->eax, 3);
	assert_int_equal(find(&cpuid, 0xb, 1)->ebx, 5);
	assert_int_equal(vmm_cpuid_for_vcpu(&base, 0, 1, &cpuid), 0);
	assert_false(find(&cpuid, 1, 0)->edx & 1u << 28);
	base.n_entries = VMM_CPUID_ENTRIES_MAX - 2;
	assert_int_equal(vmm_cpuid_for_vcpu(&base, 0, 1, &cpuid), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	    cmocka_unit_test(test_probe),
		cmocka_unit_test(test_fingerprint), cmocka_unit_test(test_filter),
		cmocka_unit_test(test_topology),
	};
	int failed;

	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	failed = cmocka_run_group_tests_name("vmm-host", tests, NULL, NULL);
	base_fd_close(kvm_fd);
	return failed;
}
