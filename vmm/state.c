/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Saving and loading a whole VM.
 *
 * Save: vCPUs, clock, IOAPIC, serial port, devices into one buffer, which is written at the end;
 * then, for private memory, every page that is not zero. Load: the whole file is read and every
 * checksum, count and section is checked, then the devices (which validate what is theirs and touch
 * nothing of KVM) and only then KVM. A load that fails leaves a VM that must not run. Runs on the
 * main thread with all vCPUs parked and the device lock held; blocks on its files.
 */

#include "vmm/state.h"

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/state_format.h"
#include "vmm/state_vcpu.h"

#include <errno.h>
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

static uint32_t count_sections(const struct vmm_vm *vm)
{
	return vm->config.n_vcpus + 3 + VMM_SLOT_DISK + vm->config.n_disks;
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

/* Everything of a state file, checked but not applied. */
struct loaded {
	struct vmm_vcpu_state *vcpus; /* owned, one for each vCPU */
	uint64_t clock_ns;
	struct vmm_ioapic ioapic;
	struct vmm_serial serial;
	struct base_reader devices[VMM_VIRTIO_DEVICES_MAX];
};

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

static int parse_vcpus(const struct vmm_vm *vm, struct base_reader *reader, struct loaded *loaded,
		       struct base_error *error)
{
	loaded->vcpus = calloc(vm->config.n_vcpus, sizeof(*loaded->vcpus));
	if (!loaded->vcpus) {
		return base_error_set_errno(error, -ENOMEM, "loading the vCPUs");
	}
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		struct base_reader payload;
		int r = vmm_section_read(reader, VMM_SECTION_VCPU, i, &payload, error);

		if (r == 0) {
			r = vmm_vcpu_state_read(&loaded->vcpus[i], &payload, error);
		}
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

static int parse_clock(struct base_reader *reader, struct loaded *loaded, struct base_error *error)
{
	struct base_reader payload;
	int r = vmm_section_read(reader, VMM_SECTION_CLOCK, 0, &payload, error);

	if (r < 0) {
		return r;
	}
	loaded->clock_ns = base_reader_u64(&payload);
	/* Centuries of uptime are damage; and KVM computes with signed numbers. */
	if (base_reader_finish(&payload) < 0 || loaded->clock_ns > INT64_MAX / 2) {
		return base_error_set(error, -EBADMSG, "state: clock: length or value");
	}
	return 0;
}

static int parse_front(const struct vmm_vm *vm, struct base_reader *reader, struct loaded *loaded,
		       struct base_error *error)
{
	struct vmm_state_header header;
	int r;

	r = vmm_state_read_header(reader, &header, error);
	r = r ?: check_fit(vm, &header, error);
	return r ?: parse_vcpus(vm, reader, loaded, error);
}

static int parse(const struct vmm_vm *vm, struct base_reader *reader, struct loaded *loaded,
		 struct base_error *error)
{
	struct base_reader payload;
	int r;

	r = parse_front(vm, reader, loaded, error);
	r = r ?: parse_clock(reader, loaded, error);
	if (r == 0) {
		r = vmm_section_read(reader, VMM_SECTION_IOAPIC, 0, &payload, error);
	}
	if (r == 0) {
		r = vmm_ioapic_load(&loaded->ioapic, &payload, error);
	}
	if (r == 0) {
		r = vmm_section_read(reader, VMM_SECTION_SERIAL, 0, &payload, error);
	}
	if (r == 0) {
		r = vmm_serial_load(&loaded->serial, &payload, error);
	}
	for (unsigned i = 0; r == 0 && i < vm->n_devices; i++) {
		r = vmm_section_read(reader, VMM_SECTION_DEVICE, i, &loaded->devices[i], error);
	}
	if (r < 0) {
		return r;
	}
	if (base_reader_finish(reader) < 0) {
		return base_error_set(error, -EBADMSG, "state: bytes after the last section");
	}
	return 0;
}

static int load_devices(struct vmm_vm *vm, struct loaded *loaded, struct base_error *error)
{
	for (unsigned i = 0; i < vm->n_devices; i++) {
		int r = vmm_virtio_load(vm->devices[i], &loaded->devices[i], error);

		if (r < 0) {
			return base_error_prefix(error, r, "state: virtio device %u", i);
		}
	}
	return 0;
}

static int apply(struct vmm_vm *vm, struct loaded *loaded, struct vmm_state_clock *ret_clock,
		 struct base_error *error)
{
	/* Flags 0: kvmclock goes on from where it stood. The wall clock is the agent's to step. */
	struct kvm_clock_data clock = { .clock = loaded->clock_ns };
	int r;

	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		/* The TSCs were read one after the other; they ran together. */
		loaded->vcpus[i].tsc = loaded->vcpus[0].tsc;
		r = vmm_vcpu_state_set(&vm->vcpus[i], &loaded->vcpus[i], error);
		if (r < 0) {
			return r;
		}
	}
	if (ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0) {
		return base_error_set_errno(error, -errno, "KVM_SET_CLOCK");
	}
	vm->ioapic = loaded->ioapic;
	vm->serial = loaded->serial;
	/* One right after the other: the guest takes them for the same instant. */
	r = vmm_vcpu_state_tsc(&vm->vcpus[0], &ret_clock->tsc, error);
	ret_clock->realtime_ns = base_clock_realtime_ns();
	ret_clock->tsc_khz = loaded->vcpus[0].tsc_khz;
	return r;
}

/* The whole file, read by offset: many VMMs load the same open file at once. */
static int read_state(int fd, uint8_t **ret_data, size_t *ret_size, struct base_error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct stat info;
	int r;

	if (fstat(fd, &info) < 0) {
		return base_error_set_errno(error, -errno, "reading the state");
	}
	if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size > VMM_STATE_MAX_BYTES) {
		return base_error_set(error, -EBADMSG,
				      "state: not a regular file of at most %llu bytes",
				      (unsigned long long)VMM_STATE_MAX_BYTES);
	}
	data = malloc((size_t)info.st_size + 1);
	if (!data) {
		return base_error_set_errno(error, -ENOMEM, "reading the state");
	}
	r = base_fd_pread_full(fd, data, (size_t)info.st_size, 0);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the state");
	}
	*ret_data = TAKE_PTR(data);
	*ret_size = (size_t)info.st_size;
	return 0;
}

int vmm_state_cpuid(const struct vmm_vm *vm, int state_fd, struct vmm_cpuid *ret_tables,
		    struct base_error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct loaded loaded = {};
	struct base_reader reader;
	size_t size = 0;
	int r;

	r = read_state(state_fd, &data, &size, error);
	if (r < 0) {
		return r;
	}
	reader = base_reader_init(data, size);
	r = parse_front(vm, &reader, &loaded, error);
	for (unsigned i = 0; r == 0 && i < vm->config.n_vcpus; i++) {
		ret_tables[i] = loaded.vcpus[i].cpuid;
	}
	free(loaded.vcpus);
	return r;
}

int vmm_state_load(struct vmm_vm *vm, int state_fd, struct vmm_state_clock *ret_clock,
		   struct base_error *error)
{
	struct loaded loaded = { .ioapic = vm->ioapic, .serial = vm->serial };
	_cleanup_free_ uint8_t *data = NULL;
	struct base_reader reader;
	size_t size = 0;
	int r;

	r = read_state(state_fd, &data, &size, error);
	if (r < 0) {
		return r;
	}
	reader = base_reader_init(data, size);
	r = parse(vm, &reader, &loaded, error);
	if (r == 0) {
		r = load_devices(vm, &loaded, error);
	}
	if (r == 0) {
		r = apply(vm, &loaded, ret_clock, error);
	}
	free(loaded.vcpus);
	return r;
}
