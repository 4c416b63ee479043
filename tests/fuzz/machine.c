/* SPDX-License-Identifier: Apache-2.0 */

/* See machine.h. What lasts as long as the process is made once. */

#include "tests/fuzz/machine.h"

#include "tests/fuzz/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISK_BYTES KIB(32)

static const struct vmm_config config = {
	.memory_bytes = VMM_MEMORY_MIN_BYTES,
	.n_disks = 1,
	.read_only_disks = 1,
	.cid = 42,
};

static void raise_irq(void *userdata, unsigned irq)
{
	struct vmm_vm *vm = userdata;

	vmm_ioapic_raise(&vm->ioapic, irq);
}

static int refuse_connect(void *userdata, uint64_t id, uint32_t port)
{
	return -EBUSY;
}

static void init_once(struct fuzz_machine *machine)
{
	struct vmm_vm *vm = &machine->vm;

	if (vm->memory.base) {
		return;
	}
	FUZZ_CHECK(vmm_loop_init(&machine->loop) == 0);
	machine->devnull = open("/dev/null", O_WRONLY | O_CLOEXEC);
	machine->disk = memfd_create("disk", MFD_CLOEXEC);
	FUZZ_CHECK(machine->devnull >= 0 && ftruncate(machine->disk, DISK_BYTES) == 0);
	fuzz_memory_init(&vm->memory, config.memory_bytes);
	vm->loop = &machine->loop;
	vm->virtio_host = (struct vmm_virtio_host){
		.memory = &vm->memory,
		.loop = &machine->loop,
		.raise = raise_irq,
		.vsock_connect = refuse_connect,
		.userdata = vm,
	};
	vm->kvm_fd = vm->fd = -1;
	vm->kind = VMM_HOST_VMX;
	for (unsigned i = 0; i < VMM_VCPUS_MAX; i++) {
		vm->vcpus[i] = (struct vmm_vcpu){ .vm = vm, .index = i, .fd = -1 };
	}
	vm->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	FUZZ_CHECK(vm->over_fd >= 0 && pthread_mutex_init(&vm->run_lock, NULL) == 0);
}

static void make_devices(struct fuzz_machine *machine)
{
	struct vmm_vm *vm = &machine->vm;
	const struct vmm_virtio_host *host = &vm->virtio_host;
	int none = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	FUZZ_CHECK(none >= 0);
	FUZZ_CHECK(vmm_virtio_rng_new(host, VMM_SLOT_RNG, &vm->devices[VMM_SLOT_RNG], NULL) == 0);
	FUZZ_CHECK(vmm_virtio_vsock_new(host, VMM_SLOT_VSOCK, config.cid, none,
					&vm->devices[VMM_SLOT_VSOCK], NULL) == 0);
	FUZZ_CHECK(vmm_virtio_balloon_new(host, VMM_SLOT_BALLOON, &vm->devices[VMM_SLOT_BALLOON],
					  NULL) == 0);
	FUZZ_CHECK(vmm_virtio_block_new(host, VMM_SLOT_DISK, dup(machine->disk), true,
					&vm->devices[VMM_SLOT_DISK], NULL) == 0);
	vm->n_devices = VMM_SLOT_DISK + config.n_disks;
}

void fuzz_machine_begin(struct fuzz_machine *machine, unsigned vcpus)
{
	struct vmm_vm *vm = &machine->vm;

	init_once(machine);
	/* Gives the pages back, too: few inputs touch more than a few. */
	FUZZ_CHECK(madvise(vm->memory.base, vm->memory.size_bytes, MADV_DONTNEED) == 0);
	vm->config = config;
	vm->config.n_vcpus = vcpus;
	vm->is_over = false;
	vmm_ioapic_init(&vm->ioapic, -1);
	vmm_serial_init(&vm->serial, dup(machine->devnull), raise_irq, vm);
	make_devices(machine);
}

void fuzz_machine_end(struct fuzz_machine *machine)
{
	struct vmm_vm *vm = &machine->vm;
	uint64_t count;

	for (unsigned i = 0; i < vm->n_devices; i++) {
		vmm_virtio_free(vm->devices[i]);
	}
	vm->n_devices = 0;
	vmm_serial_deinit(&vm->serial);
	(void)!read(vm->over_fd, &count, sizeof(count));
}
