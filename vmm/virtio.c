/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The virtio-mmio version 2 transport: registers, status, queue set-up, freezing and state.
 *
 * Happy path: the driver acknowledges the device, negotiates features, sets the queues up and says
 * DRIVER_OK; from then on it kicks queues (an ioeventfd, served by the main loop) and the device
 * answers with used buffers and interrupts.
 *
 * Failures are the guest's: a register access that the specification forbids does nothing; a
 * malformed queue sets DEVICE_NEEDS_RESET and stops the device until the driver resets it.
 *
 * Registers are reached from vCPU threads, kicks from the main thread; both with the device lock.
 * A device goes when the VM does; free() finishes I/O in flight first.
 */

#include "vmm/virtio_internal.h"

#include "base/fd.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Register offsets (virtio 1.2, section 4.2.2). */
enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SELECT = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SELECT = 0x024,
	REG_QUEUE_SELECT = 0x030,
	REG_QUEUE_SIZE_MAX = 0x034,
	REG_QUEUE_SIZE = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = VMM_VIRTIO_QUEUE_NOTIFY,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC_LOW = 0x080,
	REG_QUEUE_DESC_HIGH = 0x084,
	REG_QUEUE_AVAIL_LOW = 0x090,
	REG_QUEUE_AVAIL_HIGH = 0x094,
	REG_QUEUE_USED_LOW = 0x0a0,
	REG_QUEUE_USED_HIGH = 0x0a4,
	REG_SHM_LENGTH_LOW = 0x0b0,
	REG_SHM_LENGTH_HIGH = 0x0b4,
	REG_SHM_BASE_LOW = 0x0b8,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

#define MAGIC	  0x74726976u /* "virt" */
#define VERSION	  2u
#define VENDOR_ID 0x58424d57u /* "WMBX" */

#define INTERRUPT_QUEUE	 0x1u
#define INTERRUPT_CONFIG 0x2u
#define INTERRUPT_ALL	 (INTERRUPT_QUEUE | INTERRUPT_CONFIG)

/* What a driver may set, in the order in which it has to. */
static const uint32_t status_steps[] = {
	VMM_VIRTIO_S_ACKNOWLEDGE,
	VMM_VIRTIO_S_DRIVER,
	VMM_VIRTIO_S_FEATURES_OK,
	VMM_VIRTIO_S_DRIVER_OK,
};

static void serve_kick(struct vmm_source *source, uint32_t events)
{
	struct vmm_virtio_notifier *notifier = source->userdata;
	struct vmm_virtio *device = notifier->device;
	uint64_t count;

	if (read(source->fd, &count, sizeof(count)) < 0) {
		return; /* another turn was faster */
	}
	if (device->run == VMM_VIRTIO_RUNNING && vmm_virtio_is_active(device)) {
		device->ops->notify(device, notifier->queue);
	}
}

static int init_notifier(struct vmm_virtio *device, unsigned queue)
{
	struct vmm_virtio_notifier *notifier = &device->notifiers[queue];
	int r;

	notifier->device = device;
	notifier->queue = queue;
	notifier->source = (struct vmm_source){
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.fn = serve_kick,
		.userdata = notifier,
	};
	if (notifier->source.fd < 0) {
		return -errno;
	}
	r = vmm_loop_add(device->host->loop, &notifier->source, EPOLLIN);
	if (r < 0) {
		notifier->source.fd = base_fd_close(notifier->source.fd);
	}
	return r;
}

int vmm_virtio_init(struct vmm_virtio *device, const struct vmm_virtio_ops *ops,
		    const struct vmm_virtio_host *host, unsigned slot, struct base_error *error)
{
	assert(ops->n_queues <= VMM_VIRTIO_QUEUES_MAX);
	assert(ops->queue_size_max <= VMM_VIRTIO_QUEUE_SIZE_MAX);
	assert(slot < VMM_VIRTIO_DEVICES_MAX);

	device->ops = ops;
	device->host = host;
	device->slot = slot;
	device->features |= VMM_VIRTIO_F_VERSION_1;
	for (unsigned i = 0; i < VMM_VIRTIO_QUEUES_MAX; i++) {
		device->notifiers[i].source.fd = -1;
		device->queues[i].size_max = ops->queue_size_max;
	}
	for (unsigned i = 0; i < ops->n_queues; i++) {
		int r = init_notifier(device, i);

		if (r < 0) {
			vmm_virtio_deinit(device);
			return base_error_set_errno(
				error, r, "make the notification of virtio device %u, queue %u",
				slot, i);
		}
	}
	return 0;
}

void vmm_virtio_deinit(struct vmm_virtio *device)
{
	for (unsigned i = 0; i < VMM_VIRTIO_QUEUES_MAX; i++) {
		struct vmm_source *source = &device->notifiers[i].source;

		vmm_loop_remove(device->host->loop, source);
		source->fd = base_fd_close(source->fd);
	}
}

void vmm_virtio_free(struct vmm_virtio *device)
{
	if (device) {
		device->ops->free(device);
	}
}

unsigned vmm_virtio_queue_count(const struct vmm_virtio *device)
{
	return device->ops->n_queues;
}

int vmm_virtio_queue_fd(const struct vmm_virtio *device, unsigned queue)
{
	return device->notifiers[queue].source.fd;
}

bool vmm_virtio_is_active(const struct vmm_virtio *device)
{
	return (device->status & (VMM_VIRTIO_S_DRIVER_OK | VMM_VIRTIO_S_NEEDS_RESET |
				  VMM_VIRTIO_S_FAILED)) == VMM_VIRTIO_S_DRIVER_OK;
}

bool vmm_virtio_pop(struct vmm_virtio *device, unsigned queue)
{
	int r;

	if (!vmm_virtio_is_active(device)) {
		return false;
	}
	r = vmm_virtio_queue_pop(&device->queues[queue], device->host->memory, &device->chain);
	if (r < 0) {
		vmm_virtio_needs_reset(device);
	}
	return r > 0;
}

static void interrupt(struct vmm_virtio *device, uint32_t cause)
{
	device->interrupt_status |= cause;
	device->host->raise(device->host->userdata, VMM_VIRTIO_IRQ_BASE + device->slot);
}

void vmm_virtio_needs_reset(struct vmm_virtio *device)
{
	if (device->status & VMM_VIRTIO_S_NEEDS_RESET) {
		return;
	}
	device->status |= VMM_VIRTIO_S_NEEDS_RESET;
	if (device->status & VMM_VIRTIO_S_DRIVER_OK) {
		interrupt(device, INTERRUPT_CONFIG);
	}
}

void vmm_virtio_queue_interrupt(struct vmm_virtio *device, unsigned queue)
{
	if (vmm_virtio_queue_wants_interrupt(&device->queues[queue])) {
		interrupt(device, INTERRUPT_QUEUE);
	}
}

void vmm_virtio_kick(struct vmm_virtio *device, unsigned queue)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then the kick is there already. */
	if (write(device->notifiers[queue].source.fd, &one, sizeof(one)) < 0) {
		assert(errno == EAGAIN);
	}
}

/* The queue the driver has selected, or NULL when there is no such queue. */
static struct vmm_virtio_queue *selected_queue(struct vmm_virtio *device)
{
	return device->queue_select < device->ops->n_queues ? &device->queues[device->queue_select]
							    : NULL;
}

/* Queue registers may change between FEATURES_OK and DRIVER_OK, while the queue is not ready. */
static struct vmm_virtio_queue *writable_queue(struct vmm_virtio *device)
{
	struct vmm_virtio_queue *queue = selected_queue(device);

	if (!queue || queue->ready || !(device->status & VMM_VIRTIO_S_FEATURES_OK) ||
	    (device->status & VMM_VIRTIO_S_DRIVER_OK)) {
		return NULL;
	}
	return queue;
}

static uint32_t half(uint64_t value, uint32_t select)
{
	return select == 0 ? (uint32_t)value : select == 1 ? (uint32_t)(value >> 32) : 0;
}

static void set_half(uint64_t *field, bool high, uint32_t value)
{
	unsigned shift = high ? 32 : 0;

	*field = (*field & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)value << shift;
}

static uint32_t read_register(struct vmm_virtio *device, uint32_t offset)
{
	const struct vmm_virtio_queue *queue = selected_queue(device);

	switch (offset) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return VERSION;
	case REG_DEVICE_ID:
		return device->ops->device_id;
	case REG_VENDOR_ID:
		return VENDOR_ID;
	case REG_DEVICE_FEATURES:
		return half(device->features, device->device_features_select);
	case REG_QUEUE_SIZE_MAX:
		return queue ? queue->size_max : 0;
	case REG_QUEUE_READY:
		return queue ? queue->ready : 0;
	case REG_INTERRUPT_STATUS:
		return device->interrupt_status;
	case REG_STATUS:
		return device->status;
	case REG_SHM_LENGTH_LOW:
	case REG_SHM_LENGTH_HIGH:
	case REG_SHM_BASE_LOW:
	case REG_SHM_BASE_HIGH:
		return UINT32_MAX;  /* no such region */
	case REG_CONFIG_GENERATION: /* the configuration never changes */
	default:
		return 0;
	}
}

void vmm_virtio_mmio_read(struct vmm_virtio *device, uint32_t offset, void *data, unsigned length)
{
	memset(data, 0, length);
	if (offset >= REG_CONFIG) {
		offset -= REG_CONFIG;
		if (offset < device->config_size && length <= device->config_size - offset) {
			memcpy(data, device->config + offset, length);
		}
	} else if (length == 4 && offset % 4 == 0) {
		base_store_u32(data, read_register(device, offset));
	}
}

void vmm_virtio_reset(struct vmm_virtio *device)
{
	device->ops->reset(device);
	device->status = 0;
	device->interrupt_status = 0;
	device->driver_features = 0;
	device->device_features_select = 0;
	device->driver_features_select = 0;
	device->queue_select = 0;
	for (unsigned i = 0; i < device->ops->n_queues; i++) {
		vmm_virtio_queue_reset(&device->queues[i]);
	}
}

static bool features_acceptable(const struct vmm_virtio *device, uint64_t features)
{
	return (features & VMM_VIRTIO_F_VERSION_1) && (features & ~device->features) == 0;
}

/* Bits are only ever added, each after the one before it. */
static void write_status(struct vmm_virtio *device, uint32_t value)
{
	uint32_t before = device->status;

	if (value == 0 && device->host->reset) {
		device->host->reset(device->host->userdata, device);
		return;
	}
	if (value == 0) {
		vmm_virtio_reset(device);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(status_steps); i++) {
		uint32_t step = status_steps[i];

		if (device->status & step) {
			continue;
		}
		if (!(value & step) || (step == VMM_VIRTIO_S_FEATURES_OK &&
					!features_acceptable(device, device->driver_features))) {
			break;
		}
		device->status |= step;
	}
	device->status |= value & VMM_VIRTIO_S_FAILED;
	if (!(before & VMM_VIRTIO_S_DRIVER_OK) && vmm_virtio_is_active(device) &&
	    device->ops->activate) {
		device->ops->activate(device);
	}
}

static void write_queue_register(struct vmm_virtio *device, uint32_t offset, uint32_t value)
{
	struct vmm_virtio_queue *queue = writable_queue(device);

	if (!queue) {
		return;
	}
	switch (offset) {
	case REG_QUEUE_SIZE:
		queue->size = value;
		break;
	case REG_QUEUE_READY:
		if (value == 1 && vmm_virtio_queue_enable(queue, device->host->memory) < 0) {
			vmm_virtio_needs_reset(device);
		}
		break;
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
		set_half(&queue->desc_gpa, offset == REG_QUEUE_DESC_HIGH, value);
		break;
	case REG_QUEUE_AVAIL_LOW:
	case REG_QUEUE_AVAIL_HIGH:
		set_half(&queue->avail_gpa, offset == REG_QUEUE_AVAIL_HIGH, value);
		break;
	case REG_QUEUE_USED_LOW:
	case REG_QUEUE_USED_HIGH:
		set_half(&queue->used_gpa, offset == REG_QUEUE_USED_HIGH, value);
		break;
	}
}

static void write_driver_features(struct vmm_virtio *device, uint32_t value)
{
	if ((device->status & (VMM_VIRTIO_S_DRIVER | VMM_VIRTIO_S_FEATURES_OK)) ==
		    VMM_VIRTIO_S_DRIVER &&
	    device->driver_features_select <= 1) {
		set_half(&device->driver_features, device->driver_features_select == 1, value);
	}
}

static void write_register(struct vmm_virtio *device, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case REG_DEVICE_FEATURES_SELECT:
		device->device_features_select = value;
		break;
	case REG_DRIVER_FEATURES:
		write_driver_features(device, value);
		break;
	case REG_DRIVER_FEATURES_SELECT:
		device->driver_features_select = value;
		break;
	case REG_QUEUE_SELECT:
		device->queue_select = value;
		break;
	case REG_QUEUE_NOTIFY:
		/* Through the loop: I/O is started by the main thread only, so that completions
		 * never interrupt a vCPU thread. */
		if (value < device->ops->n_queues) {
			vmm_virtio_kick(device, value);
		}
		break;
	case REG_INTERRUPT_ACK:
		device->interrupt_status &= ~value;
		break;
	case REG_STATUS:
		write_status(device, value);
		break;
	default:
		write_queue_register(device, offset, value);
		break;
	}
}

void vmm_virtio_mmio_write(struct vmm_virtio *device, uint32_t offset, const void *data,
			   unsigned length)
{
	/* No device here has a writable configuration field. */
	if (offset < REG_CONFIG && length == 4 && offset % 4 == 0) {
		write_register(device, offset, base_load_u32(data));
	}
}

int vmm_virtio_drain(struct vmm_virtio *device)
{
	int r = 0;

	if (device->run != VMM_VIRTIO_DRAINED) {
		if (device->ops->drain) {
			r = device->ops->drain(device);
		}
		device->run = VMM_VIRTIO_DRAINED;
	}
	return r;
}

void vmm_virtio_resume(struct vmm_virtio *device)
{
	if (device->run == VMM_VIRTIO_RUNNING) {
		return;
	}
	device->run = VMM_VIRTIO_RUNNING;
	/* An interrupt the driver has not acknowledged may have been on its way: a spurious one is
	 * harmless, a lost one is not. */
	if (device->interrupt_status != 0) {
		interrupt(device, 0);
	}
	if (device->ops->resume) {
		device->ops->resume(device);
	}
	for (unsigned i = 0; i < device->ops->n_queues && vmm_virtio_is_active(device); i++) {
		device->ops->notify(device, i);
	}
}

void vmm_virtio_save(const struct vmm_virtio *device, struct base_writer *writer)
{
	assert(device->run != VMM_VIRTIO_RUNNING);

	base_writer_u32(writer, device->ops->device_id);
	base_writer_u64(writer, device->features);
	base_writer_u32(writer, device->status);
	base_writer_u32(writer, device->interrupt_status);
	base_writer_u64(writer, device->driver_features);
	base_writer_u32(writer, device->device_features_select);
	base_writer_u32(writer, device->driver_features_select);
	base_writer_u32(writer, device->queue_select);
	base_writer_u32(writer, device->ops->n_queues);
	for (unsigned i = 0; i < device->ops->n_queues; i++) {
		const struct vmm_virtio_queue *queue = &device->queues[i];

		base_writer_u32(writer, queue->size);
		base_writer_u32(writer, queue->ready);
		base_writer_u64(writer, queue->desc_gpa);
		base_writer_u64(writer, queue->avail_gpa);
		base_writer_u64(writer, queue->used_gpa);
		base_writer_u16(writer, queue->next_avail);
		base_writer_u16(writer, queue->next_used);
	}
	if (device->ops->save) {
		device->ops->save(device, writer);
	}
}

static int bad_field(const struct vmm_virtio *device, struct base_error *error, const char *field)
{
	return base_error_set(error, -EBADMSG, "virtio device %u: invalid %s", device->slot, field);
}

/* A status that write_status() and needs_reset() can have led to. */
static bool status_possible(uint32_t status)
{
	uint32_t steps = status & ~(VMM_VIRTIO_S_NEEDS_RESET | VMM_VIRTIO_S_FAILED);
	uint32_t reached = 0;

	for (size_t i = 0; i < ARRAY_SIZE(status_steps) && steps != reached; i++) {
		reached |= status_steps[i];
	}
	return steps == reached;
}

static int load_registers(struct vmm_virtio *device, struct base_reader *reader,
			  struct base_error *error)
{
	if (base_reader_u32(reader) != device->ops->device_id) {
		return bad_field(device, error, "device type");
	}
	if (base_reader_u64(reader) != device->features) {
		return bad_field(device, error, "offered features");
	}
	device->status = base_reader_u32(reader);
	if (!status_possible(device->status)) {
		return bad_field(device, error, "status");
	}
	device->interrupt_status = base_reader_u32(reader);
	if (device->interrupt_status & ~INTERRUPT_ALL) {
		return bad_field(device, error, "interrupt status");
	}
	device->driver_features = base_reader_u64(reader);
	if ((device->status & VMM_VIRTIO_S_FEATURES_OK) &&
	    !features_acceptable(device, device->driver_features)) {
		return bad_field(device, error, "driver features");
	}
	device->device_features_select = base_reader_u32(reader);
	device->driver_features_select = base_reader_u32(reader);
	device->queue_select = base_reader_u32(reader);
	if (base_reader_u32(reader) != device->ops->n_queues) {
		return bad_field(device, error, "number of queues");
	}
	return 0;
}

static int load_queue(struct vmm_virtio *device, struct vmm_virtio_queue *queue,
		      struct base_reader *reader, struct base_error *error)
{
	uint32_t ready;

	queue->size = base_reader_u32(reader);
	ready = base_reader_u32(reader);
	queue->desc_gpa = base_reader_u64(reader);
	queue->avail_gpa = base_reader_u64(reader);
	queue->used_gpa = base_reader_u64(reader);
	queue->next_avail = base_reader_u16(reader);
	queue->next_used = base_reader_u16(reader);
	/* A drained device has given back all it took, but for the request that broke it. */
	if (queue->next_avail != queue->next_used && !(device->status & VMM_VIRTIO_S_NEEDS_RESET)) {
		return bad_field(device, error, "queue indices");
	}
	if (ready > 1 || (ready == 1 && !(device->status & VMM_VIRTIO_S_FEATURES_OK))) {
		return bad_field(device, error, "queue ready flag");
	}
	if (ready == 0 && queue->next_avail != 0) {
		return bad_field(device, error, "queue indices");
	}
	if (ready == 1 && vmm_virtio_queue_enable(queue, device->host->memory) < 0) {
		return bad_field(device, error, "queue address or size");
	}
	return 0;
}

int vmm_virtio_load(struct vmm_virtio *device, struct base_reader *reader, struct base_error *error)
{
	int r;

	assert(device->status == 0);
	r = load_registers(device, reader, error);
	for (unsigned i = 0; r == 0 && i < device->ops->n_queues; i++) {
		r = load_queue(device, &device->queues[i], reader, error);
	}
	if (r == 0 && device->ops->load) {
		r = device->ops->load(device, reader, error);
	}
	if (r == 0 && reader->result < 0) {
		r = base_error_set(error, reader->result, "virtio device %u: state too short",
				   device->slot);
	}
	if (r == 0) {
		device->run = VMM_VIRTIO_LOADED;
	}
	return r;
}
