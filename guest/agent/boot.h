/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * From a bare kernel to a system that programs run in: what an init does, and no more.
 */

#include "base/error.h"
#include "guest/agent/identity.h"

#include <stdbool.h>

struct agent_boot {
	bool fault_reseed; /* warmbox.fault=reseed */
};

/*
 * Runs once, as PID 1 in the initramfs, whose files it removes. Afterwards / is the root image with
 * a writable overlay in memory, and identity's files are in place. 0, or -errno with error; the VM
 * is then good for nothing.
 */
int agent_boot(struct agent_boot *ret_boot, struct agent_identity *identity,
	       struct base_error *error);
