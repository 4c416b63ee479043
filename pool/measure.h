/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the kernel says that a process of ours, and the host, use of memory. Blocks for the time
 * that a walk of the process's page tables takes; any thread; touches no shared state.
 */

#include "pool/account.h"

#include <sys/types.h>

/* A process with more mappings than this is not measured: reading them would take too long, and no
 * honest VMM has as many. */
#define POOL_MEASURE_MAPPINGS_MAX 4096

/*
 * Measures a child of this process. image_dev and image_inode are those of the file whose private
 * mapping is the guest's memory. 0, -ESRCH (no child of ours has this number), -E2BIG, or another
 * -errno.
 */
int pool_measure_process(pid_t pid, dev_t image_dev, ino_t image_inode,
			 struct pool_memory *ret_memory);

/* 0 or -errno. */
int pool_measure_host(struct pool_host_memory *ret_host);
