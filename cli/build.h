/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Building a template: boot, warm up, freeze, record, publish. Synchronous; run by the command
 * line, which needs no daemon for it.
 */

#include "base/error.h"
#include "snapshot/snapshot.h"

#include <signal.h>

#define CLI_BUILD_WARMUPS_MAX	   32
#define CLI_BUILD_RECORDS_MAX	   16
#define CLI_BUILD_CONSOLE_MAX	   2048 /* bytes of guest output kept for a failure */
#define CLI_BUILD_LINE_MAX	   160	/* bytes of the last line that a progress call gets */
#define CLI_BUILD_GUEST_CID	   3
#define CLI_BUILD_MEMORY_MIN_BYTES MIB(32)

struct cli_build_params {
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
	char *const *const *warmups; /* n_warmups NULL-terminated argvs */
	size_t n_warmups;	     /* at most CLI_BUILD_WARMUPS_MAX */
	char *const *resident;	     /* NULL-terminated argv, or NULL */
	uint64_t timeout_ms;	     /* for the boot, and for each command */
	/* Restores from which the working set is recorded; at most CLI_BUILD_RECORDS_MAX, 0: the
	 * template gets none. */
	unsigned n_records;
	char *const *record_exec; /* the first command there; NULL: /bin/true, if there is one */
};

enum cli_build_step {
	CLI_BUILD_CHECK,    /* reading and digesting the inputs */
	CLI_BUILD_BOOT,	    /* kernel to agent */
	CLI_BUILD_WARM,	    /* warm-up commands; skipped when there are none */
	CLI_BUILD_RESIDENT, /* resident process started and waiting; skipped without one */
	CLI_BUILD_FREEZE,   /* quiesce, pause, save */
	CLI_BUILD_RECORD,   /* restore and watch; skipped with n_records 0 */
	CLI_BUILD_STORE,    /* compress, write, sync, publish */
	CLI_BUILD_DONE,
};

struct cli_build_progress {
	enum cli_build_step step;
	bool begins;	      /* the first call of this step */
	uint64_t step_ns;     /* since the step began */
	uint64_t total_ns;    /* since the build began */
	const char *detail;   /* what of the step, may be NULL */
	const char *console;  /* the last line the guest printed in this step, or NULL */
	uint64_t done_bytes;  /* CLI_BUILD_STORE; 0 otherwise */
	uint64_t total_bytes; /* 0: not known */
};

/* Called at the start of each step and about every half second within it: from two threads, but
 * never from both at once. */
typedef void (*cli_build_progress_fn)(void *userdata, const struct cli_build_progress *progress);

struct cli_build_result {
	struct snapshot_manifest manifest; /* what was published; on success only */
	uint64_t boot_ns;		   /* VMM told to boot → the agent answered */
	uint64_t total_ns;
	/* On failure: the last lines that the guest printed in the step that failed; printable
	 * ASCII and newlines only. */
	char console[CLI_BUILD_CONSOLE_MAX + 1];
};

/*
 * Builds the template and publishes it in the store. Leaves nothing behind on failure, nor when
 * *interrupted becomes non-zero (set by a signal handler; -EINTR then). *ret_result is written in
 * every case.
 */
int cli_template_build(struct snapshot_store *store, const struct cli_build_params *params,
		       const volatile sig_atomic_t *interrupted, cli_build_progress_fn progress,
		       void *userdata, struct cli_build_result *ret_result,
		       struct base_error *error);
