/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A VM without KVM: memory, IOAPIC, serial port and all devices are the real ones, what goes to
 * KVM fails. For what is between the guest's accesses, or a state file, and KVM.
 */

#include "tests/fuzz/fuzz.h"
#include "vmm/vm.h"

#define FUZZ_MACHINE_VCPUS 2

struct fuzz_machine {
	struct vmm_loop loop;
	struct vmm_vm vm;
	int devnull, disk; /* -1: never begun */
};

/* A machine that is just made: with `vcpus`, as far as its configuration goes, or none. */
void fuzz_machine_begin(struct fuzz_machine *machine, unsigned vcpus);
void fuzz_machine_end(struct fuzz_machine *machine);
