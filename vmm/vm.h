/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The VM: KVM's objects, guest memory, devices and vCPU threads.
 *
 * Threads: the main thread serves the loop and calls everything here; each vCPU has a thread that
 * enters the guest and handles its exits. The device lock (loop->lock) guards all fields that are
 * not constant after vmm_vm_create() but a few, which say so; callers on the main thread hold it.
 * The run lock says whether the vCPUs may run: a vCPU that is let run does not have to wait for
 * what the main thread is still doing with the device lock. It is taken last.
 *
 *    created ── boot or load ──▶ paused ⇄ running ──▶ over
 *
 * There is no way back: a VM lasts as long as its process, and the kernel takes it down.
 */

#include "filter/filter.h"
#include "vmm/cpuid.h"
#include "vmm/ioapic.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/pvm_xsave.h"
#include "vmm/serial.h"
#include "vmm/virtio.h"
#include "vmm/vmm.h"

#include <pthread.h>

/* Slots of the virtio devices: rng, vsock, balloon, then the disks. */
#define VMM_SLOT_RNG	 0u
#define VMM_SLOT_VSOCK	 1u
#define VMM_SLOT_BALLOON 2u
#define VMM_SLOT_DISK	 3u

struct vmm_vm;
struct vmm_prepared;

struct vmm_config {
	uint64_t memory_bytes;
	unsigned n_vcpus;
	bool shared, lazy, savable; /* enum vmm_create_flags */
	unsigned n_disks;
	uint32_t read_only_disks; /* bit n: disk n */
	uint32_t cid;
};

/* Checks ranges. 0 or -EINVAL with the field in error. */
int vmm_config_check(const struct vmm_config *config, struct base_error *error);

/* Descriptors for vmm_vm_create(); what was taken is -1 afterwards, the rest stays the caller's. */
struct vmm_create_fds {
	int memory;
	int console;
	int listener;
	int disks[VMM_DISKS_MAX];
	int state;     /* what will be loaded, or -1; never taken */
	int userfault; /* only for lazy memory; never taken */
};

/* What VMM_OP_COUNTERS answers. */
struct vmm_counters {
	uint64_t exits, port_exits, mmio_exits, stepped;
};

/* What VMM_OP_LIMITS sets; its arguments in their order. */
struct vmm_limits {
	uint64_t disk_bytes, disk_bytes_burst, disk_operations, disk_operations_burst;
	uint64_t console_bytes, vsock_connections, vsock_bytes;
};

/* How often each was hit; VMM_EVENT_LIMITED. */
struct vmm_limit_hits {
	uint64_t disk_waits, console_dropped, vsock_refused;
};

/* CLOCK_MONOTONIC ns after each step of vmm_vm_create(). */
struct vmm_create_times {
	uint64_t start_ns, vm_ns, memslot_ns, vcpus_ns, devices_ns;
};

struct vmm_vcpu {
	struct vmm_vm *vm;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	pid_t tid;	       /* atomic; 0 until the thread runs */
	uint64_t cpuid_digest; /* of the table it was given */
	bool parked;	       /* outside KVM_RUN, with no half-done I/O; under the run lock */
};

struct vmm_vm_callbacks {
	/* On a vCPU thread, without the device lock, just before the first KVM_RUN after a resume.
	 */
	void (*entered)(void *userdata, uint64_t monotonic_ns);
	/* The guest wants a connection to a host port; see struct vmm_virtio_host. */
	int (*vsock_connect)(void *userdata, uint64_t id, uint32_t port);
	/* The guest is at a limit: now and then. Any thread, with the device lock. */
	void (*limited)(void *userdata, const struct vmm_limit_hits *hits);
	/* Whether nobody is left who could be waiting for this VM. */
	bool (*abandoned)(void *userdata);
	void *userdata;
};

enum vmm_vm_state {
	VMM_VM_NEW,	/* not created: only create */
	VMM_VM_CREATED, /* a shell: boot, load */
	VMM_VM_BROKEN,	/* a boot or load failed half-way: nothing any more */
	VMM_VM_PAUSED,	/* has a state: attach, resume, pause (nothing to do), save */
	VMM_VM_RUNNING, /* attach, resume (nothing to do), pause */
};

struct vmm_vm {
	/* Constant after vmm_vm_create(). */
	int kvm_fd; /* borrowed */
	int fd;
	enum vmm_host_kind kind; /* from vmm_vm_create() on */
	uint64_t fingerprint;
	struct vmm_config config;
	struct vmm_loop *loop; /* borrowed */
	struct vmm_vm_callbacks callbacks;
	struct vmm_virtio_host virtio_host;
	enum filter_mode filters;
	pid_t pid;
	size_t run_bytes;     /* size of the kvm_run mapping */
	uint32_t xsave_bytes; /* of a vCPU's extended state */
	bool has_xsave2;
	bool tsc_is_fixed; /* the guest's TSC is the host's, whatever is written to it */
	struct vmm_xsave_layout xsave; /* of the vCPUs' extended state */
	int over_fd;		       /* eventfd: readable when the VM is over */
	int reset_fd;		       /* eventfd: readable when a device is to be reset */

	/* Under the device lock. */
	enum vmm_vm_state state;
	struct vmm_source reset_source;
	struct vmm_prepared *prepared; /* owned; see vmm/state.h */
	struct vmm_memory memory;
	struct vmm_ioapic ioapic;
	struct vmm_serial serial;
	struct vmm_virtio *devices[VMM_VIRTIO_DEVICES_MAX];
	unsigned n_devices;
	struct vmm_vcpu vcpus[VMM_VCPUS_MAX];
	struct vmm_counters counters; /* exits: atomic, without a lock */
	struct vmm_disk_limits disk_limits;
	uint64_t limited_ns; /* when the owner was told of a limit; 0: never */
	bool is_over;
	enum vmm_exit_reason over_reason;
	int over_code;
	struct base_error over_text;

	/* Under the run lock. */
	pthread_mutex_t run_lock;
	pthread_cond_t wake;	      /* to vCPU threads: running or resetting changed */
	pthread_cond_t parking;	      /* to the main thread: a vCPU parked, or wants a reset */
	struct vmm_virtio *resetting; /* a vCPU thread waits for the main thread to reset it */
	bool running;
	bool entered_pending; /* the next vCPU to enter reports it */
};

/* Looks at the host; opens nothing. kvm_fd and loop are borrowed. filters: of the vCPU threads. 0
 * or -errno. */
int vmm_vm_init(struct vmm_vm *vm, int kvm_fd, enum filter_mode filters, struct vmm_loop *loop,
		const struct vmm_vm_callbacks *callbacks, struct base_error *error);

/* Makes the VM and starts its threads, parked. fingerprint: vmm_host_fingerprint(), or 0 to ask
 * KVM. On failure the VM is broken. 0 or -errno. */
int vmm_vm_create(struct vmm_vm *vm, const struct vmm_config *config, struct vmm_create_fds *fds,
		  enum vmm_host_kind kind, uint64_t fingerprint, struct vmm_create_times *ret_times,
		  struct base_error *error);

/* Sets all limits of a VM that has been created. 0, or -EINVAL with nothing changed. */
int vmm_vm_set_limits(struct vmm_vm *vm, const struct vmm_limits *limits, struct base_error *error);
void vmm_vm_limit_hits(const struct vmm_vm *vm, struct vmm_limit_hits *ret_hits);
/* A limit was hit: tells the owner unless it was told a moment ago. */
void vmm_vm_limited(struct vmm_vm *vm);

/* Lets the vCPUs run. 0 or -errno. */
int vmm_vm_resume(struct vmm_vm *vm, struct base_error *error);
/* Stops the vCPUs and finishes block I/O; vsock connections stay. Gives the device lock away while
 * it waits. 0, -ECANCELED when the VM was abandoned before its vCPUs had stopped, or -errno. */
int vmm_vm_pause(struct vmm_vm *vm, struct base_error *error);
/* Of a paused VM: drains all devices, which resets the vsock connections. Before a save. */
int vmm_vm_drain(struct vmm_vm *vm, struct base_error *error);

/* The VM is over: the vCPUs park after their next exit, over_fd is readable. The first call wins.
 * Any thread, with the device lock. */
void vmm_vm_end(struct vmm_vm *vm, enum vmm_exit_reason reason, int code, const char *format, ...)
	_printf_(4, 5);

/* --- vcpu.c --- */

/* Creates vCPU index with this CPUID table. */
int vmm_vcpu_init(struct vmm_vcpu *vcpu, struct vmm_vm *vm, unsigned index,
		  const struct vmm_cpuid *cpuid, struct base_error *error);
/* Gives it another table, which KVM takes until the vCPU has run. Does nothing for the same. */
int vmm_vcpu_set_cpuid(struct vmm_vcpu *vcpu, const struct vmm_cpuid *cpuid,
		       struct base_error *error);
/* Starts the thread, parked. */
int vmm_vcpu_start(struct vmm_vcpu *vcpu, struct base_error *error);
/* Makes the vCPU leave KVM_RUN, and not enter it again before immediate_exit is cleared. */
void vmm_vcpu_kick(struct vmm_vcpu *vcpu);
/* Installs the handler of the signal that kicks use. Once per process. 0 or -errno. */
int vmm_vcpu_setup_signal(void);

/* --- ports.c: where a guest's access goes. With the device lock. --- */

void vmm_ports_read(struct vmm_vm *vm, uint16_t port, void *data, unsigned length);
void vmm_ports_write(struct vmm_vm *vm, uint16_t port, const void *data, unsigned length);
void vmm_mmio_read(struct vmm_vm *vm, gpa_t gpa, void *data, unsigned length);
void vmm_mmio_write(struct vmm_vm *vm, gpa_t gpa, const void *data, unsigned length);
