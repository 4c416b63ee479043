/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * virtio-mmio version 2 transport (virtio 1.2, section 4.2) and split virtqueues (section 2.7).
 *
 * The VM owns the devices; this file is what the VM core (vm.c) and the devices (virtio_block.c,
 * virtio_vsock.c, virtio_rng.c, virtio_balloon.c) share. Everything runs under the device lock of
 * vmm/loop.h.
 */

#include "base/bytes.h"
#include "base/error.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/ratelimit.h"

/* Where devices are: device n at VMM_VIRTIO_MMIO_BASE + n * VMM_VIRTIO_MMIO_STRIDE, interrupt
 * VMM_VIRTIO_IRQ_BASE + n. */
#define VMM_VIRTIO_MMIO_BASE   0xd0000000u
#define VMM_VIRTIO_MMIO_STRIDE 0x1000u
#define VMM_VIRTIO_IRQ_BASE    5u
#define VMM_VIRTIO_DEVICES_MAX 8
#define VMM_VIRTIO_QUEUE_NOTIFY \
	0x050 /* register offset; the VM core puts ioeventfds there, datamatch = queue */

/* What the disks of a VM may do together. A request that has no tokens stays in its queue. */
struct vmm_disk_limits {
	struct vmm_ratelimit bytes;
	struct vmm_ratelimit operations;
	uint64_t waits; /* requests that had to wait */
};

struct vmm_virtio; /* one device: transport state, queues, and the device behind it */

/* What a device needs of the VM. Borrowed by all devices, outlives them. */
struct vmm_virtio_host {
	struct vmm_memory *memory;
	struct vmm_loop *loop;
	/* Pulses an edge interrupt of the IOAPIC. */
	void (*raise)(void *userdata, unsigned irq);
	/* The guest wants a connection to host port `port`; answered with
	 * vmm_virtio_vsock_connected(). -EBUSY refuses. */
	int (*vsock_connect)(void *userdata, uint64_t id, uint32_t port);
	/* A limit was hit; a counter says which. Optional. */
	void (*limited)(void *userdata);
	struct vmm_disk_limits *disk_limits; /* NULL: none */
	/* On a vCPU thread: has the main thread call vmm_virtio_reset() and waits for it. Gives the
	 * device lock away meanwhile. NULL: the thread that writes the register resets. */
	void (*reset)(void *userdata, struct vmm_virtio *device);
	void *userdata;
};

/* Each makes a device for slot `slot`. Descriptors are consumed on success only. The device starts
 * in reset. */
int vmm_virtio_block_new(const struct vmm_virtio_host *host, unsigned slot, int fd, bool read_only,
			 struct vmm_virtio **ret_device, struct base_error *error);
int vmm_virtio_rng_new(const struct vmm_virtio_host *host, unsigned slot,
		       struct vmm_virtio **ret_device, struct base_error *error);
int vmm_virtio_balloon_new(const struct vmm_virtio_host *host, unsigned slot,
			   struct vmm_virtio **ret_device, struct base_error *error);
/* listener: a listening Unix socket (hybrid protocol), or an unconnected one for none. */
int vmm_virtio_vsock_new(const struct vmm_virtio_host *host, unsigned slot, uint32_t cid,
			 int listener, struct vmm_virtio **ret_device, struct base_error *error);
void vmm_virtio_free(struct vmm_virtio *device);
/* As when it was made. Waits for what is in flight, closes what the guest had open. */
void vmm_virtio_reset(struct vmm_virtio *device);
BASE_DEFINE_CLEANUP(struct vmm_virtio *, vmm_virtio_free)

/* vsock only. attach: stream consumed always. connected: result 0 with a stream (consumed), or
 * -errno and -1. refuse: nobody is going to answer those that were asked for. */
int vmm_virtio_vsock_attach(struct vmm_virtio *device, int stream, uint32_t port);
void vmm_virtio_vsock_connected(struct vmm_virtio *device, uint64_t id, int result, int stream);
void vmm_virtio_vsock_refuse(struct vmm_virtio *device);

/*
 * vsock only: how many connections there may be, and how many bytes the VMM may come to hold of
 * them (0: VMM_LIMIT_CONNECTIONS_MAX, VMM_LIMIT_VSOCK_BYTES_MAX). Of those that are
 * there already none is ended. limited: how often the guest or the host was refused one since.
 */
void vmm_virtio_vsock_limit(struct vmm_virtio *device, unsigned connections, uint64_t bytes);
uint64_t vmm_virtio_vsock_limited(const struct vmm_virtio *device);

/* Block only: the limits have changed, a request that waits is looked at again. */
void vmm_virtio_block_limits_changed(struct vmm_virtio *device);

/* Balloon only: what the guest has given back since the device was made, each time counted. */
uint64_t vmm_virtio_balloon_returned_bytes(const struct vmm_virtio *device);

/* How many queues the device has, and the eventfd that the VM core arms as the ioeventfd of queue n
 * (borrowed). */
unsigned vmm_virtio_queue_count(const struct vmm_virtio *device);
int vmm_virtio_queue_fd(const struct vmm_virtio *device, unsigned queue);

/* MMIO accesses inside the device's page; length 1, 2, 4 or 8. What the specification forbids reads
 * as 0 and writes nothing. */
void vmm_virtio_mmio_read(struct vmm_virtio *device, uint32_t offset, void *data, unsigned length);
void vmm_virtio_mmio_write(struct vmm_virtio *device, uint32_t offset, const void *data,
			   unsigned length);

/*
 * Freezing. drain: the vCPUs have stopped; finishes what is in flight (block I/O) and leaves the
 * queues alone afterwards; may raise interrupts. resume: takes up work again (also after load);
 * kicks every queue. Until the first resume a loaded device only takes attach() and puts what is
 * there into the guest's queues. vsock at drain: open connections are closed on the host side; when
 * there were any, a transport reset event is placed in the guest's event queue.
 */
int vmm_virtio_drain(struct vmm_virtio *device);
void vmm_virtio_resume(struct vmm_virtio *device);

/* State as bytes, only while drained. load() on a fresh device with the same configuration;
 * validates everything; -EBADMSG with the field in error. */
void vmm_virtio_save(const struct vmm_virtio *device, struct base_writer *writer);
int vmm_virtio_load(struct vmm_virtio *device, struct base_reader *reader,
		    struct base_error *error);
