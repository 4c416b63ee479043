/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The VM of vmm/vm.h: making it, letting it run, stopping it.
 *
 * The order of creation is a rule: split irqchip, then all memory slots, then vCPUs, then
 * ioeventfds. A memory slot that is set after an in-kernel bus device was registered waits for a
 * full SRCU grace period, which is milliseconds. A creation that fails leaves a broken VM. Nothing
 * is taken down: a VM lasts as long as its process. Everything here runs on the main thread with
 * the device lock, but vmm_vm_end(), which vCPU threads call too, and init, which takes no lock.
 */

#include "vmm/vm.h"

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/state.h"
#include "vmm/state_vcpu.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* KVM on Intel wants three pages for a TSS and one for an identity map, outside guest memory. */
#define TSS_GPA		 0xfffbd000u
#define IDENTITY_MAP_GPA 0xfffbc000u

#define ABANDON_CHECK_S 1

#define LIMITED_INTERVAL_NS NSEC_PER_SEC

int vmm_config_check(const struct vmm_config *config, struct base_error *error)
{
	if (config->memory_bytes < VMM_MEMORY_MIN_BYTES ||
	    config->memory_bytes > VMM_MEMORY_MAX_BYTES || config->memory_bytes % 4096 != 0) {
		return base_error_set(error, -EINVAL,
				      "memory of %llu bytes: must be whole pages from %llu MiB to "
				      "%llu MiB",
				      (unsigned long long)config->memory_bytes,
				      (unsigned long long)(VMM_MEMORY_MIN_BYTES >> 20),
				      (unsigned long long)(VMM_MEMORY_MAX_BYTES >> 20));
	}
	if (config->n_vcpus < 1 || config->n_vcpus > VMM_VCPUS_MAX) {
		return base_error_set(error, -EINVAL, "%u vCPUs: must be 1 to %d", config->n_vcpus,
				      VMM_VCPUS_MAX);
	}
	if (config->shared && config->lazy) {
		return base_error_set(error, -EINVAL, "memory that is shared cannot be lazy");
	}
	if (config->n_disks > VMM_DISKS_MAX || config->read_only_disks >> config->n_disks) {
		return base_error_set(error, -EINVAL,
				      "%u disks, read-only mask %#x: at most %d disks",
				      config->n_disks, config->read_only_disks, VMM_DISKS_MAX);
	}
	if (config->cid < 3) {
		return base_error_set(error, -EINVAL, "guest CID %u: must be at least 3",
				      config->cid);
	}
	return 0;
}

static void raise_irq(void *userdata, unsigned irq)
{
	struct vmm_vm *vm = userdata;

	vmm_ioapic_raise(&vm->ioapic, irq);
}

/*
 * Resets are the main thread's: they close sockets, free memory and wait for disks, and what a vCPU
 * thread never does its filter need not allow. While the main thread waits for vCPUs to park it
 * does resets as well, since a vCPU may be waiting for one.
 */
static void reset_from_vcpu(void *userdata, struct vmm_virtio *device)
{
	struct vmm_vm *vm = userdata;
	uint64_t one = 1;

	pthread_mutex_unlock(&vm->loop->lock);
	pthread_mutex_lock(&vm->run_lock);
	while (vm->resetting) {
		pthread_cond_wait(&vm->wake, &vm->run_lock);
	}
	vm->resetting = device;
	pthread_cond_signal(&vm->parking);
	if (write(vm->reset_fd, &one, sizeof(one)) < 0) {
		assert(errno == EAGAIN);
	}
	while (vm->resetting == device) {
		pthread_cond_wait(&vm->wake, &vm->run_lock);
	}
	pthread_mutex_unlock(&vm->run_lock);
	pthread_mutex_lock(&vm->loop->lock);
}

/* With the device lock. */
static void serve_reset(struct vmm_vm *vm)
{
	struct vmm_virtio *device;

	pthread_mutex_lock(&vm->run_lock);
	device = vm->resetting;
	pthread_mutex_unlock(&vm->run_lock);
	if (!device) {
		return;
	}
	vmm_virtio_reset(device);
	pthread_mutex_lock(&vm->run_lock);
	vm->resetting = NULL;
	pthread_mutex_unlock(&vm->run_lock);
	pthread_cond_broadcast(&vm->wake);
}

static void on_reset(struct vmm_source *source, uint32_t events)
{
	uint64_t count;

	if (read(source->fd, &count, sizeof(count)) > 0) {
		serve_reset(source->userdata);
	}
}

static int connect_from_guest(void *userdata, uint64_t id, uint32_t port)
{
	struct vmm_vm *vm = userdata;

	return vm->callbacks.vsock_connect(vm->callbacks.userdata, id, port);
}

static void on_limited(void *userdata)
{
	vmm_vm_limited(userdata);
}

int vmm_vm_init(struct vmm_vm *vm, int kvm_fd, enum filter_mode filters, struct vmm_loop *loop,
		const struct vmm_vm_callbacks *callbacks, struct base_error *error)
{
	int r;

	memset(vm, 0, sizeof(*vm));
	vm->kvm_fd = kvm_fd;
	vm->fd = -1;
	vm->filters = filters;
	vm->pid = getpid();
	vm->loop = loop;
	vm->callbacks = *callbacks;
	vm->serial.console_fd = -1;
	for (unsigned i = 0; i < VMM_VCPUS_MAX; i++) {
		vm->vcpus[i].fd = -1;
	}
	vm->virtio_host = (struct vmm_virtio_host){
		.memory = &vm->memory,
		.loop = loop,
		.raise = raise_irq,
		.vsock_connect = connect_from_guest,
		.limited = on_limited,
		.disk_limits = &vm->disk_limits,
		.reset = reset_from_vcpu,
		.userdata = vm,
	};
	pthread_mutex_init(&vm->run_lock, NULL);
	pthread_cond_init(&vm->wake, NULL);
	pthread_cond_init(&vm->parking, NULL);
	vm->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vm->reset_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vm->over_fd < 0 || vm->reset_fd < 0) {
		return base_error_set_errno(error, -errno, "making an eventfd");
	}
	vm->reset_source =
		(struct vmm_source){ .fd = vm->reset_fd, .fn = on_reset, .userdata = vm };
	r = vmm_loop_add(loop, &vm->reset_source, EPOLLIN);
	if (r < 0) {
		return base_error_set_errno(error, r, "watching an eventfd");
	}
	r = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < (int)sizeof(struct kvm_run)) {
		return base_error_set(error, -EIO, "KVM gives no run area");
	}
	vm->run_bytes = (size_t)r;
	return vmm_vcpu_setup_signal();
}

static int enable_cap(struct vmm_vm *vm, uint32_t cap, uint64_t argument)
{
	struct kvm_enable_cap request = { .cap = cap, .args = { argument } };

	return ioctl(vm->fd, KVM_ENABLE_CAP, &request) < 0 ? -errno : 0;
}

static int create_kvm(struct vmm_vm *vm, struct base_error *error)
{
	uint64_t identity_map = IDENTITY_MAP_GPA;
	int r;

	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->fd < 0) {
		return base_error_set_errno(error, -errno, "creating a VM");
	}
	if (vm->kind == VMM_HOST_VMX &&
	    (ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0 ||
	     ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)) {
		return base_error_set_errno(error, -errno, "placing the TSS of the VM");
	}
	r = enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, VMM_IOAPIC_PINS);
	if (r < 0) {
		return base_error_set_errno(error, r, "enabling the split irqchip");
	}
	/* Without it an emulation failure in user mode becomes an exception in the guest, and one
	 * in ring 0 comes without the instruction bytes. */
	r = enable_cap(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	if (r < 0 && vm->kind == VMM_HOST_PVM) {
		return base_error_set_errno(error, r, "asking for exits on emulation failures");
	}
	r = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	vm->has_xsave2 = r > 0;
	vm->xsave_bytes = (uint32_t)MAX(r, (int)sizeof(struct kvm_xsave));
	return 0;
}

static int create_memory(struct vmm_vm *vm, const struct vmm_create_fds *fds,
			 struct base_error *error)
{
	struct kvm_userspace_memory_region region;
	int r;

	r = vmm_memory_init(&vm->memory, fds->memory, vm->config.memory_bytes, vm->config.shared);
	if (r < 0) {
		return base_error_set_errno(error, r,
					    "mapping the guest memory (a file of %llu bytes)",
					    (unsigned long long)vm->config.memory_bytes);
	}
	if (vm->config.lazy) {
		r = vmm_memory_make_lazy(&vm->memory, fds->memory, fds->userfault);
		if (r < 0) {
			return base_error_set_errno(
				error, r, "registering the guest memory with userfaultfd");
		}
	}
	region = (struct kvm_userspace_memory_region){
		.slot = 0,
		.guest_phys_addr = 0,
		.memory_size = vm->memory.size_bytes,
		.userspace_addr = (uint64_t)(uintptr_t)vm->memory.base,
	};
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
		return base_error_set_errno(error, -errno, "setting the memory slot");
	}
	return 0;
}

/* The CPUID tables of a VM that is booted: what KVM can do, less what we do not want. */
static int build_cpuid(struct vmm_vm *vm, struct vmm_cpuid *tables, struct base_error *error)
{
	struct vmm_cpuid base;
	int r;

	r = vmm_cpuid_base(vm->kvm_fd, vm->kind, &base);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the CPUID table of KVM");
	}
	vm->fingerprint = vmm_cpuid_fingerprint(&base);
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		r = vmm_cpuid_for_vcpu(&base, i, vm->config.n_vcpus, &tables[i]);
		if (r < 0) {
			return base_error_set_errno(error, r, "building the CPUID table of vCPU %u",
						    i);
		}
	}
	return 0;
}

/* Asking KVM takes longer than making the VM does, so a state that brings its tables along is only
 * compared by its fingerprint with the one that the caller has asked for once. */
static int prepare_cpuid(struct vmm_vm *vm, int state_fd, uint64_t fingerprint,
			 struct vmm_cpuid *tables, const struct vmm_cpuid **ret_tables,
			 struct base_error *error)
{
	int r = 0;

	vm->fingerprint = fingerprint;
	if (state_fd < 0 || fingerprint == 0) {
		r = build_cpuid(vm, tables, error);
	}
	if (r == 0 && state_fd >= 0) {
		r = vmm_state_prepare(vm, state_fd, error);
	}
	for (unsigned i = 0; r == 0 && i < vm->config.n_vcpus; i++) {
		ret_tables[i] = vm->prepared ? vmm_prepared_cpuid(vm->prepared, i) : &tables[i];
	}
	return r;
}

static int create_vcpus(struct vmm_vm *vm, int state_fd, uint64_t fingerprint,
			struct base_error *error)
{
	_cleanup_free_ struct vmm_cpuid *built =
		calloc(vm->config.n_vcpus, sizeof(struct vmm_cpuid));
	const struct vmm_cpuid *tables[VMM_VCPUS_MAX];
	int r;

	if (!built) {
		return base_error_set_errno(error, -ENOMEM, "creating the vCPUs");
	}
	r = prepare_cpuid(vm, state_fd, fingerprint, built, tables, error);
	if (r < 0) {
		return r;
	}
	vmm_pvm_xsave_layout(tables[0], vm->xsave_bytes, &vm->xsave);
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		r = vmm_vcpu_init(&vm->vcpus[i], vm, i, tables[i], error);

		if (r < 0) {
			return r;
		}
	}
	if (!vm->config.shared) {
		r = vmm_vcpu_state_probe(&vm->vcpus[0], &vm->tsc_is_fixed, error);

		if (r < 0) {
			return r;
		}
	}
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		r = vmm_vcpu_start(&vm->vcpus[i], error);

		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* Queue notifications go to the device's eventfds without an exit. */
static int arm_ioeventfds(struct vmm_vm *vm, unsigned slot, struct base_error *error)
{
	struct vmm_virtio *device = vm->devices[slot];

	for (unsigned queue = 0; queue < vmm_virtio_queue_count(device); queue++) {
		struct kvm_ioeventfd request = {
			.datamatch = queue,
			.addr = VMM_VIRTIO_MMIO_BASE + slot * VMM_VIRTIO_MMIO_STRIDE +
				VMM_VIRTIO_QUEUE_NOTIFY,
			.len = 4,
			.fd = vmm_virtio_queue_fd(device, queue),
			.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
		};

		if (ioctl(vm->fd, KVM_IOEVENTFD, &request) < 0) {
			return base_error_set_errno(
				error, -errno, "arming queue %u of virtio device %u", queue, slot);
		}
	}
	return 0;
}

static int create_devices(struct vmm_vm *vm, struct vmm_create_fds *fds, struct base_error *error)
{
	int r;

	vmm_ioapic_init(&vm->ioapic, vm->fd);
	vmm_serial_init(&vm->serial, TAKE_FD(fds->console), raise_irq, vm);

	r = vmm_virtio_rng_new(&vm->virtio_host, VMM_SLOT_RNG, &vm->devices[VMM_SLOT_RNG], error);
	if (r < 0) {
		return r;
	}
	vm->n_devices = VMM_SLOT_RNG + 1;
	r = vmm_virtio_vsock_new(&vm->virtio_host, VMM_SLOT_VSOCK, vm->config.cid, fds->listener,
				 &vm->devices[VMM_SLOT_VSOCK], error);
	if (r < 0) {
		return r;
	}
	fds->listener = -1;
	vm->n_devices = VMM_SLOT_VSOCK + 1;
	r = vmm_virtio_balloon_new(&vm->virtio_host, VMM_SLOT_BALLOON,
				   &vm->devices[VMM_SLOT_BALLOON], error);
	if (r < 0) {
		return r;
	}
	vm->n_devices = VMM_SLOT_BALLOON + 1;
	for (unsigned i = 0; i < vm->config.n_disks; i++) {
		unsigned slot = VMM_SLOT_DISK + i;

		r = vmm_virtio_block_new(&vm->virtio_host, slot, fds->disks[i],
					 vm->config.read_only_disks & 1u << i, &vm->devices[slot],
					 error);
		if (r < 0) {
			return base_error_prefix(error, r, "disk %u", i);
		}
		fds->disks[i] = -1;
		vm->n_devices = slot + 1;
	}
	for (unsigned slot = 0; slot < vm->n_devices; slot++) {
		r = arm_ioeventfds(vm, slot, error);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

int vmm_vm_create(struct vmm_vm *vm, const struct vmm_config *config, struct vmm_create_fds *fds,
		  enum vmm_host_kind kind, uint64_t fingerprint, struct vmm_create_times *ret_times,
		  struct base_error *error)
{
	struct vmm_create_times times = { .start_ns = base_clock_monotonic_ns() };
	int r;

	r = vmm_config_check(config, error);
	if (r < 0) {
		return r;
	}
	vm->config = *config;
	vm->kind = kind;
	vm->state = VMM_VM_BROKEN;
	r = create_kvm(vm, error);
	if (r < 0) {
		return r;
	}
	times.vm_ns = base_clock_monotonic_ns();
	r = create_memory(vm, fds, error);
	if (r < 0) {
		return r;
	}
	times.memslot_ns = base_clock_monotonic_ns();
	r = create_vcpus(vm, fds->state, fingerprint, error);
	if (r < 0) {
		return r;
	}
	times.vcpus_ns = base_clock_monotonic_ns();
	r = create_devices(vm, fds, error);
	if (r < 0) {
		return r;
	}
	times.devices_ns = base_clock_monotonic_ns();
	vm->state = VMM_VM_CREATED;
	*ret_times = times;
	return 0;
}

int vmm_vm_set_limits(struct vmm_vm *vm, const struct vmm_limits *limits, struct base_error *error)
{
	uint64_t now_ns = base_clock_monotonic_ns();

	if (limits->disk_bytes > VMM_LIMIT_RATE_MAX ||
	    limits->disk_bytes_burst > VMM_LIMIT_RATE_MAX ||
	    limits->disk_operations > VMM_LIMIT_RATE_MAX ||
	    limits->disk_operations_burst > VMM_LIMIT_RATE_MAX ||
	    limits->console_bytes > VMM_LIMIT_RATE_MAX) {
		return base_error_set(error, -EINVAL, "limits: a rate or burst above %llu",
				      (unsigned long long)VMM_LIMIT_RATE_MAX);
	}
	if (limits->vsock_connections > VMM_LIMIT_CONNECTIONS_MAX ||
	    limits->vsock_bytes > VMM_LIMIT_VSOCK_BYTES_MAX ||
	    (limits->vsock_bytes > 0 && limits->vsock_bytes < VMM_LIMIT_VSOCK_BYTES_MIN)) {
		return base_error_set(error, -EINVAL,
				      "limits: vsock connections or bytes out of range");
	}
	vmm_ratelimit_set(&vm->disk_limits.bytes, limits->disk_bytes, limits->disk_bytes_burst,
			  now_ns);
	vmm_ratelimit_set(&vm->disk_limits.operations, limits->disk_operations,
			  limits->disk_operations_burst, now_ns);
	vmm_ratelimit_set(&vm->serial.limit, limits->console_bytes, 0, now_ns);
	vmm_virtio_vsock_limit(vm->devices[VMM_SLOT_VSOCK], (unsigned)limits->vsock_connections,
			       limits->vsock_bytes);
	for (unsigned slot = VMM_SLOT_DISK; slot < vm->n_devices; slot++) {
		vmm_virtio_block_limits_changed(vm->devices[slot]);
	}
	return 0;
}

void vmm_vm_limit_hits(const struct vmm_vm *vm, struct vmm_limit_hits *ret_hits)
{
	*ret_hits = (struct vmm_limit_hits){
		.disk_waits = vm->disk_limits.waits,
		.console_dropped = vm->serial.limited_bytes,
	};
	if (vm->n_devices > VMM_SLOT_VSOCK) {
		ret_hits->vsock_refused = vmm_virtio_vsock_limited(vm->devices[VMM_SLOT_VSOCK]);
	}
}

void vmm_vm_limited(struct vmm_vm *vm)
{
	uint64_t now_ns = base_clock_monotonic_ns();
	struct vmm_limit_hits hits;

	if (vm->limited_ns > 0 && now_ns - vm->limited_ns < LIMITED_INTERVAL_NS) {
		return;
	}
	vm->limited_ns = now_ns;
	vmm_vm_limit_hits(vm, &hits);
	vm->callbacks.limited(vm->callbacks.userdata, &hits);
}

int vmm_vm_resume(struct vmm_vm *vm, struct base_error *error)
{
	if (vm->state == VMM_VM_RUNNING || vm->is_over) {
		return 0;
	}
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		struct vmm_vcpu *vcpu = &vm->vcpus[i];

		/* Tells a guest with kvmclock that it was stopped, so that its watchdogs do not
		 * bark. EINVAL: the guest has no kvmclock. */
		if (ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0) < 0 && errno != EINVAL) {
			return base_error_set_errno(error, -errno,
						    "telling vCPU %u that it was stopped", i);
		}
		__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	}
	vmm_serial_resume(&vm->serial);
	for (unsigned i = 0; i < vm->n_devices; i++) {
		vmm_virtio_resume(vm->devices[i]);
	}
	vm->state = VMM_VM_RUNNING;
	pthread_mutex_lock(&vm->run_lock);
	vm->entered_pending = true;
	vm->running = true;
	pthread_mutex_unlock(&vm->run_lock);
	pthread_cond_broadcast(&vm->wake);
	return 0;
}

static bool all_parked(const struct vmm_vm *vm)
{
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		if (!vm->vcpus[i].parked) {
			return false;
		}
	}
	return true;
}

/*
 * Without the device lock: a vCPU may need it on its way out. A kick ends most waits of a vCPU, but
 * not one for a missing page while KVM emulates an instruction: it lasts until the page is there.
 * So this looks up now and then whether anybody still wants to know.
 */
static int wait_until_parked(struct vmm_vm *vm)
{
	int r = 0;

	pthread_mutex_lock(&vm->run_lock);
	while (r == 0 && !all_parked(vm)) {
		struct timespec until;

		if (vm->resetting) {
			pthread_mutex_unlock(&vm->run_lock);
			pthread_mutex_lock(&vm->loop->lock);
			serve_reset(vm);
			pthread_mutex_unlock(&vm->loop->lock);
			pthread_mutex_lock(&vm->run_lock);
			continue;
		}
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += ABANDON_CHECK_S;
		if (pthread_cond_timedwait(&vm->parking, &vm->run_lock, &until) == ETIMEDOUT &&
		    vm->callbacks.abandoned(vm->callbacks.userdata)) {
			r = -ECANCELED;
		}
	}
	pthread_mutex_unlock(&vm->run_lock);
	return r;
}

static void stop_vcpus(struct vmm_vm *vm)
{
	pthread_mutex_lock(&vm->run_lock);
	vm->running = false;
	pthread_mutex_unlock(&vm->run_lock);
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		vmm_vcpu_kick(&vm->vcpus[i]);
	}
}

/* Draining a device that is drained does nothing. */
static int drain(struct vmm_vm *vm, bool vsock, struct base_error *error)
{
	for (unsigned i = 0; i < vm->n_devices; i++) {
		int r;

		if (i == VMM_SLOT_VSOCK && !vsock) {
			continue;
		}
		r = vmm_virtio_drain(vm->devices[i]);
		if (r < 0) {
			return base_error_set_errno(error, r, "draining virtio device %u", i);
		}
	}
	return 0;
}

int vmm_vm_pause(struct vmm_vm *vm, struct base_error *error)
{
	if (vm->state == VMM_VM_RUNNING) {
		int r;

		stop_vcpus(vm);
		pthread_mutex_unlock(&vm->loop->lock);
		r = wait_until_parked(vm);
		pthread_mutex_lock(&vm->loop->lock);
		if (r < 0) {
			return base_error_set_errno(error, r, "stopping the vCPUs");
		}
		vm->state = VMM_VM_PAUSED;
	}
	vmm_prepared_free(TAKE_PTR(vm->prepared));
	/* Not the vsock device: its connections outlive a pause. */
	return drain(vm, false, error);
}

int vmm_vm_drain(struct vmm_vm *vm, struct base_error *error)
{
	return drain(vm, true, error);
}

void vmm_vm_end(struct vmm_vm *vm, enum vmm_exit_reason reason, int code, const char *format, ...)
{
	uint64_t one = 1;
	va_list args;

	if (vm->is_over) {
		return;
	}
	vm->is_over = true;
	vm->over_reason = reason;
	vm->over_code = code;
	va_start(args, format);
	vsnprintf(vm->over_text.text, sizeof(vm->over_text.text), format, args);
	va_end(args);
	pthread_mutex_lock(&vm->run_lock);
	vm->running = false;
	pthread_mutex_unlock(&vm->run_lock);
	/* An eventfd that nobody has read yet cannot overflow from one write. */
	if (write(vm->over_fd, &one, sizeof(one)) < 0) {
		return;
	}
}
