/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The reader of state files: framing, vCPUs, IOAPIC, serial port and every device, up to the first
 * call to KVM, which fails here. An input is a whole file. Checksums stop nearly everything that a
 * fuzzer makes up, so it is tried with right ones, too. Devices that accept a state then run with
 * it, on memory full of zeros.
 */

#include "tests/fuzz/file.h"
#include "tests/fuzz/guest.h"
#include "tests/fuzz/machine.h"
#include "vmm/state.h"
#include "vmm/state_format.h"

#include <errno.h>
#include <xxhash.h>

#define LENGTH_OFFSET	16
#define CHECKSUM_OFFSET 64
#define CHECKSUM_BYTES	8
#define SECTION_LENGTH	12 /* offset in the head of a section */

/* Makes the file's length and checksums right, as far as its sections can be followed. */
static void seal(uint8_t *file, size_t size)
{
	size_t position = VMM_STATE_HEADER_BYTES;

	if (size < VMM_STATE_HEADER_BYTES) {
		return;
	}
	base_store_u64(file + LENGTH_OFFSET, size);
	base_store_u64(file + CHECKSUM_OFFSET,
		       XXH64(file, CHECKSUM_OFFSET, VMM_STATE_CHECKSUM_SEED));
	while (size - position >= VMM_SECTION_HEAD_BYTES + CHECKSUM_BYTES) {
		uint64_t length = base_load_u32(file + position + SECTION_LENGTH);
		uint64_t end = position + VMM_SECTION_HEAD_BYTES + length;

		if (end + CHECKSUM_BYTES > size) {
			return;
		}
		base_store_u64(file + end,
			       XXH64(file + position, (size_t)(end - position), position));
		position = (size_t)(end + CHECKSUM_BYTES);
	}
}

static void run_devices(struct fuzz_machine *machine)
{
	struct vmm_vm *vm = &machine->vm;

	vmm_serial_resume(&vm->serial);
	for (unsigned i = 0; i < vm->n_devices; i++) {
		vmm_virtio_resume(vm->devices[i]);
	}
	fuzz_loop_settle(&machine->loop);
	FUZZ_CHECK(vmm_vm_drain(vm, NULL) == 0);
}

static int try_file(const uint8_t *data, size_t size)
{
	static struct fuzz_machine machine;
	struct base_error error = { 0 };
	struct vmm_state_clock clock;
	int r;

	fuzz_machine_begin(&machine, FUZZ_MACHINE_VCPUS);
	r = vmm_state_load(&machine.vm, fuzz_file(data, size), &clock, &error);
	FUZZ_CHECK(r < 0 && error.text[0] != '\0');
	if (r == -EBADF) { /* KVM: all of the file was accepted */
		run_devices(&machine);
	}
	vmm_prepared_free(TAKE_PTR(machine.vm.prepared));
	fuzz_machine_end(&machine);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (try_file(data, size) != -EBADMSG) {
		return 0;
	}
	copy = malloc(size + 1);
	FUZZ_CHECK(copy);
	memcpy(copy, data, size);
	seal(copy, size);
	try_file(copy, size);
	free(copy);
	return 0;
}
