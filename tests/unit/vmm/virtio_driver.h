/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A virtio driver for unit tests: rings in real guest memory (a memfd), registers through the
 * device's MMIO functions, notifications through its eventfds and the VMM's loop.
 */

#include "vmm/virtio.h"

#include <stdbool.h>

#define DRIVER_MEMORY_BYTES MIB(4)
#define DRIVER_QUEUES_MAX   3
#define DRIVER_QUEUE_SIZE   128

enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SELECT = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SELECT = 0x024,
	REG_QUEUE_SELECT = 0x030,
	REG_QUEUE_SIZE_MAX = 0x034,
	REG_QUEUE_SIZE = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC = 0x080,
	REG_QUEUE_AVAIL = 0x090,
	REG_QUEUE_USED = 0x0a0,
	REG_CONFIG = 0x100,
};

#define STATUS_RUNNING	   0x0fu
#define STATUS_NEEDS_RESET 0x40u

#define DESC_NEXT  1u
#define DESC_WRITE 2u

struct driver_queue {
	gpa_t desc, avail, used;
	uint16_t size;
	uint16_t next_desc;
	uint16_t avail_index;
	uint16_t used_seen;
};

struct driver {
	int memory_fd;
	struct vmm_memory memory;
	struct vmm_loop loop;
	struct vmm_virtio_host host;
	struct vmm_virtio *device; /* set by the test, freed by driver_deinit() */
	gpa_t next_free;	   /* guest memory is only ever handed out */
	unsigned interrupts;
	unsigned limited; /* how often a device said so */
	struct driver_queue queues[DRIVER_QUEUES_MAX];
};

/* One buffer of a chain. */
struct driver_buffer {
	gpa_t gpa;
	uint32_t length;
	bool writable;
};

void driver_init(struct driver *driver);
void driver_deinit(struct driver *driver);

/* Zeroed guest memory that nothing else uses. */
gpa_t driver_alloc(struct driver *driver, uint64_t size, uint64_t align);
void *driver_at(struct driver *driver, gpa_t gpa, uint64_t size);

uint32_t driver_read(struct driver *driver, uint32_t offset);
void driver_write(struct driver *driver, uint32_t offset, uint32_t value);

/* Acknowledges, negotiates everything that is offered, sets up all queues, DRIVER_OK. */
void driver_start(struct driver *driver);
/* The steps of driver_start(). */
void driver_negotiate(struct driver *driver);
void driver_setup_queue(struct driver *driver, unsigned queue, uint16_t size);

/* Makes a chain available, without a notification. Returns its head. */
uint16_t driver_add(struct driver *driver, unsigned queue, const struct driver_buffer *buffers,
		    unsigned n);
/* The same in two steps, for chains that no driver would make. */
void driver_set_desc(struct driver *driver, unsigned queue, uint16_t index, uint64_t gpa,
		     uint32_t length, uint16_t flags, uint16_t next);
void driver_offer(struct driver *driver, unsigned queue, uint16_t head);
void driver_kick(struct driver *driver, unsigned queue);

/* A hostile driver's next move: random descriptors (most of them inside guest memory), random
 * heads, at times an index that jumps. *random is the state of a xorshift generator, never 0. */
void driver_scramble(struct driver *driver, unsigned queue, uint64_t *random);

/* Takes the next used element, if there is one. */
bool driver_used(struct driver *driver, unsigned queue, uint16_t *ret_head, uint32_t *ret_length);
/* Runs the loop until there is one; fails the test after five seconds. */
uint32_t driver_wait(struct driver *driver, unsigned queue, uint16_t head);

/* One turn of the loop: what is ready within timeout_ms is served, and then the timers. Returns
 * whether anything was ready. */
bool driver_turn(struct driver *driver, int timeout_ms);
/* Turns until nothing is ready any more. */
void driver_settle(struct driver *driver);
