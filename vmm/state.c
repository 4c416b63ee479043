/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Saving and loading a whole VM.
 *
 * Save: vCPUs, clock, IOAPIC, serial port, devices into one buffer, which is written at the end;
 * then, for private memory, every page that is not zero. Load: the whole file is read and every
 * checksum, count and section is checked, which may be done while the VM is made ("prepared"); then
 * the devices (which validate what is theirs and touch nothing of KVM) and only then KVM. A load
 * that fails leaves a VM that must not run. What was prepared is kept until the VM is paused next,
 * when nobody waits. Runs on the main thread with all vCPUs parked and the device lock held; blocks
 * on its files.
 */

#include "vmm/state.h"

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/state_format.h"
#include "vmm/state_vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define PAGE_BYTES 4096u

/* ---- save ---- */

static int save_vcpus(struct vmm_vm *vm, struct base_writer *writer, struct base_error *error)
{
	_cleanup_free_ struct vmm_vcpu_state *state = calloc(1, sizeof(*state));

	if (!state) {
		return base_error_set_errno(error, -ENOMEM, "saving the vCPUs");
	}
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		size_t section;
		int r = vmm_vcpu_state_get(&vm->vcpus[i], state, error);

		if (r < 0) {
			return r;
		}
		section = vmm_section_begin(writer, VMM_SECTION_VCPU, i);
		vmm_vcpu_state_write(state, writer);
		vmm_section_end(writer, section);
	}
	return 0;
}

static int save_clock(struct vmm_vm *vm, struct base_writer *writer, struct base_error *error)
{
	struct kvm_clock_data clock = {};
	size_t section;

	if (ioctl(vm->fd, KVM_GET_CLOCK, &clock) < 0) {
		return base_error_set_errno(error, -errno, "KVM_GET_CLOCK");
	}
	section = vmm_section_begin(writer, VMM_SECTION_CLOCK, 0);
	base_writer_u64(writer, clock.clock);
	vmm_section_end(writer, section);
	return 0;
}

/* As many as there will be, before they are made. */
static uint32_t count_devices(const struct vmm_vm *vm)
{
	return VMM_SLOT_DISK + vm->config.n_disks;
}

static uint32_t count_sections(const struct vmm_vm *vm)
{
	return vm->config.n_vcpus + 3 + count_devices(vm);
}

static int save_to(struct vmm_vm *vm, struct base_writer *writer, struct base_error *error)
{
	struct vmm_state_header header = {
		.n_sections = count_sections(vm),
		.kind = vm->kind,
		.fingerprint = vm->fingerprint,
		.config = vm->config,
	};
	size_t section;
	int r;

	vmm_state_begin(writer);
	r = save_vcpus(vm, writer, error);
	if (r == 0) {
		r = save_clock(vm, writer, error);
	}
	if (r < 0) {
		return r;
	}
	section = vmm_section_begin(writer, VMM_SECTION_IOAPIC, 0);
	vmm_ioapic_save(&vm->ioapic, writer);
	vmm_section_end(writer, section);
	section = vmm_section_begin(writer, VMM_SECTION_SERIAL, 0);
	vmm_serial_save(&vm->serial, writer);
	vmm_section_end(writer, section);
	for (unsigned i = 0; i < vm->n_devices; i++) {
		section = vmm_section_begin(writer, VMM_SECTION_DEVICE, i);
		vmm_virtio_save(vm->devices[i], writer);
		vmm_section_end(writer, section);
	}
	r = vmm_state_finish(writer, &header);
	if (r < 0) {
		return base_error_set_errno(error, r, "saving the state");
	}
	if (writer->size > VMM_STATE_MAX_BYTES) {
		return base_error_set(error, -E2BIG, "the state has %zu bytes, at most %llu may be",
				      writer->size, (unsigned long long)VMM_STATE_MAX_BYTES);
	}
	return 0;
}

static bool page_is_zero(const uint8_t *page)
{
	/* A page that equals itself shifted by one word, and whose first word is zero. */
	return base_load_u64(page) == 0 && memcmp(page, page + 8, PAGE_BYTES - 8) == 0;
}

/* Runs of pages that are not zero, each with one write. */
static int save_memory(const struct vmm_memory *memory, int fd, struct base_error *error)
{
	uint64_t position = 0;

	while (position < memory->size_bytes) {
		uint64_t end;
		int r;

		if (page_is_zero(memory->base + position)) {
			position += PAGE_BYTES;
			continue;
		}
		end = position + PAGE_BYTES;
		while (end < memory->size_bytes && end - position < MIB(4) &&
		       !page_is_zero(memory->base + end)) {
			end += PAGE_BYTES;
		}
		r = base_fd_pwrite_full(fd, memory->base + position, end - position,
					(off_t)position);
		if (r < 0) {
			return base_error_set_errno(error, r, "writing guest memory");
		}
		position = end;
	}
	return 0;
}

int vmm_state_save(struct vmm_vm *vm, int state_fd, int memory_fd, uint64_t *ret_bytes,
		   struct base_error *error)
{
	_cleanup_writer_ struct base_writer writer = {};
	int r;

	r = vmm_vm_drain(vm, error);
	if (r == 0) {
		r = save_to(vm, &writer, error);
	}
	if (r < 0) {
		return r;
	}
	r = base_fd_pwrite_full(state_fd, writer.data, writer.size, 0);
	if (r < 0) {
		return base_error_set_errno(error, r, "writing the state");
	}
	if (memory_fd >= 0) {
		r = save_memory(&vm->memory, memory_fd, error);
		if (r < 0) {
			return r;
		}
	}
	*ret_bytes = writer.size;
	return 0;
}

/* ---- load ---- */

/* Everything of a state file: checksums, counts and the vCPUs are checked, nothing is applied. */
struct vmm_prepared {
	dev_t device;
	ino_t inode;
	bool is_sealed;		      /* the file's content cannot change */
	uint8_t *data;		      /* owned; the readers' */
	struct vmm_vcpu_state *vcpus; /* owned, one for each vCPU */
	uint64_t clock_ns;
	struct base_reader ioapic, serial, devices[VMM_VIRTIO_DEVICES_MAX];
};

void vmm_prepared_free(struct vmm_prepared *prepared)
{
	if (prepared) {
		free(prepared->data);
		free(prepared->vcpus);
		free(prepared);
	}
}

static int check_fit(const struct vmm_vm *vm, const struct vmm_state_header *header,
		     struct base_error *error)
{
	const struct vmm_config *saved = &header->config, *ours = &vm->config;

	if (header->kind != vm->kind) {
		return base_error_set(error, -EXDEV,
				      "the state was made on a %s host, this is a %s host: build "
				      "the template again here",
				      vmm_host_kind_name(header->kind),
				      vmm_host_kind_name(vm->kind));
	}
	if (header->fingerprint != vm->fingerprint) {
		return base_error_set(error, -EXDEV,
				      "the state was made on another CPU or another version of KVM "
				      "(fingerprint %016llx, here %016llx): build the template "
				      "again here",
				      (unsigned long long)header->fingerprint,
				      (unsigned long long)vm->fingerprint);
	}
	if (saved->memory_bytes != ours->memory_bytes || saved->n_vcpus != ours->n_vcpus ||
	    saved->n_disks != ours->n_disks || saved->read_only_disks != ours->read_only_disks ||
	    saved->cid != ours->cid) {
		return base_error_set(
			error, -EINVAL,
			"the state is of a VM with %llu MiB, %u vCPUs, %u disks (read-only %#x) "
			"and CID %u; this VM has %llu MiB, %u, %u (%#x) and %u",
			(unsigned long long)(saved->memory_bytes >> 20), saved->n_vcpus,
			saved->n_disks, saved->read_only_disks, saved->cid,
			(unsigned long long)(ours->memory_bytes >> 20), ours->n_vcpus,
			ours->n_disks, ours->read_only_disks, ours->cid);
	}
	if (header->n_sections != count_sections(vm)) {
		return base_error_set(error, -EBADMSG, "state: header: %u sections, %u expected",
				      header->n_sections, count_sections(vm));
	}
	return 0;
}

static int parse_vcpus(const struct vmm_vm *vm, struct base_reader *reader,
		       struct vmm_prepared *prepared, struct base_error *error)
{
	prepared->vcpus = calloc(vm->config.n_vcpus, sizeof(*prepared->vcpus));
	if (!prepared->vcpus) {
		return base_error_set_errno(error, -ENOMEM, "loading the vCPUs");
	}
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		struct base_reader payload;
		int r = vmm_section_read(reader, VMM_SECTION_VCPU, i, &payload, error);

		if (r == 0) {
			r = vmm_vcpu_state_read(&prepared->vcpus[i], &payload, error);
		}
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int parse_clock(struct base_reader *reader, struct vmm_prepared *prepared,
		       struct base_error *error)
{
	struct base_reader payload;
	int r = vmm_section_read(reader, VMM_SECTION_CLOCK, 0, &payload, error);

	if (r < 0) {
		return r;
	}
	prepared->clock_ns = base_reader_u64(&payload);
	/* Centuries of uptime are damage; and KVM computes with signed numbers. */
	if (base_reader_finish(&payload) < 0 || prepared->clock_ns > INT64_MAX / 2) {
		return base_error_set(error, -EBADMSG, "state: clock: length or value");
	}
	return 0;
}

static int parse(const struct vmm_vm *vm, struct base_reader *reader, struct vmm_prepared *prepared,
		 struct base_error *error)
{
	struct vmm_state_header header;
	int r;

	r = vmm_state_read_header(reader, &header, error);
	r = r ?: check_fit(vm, &header, error);
	r = r ?: parse_vcpus(vm, reader, prepared, error);
	r = r ?: parse_clock(reader, prepared, error);
	r = r ?: vmm_section_read(reader, VMM_SECTION_IOAPIC, 0, &prepared->ioapic, error);
	r = r ?: vmm_section_read(reader, VMM_SECTION_SERIAL, 0, &prepared->serial, error);
	for (unsigned i = 0; r == 0 && i < count_devices(vm); i++) {
		r = vmm_section_read(reader, VMM_SECTION_DEVICE, i, &prepared->devices[i], error);
	}
	if (r < 0) {
		return r;
	}
	if (base_reader_finish(reader) < 0) {
		return base_error_set(error, -EBADMSG, "state: bytes after the last section");
	}
	return 0;
}

/* The devices: they check what is theirs and touch nothing of KVM. */
static int load_devices(struct vmm_vm *vm, const struct vmm_prepared *prepared,
			struct base_error *error)
{
	struct base_reader reader = prepared->ioapic;
	int r;

	r = vmm_ioapic_load(&vm->ioapic, &reader, error);
	reader = prepared->serial;
	r = r ?: vmm_serial_load(&vm->serial, &reader, error);
	for (unsigned i = 0; r == 0 && i < vm->n_devices; i++) {
		reader = prepared->devices[i];
		r = vmm_virtio_load(vm->devices[i], &reader, error);
		if (r < 0) {
			r = base_error_prefix(error, r, "state: virtio device %u", i);
		}
	}
	return r;
}

static int apply(struct vmm_vm *vm, struct vmm_prepared *prepared,
		 struct vmm_state_clock *ret_clock, struct base_error *error)
{
	/* Flags 0: kvmclock goes on from where it stood. The wall clock is the agent's to step. */
	struct kvm_clock_data clock = { .clock = prepared->clock_ns };
	int r;

	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		/* The TSCs were read one after the other; they ran together. */
		prepared->vcpus[i].tsc = prepared->vcpus[0].tsc;
		r = vmm_vcpu_state_set(&vm->vcpus[i], &prepared->vcpus[i], error);
		if (r < 0) {
			return r;
		}
	}
	if (ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0) {
		return base_error_set_errno(error, -errno, "KVM_SET_CLOCK");
	}
	/* One right after the other: the guest takes them for the same instant. */
	r = vmm_vcpu_state_tsc(&vm->vcpus[0], &ret_clock->tsc, error);
	ret_clock->realtime_ns = base_clock_realtime_ns();
	ret_clock->tsc_khz = prepared->vcpus[0].tsc_khz;
	return r;
}

/* The whole file, read by offset: many VMMs load the same open file at once. */
static int read_state(int fd, struct vmm_prepared *prepared, size_t *ret_size,
		      struct base_error *error)
{
	struct stat info;
	int r, seals;

	if (fstat(fd, &info) < 0) {
		return base_error_set_errno(error, -errno, "reading the state");
	}
	if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size > VMM_STATE_MAX_BYTES) {
		return base_error_set(error, -EBADMSG,
				      "state: not a regular file of at most %llu bytes",
				      (unsigned long long)VMM_STATE_MAX_BYTES);
	}
	prepared->data = malloc((size_t)info.st_size + 1);
	if (!prepared->data) {
		return base_error_set_errno(error, -ENOMEM, "reading the state");
	}
	r = base_fd_pread_full(fd, prepared->data, (size_t)info.st_size, 0);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the state");
	}
	seals = fcntl(fd, F_GET_SEALS);
	prepared->is_sealed = seals >= 0 && (seals & F_SEAL_WRITE);
	prepared->device = info.st_dev;
	prepared->inode = info.st_ino;
	*ret_size = (size_t)info.st_size;
	return 0;
}

int vmm_state_prepare(struct vmm_vm *vm, int state_fd, struct base_error *error)
{
	_cleanup_(vmm_prepared_freep) struct vmm_prepared *prepared = NULL;
	struct base_reader reader;
	size_t size = 0;
	int r;

	prepared = calloc(1, sizeof(*prepared));
	if (!prepared) {
		return base_error_set_errno(error, -ENOMEM, "reading the state");
	}
	r = read_state(state_fd, prepared, &size, error);
	if (r < 0) {
		return r;
	}
	reader = base_reader_init(prepared->data, size);
	r = parse(vm, &reader, prepared, error);
	if (r < 0) {
		return r;
	}
	vmm_prepared_free(vm->prepared);
	vm->prepared = TAKE_PTR(prepared);
	return 0;
}

const struct vmm_cpuid *vmm_prepared_cpuid(const struct vmm_prepared *prepared, unsigned vcpu)
{
	return &prepared->vcpus[vcpu].cpuid;
}

static bool is_prepared(const struct vmm_vm *vm, int state_fd)
{
	struct stat info;

	return vm->prepared && vm->prepared->is_sealed && fstat(state_fd, &info) == 0 &&
	       info.st_dev == vm->prepared->device && info.st_ino == vm->prepared->inode;
}

int vmm_state_load(struct vmm_vm *vm, int state_fd, struct vmm_state_clock *ret_clock,
		   struct base_error *error)
{
	int r = 0;

	if (!is_prepared(vm, state_fd)) {
		r = vmm_state_prepare(vm, state_fd, error);
	}
	r = r ?: load_devices(vm, vm->prepared, error);
	return r ?: apply(vm, vm->prepared, ret_clock, error);
}
