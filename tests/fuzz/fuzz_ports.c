/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Where a guest's accesses go (vmm/ports.c): any port and any address of the MMIO hole, in any
 * length, with the serial port, the IOAPIC, the exit ports and all devices behind them. At times
 * serial port and IOAPIC are saved and loaded, which must give back the same.
 */

#include "tests/fuzz/guest.h"
#include "tests/fuzz/machine.h"
#include "vmm/ports.h"

static const uint16_t ports[] = {
	0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff,
	0x400, 0x3f7, 0x60,  0x64,  0xcf8, 0xcf9, 0x80,	 VMM_PORT_EXIT,
};

static gpa_t draw_address(struct fuzz_input *input, uint8_t how)
{
	switch (how % 4) {
	case 0:
		return VMM_IOAPIC_BASE + (how & 0x20 ? 0x10 : 0);
	case 1:
		return VMM_IOAPIC_BASE - 8 + fuzz_u16(input) % (VMM_IOAPIC_BYTES + 16);
	case 2:
		return VMM_VIRTIO_MMIO_BASE + fuzz_u16(input);
	default:
		return fuzz_u64(input);
	}
}

/* One access, in a buffer of exactly its length. */
static void access_bus(struct vmm_vm *vm, struct fuzz_input *input, bool write, bool port)
{
	uint8_t how = fuzz_u8(input);
	unsigned length = 1u << (how >> 6);
	gpa_t address;
	uint8_t *bytes;
	uint64_t value;

	if (port) {
		length = MIN(length, 4u);
		address = how & 0x20 ? fuzz_u16(input) : ports[how % ARRAY_SIZE(ports)];
	} else {
		address = draw_address(input, how);
	}
	value = write ? fuzz_take(input, length) : 0;
	bytes = malloc(length);
	FUZZ_CHECK(bytes);
	memcpy(bytes, &value, length);
	if (port && write) {
		vmm_ports_write(vm, (uint16_t)address, bytes, length);
	} else if (port) {
		vmm_ports_read(vm, (uint16_t)address, bytes, length);
	} else if (write) {
		vmm_mmio_write(vm, address, bytes, length);
	} else {
		vmm_mmio_read(vm, address, bytes, length);
	}
	free(bytes);
}

static void check_ioapic(struct vmm_vm *vm)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct vmm_ioapic copy = { .vm_fd = -1 };
	struct base_reader reader;

	vmm_ioapic_save(&vm->ioapic, &writer);
	reader = base_reader_init(writer.data, writer.size);
	FUZZ_CHECK(vmm_ioapic_load(&copy, &reader, NULL) == 0);
	FUZZ_CHECK(memcmp(&copy, &vm->ioapic, sizeof(copy)) == 0);
}

static void check_serial(struct vmm_vm *vm)
{
	_cleanup_writer_ struct base_writer first = { 0 }, second = { 0 };
	struct base_reader reader;

	vmm_serial_save(&vm->serial, &first);
	reader = base_reader_init(first.data, first.size);
	FUZZ_CHECK(vmm_serial_load(&vm->serial, &reader, NULL) == 0);
	vmm_serial_save(&vm->serial, &second);
	FUZZ_CHECK(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
	vmm_serial_resume(&vm->serial);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_machine machine;
	struct fuzz_input input = { data, size };
	struct vmm_vm *vm = &machine.vm;

	fuzz_machine_begin(&machine, 0);
	while (input.left > 0) {
		uint8_t op = fuzz_u8(&input);

		switch (op % 6) {
		case 4:
			vmm_ioapic_raise(&vm->ioapic, op / 6);
			break;
		case 5:
			check_ioapic(vm);
			check_serial(vm);
			fuzz_loop_settle(&machine.loop);
			break;
		default:
			access_bus(vm, &input, op % 6 & 1, op % 6 & 2);
			break;
		}
	}
	FUZZ_CHECK(!vm->is_over || vm->over_reason == VMM_EXIT_GUEST ||
		   vm->over_reason == VMM_EXIT_RESET);
	fuzz_machine_end(&machine);
	return 0;
}
