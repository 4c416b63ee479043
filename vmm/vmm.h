/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What other folders may use of the VMM: the control protocol, and questions about this host's KVM.
 */

#include "vmm/control.h"

#include <stdbool.h>

/* "vmx", "svm", "pvm" or "unknown". */
const char *vmm_host_kind_name(enum vmm_host_kind kind);

/* Detects the host kind from /sys/module and CPUID. The one place that knows. -ENODEV without KVM.
 */
int vmm_host_kind_detect(enum vmm_host_kind *ret_kind);

/*
 * A fingerprint of what the guest sees of this CPU (XXH64 over the filtered CPUID table). A state
 * saved under one fingerprint is refused under another. kvm_fd: an open /dev/kvm (borrowed).
 */
int vmm_host_fingerprint(int kvm_fd, uint64_t *ret_fingerprint);

/* What `warmbox doctor` reports of KVM. Times in ns. */
struct vmm_host_report {
	int api_version;
	enum vmm_host_kind kind;
	uint64_t fingerprint;
	bool has_split_irqchip;
	bool has_immediate_exit;
	uint64_t create_vm_ns;
	uint64_t memslot_ns; /* one memory slot after the split irqchip; above 2 ms something is
				wrong */
	uint64_t destroy_ns;
};

/* Makes and destroys a small VM. 0 or -errno with the step that failed in error. */
int vmm_host_probe(struct vmm_host_report *ret_report, struct base_error *error);
