/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The balloon device (virtio 1.2, section 5.5), for what a guest gives back: pages it puts into the
 * balloon, and with free page reporting those it merely does not use.
 *
 * Happy path: a request names pages, they are discarded (vmm_memory_discard()), the request goes
 * back. While a template boots they become holes of its memory, which no snapshot stores. In a
 * restored VM they are this VM's private copies; what is read there afterwards is the template's
 * page, which this VM started with, so nothing of another VM can appear.
 *
 * What the driver may expect of such a page: for an inflated one nothing (5.5.6); for a reported
 * one nothing either, as the device does not offer VIRTIO_BALLOON_F_PAGE_POISON (5.5.6.7), without
 * which a driver that counts on the content of free pages does not negotiate reporting.
 *
 * The device never asks for pages: num_pages stays 0. There is no state of its own and nothing in
 * flight. Requests that name what is not guest memory put the device in need of a reset; where the
 * host refuses to discard, the guest just keeps the pages. Runs in the main thread, under the
 * device lock.
 */

#include "vmm/virtio_internal.h"

#include <errno.h>

#define DEVICE_ID_BALLOON 5
#define F_REPORTING	  (UINT64_C(1) << 5)

/* Linux reports with queues of 32 or more (PAGE_REPORTING_CAPACITY) only. */
#define BALLOON_QUEUE_SIZE 32
/* Of an inflate request so many pages are looked at; the rest stays the guest's. Linux sends 256.
 */
#define BALLOON_PAGES_MAX  1024u
#define BALLOON_PAGE_SHIFT 12
/* After so many pieces given back others have their turn: each takes the host some microseconds,
 * with the device lock. One request may have BALLOON_PAGES_MAX. */
#define BALLOON_PIECES_PER_TURN 256

/* Numbered without those that only features not offered here bring along, as drivers count. */
enum {
	QUEUE_INFLATE,
	QUEUE_DEFLATE,
	QUEUE_REPORTING,
	N_QUEUES,
};

struct balloon {
	struct vmm_virtio virtio;
	uint8_t config[8]; /* num_pages, actual; the latter is the driver's, and of no use here */
	uint64_t returned_bytes;
	unsigned pieces; /* of this turn */
};

/* 0 or -EFAULT. */
static int discard(struct balloon *balloon, gpa_t gpa, uint64_t length)
{
	uint64_t bytes;
	int r;

	balloon->pieces++;
	r = vmm_memory_discard(balloon->virtio.host->memory, gpa, length, &bytes);
	if (r == 0) {
		balloon->returned_bytes += bytes;
	}
	return r;
}

/* Neighbours, in either order, together. */
static int inflate(struct balloon *balloon)
{
	const struct vmm_virtio_chain *chain = &balloon->virtio.chain;
	uint32_t pages[BALLOON_PAGES_MAX];
	size_t n = vmm_virtio_iov_read(chain->iov, chain->n_out, 0, pages, sizeof(pages)) /
		   sizeof(pages[0]);
	int r = 0;

	for (size_t i = 0; r == 0 && i < n;) {
		uint64_t first = pages[i], last = first;

		for (i++; i < n; i++) {
			if (pages[i] == last + 1) {
				last++;
			} else if (pages[i] + UINT64_C(1) == first) {
				first--;
			} else {
				break;
			}
		}
		r = discard(balloon, first << BALLOON_PAGE_SHIFT,
			    (last - first + 1) << BALLOON_PAGE_SHIFT);
	}
	return r;
}

/* The pages themselves are the buffers. */
static int report(struct balloon *balloon)
{
	const struct vmm_virtio_chain *chain = &balloon->virtio.chain;
	const struct vmm_memory *memory = balloon->virtio.host->memory;
	const struct iovec *in = chain->iov + chain->n_out;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < chain->n_in; i++) {
		r = discard(balloon, (gpa_t)((const uint8_t *)in[i].iov_base - memory->base),
			    in[i].iov_len);
	}
	return r;
}

static int serve(struct balloon *balloon, unsigned queue)
{
	switch (queue) {
	case QUEUE_INFLATE:
		return inflate(balloon);
	case QUEUE_REPORTING:
		return report(balloon);
	default:
		return 0; /* what the guest takes back is its memory as before */
	}
}

static void balloon_notify(struct vmm_virtio *device, unsigned queue)
{
	struct balloon *balloon = CONTAINER_OF(device, struct balloon, virtio);
	unsigned served = 0;

	balloon->pieces = 0;
	while (served < BALLOON_QUEUE_SIZE && balloon->pieces < BALLOON_PIECES_PER_TURN &&
	       vmm_virtio_pop(device, queue)) {
		if (serve(balloon, queue) < 0) {
			vmm_virtio_needs_reset(device);
			return;
		}
		vmm_virtio_queue_push(&device->queues[queue], device->chain.head, 0);
		served++;
	}
	if (served > 0) {
		vmm_virtio_queue_interrupt(device, queue);
	}
	if (served == BALLOON_QUEUE_SIZE || balloon->pieces >= BALLOON_PIECES_PER_TURN) {
		vmm_virtio_kick(device, queue); /* others want their turn */
	}
}

static void balloon_reset(struct vmm_virtio *device)
{
}

static void balloon_free(struct vmm_virtio *device)
{
	vmm_virtio_deinit(device);
	free(device);
}

static const struct vmm_virtio_ops balloon_ops = {
	.device_id = DEVICE_ID_BALLOON,
	.n_queues = N_QUEUES,
	.queue_size_max = BALLOON_QUEUE_SIZE,
	.notify = balloon_notify,
	.reset = balloon_reset,
	.free = balloon_free,
};

int vmm_virtio_balloon_new(const struct vmm_virtio_host *host, unsigned slot,
			   struct vmm_virtio **ret_device, struct base_error *error)
{
	_cleanup_free_ struct balloon *balloon = calloc(1, sizeof(*balloon));
	int r;

	if (!balloon) {
		return base_error_set_errno(error, -ENOMEM, "make the balloon device");
	}
	balloon->virtio.features = F_REPORTING;
	balloon->virtio.config = balloon->config;
	balloon->virtio.config_size = sizeof(balloon->config);
	r = vmm_virtio_init(&balloon->virtio, &balloon_ops, host, slot, error);
	if (r < 0) {
		return r;
	}
	*ret_device = &TAKE_PTR(balloon)->virtio;
	return 0;
}

uint64_t vmm_virtio_balloon_returned_bytes(const struct vmm_virtio *device)
{
	return CONTAINER_OF(device, const struct balloon, virtio)->returned_bytes;
}
