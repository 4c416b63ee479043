/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a build is made from: the files, opened and looked at, and the host it is for.
 */

#include "cli/build.h"
#include "vmm/vmm.h"

#include <sys/stat.h>

struct cli_build_inputs {
	int kernel_fd, initramfs_fd, root_fd; /* read-only; -1: not open */
	struct stat root_stat;
	char kernel_digest[SNAPSHOT_DIGEST_LENGTH + 1];
	char cmdline[SNAPSHOT_CMDLINE_MAX + 1];
	enum vmm_host_kind host_kind;
	uint64_t host_fingerprint;
};

#define CLI_BUILD_INPUTS_NONE \
	((struct cli_build_inputs){ .kernel_fd = -1, .initramfs_fd = -1, .root_fd = -1 })

/* Opens and checks everything that can be checked before a VM is made. On failure what is open is
 * left for close(). */
int cli_build_inputs_open(struct cli_build_inputs *inputs, const struct cli_build_params *params,
			  const char *base_cmdline, struct base_error *error);
void cli_build_inputs_close(struct cli_build_inputs *inputs);

/* -ESTALE when somebody wrote to the root image since it was opened. */
int cli_build_inputs_unchanged(const struct cli_build_inputs *inputs,
			       const struct cli_build_params *params, struct base_error *error);
