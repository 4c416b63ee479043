/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The transport and the balloon, under a hostile guest (guest.h). Page numbers are what its
 * requests are made of, so there is an operation that sends some.
 */

#include "tests/fuzz/guest.h"

#define PAGES_MAX 64

static struct vmm_virtio *make(struct fuzz_guest *guest)
{
	struct vmm_virtio *device;

	FUZZ_CHECK(vmm_virtio_balloon_new(&guest->host, FUZZ_SLOT, &device, NULL) == 0);
	return device;
}

/* A request with page numbers in inflate or deflate queue: runs in either direction, with jumps. */
static void send_pages(struct fuzz_guest *guest, struct fuzz_input *input, unsigned op)
{
	unsigned queue = op % 2;
	unsigned n = fuzz_u8(input) % PAGES_MAX;
	uint16_t head = guest->queues[queue].next_desc;
	uint32_t page = fuzz_u8(input) % 32;
	uint8_t pages[4 * PAGES_MAX];

	for (unsigned i = 0; i < n; i++) {
		uint8_t step = fuzz_u8(input);

		base_store_u32(pages + 4 * i, page);
		page += step == 0xff ? fuzz_u32(input) : (uint32_t)(int8_t)step;
	}
	fuzz_guest_add(guest, queue, fuzz_guest_put(guest, pages, 4 * n), 4 * n, false, false);
	fuzz_guest_offer(guest, queue, head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_guest guest = { .make = make, .special = send_pages };

	fuzz_guest_run(&guest, data, size);
	return 0;
}
