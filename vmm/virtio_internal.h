/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Between the transport (virtio.c) and the devices behind it. A device embeds struct vmm_virtio as
 * its first member and supplies the operations. Everything runs under the device lock.
 */

#include "vmm/virtio.h"
#include "vmm/virtio_queue.h"

#define VMM_VIRTIO_QUEUES_MAX 3

#define VMM_VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)

/* Status bits (virtio 1.2, section 2.1). */
#define VMM_VIRTIO_S_ACKNOWLEDGE 0x01u
#define VMM_VIRTIO_S_DRIVER	 0x02u
#define VMM_VIRTIO_S_DRIVER_OK	 0x04u
#define VMM_VIRTIO_S_FEATURES_OK 0x08u
#define VMM_VIRTIO_S_NEEDS_RESET 0x40u
#define VMM_VIRTIO_S_FAILED	 0x80u

enum vmm_virtio_run {
	VMM_VIRTIO_RUNNING, /* queues are served */
	VMM_VIRTIO_DRAINED, /* nothing is in flight, nothing touches the queues; save() */
	VMM_VIRTIO_LOADED,  /* before the first resume: attach() may put packets into queues */
};

struct vmm_virtio_ops {
	uint32_t device_id;
	unsigned n_queues;
	uint16_t queue_size_max;

	/* The driver is ready (DRIVER_OK). Optional. */
	void (*activate)(struct vmm_virtio *device);
	/* There may be work in a queue. Only while active and running. */
	void (*notify)(struct vmm_virtio *device, unsigned queue);
	/* The driver resets the device: on return nothing of it touches guest memory any more. */
	void (*reset)(struct vmm_virtio *device);
	/* Finishes what is in flight, before the device stops running. Optional. */
	int (*drain)(struct vmm_virtio *device);
	/* The device runs again; every queue is notified after it. Optional. */
	void (*resume)(struct vmm_virtio *device);
	/* The device's own state, behind that of the transport. Optional. */
	void (*save)(const struct vmm_virtio *device, struct base_writer *writer);
	int (*load)(struct vmm_virtio *device, struct base_reader *reader,
		    struct base_error *error);
	/* Frees the whole device; calls vmm_virtio_deinit(). */
	void (*free)(struct vmm_virtio *device);
};

struct vmm_virtio_notifier {
	struct vmm_source source; /* the queue's eventfd, owned */
	struct vmm_virtio *device;
	unsigned queue;
};

struct vmm_virtio {
	const struct vmm_virtio_ops *ops;
	const struct vmm_virtio_host *host;
	unsigned slot;
	uint64_t features;     /* offered */
	const uint8_t *config; /* the device's configuration space, embedded in the device */
	uint32_t config_size;
	enum vmm_virtio_run run;

	uint32_t status;
	uint32_t interrupt_status;
	uint64_t driver_features;
	uint32_t device_features_select;
	uint32_t driver_features_select;
	uint32_t queue_select;
	struct vmm_virtio_queue queues[VMM_VIRTIO_QUEUES_MAX];
	struct vmm_virtio_notifier notifiers[VMM_VIRTIO_QUEUES_MAX];

	/* One at a time is taken out of a queue and parsed; what stays in flight keeps a copy. */
	struct vmm_virtio_chain chain;
};

/* Makes the queues' eventfds and watches them. On failure nothing is left to undo. */
int vmm_virtio_init(struct vmm_virtio *device, const struct vmm_virtio_ops *ops,
		    const struct vmm_virtio_host *host, unsigned slot, struct base_error *error);
void vmm_virtio_deinit(struct vmm_virtio *device);

/* The driver has set the device up and neither side gave up. */
bool vmm_virtio_is_active(const struct vmm_virtio *device);

/*
 * Takes the next chain of a queue into device->chain. True: there is one. False: none, or the guest
 * broke the queue, and then the device is marked as in need of a reset.
 */
bool vmm_virtio_pop(struct vmm_virtio *device, unsigned queue);

/* The guest did what no driver may: stop, say so, wait for a reset. */
void vmm_virtio_needs_reset(struct vmm_virtio *device);

/* Raises the device's interrupt for a queue that was pushed to, unless the driver wants none. */
void vmm_virtio_queue_interrupt(struct vmm_virtio *device, unsigned queue);

/* Has notify() called from the loop, as if the driver had kicked the queue. */
void vmm_virtio_kick(struct vmm_virtio *device, unsigned queue);
