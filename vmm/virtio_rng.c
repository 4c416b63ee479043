/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The entropy device (virtio 1.2, section 5.4): every buffer the driver offers is filled from the
 * host's getrandom(), up to a bound, at once. It has no state of its own and nothing in flight.
 * Runs in the main thread, under the device lock.
 */

#include "vmm/virtio_internal.h"

#include <errno.h>
#include <sys/random.h>

#define DEVICE_ID_RNG  4
#define RNG_QUEUE_SIZE 64

/* The most that one request is given; the used length tells the driver how much it was. */
#define RNG_REQUEST_BYTES_MAX 4096u

struct rng {
	struct vmm_virtio virtio;
};

static uint32_t fill(const struct vmm_virtio_chain *chain)
{
	const struct iovec *in = chain->iov + chain->n_out;
	uint32_t done = 0;

	for (unsigned i = 0; i < chain->n_in && done < RNG_REQUEST_BYTES_MAX; i++) {
		size_t size = MIN(in[i].iov_len, (size_t)(RNG_REQUEST_BYTES_MAX - done));
		ssize_t n;

		do {
			n = getrandom(in[i].iov_base, size, 0);
		} while (n < 0 && errno == EINTR);
		if (n <= 0) {
			break;
		}
		done += (uint32_t)n;
		if ((size_t)n < size) {
			break;
		}
	}
	return done;
}

static void rng_notify(struct vmm_virtio *device, unsigned queue)
{
	unsigned served = 0;

	while (served < RNG_QUEUE_SIZE && vmm_virtio_pop(device, queue)) {
		vmm_virtio_queue_push(&device->queues[queue], device->chain.head,
				      fill(&device->chain));
		served++;
	}
	if (served > 0) {
		vmm_virtio_queue_interrupt(device, queue);
	}
	if (served == RNG_QUEUE_SIZE) {
		vmm_virtio_kick(device, queue); /* others want their turn */
	}
}

static void rng_reset(struct vmm_virtio *device)
{
}

static void rng_free(struct vmm_virtio *device)
{
	vmm_virtio_deinit(device);
	free(device);
}

static const struct vmm_virtio_ops rng_ops = {
	.device_id = DEVICE_ID_RNG,
	.n_queues = 1,
	.queue_size_max = RNG_QUEUE_SIZE,
	.notify = rng_notify,
	.reset = rng_reset,
	.free = rng_free,
};

int vmm_virtio_rng_new(const struct vmm_virtio_host *host, unsigned slot,
		       struct vmm_virtio **ret_device, struct base_error *error)
{
	_cleanup_free_ struct rng *rng = calloc(1, sizeof(*rng));
	int r;

	if (!rng) {
		return base_error_set_errno(error, -ENOMEM, "make the entropy device");
	}
	r = vmm_virtio_init(&rng->virtio, &rng_ops, host, slot, error);
	if (r < 0) {
		return r;
	}
	*ret_device = &TAKE_PTR(rng)->virtio;
	return 0;
}
