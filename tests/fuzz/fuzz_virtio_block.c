/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The transport and the block device on a small file, under a hostile guest (guest.h). One
 * operation makes requests as a driver does, with any type, sector and lengths. The first byte of
 * an input says whether the disk is read-only.
 *
 * I/O is real and asynchronous; it is waited for wherever the device itself must wait: reset, drain
 * and free.
 */

#include "base/fd.h"
#include "tests/fuzz/guest.h"

#include <sys/mman.h>
#include <unistd.h>

#define DISK_BYTES KIB(32)

static bool read_only;
static int disk = -1;

static struct vmm_virtio *make(struct fuzz_guest *guest)
{
	struct vmm_virtio *device;

	FUZZ_CHECK(vmm_virtio_block_new(&guest->host, FUZZ_SLOT, dup(disk), read_only, &device,
					NULL) == 0);
	return device;
}

static void add_data(struct fuzz_guest *guest, struct fuzz_input *input, bool writable, bool more)
{
	uint8_t kind = fuzz_u8(input);
	uint32_t length = (kind % 8) * 512 + (kind & 0x40 ? fuzz_u8(input) : 0);

	fuzz_guest_add(guest, 0, FUZZ_DATA_GPA + (kind >> 3) * 512u, length, writable, more);
}

static void send_request(struct fuzz_guest *guest, struct fuzz_input *input, unsigned op)
{
	static const uint8_t types[] = { 0, 1, 4, 8, 11, 13, 2, 0xff };
	uint8_t how = fuzz_u8(input);
	uint8_t type = types[how % 8];
	uint16_t head = guest->queues[0].next_desc;
	uint8_t bytes[32] = { 0 };
	bool reads = type == 0 || type == 8;
	uint32_t size = 16;
	unsigned n = (how >> 3) % 4;

	base_store_u32(bytes, type);
	base_store_u64(bytes + 8, how & 0x80 ? fuzz_u64(input) : fuzz_u8(input) % 80);
	if (type == 11 || type == 13) {
		base_store_u64(bytes + 16, fuzz_u8(input) % 80);
		base_store_u32(bytes + 24, how & 0x40 ? fuzz_u32(input) : fuzz_u8(input));
		base_store_u32(bytes + 28, fuzz_u8(input) % 4);
		size = 32;
		n = 0;
	}
	fuzz_guest_add(guest, 0, fuzz_guest_put(guest, bytes, size), size, false, true);
	for (unsigned i = 0; i < n; i++) {
		add_data(guest, input, reads, true);
	}
	fuzz_guest_add(guest, 0, fuzz_guest_put(guest, bytes + 16, 1), 1, true, false);
	fuzz_guest_offer(guest, 0, head);
	fuzz_guest_write(guest, VMM_VIRTIO_QUEUE_NOTIFY, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_guest guest = { .make = make, .special = send_request };

	if (size == 0) {
		return 0;
	}
	if (disk < 0) {
		disk = memfd_create("disk", MFD_CLOEXEC);
	}
	read_only = data[0] & 1;
	FUZZ_CHECK(ftruncate(disk, 0) == 0 && ftruncate(disk, DISK_BYTES) == 0);
	fuzz_guest_run(&guest, data + 1, size - 1);
	return 0;
}
