/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A hostile guest for fuzz targets: a little memory between two guard pages, one virtio device, and
 * operations on both that an input lists. One byte beyond guest memory faults.
 *
 * Some operations do what a well-behaved driver does (start, chains), so that an input gets deep in
 * few bytes; the others break every rule that there is. What must hold whatever the guest does is
 * checked after each.
 */

#include "tests/fuzz/fuzz.h"
#include "vmm/virtio_internal.h"

#define FUZZ_MEMORY_BYTES 0x11000u
#define FUZZ_DATA_GPA	  0x6000u /* below: the queues of a started driver */
#define FUZZ_SLOT	  1u

struct fuzz_queue {
	gpa_t desc, avail, used;
	uint16_t size, next_desc, avail_index;
};

struct fuzz_guest {
	struct vmm_memory memory;
	struct vmm_loop loop;
	struct vmm_virtio_host host;
	struct vmm_virtio *device;
	struct fuzz_queue queues[VMM_VIRTIO_QUEUES_MAX];
	gpa_t next_data;

	/* The queues as they were when the driver said DRIVER_OK. */
	bool started;
	struct vmm_virtio_queue before[VMM_VIRTIO_QUEUES_MAX];

	/* The target's: makes its device, and does an operation of its own (may be NULL). */
	struct vmm_virtio *(*make)(struct fuzz_guest *guest);
	void (*special)(struct fuzz_guest *guest, struct fuzz_input *input, unsigned op);
	/* After a state was loaded into a new device, before it runs (may be NULL). */
	void (*loaded)(struct fuzz_guest *guest, struct fuzz_input *input);
};

/* Memory of whole pages between guard pages; lasts as long as the process. */
void fuzz_memory_init(struct vmm_memory *memory, uint64_t size_bytes);

/* Runs an input against a new device and frees it. */
void fuzz_guest_run(struct fuzz_guest *guest, const uint8_t *data, size_t size);

/* What drivers do, for the operations of a target. */
void fuzz_guest_write(struct fuzz_guest *guest, uint32_t offset, uint32_t value);
void fuzz_guest_start(struct fuzz_guest *guest, uint8_t how);
/* Copies bytes to where nothing else is, or wraps around. Returns where. */
gpa_t fuzz_guest_put(struct fuzz_guest *guest, const void *data, uint32_t size);
/* Adds a descriptor behind the one before, and makes a chain of n of them available. */
void fuzz_guest_add(struct fuzz_guest *guest, unsigned queue, uint64_t gpa, uint32_t length,
		    bool writable, bool more);
void fuzz_guest_offer(struct fuzz_guest *guest, unsigned queue, uint16_t head);
/* Serves the loop until nothing is ready; a device that never comes to rest is a finding. */
void fuzz_loop_settle(struct vmm_loop *loop);
