/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What sandboxes cost in memory: the image that they share, the pages that each has for itself, and
 * what the kernel keeps for them. All figures are bytes.
 *
 * The kernel does not say for a single process how much slab memory, KVM metadata and KVM page
 * caches it causes. These are in the host's figures, where what no counter names is `unaccounted`.
 */

#include "pool/pool.h"

/* Sandboxes measured for one request, spread evenly over those that it is about; the rest is
 * counted only. It bounds the time, some tenths of a millisecond each, and the memory. */
#define POOL_ACCOUNT_MEASURED_MAX 512

/* Of one sandbox, or the sum of several. */
struct pool_memory {
	/* Shared with others. */
	uint64_t image_shared;	 /* pages of the image that it has mapped */
	uint64_t program_shared; /* pages of the VMM's program and libraries */
	/* Its own. */
	uint64_t guest_private; /* guest memory: pages that the guest, or a device, has written */
	uint64_t vmm_heap;
	uint64_t vmm_data;  /* written pages of the program and its libraries */
	uint64_t vmm_other; /* stacks, buffers, rings */
	/* The kernel's, for it. */
	uint64_t page_tables;
	uint64_t kernel_stacks;

	uint64_t pss; /* of all its mappings, the image with them */
};

/* What would be free without it, as far as it is known. */
static inline uint64_t pool_memory_own(const struct pool_memory *memory)
{
	return memory->guest_private + memory->vmm_heap + memory->vmm_data + memory->vmm_other +
	       memory->page_tables + memory->kernel_stacks;
}

/* The whole host, from /proc/meminfo. */
struct pool_host_memory {
	uint64_t total, free, available;
	uint64_t anonymous, cache, shmem; /* cache includes shmem, which includes images */
	uint64_t slab, page_tables, secondary_page_tables, kernel_stacks, vmalloc, percpu;
	/* In no counter of the kernel. KVM's caches of pages for shadow page tables are here. */
	uint64_t unaccounted;
};

struct pool_account_template {
	const char *name, *snapshot_id;
	unsigned parked, leased; /* of this snapshot */
	unsigned measured;
	uint64_t image_bytes;	 /* guest memory size */
	uint64_t image_resident; /* pages of the image in memory, once for all */
	struct pool_memory sum;	 /* over those measured */
};

struct pool_account_sandbox {
	const struct pool_account_template *template;
	const char *lease; /* NULL: parked */
	int pid;
	struct pool_memory memory;
};

struct pool_account_report {
	struct pool_host_memory host;
	const struct pool_account_template *templates;
	size_t n_templates;
	const struct pool_account_sandbox *sandboxes; /* those measured */
	size_t n_sandboxes;
	uint64_t elapsed_ns;
};

/* Embedded in the caller; private but for userdata and fn. */
struct pool_account {
	void *userdata;
	/* report is valid during the call, and there with POOL_OK only. */
	void (*fn)(struct pool_account *request, enum pool_status status,
		   const struct pool_account_report *report, const char *text);
	struct pool *pool;
	struct pool_account *next;
	bool pending;
	char template_name[SNAPSHOT_NAME_MAX + 1];
	char lease[POOL_LEASE_ID_LENGTH + 1];
};

/*
 * Measures the sandboxes of a template, that of an active lease, or (both NULL) all that are parked
 * or leased, on a worker thread. One measurement runs at a time: a request for what is being
 * measured gets that result, others wait for their turn. POOL_NOT_FOUND: nothing of that name is in
 * use.
 */
void pool_account(struct pool *pool, struct pool_account *request, const char *template_name,
		  const char *lease);

/* fn will not be called. Nothing happens when it was called already. */
void pool_account_cancel(struct pool_account *request);
