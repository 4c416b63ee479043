/* SPDX-License-Identifier: Apache-2.0 */

/* The driver's side of virtio-mmio, as plain as it gets. One thread: it is guest and main loop. */

#include "virtio_driver.h"

#include "base/clock.h"
#include "base/fd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_NS (5 * NSEC_PER_SEC)

static void count_interrupt(void *userdata, unsigned irq)
{
	struct driver *driver = userdata;

	assert_int_equal(irq, VMM_VIRTIO_IRQ_BASE + 2);
	driver->interrupts++;
}

static void count_limited(void *userdata)
{
	struct driver *driver = userdata;

	driver->limited++;
}

void driver_init(struct driver *driver)
{
	*driver = (struct driver){ .memory_fd = -1, .next_free = 0x1000 };
	assert_int_equal(base_fd_memfd("guest", DRIVER_MEMORY_BYTES, &driver->memory_fd), 0);
	assert_int_equal(
		vmm_memory_init(&driver->memory, driver->memory_fd, DRIVER_MEMORY_BYTES, true), 0);
	assert_int_equal(vmm_loop_init(&driver->loop), 0);
	driver->host = (struct vmm_virtio_host){
		.memory = &driver->memory,
		.loop = &driver->loop,
		.raise = count_interrupt,
		.limited = count_limited,
		.userdata = driver,
	};
}

void driver_deinit(struct driver *driver)
{
	vmm_virtio_free(driver->device);
	vmm_loop_deinit(&driver->loop);
	vmm_memory_deinit(&driver->memory);
	base_fd_close(driver->memory_fd);
}

gpa_t driver_alloc(struct driver *driver, uint64_t size, uint64_t align)
{
	gpa_t gpa = base_align_up(driver->next_free, align);

	driver->next_free = gpa + size;
	memset(driver_at(driver, gpa, size), 0, size);
	return gpa;
}

void *driver_at(struct driver *driver, gpa_t gpa, uint64_t size)
{
	void *p = vmm_memory_at(&driver->memory, gpa, size);

	assert_non_null(p);
	return p;
}

uint32_t driver_read(struct driver *driver, uint32_t offset)
{
	uint8_t bytes[4];

	vmm_virtio_mmio_read(driver->device, offset, bytes, sizeof(bytes));
	return base_load_u32(bytes);
}

void driver_write(struct driver *driver, uint32_t offset, uint32_t value)
{
	uint8_t bytes[4];

	base_store_u32(bytes, value);
	vmm_virtio_mmio_write(driver->device, offset, bytes, sizeof(bytes));
}

void driver_negotiate(struct driver *driver)
{
	driver_write(driver, REG_STATUS, 0);
	driver_write(driver, REG_STATUS, 1);
	driver_write(driver, REG_STATUS, 3);
	for (uint32_t i = 0; i < 2; i++) {
		driver_write(driver, REG_DEVICE_FEATURES_SELECT, i);
		driver_write(driver, REG_DRIVER_FEATURES_SELECT, i);
		driver_write(driver, REG_DRIVER_FEATURES, driver_read(driver, REG_DEVICE_FEATURES));
	}
	driver_write(driver, REG_STATUS, 11);
	assert_int_equal(driver_read(driver, REG_STATUS), 11);
}

void driver_setup_queue(struct driver *driver, unsigned queue, uint16_t size)
{
	struct driver_queue *q = &driver->queues[queue];

	*q = (struct driver_queue){
		.desc = driver_alloc(driver, 16 * size, 16),
		.avail = driver_alloc(driver, 6 + 2 * size, 2),
		.used = driver_alloc(driver, 6 + 8 * size, 4),
		.size = size,
	};
	driver_write(driver, REG_QUEUE_SELECT, queue);
	driver_write(driver, REG_QUEUE_SIZE, size);
	driver_write(driver, REG_QUEUE_DESC, (uint32_t)q->desc);
	driver_write(driver, REG_QUEUE_DESC + 4, 0);
	driver_write(driver, REG_QUEUE_AVAIL, (uint32_t)q->avail);
	driver_write(driver, REG_QUEUE_AVAIL + 4, 0);
	driver_write(driver, REG_QUEUE_USED, (uint32_t)q->used);
	driver_write(driver, REG_QUEUE_USED + 4, 0);
	driver_write(driver, REG_QUEUE_READY, 1);
}

void driver_start(struct driver *driver)
{
	driver_negotiate(driver);
	for (unsigned i = 0; i < vmm_virtio_queue_count(driver->device); i++) {
		uint32_t size;

		driver_write(driver, REG_QUEUE_SELECT, i);
		size = driver_read(driver, REG_QUEUE_SIZE_MAX);
		driver_setup_queue(driver, i, (uint16_t)MIN(size, (uint32_t)DRIVER_QUEUE_SIZE));
		assert_int_equal(driver_read(driver, REG_QUEUE_READY), 1);
	}
	driver_write(driver, REG_STATUS, STATUS_RUNNING);
	assert_int_equal(driver_read(driver, REG_STATUS), STATUS_RUNNING);
}

void driver_set_desc(struct driver *driver, unsigned queue, uint16_t index, uint64_t gpa,
		     uint32_t length, uint16_t flags, uint16_t next)
{
	uint8_t *desc = driver_at(driver, driver->queues[queue].desc + 16u * index, 16);

	base_store_u64(desc, gpa);
	base_store_u32(desc + 8, length);
	base_store_u16(desc + 12, flags);
	base_store_u16(desc + 14, next);
}

void driver_offer(struct driver *driver, unsigned queue, uint16_t head)
{
	struct driver_queue *q = &driver->queues[queue];
	gpa_t slot = q->avail + 4 + 2u * (q->avail_index % q->size);

	base_store_u16(driver_at(driver, slot, 2), head);
	q->avail_index++;
	base_store_u16(driver_at(driver, q->avail + 2, 2), q->avail_index);
}

uint16_t driver_add(struct driver *driver, unsigned queue, const struct driver_buffer *buffers,
		    unsigned n)
{
	struct driver_queue *q = &driver->queues[queue];
	uint16_t head = q->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t next = (uint16_t)((q->next_desc + 1) % q->size);

		driver_set_desc(driver, queue, q->next_desc, buffers[i].gpa, buffers[i].length,
				(uint16_t)((i + 1 < n ? DESC_NEXT : 0) |
					   (buffers[i].writable ? DESC_WRITE : 0)),
				next);
		q->next_desc = next;
	}
	driver_offer(driver, queue, head);
	return head;
}

void driver_kick(struct driver *driver, unsigned queue)
{
	driver_write(driver, REG_QUEUE_NOTIFY, queue);
}

static uint64_t draw(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random;
}

void driver_scramble(struct driver *driver, unsigned queue, uint64_t *random)
{
	struct driver_queue *q = &driver->queues[queue];

	for (uint16_t i = 0; i < q->size; i++) {
		uint64_t r = draw(random);
		uint64_t gpa = r % 61 ? r % DRIVER_MEMORY_BYTES : draw(random);
		uint32_t length = r % 59 ? (uint32_t)(r >> 32) % 6000 : (uint32_t)(r >> 32);
		uint16_t flags = (uint16_t)((r >> 16) % (r % 53 ? 4 : 16));

		driver_set_desc(driver, queue, i, gpa, length, flags,
				(uint16_t)((r >> 20) % (r % 47 ? q->size : UINT16_MAX)));
	}
	for (uint64_t n = draw(random) % 8; n > 0; n--) {
		driver_offer(driver, queue, (uint16_t)(draw(random) % q->size));
	}
	if (draw(random) % 31 == 0) {
		base_store_u16(driver_at(driver, q->avail + 2, 2), (uint16_t)draw(random));
	}
}

bool driver_used(struct driver *driver, unsigned queue, uint16_t *ret_head, uint32_t *ret_length)
{
	struct driver_queue *q = &driver->queues[queue];
	const uint8_t *element;

	if (base_load_u16(driver_at(driver, q->used + 2, 2)) == q->used_seen) {
		return false;
	}
	element = driver_at(driver, q->used + 4 + 8u * (q->used_seen % q->size), 8);
	*ret_head = (uint16_t)base_load_u32(element);
	*ret_length = base_load_u32(element + 4);
	q->used_seen++;
	return true;
}

uint32_t driver_wait(struct driver *driver, unsigned queue, uint16_t head)
{
	uint64_t deadline = base_clock_monotonic_ns() + WAIT_NS;
	uint16_t used_head;
	uint32_t length;

	while (!driver_used(driver, queue, &used_head, &length)) {
		assert_true(base_clock_monotonic_ns() < deadline);
		driver_turn(driver, 100);
	}
	assert_int_equal(used_head, head);
	return length;
}

bool driver_turn(struct driver *driver, int timeout_ms)
{
	int timer_ms = vmm_loop_timeout_ms(&driver->loop, base_clock_monotonic_ns());
	struct epoll_event event;
	bool any;

	if (timer_ms >= 0) {
		timeout_ms = MIN(timeout_ms, timer_ms);
	}
	any = epoll_wait(driver->loop.epoll_fd, &event, 1, timeout_ms) == 1;
	if (any) {
		struct vmm_source *source = event.data.ptr;

		source->fn(source, event.events);
	}
	vmm_loop_expire(&driver->loop, base_clock_monotonic_ns());
	return any;
}

void driver_settle(struct driver *driver)
{
	uint64_t deadline = base_clock_monotonic_ns() + WAIT_NS;

	while (driver_turn(driver, 0)) {
		assert_true(base_clock_monotonic_ns() < deadline); /* nothing may spin */
	}
}
