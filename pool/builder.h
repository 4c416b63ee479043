/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Building a template: boot, warm up, freeze, publish. Synchronous; run by the command line, not by
 * the daemon.
 */

#include "base/error.h"
#include "snapshot/snapshot.h"

#include <signal.h>

struct pool_build_params {
	const char *name;
	const char *kernel_path;
	const char *initramfs_path;
	const char *root_image_path;
	const char *cmdline; /* extra kernel parameters, may be NULL */
	uint64_t memory_bytes;
	unsigned n_vcpus;
	const char *vmm_path;
	/* Warm-up commands, run one after the other, each a shell-free argv; a failing one fails
	 * the build. */
	char *const *const
		*warmups;      /* NULL-terminated array of NULL-terminated argvs; may be NULL */
	char *const *resident; /* NULL-terminated argv, or NULL */
	uint64_t timeout_ms;   /* for boot and for each command */
};

enum pool_build_step {
	POOL_BUILD_CHECK,    /* reading and digesting the inputs */
	POOL_BUILD_BOOT,     /* kernel to agent */
	POOL_BUILD_WARM,     /* warm-up commands */
	POOL_BUILD_RESIDENT, /* resident process started and waiting */
	POOL_BUILD_FREEZE,   /* quiesce, pause, save */
	POOL_BUILD_STORE,    /* compress, write, sync, publish */
	POOL_BUILD_DONE,
};
const char *pool_build_step_name(enum pool_build_step step);

/* Called at the start of each step and about once a second within it. detail may be NULL. console:
 * the last line the guest printed, or NULL. */
typedef void (*pool_build_progress_fn)(void *userdata, enum pool_build_step step,
				       uint64_t step_elapsed_ns, const char *detail,
				       const char *console);

/*
 * Builds the template and publishes it in the store. Leaves nothing behind on failure, nor when
 * *interrupted becomes non-zero (set by a signal handler; -EINTR then). *ret_manifest is what was
 * published.
 */
int pool_template_build(struct snapshot_store *store, const struct pool_build_params *params,
			const volatile sig_atomic_t *interrupted, pool_build_progress_fn progress,
			void *userdata, struct snapshot_manifest *ret_manifest,
			struct base_error *error);
