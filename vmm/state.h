/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Saving a VM's state to a file, and loading it into a fresh VM. The format stands in
 * vmm/state_format.h.
 */

#include "vmm/vm.h"

#define VMM_STATE_MAX_BYTES MIB(4)

/* The instant that a load set the guest's clocks for. */
struct vmm_state_clock {
	uint64_t realtime_ns; /* CLOCK_REALTIME */
	uint64_t tsc;	      /* what the guest's RDTSC would give at that instant */
	uint64_t tsc_khz;
};

/* Writes the state of a paused VM to state_fd, and guest memory that is not zero to memory_fd (-1:
 * not asked for). 0 or -errno. */
int vmm_state_save(struct vmm_vm *vm, int state_fd, int memory_fd, uint64_t *ret_bytes,
		   struct base_error *error);

/*
 * Reads and validates a state ahead of its load and keeps it in vm->prepared. The VM need not have
 * anything but its configuration and fingerprint. 0 or as vmm_state_load().
 */
int vmm_state_prepare(struct vmm_vm *vm, int state_fd, struct base_error *error);
/* Takes NULL. */
void vmm_prepared_free(struct vmm_prepared *prepared);
BASE_DEFINE_CLEANUP(struct vmm_prepared *, vmm_prepared_free)
/* The CPUID table of a vCPU. */
const struct vmm_cpuid *vmm_prepared_cpuid(const struct vmm_prepared *prepared, unsigned vcpu);

/* Reads and validates the state, unless just this file, whose content cannot change, is prepared,
 * and applies it. 0, -EBADMSG for a damaged state, -EXDEV for one
 * that was made on another kind of host or CPU, -EINVAL for one of another configuration, or
 * -errno. */
int vmm_state_load(struct vmm_vm *vm, int state_fd, struct vmm_state_clock *ret_clock,
		   struct base_error *error);
