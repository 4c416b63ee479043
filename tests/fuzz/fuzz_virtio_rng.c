/* SPDX-License-Identifier: Apache-2.0 */

/* The transport and the entropy device, under a hostile guest (guest.h). */

#include "tests/fuzz/guest.h"

static struct vmm_virtio *make(struct fuzz_guest *guest)
{
	struct vmm_virtio *device;

	FUZZ_CHECK(vmm_virtio_rng_new(&guest->host, FUZZ_SLOT, &device, NULL) == 0);
	return device;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fuzz_guest guest = { .make = make };

	fuzz_guest_run(&guest, data, size);
	return 0;
}
