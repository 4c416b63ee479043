/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What others need to know of image memfds beside uffd/control.h, with which the pager fills them:
 * whether the host can, and what a template's VMs touch first.
 */

#include "snapshot/snapshot.h"

/* 0 when an image can be filled page by page on this host. -ENOTSUP: writing a page of a memfd
 * shows its neighbours as well, as zeros, which no reader may see. */
int uffd_host_check(struct base_error *error);

/* --- recording a working set --- */

/*
 * Records which pages of a saved memory restored VMs touch, in the order of their first touch. Any
 * number of runs, one after the other: image, CREATE the VM from it, start, …, end the VM, stop.
 * One thread at a time.
 */
struct uffd_recorder;

/* memory_fd (borrowed) holds the saved memory and does not change any more. -ENOTSUP as
 * uffd_host_check(). */
int uffd_recorder_new(int memory_fd, uint64_t memory_bytes, struct uffd_recorder **ret_recorder,
		      struct base_error *error);
/* Stops too. */
void uffd_recorder_free(struct uffd_recorder *recorder);
BASE_DEFINE_CLEANUP(struct uffd_recorder *, uffd_recorder_free)

/* An empty image for the next run, read-only, owned by the caller. */
int uffd_recorder_image(struct uffd_recorder *recorder, int *ret_fd, struct base_error *error);

/*
 * From now on the VM's faults are answered. userfault_fd (consumed, on failure too) has its memory
 * registered at address for missing pages. pidfd (borrowed until stop) is killed when a fault
 * cannot be answered.
 */
int uffd_recorder_start(struct uffd_recorder *recorder, int userfault_fd, uint64_t address,
			int pidfd, struct base_error *error);

/* Ends the run; the VM must be gone, or it waits for ever at its next fault. 0, or why the VM was
 * killed; what was recorded until then counts. Without a run it does nothing. */
int uffd_recorder_stop(struct uffd_recorder *recorder, struct base_error *error);

/* What all runs have touched: the pages of the first run, then what the second added, and so on.
 * Borrowed; between runs. */
const uint32_t *uffd_recorder_pages(const struct uffd_recorder *recorder, size_t *ret_n);
