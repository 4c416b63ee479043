/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The guests of bench-cold: a snapshot, and what is done with a VM of it from LOAD to the end of
 * its first exec. Two kinds: the tiny guest "touch", made and recorded here, whose exec is to visit
 * scattered pages that are checked; and a Linux template of a store.
 *
 * Blocking, one thread. 0 or -errno, with words in `error`.
 */

#include "rpc/warmbox.h"
#include "snapshot/snapshot.h"
#include "tests/guest/harness.h"
#include "tests/guest/tiny/touch.h"

struct cold_guest {
	struct snapshot_store *store;
	struct snapshot *snapshot;
	char *directory; /* of a store of our own, removed at the end; NULL: none */
	uint64_t fingerprint;
	int root;	    /* -1: no disk */
	struct touch touch; /* what the tiny guest is asked; count 0: it is Linux */
};

#define COLD_GUEST_NONE    \
	{                  \
		.root = -1 \
	}

/* CLOCK_MONOTONIC, but for the last. */
struct cold_times {
	uint64_t entry_ns; /* first vCPU entry, by the VMM's own note */
	uint64_t agent_ns; /* the identity is acknowledged */
	uint64_t exec_ns;  /* the first exec has finished */
	uint64_t cpu_ns;   /* processor time that the VMM has had by then, guest and all */
};

/* Makes the tiny guest with this much memory, records the working set of one first exec that visits
 * n_pages, and stores all of it in a temporary store below `directory`. */
int cold_guest_make(struct cold_guest *guest, const char *directory, uint64_t memory_bytes,
		    uint32_t n_pages, struct base_error *error);
/* Opens a Linux template. */
int cold_guest_open(struct cold_guest *guest, const char *store, const char *template_name,
		    struct base_error *error);
void cold_guest_close(struct cold_guest *guest);
#define _cleanup_cold_guest_ _cleanup_(cold_guest_close)

/* What a VM of it is created with from an image (borrowed). */
struct harness_params cold_guest_params(const struct cold_guest *guest, int image, bool lazy);

/*
 * LOAD, ATTACH with the identity, RESUME, acknowledgement, first exec: of Linux /bin/true, or with
 * `code` (NULL: none) that in the resident process. -EPROTO: the guest answered, and wrongly.
 */
int cold_guest_run(const struct cold_guest *guest, struct harness_vm *vm, const char *code,
		   struct cold_times *ret_times, struct base_error *error);
