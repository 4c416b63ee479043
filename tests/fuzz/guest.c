/* SPDX-License-Identifier: Apache-2.0 */

/* See guest.h. */

#include "tests/fuzz/guest.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

/* More turns than any device needs for what a guest can have asked of it. */
#define TURNS_MAX 4096
#define EVENTS	  8

enum {
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SELECT = 0x024,
	REG_QUEUE_SELECT = 0x030,
	REG_QUEUE_SIZE = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC = 0x080,
	REG_QUEUE_AVAIL = 0x090,
	REG_QUEUE_USED = 0x0a0,
};

/* Every register that can be written, those of status and queues more often. */
static const uint16_t registers[] = {
	0x010, 0x014, 0x020, 0x024, 0x030, 0x038, 0x044, 0x050, 0x060, 0x064, 0x070,
	0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4, 0x0fc, 0x100, 0x108, 0x070, 0x044,
};

enum op {
	OP_REGISTER,
	OP_READ,
	OP_WRITE,
	OP_START,
	OP_CHAIN,
	OP_MEMORY,
	OP_DESCRIPTOR,
	OP_OFFER,
	OP_AVAIL,
	OP_NOTIFY,
	OP_SETTLE,
	OP_FREEZE,
	OP_MIGRATE,
	OP_NO_INTERRUPT,
	OP_SPECIAL,
	OPS = OP_SPECIAL + 4, /* every other operation is the target's */
};

void fuzz_memory_init(struct vmm_memory *memory, uint64_t size_bytes)
{
	uint8_t *range = mmap(NULL, size_bytes + 2 * PAGE_BYTES, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	FUZZ_CHECK(range != MAP_FAILED &&
		   mprotect(range + PAGE_BYTES, size_bytes, PROT_READ | PROT_WRITE) == 0);
	*memory = (struct vmm_memory){
		.base = range + PAGE_BYTES,
		.size_bytes = size_bytes,
		.userfault_fd = -1,
	};
}

void fuzz_loop_settle(struct vmm_loop *loop)
{
	struct epoll_event events[EVENTS];

	for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
		uint64_t removals = loop->removals;
		int n = epoll_wait(loop->epoll_fd, events, EVENTS, 0);

		if (n <= 0) {
			return;
		}
		for (int i = 0; i < n && loop->removals == removals; i++) {
			struct vmm_source *source = events[i].data.ptr;

			source->fn(source, events[i].events);
		}
	}
	FUZZ_CHECK(false && "the device comes to rest");
}

static void *at(struct fuzz_guest *guest, gpa_t gpa, uint64_t size)
{
	return guest->memory.base + gpa % (guest->memory.size_bytes - size + 1);
}

void fuzz_guest_write(struct fuzz_guest *guest, uint32_t offset, uint32_t value)
{
	uint8_t bytes[4];

	base_store_u32(bytes, value);
	vmm_virtio_mmio_write(guest->device, offset, bytes, sizeof(bytes));
}

gpa_t fuzz_guest_put(struct fuzz_guest *guest, const void *data, uint32_t size)
{
	gpa_t gpa = base_align_up(guest->next_data, 8);

	if (gpa + size > guest->memory.size_bytes) {
		gpa = FUZZ_DATA_GPA;
	}
	memcpy(at(guest, gpa, size), data, size);
	guest->next_data = gpa + size;
	return gpa;
}

static void set_descriptor(struct fuzz_guest *guest, unsigned queue, uint16_t index, uint64_t gpa,
			   uint32_t length, uint16_t flags, uint16_t next)
{
	uint8_t *desc = at(guest, guest->queues[queue].desc + 16u * index, 16);

	base_store_u64(desc, gpa);
	base_store_u32(desc + 8, length);
	base_store_u16(desc + 12, flags);
	base_store_u16(desc + 14, next);
}

void fuzz_guest_add(struct fuzz_guest *guest, unsigned queue, uint64_t gpa, uint32_t length,
		    bool writable, bool more)
{
	struct fuzz_queue *q = &guest->queues[queue];
	uint16_t next = (uint16_t)((q->next_desc + 1) % q->size);

	set_descriptor(guest, queue, q->next_desc, gpa, length,
		       (uint16_t)((more ? 1 : 0) | (writable ? 2 : 0)), next);
	q->next_desc = next;
}

void fuzz_guest_offer(struct fuzz_guest *guest, unsigned queue, uint16_t head)
{
	struct fuzz_queue *q = &guest->queues[queue];

	base_store_u16(at(guest, q->avail + 4 + 2u * (q->avail_index % q->size), 2), head);
	q->avail_index++;
	base_store_u16(at(guest, q->avail + 2, 2), q->avail_index);
}

static void setup_queue(struct fuzz_guest *guest, unsigned queue, uint16_t size)
{
	struct fuzz_queue *q = &guest->queues[queue];

	*q = (struct fuzz_queue){
		.desc = queue * 0x2000u,
		.avail = queue * 0x2000u + 0x1000,
		.used = queue * 0x2000u + 0x1800,
		.size = size,
	};
	memset(at(guest, q->avail, 6), 0, 6);
	fuzz_guest_write(guest, REG_QUEUE_SELECT, queue);
	fuzz_guest_write(guest, REG_QUEUE_SIZE, size);
	fuzz_guest_write(guest, REG_QUEUE_DESC, (uint32_t)q->desc);
	fuzz_guest_write(guest, REG_QUEUE_DESC + 4, 0);
	fuzz_guest_write(guest, REG_QUEUE_AVAIL, (uint32_t)q->avail);
	fuzz_guest_write(guest, REG_QUEUE_AVAIL + 4, 0);
	fuzz_guest_write(guest, REG_QUEUE_USED, (uint32_t)q->used);
	fuzz_guest_write(guest, REG_QUEUE_USED + 4, 0);
	fuzz_guest_write(guest, REG_QUEUE_READY, 1);
}

/* how: its low bits say the size of the queues, the highest one leaves out DRIVER_OK. */
void fuzz_guest_start(struct fuzz_guest *guest, uint8_t how)
{
	uint16_t size = MIN((uint16_t)(1u << how % 8), guest->device->ops->queue_size_max);

	fuzz_guest_write(guest, REG_STATUS, 0);
	guest->started = false;
	fuzz_guest_write(guest, REG_STATUS, 3);
	for (uint32_t i = 0; i < 2; i++) {
		fuzz_guest_write(guest, REG_DRIVER_FEATURES_SELECT, i);
		fuzz_guest_write(guest, REG_DRIVER_FEATURES,
				 (uint32_t)(guest->device->features >> 32 * i));
	}
	fuzz_guest_write(guest, REG_STATUS, 11);
	for (unsigned i = 0; i < vmm_virtio_queue_count(guest->device); i++) {
		setup_queue(guest, i, size);
	}
	if (!(how & 0x80)) {
		fuzz_guest_write(guest, REG_STATUS, 15);
	}
}

/* A place and a length; half of them are sane. */
static void draw_buffer(struct fuzz_guest *guest, struct fuzz_input *input, uint8_t kind,
			uint64_t *ret_gpa, uint32_t *ret_length)
{
	uint64_t gpa = FUZZ_DATA_GPA + (uint64_t)fuzz_u8(input) * 16;
	uint32_t length = fuzz_u8(input);

	switch (kind >> 4) {
	case 8: /* up to the last byte of memory */
		gpa = guest->memory.size_bytes - length;
		break;
	case 9: /* past it */
		gpa = guest->memory.size_bytes - length + 1;
		break;
	case 10: /* over a queue */
		gpa = gpa % FUZZ_DATA_GPA;
		break;
	case 11:
		gpa = fuzz_u64(input);
		length = fuzz_u32(input);
		break;
	case 12: /* the end overflows */
		gpa = UINT64_MAX - length / 2;
		break;
	case 13: /* all of memory */
		gpa = 0;
		length = (uint32_t)guest->memory.size_bytes;
		break;
	case 14: /* whole pages */
		gpa = (uint64_t)(length % 17) * PAGE_BYTES;
		length = PAGE_BYTES;
		break;
	case 15: /* long */
		length *= 256;
		break;
	default:
		break;
	}
	*ret_gpa = gpa;
	*ret_length = length;
}

static void add_chain(struct fuzz_guest *guest, struct fuzz_input *input)
{
	uint8_t how = fuzz_u8(input);
	unsigned queue = (how >> 6) % vmm_virtio_queue_count(guest->device);
	unsigned n = 1 + how % 8;
	uint16_t head = guest->queues[queue].next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint8_t kind = fuzz_u8(input);
		uint64_t gpa;
		uint32_t length;

		draw_buffer(guest, input, kind, &gpa, &length);
		fuzz_guest_add(guest, queue, gpa, length, kind & 1, i + 1 < n);
	}
	fuzz_guest_offer(guest, queue, head);
	if (how & 8) {
		fuzz_guest_write(guest, REG_QUEUE_NOTIFY, queue);
		fuzz_loop_settle(&guest->loop);
	}
}

static void read_register(struct fuzz_guest *guest, struct fuzz_input *input)
{
	uint16_t where = fuzz_u16(input);
	/* Of exactly the length, so that a sanitizer sees a byte too many. */
	unsigned length = 1u << (where >> 12) % 4;
	uint8_t *bytes = malloc(length);

	FUZZ_CHECK(bytes);
	vmm_virtio_mmio_read(guest->device, where & 0xfff, bytes, length);
	free(bytes);
}

static void write_anywhere(struct fuzz_guest *guest, struct fuzz_input *input)
{
	uint16_t where = fuzz_u16(input);
	unsigned length = 1u << (where >> 12) % 4;
	uint8_t bytes[8];

	base_store_u64(bytes, fuzz_u64(input));
	vmm_virtio_mmio_write(guest->device, where & 0xfff, bytes, length);
}

/* A state that a device saved must load into another, whatever the guest has done to it. */
static void migrate(struct fuzz_guest *guest, struct fuzz_input *input)
{
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct base_reader reader;

	FUZZ_CHECK(vmm_virtio_drain(guest->device) == 0);
	vmm_virtio_save(guest->device, &writer);
	FUZZ_CHECK(base_writer_result(&writer) == 0);
	vmm_virtio_free(guest->device);
	guest->device = guest->make(guest);
	reader = base_reader_init(writer.data, writer.size);
	FUZZ_CHECK(vmm_virtio_load(guest->device, &reader, NULL) == 0);
	FUZZ_CHECK(base_reader_finish(&reader) == 0);
	if (guest->loaded) {
		guest->loaded(guest, input);
	}
	vmm_virtio_resume(guest->device);
}

static void freeze(struct fuzz_guest *guest)
{
	FUZZ_CHECK(vmm_virtio_drain(guest->device) == 0);
	fuzz_loop_settle(&guest->loop);
	vmm_virtio_resume(guest->device);
}

static void run_op(struct fuzz_guest *guest, struct fuzz_input *input)
{
	uint8_t code = fuzz_u8(input);
	unsigned n_queues = vmm_virtio_queue_count(guest->device);
	unsigned queue = (code >> 5) % n_queues;
	struct fuzz_queue *q = &guest->queues[queue];
	const uint8_t *bytes;
	size_t size;

	switch (code % OPS) {
	case OP_REGISTER: {
		uint16_t offset = registers[fuzz_u8(input) % ARRAY_SIZE(registers)];

		fuzz_guest_write(guest, offset, code & 0x80 ? fuzz_u32(input) : fuzz_u8(input));
		break;
	}
	case OP_READ:
		read_register(guest, input);
		break;
	case OP_WRITE:
		write_anywhere(guest, input);
		break;
	case OP_START:
		fuzz_guest_start(guest, fuzz_u8(input));
		break;
	case OP_CHAIN:
		add_chain(guest, input);
		break;
	case OP_MEMORY: {
		gpa_t gpa = fuzz_u16(input) + (gpa_t)(code >> 7) * 0x8000;

		bytes = fuzz_bytes(input, UINT8_MAX, &size);
		memcpy(at(guest, gpa, size), bytes, size);
		break;
	}
	case OP_DESCRIPTOR: {
		uint16_t index = fuzz_u8(input) % 128;
		uint64_t gpa = code & 0x80 ? fuzz_u64(input) : fuzz_u16(input);
		uint32_t length = code & 0x80 ? fuzz_u32(input) : fuzz_u16(input);
		uint16_t flags = fuzz_u8(input);

		set_descriptor(guest, queue, index, gpa, length, flags, fuzz_u8(input));
		break;
	}
	case OP_OFFER:
		fuzz_guest_offer(guest, queue, fuzz_u8(input));
		break;
	case OP_AVAIL:
		q->avail_index = (uint16_t)(q->avail_index + (int8_t)fuzz_u8(input));
		base_store_u16(at(guest, q->avail + 2, 2), q->avail_index);
		break;
	case OP_NOTIFY:
		fuzz_guest_write(guest, REG_QUEUE_NOTIFY, code >> 5);
		break;
	case OP_SETTLE:
		fuzz_loop_settle(&guest->loop);
		break;
	case OP_FREEZE:
		freeze(guest);
		break;
	case OP_MIGRATE:
		migrate(guest, input);
		break;
	case OP_NO_INTERRUPT:
		base_store_u16(at(guest, q->avail, 2), code >> 7);
		break;
	default:
		if (guest->special) {
			guest->special(guest, input, code / OPS);
		}
		break;
	}
}

/* Queue registers never change between DRIVER_OK and a reset, whatever is written. */
static void check_queues(struct fuzz_guest *guest)
{
	const struct vmm_virtio *device = guest->device;
	bool started = device->status & VMM_VIRTIO_S_DRIVER_OK;

	for (unsigned i = 0; i < device->ops->n_queues; i++) {
		const struct vmm_virtio_queue *now = &device->queues[i];
		struct vmm_virtio_queue *before = &guest->before[i];

		if (started && guest->started) {
			FUZZ_CHECK(now->desc_gpa == before->desc_gpa &&
				   now->avail_gpa == before->avail_gpa &&
				   now->used_gpa == before->used_gpa && now->size == before->size &&
				   now->ready == before->ready);
		}
		FUZZ_CHECK(!now->ready || (now->size > 0 && now->size <= now->size_max));
		*before = *now;
	}
	guest->started = started;
}

static void raise_nothing(void *userdata, unsigned irq)
{
	FUZZ_CHECK(irq == VMM_VIRTIO_IRQ_BASE + FUZZ_SLOT);
}

/* After a reset nothing of the device touches guest memory. */
static void check_reset(struct fuzz_guest *guest)
{
	static uint8_t before[FUZZ_MEMORY_BYTES];

	fuzz_guest_write(guest, REG_STATUS, 0);
	memcpy(before, guest->memory.base, sizeof(before));
	fuzz_loop_settle(&guest->loop);
	FUZZ_CHECK(memcmp(before, guest->memory.base, sizeof(before)) == 0);
}

static void init_once(struct fuzz_guest *guest)
{
	if (!guest->memory.base) {
		fuzz_memory_init(&guest->memory, FUZZ_MEMORY_BYTES);
		FUZZ_CHECK(vmm_loop_init(&guest->loop) == 0);
		guest->host.memory = &guest->memory;
		guest->host.loop = &guest->loop;
		guest->host.raise = raise_nothing;
		guest->host.userdata = guest;
	}
}

void fuzz_guest_run(struct fuzz_guest *guest, const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };

	init_once(guest);
	memset(guest->memory.base, 0, guest->memory.size_bytes);
	for (unsigned i = 0; i < VMM_VIRTIO_QUEUES_MAX; i++) {
		guest->queues[i] = (struct fuzz_queue){ .size = 1 };
	}
	guest->next_data = FUZZ_DATA_GPA;
	guest->started = false;
	guest->device = guest->make(guest);
	while (input.left > 0) {
		run_op(guest, &input);
		check_queues(guest);
	}
	fuzz_loop_settle(&guest->loop);
	check_reset(guest);
	vmm_virtio_free(guest->device);
	guest->device = NULL;
}
