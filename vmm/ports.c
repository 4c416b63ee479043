/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Where a guest's port and MMIO accesses go: serial port, exit and reset ports, IOAPIC, virtio.
 *
 * An access to nothing reads as all ones and writes nothing, as on a bus. Runs on vCPU threads
 * under the device lock; never blocks.
 */

#include "vmm/ports.h"
#include "vmm/vm.h"

#include <string.h>

#define PORT_KEYBOARD_STATUS 0x64u
#define KEYBOARD_RESET	     0xfeu
#define PORT_RESET	     0xcf9u
#define RESET_NOW	     0x04u

static bool is_serial(uint16_t port)
{
	return port >= VMM_SERIAL_PORT && port < VMM_SERIAL_PORT + VMM_SERIAL_PORTS;
}

void vmm_ports_read(struct vmm_vm *vm, uint16_t port, void *data, unsigned length)
{
	memset(data, 0xff, length);
	if (is_serial(port) && length == 1) {
		*(uint8_t *)data = vmm_serial_read(&vm->serial, port - VMM_SERIAL_PORT);
	} else if (port == PORT_KEYBOARD_STATUS || port == PORT_RESET) {
		/* "Input buffer empty": a kernel that is about to reset waits for this. */
		memset(data, 0, length);
	}
}

void vmm_ports_write(struct vmm_vm *vm, uint16_t port, const void *data, unsigned length)
{
	uint8_t value = *(const uint8_t *)data;

	if (is_serial(port)) {
		uint64_t limited_bytes = vm->serial.limited_bytes;

		if (length == 1) {
			vmm_serial_write(&vm->serial, port - VMM_SERIAL_PORT, value);
		}
		if (vm->serial.limited_bytes != limited_bytes) {
			vmm_vm_limited(vm);
		}
	} else if (port == VMM_PORT_EXIT) {
		vmm_vm_end(vm, VMM_EXIT_GUEST, value, "the guest ended the VM with code %u", value);
	} else if (port == PORT_KEYBOARD_STATUS && value == KEYBOARD_RESET) {
		vmm_vm_end(vm, VMM_EXIT_RESET, 0,
			   "the guest reset the machine (keyboard controller)");
	} else if (port == PORT_RESET && (value & RESET_NOW)) {
		vmm_vm_end(vm, VMM_EXIT_RESET, 0, "the guest reset the machine (port 0xcf9)");
	}
}

static struct vmm_virtio *device_at(struct vmm_vm *vm, gpa_t gpa, unsigned length,
				    uint32_t *ret_offset)
{
	uint64_t slot;

	if (gpa < VMM_VIRTIO_MMIO_BASE) {
		return NULL;
	}
	slot = (gpa - VMM_VIRTIO_MMIO_BASE) / VMM_VIRTIO_MMIO_STRIDE;
	*ret_offset = (uint32_t)((gpa - VMM_VIRTIO_MMIO_BASE) % VMM_VIRTIO_MMIO_STRIDE);
	if (slot >= vm->n_devices || *ret_offset + length > VMM_VIRTIO_MMIO_STRIDE) {
		return NULL;
	}
	return vm->devices[slot];
}

static bool is_ioapic(gpa_t gpa, unsigned length)
{
	return gpa >= VMM_IOAPIC_BASE && gpa + length <= VMM_IOAPIC_BASE + VMM_IOAPIC_BYTES;
}

void vmm_mmio_read(struct vmm_vm *vm, gpa_t gpa, void *data, unsigned length)
{
	struct vmm_virtio *device;
	uint32_t offset;

	memset(data, 0xff, length);
	if (is_ioapic(gpa, length)) {
		uint8_t bytes[8] = {};

		base_store_u32(bytes,
			       vmm_ioapic_read(&vm->ioapic, (uint32_t)(gpa - VMM_IOAPIC_BASE)));
		memcpy(data, bytes, length);
		return;
	}
	device = device_at(vm, gpa, length, &offset);
	if (device) {
		vmm_virtio_mmio_read(device, offset, data, length);
	}
}

void vmm_mmio_write(struct vmm_vm *vm, gpa_t gpa, const void *data, unsigned length)
{
	struct vmm_virtio *device;
	uint32_t offset;

	if (is_ioapic(gpa, length)) {
		uint8_t bytes[8] = {};

		memcpy(bytes, data, length);
		vmm_ioapic_write(&vm->ioapic, (uint32_t)(gpa - VMM_IOAPIC_BASE),
				 base_load_u32(bytes));
		return;
	}
	device = device_at(vm, gpa, length, &offset);
	if (device) {
		vmm_virtio_mmio_write(device, offset, data, length);
	}
}
