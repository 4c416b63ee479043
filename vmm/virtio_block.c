/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The block device (virtio 1.2, section 5.2) on a file or block device of the host.
 *
 * Happy path: a kick takes every available request, turns it into one io_uring operation whose
 * buffers are guest memory itself, and submits them together; completions, at once or through the
 * loop, write the status byte and give the chain back.
 *
 * A disk that is limited looks at the cost of a request before anything of it is begun. One that
 * cannot be paid for now goes back to where it was, the guest's own queue, and so do all behind it;
 * a timer of the loop fetches it again. So nothing waits here that a reset, a pause or a snapshot
 * would have to know of.
 *
 * Failures: a request that makes no sense (sector out of range, write to a read-only disk, odd
 * length) is answered with a status and never reaches the file; host errors become
 * VIRTIO_BLK_S_IOERR; a chain without room for a status byte breaks the device.
 *
 * Reset, drain and free wait for what is in flight, so that no completion ever writes into memory
 * that the guest has put to another use. Submissions and completions run in the main thread under
 * the device lock; a reset waits in the vCPU thread that asked for it.
 */

#include "vmm/virtio_block.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define DEVICE_ID_BLOCK 2

/* The most data of one request; Linux asks for 1.25 MiB at the most. */
#define BLOCK_REQUEST_BYTES_MAX MIB(32)

/* The most sectors of one discard or write-zeroes. */
#define BLOCK_DISCARD_SECTORS_MAX 0x400000u

#define SECTOR_SHIFT 9
#define SECTOR_BYTES (UINT64_C(1) << SECTOR_SHIFT)

#define F_SEG_MAX      (UINT64_C(1) << 2)
#define F_RO	       (UINT64_C(1) << 5)
#define F_FLUSH	       (UINT64_C(1) << 9)
#define F_DISCARD      (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)

#define HEADER_BYTES	 16 /* le32 type, le32 reserved, le64 sector */
#define ID_BYTES	 20
#define RANGE_BYTES	 16 /* le64 sector, le32 sectors, le32 flags */
#define RANGE_FLAG_UNMAP 1u

/* Offsets in the configuration space. */
enum {
	CONFIG_CAPACITY = 0,
	CONFIG_SEG_MAX = 12,
	CONFIG_MAX_DISCARD_SECTORS = 36,
	CONFIG_MAX_DISCARD_SEG = 40,
	CONFIG_DISCARD_SECTOR_ALIGNMENT = 44,
	CONFIG_MAX_WRITE_ZEROES_SECTORS = 48,
	CONFIG_MAX_WRITE_ZEROES_SEG = 52,
	CONFIG_WRITE_ZEROES_MAY_UNMAP = 56,
};

static struct vmm_block *block_of(struct vmm_virtio *device)
{
	return CONTAINER_OF(device, struct vmm_block, virtio);
}

static bool in_range(const struct vmm_block *block, uint64_t sector, uint64_t sectors)
{
	return sector <= block->capacity_sectors && sectors <= block->capacity_sectors - sector;
}

static int start_transfer(struct vmm_block *block, struct vmm_block_request *request,
			  uint64_t sector, const struct iovec *iov, unsigned n, uint64_t skip,
			  uint64_t size)
{
	struct iovec data[VMM_VIRTIO_QUEUE_SIZE_MAX];

	if (request->type == VMM_BLOCK_OUT && block->read_only) {
		return -VMM_BLOCK_S_IOERR;
	}
	if (size == 0 || size % SECTOR_BYTES != 0 || size > BLOCK_REQUEST_BYTES_MAX ||
	    !in_range(block, sector, size >> SECTOR_SHIFT)) {
		return -VMM_BLOCK_S_IOERR;
	}
	request->offset = sector << SECTOR_SHIFT;
	request->left_bytes = size;
	return vmm_block_start(block, request, data,
			       vmm_virtio_iov_slice(iov, n, skip, size, data));
}

static int start_range(struct vmm_block *block, struct vmm_block_request *request,
		       const struct vmm_virtio_chain *chain)
{
	uint8_t range[RANGE_BYTES];
	uint64_t sector;
	uint32_t sectors, flags;

	if (block->read_only) {
		return -VMM_BLOCK_S_UNSUPP;
	}
	if (chain->out_bytes != HEADER_BYTES + RANGE_BYTES) {
		return -VMM_BLOCK_S_IOERR; /* one range a request was offered */
	}
	vmm_virtio_iov_read(chain->iov, chain->n_out, HEADER_BYTES, range, sizeof(range));
	sector = base_load_u64(range);
	sectors = base_load_u32(range + 8);
	flags = base_load_u32(range + 12);
	if ((flags & ~RANGE_FLAG_UNMAP) || (request->type == VMM_BLOCK_DISCARD && flags != 0)) {
		return -VMM_BLOCK_S_UNSUPP;
	}
	if (sectors == 0 || sectors > BLOCK_DISCARD_SECTORS_MAX ||
	    !in_range(block, sector, sectors)) {
		return -VMM_BLOCK_S_IOERR;
	}
	request->offset = sector << SECTOR_SHIFT;
	request->left_bytes = (uint64_t)sectors << SECTOR_SHIFT;
	request->fallocate_mode = FALLOC_FL_KEEP_SIZE;
	if (request->type == VMM_BLOCK_WRITE_ZEROES && !(flags & RANGE_FLAG_UNMAP)) {
		request->fallocate_mode |= FALLOC_FL_ZERO_RANGE;
		/* The host may really have to write them. */
		if (block->virtio.host->disk_limits) {
			vmm_ratelimit_take(&block->virtio.host->disk_limits->bytes,
					   request->left_bytes);
		}
	} else {
		request->fallocate_mode |= FALLOC_FL_PUNCH_HOLE;
	}
	return vmm_block_start(block, request, NULL, 0);
}

static int write_id(const struct vmm_block *block, const struct iovec *in, unsigned n_in,
		    uint64_t size)
{
	char id[ID_BYTES + 1] = { 0 };

	if (size < ID_BYTES) {
		return -VMM_BLOCK_S_IOERR;
	}
	snprintf(id, sizeof(id), "warmbox-disk-%u", block->virtio.slot);
	vmm_virtio_iov_write(in, n_in, 0, id, ID_BYTES);
	return 0;
}

/* in_bytes: writable bytes in front of the status. 1: in flight. 0: done. <0: a status for the
 * driver, negated. */
static int dispatch(struct vmm_block *block, struct vmm_block_request *request, uint64_t sector,
		    uint64_t in_bytes)
{
	const struct vmm_virtio_chain *chain = &block->virtio.chain;
	const struct iovec *in = chain->iov + chain->n_out;

	switch (request->type) {
	case VMM_BLOCK_IN:
		return start_transfer(block, request, sector, in, chain->n_in, 0, in_bytes);
	case VMM_BLOCK_OUT:
		return start_transfer(block, request, sector, chain->iov, chain->n_out,
				      HEADER_BYTES, chain->out_bytes - HEADER_BYTES);
	case VMM_BLOCK_FLUSH:
		return block->read_only ? 0 : vmm_block_start(block, request, NULL, 0);
	case VMM_BLOCK_GET_ID:
		return write_id(block, in, chain->n_in, in_bytes);
	case VMM_BLOCK_DISCARD:
	case VMM_BLOCK_WRITE_ZEROES:
		return start_range(block, request, chain);
	default:
		return -VMM_BLOCK_S_UNSUPP;
	}
}

static void on_timer(struct vmm_timer *timer)
{
	struct vmm_block *block = timer->userdata;

	block->is_waiting = false;
	vmm_virtio_kick(&block->virtio, 0);
}

static void stop_waiting(struct vmm_block *block)
{
	block->is_waiting = false;
	vmm_loop_disarm(block->virtio.host->loop, &block->timer);
}

/* Pays for the request in the device's chain, or goes to wait until it can. */
static bool pay(struct vmm_block *block, uint32_t type)
{
	const struct vmm_virtio_host *host = block->virtio.host;
	const struct vmm_virtio_chain *chain = &block->virtio.chain;
	struct vmm_disk_limits *limits = host->disk_limits;
	uint64_t bytes = 0, now_ns, wait_ns;

	if (!limits || (limits->bytes.rate == 0 && limits->operations.rate == 0)) {
		return true;
	}
	if (type == VMM_BLOCK_IN || type == VMM_BLOCK_OUT) {
		bytes = MIN(type == VMM_BLOCK_IN ? chain->in_bytes : chain->out_bytes,
			    BLOCK_REQUEST_BYTES_MAX);
	}
	now_ns = base_clock_monotonic_ns();
	wait_ns = MAX(vmm_ratelimit_wait_ns(&limits->bytes, bytes, now_ns),
		      vmm_ratelimit_wait_ns(&limits->operations, 1, now_ns));
	if (wait_ns > 0) {
		block->is_waiting = true;
		vmm_loop_arm(host->loop, &block->timer, now_ns + wait_ns);
		limits->waits++;
		if (host->limited) {
			host->limited(host->userdata);
		}
		return false;
	}
	vmm_ratelimit_take(&limits->bytes, bytes);
	vmm_ratelimit_take(&limits->operations, 1);
	return true;
}

/* Starts or answers the request in the device's chain. False: it has to wait, or the device is
 * broken. True with *ret_done when a chain was given back. */
static bool serve(struct vmm_block *block, bool *ret_done)
{
	const struct vmm_virtio_chain *chain = &block->virtio.chain;
	const struct iovec *last = &chain->iov[chain->n_out + chain->n_in - 1];
	struct vmm_block_request request = { .head = chain->head };
	uint8_t header[HEADER_BYTES];
	uint32_t written = 0;
	int r;

	if (chain->n_in == 0 || vmm_virtio_iov_read(chain->iov, chain->n_out, 0, header,
						    sizeof(header)) < sizeof(header)) {
		vmm_virtio_needs_reset(&block->virtio);
		return false;
	}
	request.type = base_load_u32(header);
	if (!pay(block, request.type)) {
		vmm_virtio_queue_unpop(&block->virtio.queues[0]);
		return false;
	}
	request.status = (uint8_t *)last->iov_base + last->iov_len - 1;
	r = dispatch(block, &request, base_load_u64(header + 8), chain->in_bytes - 1);
	if (r <= 0) {
		if (r == 0 && request.type == VMM_BLOCK_GET_ID) {
			written = ID_BYTES;
		}
		vmm_block_finish(block, request.head, request.status, (uint8_t)-r, written);
		*ret_done = true;
	}
	return true;
}

static void block_notify(struct vmm_virtio *device, unsigned queue)
{
	struct vmm_block *block = block_of(device);
	unsigned taken = 0;
	bool done = false;

	while (!block->is_waiting && block->in_flight < VMM_BLOCK_QUEUE_SIZE &&
	       taken < VMM_BLOCK_QUEUE_SIZE && vmm_virtio_pop(device, queue)) {
		if (!serve(block, &done)) {
			break;
		}
		taken++;
	}
	vmm_block_submit(block);
	done |= vmm_block_reap(block);
	if (done) {
		vmm_virtio_queue_interrupt(device, queue);
	}
	if (taken == VMM_BLOCK_QUEUE_SIZE) {
		vmm_virtio_kick(device, queue); /* others want their turn */
	}
}

static void block_reset(struct vmm_virtio *device)
{
	struct vmm_block *block = block_of(device);

	stop_waiting(block);
	block->discarding = true;
	vmm_block_wait(block);
	block->discarding = false;
}

static int block_drain(struct vmm_virtio *device)
{
	struct vmm_block *block = block_of(device);

	/* The resume looks at the queue anew. */
	stop_waiting(block);
	if (block->in_flight > 0) {
		vmm_block_wait(block);
		vmm_virtio_queue_interrupt(device, 0);
	}
	return 0;
}

static void block_save(const struct vmm_virtio *device, struct base_writer *writer)
{
	base_writer_u64(writer,
			CONTAINER_OF(device, const struct vmm_block, virtio)->capacity_sectors);
}

static int block_load(struct vmm_virtio *device, struct base_reader *reader,
		      struct base_error *error)
{
	struct vmm_block *block = block_of(device);
	uint64_t capacity = base_reader_u64(reader);

	if (capacity != block->capacity_sectors) {
		return base_error_set(error, -EBADMSG,
				      "virtio device %u: the state is of a disk with %llu sectors, "
				      "this one has %llu",
				      device->slot, (unsigned long long)capacity,
				      (unsigned long long)block->capacity_sectors);
	}
	return 0;
}

static void block_free(struct vmm_virtio *device)
{
	struct vmm_block *block = block_of(device);

	block_reset(device);
	vmm_virtio_deinit(device);
	vmm_block_ring_deinit(block);
	base_fd_close(block->fd);
	free(block);
}

static const struct vmm_virtio_ops block_ops = {
	.device_id = DEVICE_ID_BLOCK,
	.n_queues = 1,
	.queue_size_max = VMM_BLOCK_QUEUE_SIZE,
	.notify = block_notify,
	.reset = block_reset,
	.drain = block_drain,
	.save = block_save,
	.load = block_load,
	.free = block_free,
};

static int measure(int fd, uint64_t *ret_sectors)
{
	struct stat info;
	uint64_t bytes;

	if (fstat(fd, &info) < 0) {
		return -errno;
	}
	if (S_ISBLK(info.st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) {
			return -errno;
		}
	} else if (S_ISREG(info.st_mode)) {
		bytes = (uint64_t)info.st_size;
	} else {
		return -ENOTBLK;
	}
	if (bytes < SECTOR_BYTES) {
		return -EINVAL;
	}
	*ret_sectors = bytes >> SECTOR_SHIFT;
	return 0;
}

static void fill_config(struct vmm_block *block)
{
	uint8_t *config = block->config;

	base_store_u64(config + CONFIG_CAPACITY, block->capacity_sectors);
	base_store_u32(config + CONFIG_SEG_MAX, VMM_BLOCK_SEG_MAX);
	if (!block->read_only) {
		base_store_u32(config + CONFIG_MAX_DISCARD_SECTORS, BLOCK_DISCARD_SECTORS_MAX);
		base_store_u32(config + CONFIG_MAX_DISCARD_SEG, 1);
		base_store_u32(config + CONFIG_DISCARD_SECTOR_ALIGNMENT, 1);
		base_store_u32(config + CONFIG_MAX_WRITE_ZEROES_SECTORS, BLOCK_DISCARD_SECTORS_MAX);
		base_store_u32(config + CONFIG_MAX_WRITE_ZEROES_SEG, 1);
		config[CONFIG_WRITE_ZEROES_MAY_UNMAP] = 1;
	}
}

int vmm_virtio_block_new(const struct vmm_virtio_host *host, unsigned slot, int fd, bool read_only,
			 struct vmm_virtio **ret_device, struct base_error *error)
{
	_cleanup_free_ struct vmm_block *block = calloc(1, sizeof(*block));
	int r;

	if (!block) {
		return base_error_set_errno(error, -ENOMEM, "make the disk in slot %u", slot);
	}
	block->read_only = read_only;
	r = measure(fd, &block->capacity_sectors);
	if (r < 0) {
		return base_error_set_errno(
			error, r,
			"use the disk in slot %u (a file or block device of at least %u "
			"bytes is needed)",
			slot, (unsigned)SECTOR_BYTES);
	}
	fill_config(block);
	block->virtio.config = block->config;
	block->virtio.config_size = sizeof(block->config);
	block->virtio.features =
		F_SEG_MAX | (read_only ? F_RO : F_FLUSH | F_DISCARD | F_WRITE_ZEROES);
	r = vmm_virtio_init(&block->virtio, &block_ops, host, slot, error);
	if (r < 0) {
		return r;
	}
	r = vmm_block_ring_init(block);
	if (r < 0) {
		vmm_virtio_deinit(&block->virtio);
		return base_error_set_errno(error, r, "make a ring for the disk in slot %u", slot);
	}
	block->fd = fd;
	block->timer = (struct vmm_timer){ .fn = on_timer, .userdata = block };
	*ret_device = &TAKE_PTR(block)->virtio;
	return 0;
}

void vmm_virtio_block_limits_changed(struct vmm_virtio *device)
{
	struct vmm_block *block = block_of(device);

	if (block->is_waiting) {
		stop_waiting(block);
		vmm_virtio_kick(device, 0);
	}
}
