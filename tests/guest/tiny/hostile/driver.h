/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A virtio driver (virtio 1.2, virtio-mmio version 2, split rings) that does as it is told, also
 * what no driver may. What is wrong is EXPECTed to have an outcome; a guest whose expectation
 * fails says which and ends with 1.
 *
 * One ring of RING_SIZE entries for each queue of each device, in guest memory that is mapped one
 * to one. Nothing is asked of interrupts: the used index is looked at. Instructions are interpreted
 * on some hosts: storms are of a few thousand.
 */

#include "tests/guest/tiny/guest.h"

/* Of the VM that runs a hostile guest (tests/guest/test_hostile_guests.c). */
#define MEMORY_BYTES 0x400000u
#define DISK_SECTORS 2048u /* sector n begins with n as 32 bits */
#define AGENT_PORT   1024u /* where an attached stream knocks */

/* Slots (vmm/vm.h). */
enum { RNG, VSOCK, BALLOON, DISK, DEVICES };
#define QUEUES_MAX 3

#define DEVICE_BASE(device) (0xd0000000u + 0x1000u * (device))
#define DEVICE_IRQ(device)  (5u + (device))

enum {
	REG_MAGIC = 0x000,
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
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

#define S_ACKNOWLEDGE 0x01u
#define S_DRIVER      0x02u
#define S_DRIVER_OK   0x04u
#define S_FEATURES_OK 0x08u
#define S_RUNNING     0x0fu
#define S_NEEDS_RESET 0x40u
#define S_FAILED      0x80u

#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u

#define RING_SIZE 8

struct desc {
	volatile uint64_t gpa;
	volatile uint32_t length;
	volatile uint16_t flags, next;
};

struct queue {
	struct desc desc[RING_SIZE];
	struct {
		volatile uint16_t flags, index, ring[RING_SIZE], event;
	} avail;
	struct {
		volatile uint16_t flags, index;
		struct {
			volatile uint32_t id, length;
		} ring[RING_SIZE];
		volatile uint16_t event;
	} used __attribute__((aligned(4)));
	/* The driver's own. */
	unsigned device, number;
	uint16_t seen; /* used elements that were looked at */
} __attribute__((aligned(64)));
extern struct queue queues[DEVICES][QUEUES_MAX];

/* Memory to play with, aligned to pages. */
#define SCRATCH_BYTES 65536u
extern uint8_t scratch[SCRATCH_BYTES];

/* Accesses of any width, anywhere. */
#define AT(bits, address) (*(volatile uint##bits##_t *)(uintptr_t)(address))

static inline uint64_t gpa_of(const volatile void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static inline volatile uint32_t *reg(unsigned device, uint32_t offset)
{
	return (volatile uint32_t *)(uintptr_t)(DEVICE_BASE(device) + offset);
}

__attribute__((noreturn)) void fail(const char *what);
#define TEXT_(x) #x
#define TEXT(x)	 TEXT_(x)
#define EXPECT(condition)                                                  \
	do {                                                               \
		if (!(condition)) {                                        \
			fail(__FILE__ ":" TEXT(__LINE__) ": " #condition); \
		}                                                          \
	} while (0)

void wait_ticks(uint64_t ticks);
#define TICKS_SHORT UINT64_C(20000000) /* some milliseconds */

/* Resets the device and goes on to FEATURES_OK, with VIRTIO_F_VERSION_1 alone. */
void device_negotiate(unsigned device);
/* The registers of a queue, without "ready". */
void queue_registers(unsigned device, unsigned number, uint32_t size, uint64_t desc, uint64_t avail,
		     uint64_t used);
/* Clears the queue's ring and makes it ready; returns it. */
struct queue *queue_set_up(unsigned device, unsigned number);
/* All of it, up to DRIVER_OK. */
void device_start(unsigned device);

void queue_desc(struct queue *queue, unsigned index, uint64_t gpa, uint32_t length, uint16_t flags,
		uint16_t next);
/* Makes a chain available. */
void queue_offer(struct queue *queue, uint16_t head);
void queue_kick(const struct queue *queue);
/* One buffer as descriptor 0: offered and kicked. */
void queue_buffer(struct queue *queue, uint64_t gpa, uint32_t length, uint16_t flags);
/* Waits for the next used element. Returns its length; fails the guest when none comes. */
uint32_t queue_wait(struct queue *queue);
/* Nothing comes within a moment. */
void expect_nothing(struct queue *queue);

/* The device asks for a reset, soon. */
void expect_needs_reset(unsigned device);
/* Started anew, the device does what it is for. */
void expect_works(unsigned device);
/* The same without the start. */
void expect_serves(unsigned device);

/* --- the disk --- */

enum { BLK_IN = 0, BLK_OUT = 1, BLK_FLUSH = 4, BLK_GET_ID = 8, BLK_DISCARD = 11, BLK_ZEROES = 13 };
enum { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPP = 2, BLK_NONE = 0xee };

struct blk_header {
	volatile uint32_t type, reserved;
	volatile uint64_t sector;
};
struct blk_range {
	volatile uint64_t sector;
	volatile uint32_t sectors, flags;
};
extern struct blk_header blk_header;
extern volatile uint8_t blk_status;

/* Offers and kicks header, length bytes at data (none for 0; the device's to write with BLK_IN and
 * BLK_GET_ID) and the status byte. */
void blk_submit(uint32_t type, uint64_t sector, volatile void *data, uint32_t length);
/* And waits. The status; BLK_NONE when the device wrote none. */
uint8_t blk_request(uint32_t type, uint64_t sector, volatile void *data, uint32_t length);

/* --- vsock --- */

enum { RX, TX, EVENT };
enum {
	OP_REQUEST = 1,
	OP_RESPONSE = 2,
	OP_RST = 3,
	OP_SHUTDOWN = 4,
	OP_RW = 5,
	OP_CREDIT_UPDATE = 6,
	OP_CREDIT_REQUEST = 7,
};
#define CID_GUEST    3u
#define CID_HOST     2u
#define TYPE_STREAM  1u
#define PACKET_BYTES 44u
#define RX_BYTES     512u

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, length;
	uint16_t type, op;
	uint32_t flags, buffer_bytes, forwarded;
	uint8_t data[RX_BYTES - PACKET_BYTES];
} __attribute__((packed, aligned(8)));

/* Starts the device with RING_SIZE receive buffers of RX_BYTES. */
void vsock_start(void);
/* A header from a port of the guest to one of the host, with 64 KiB of credit. */
struct packet vsock_packet(uint32_t guest_port, uint32_t host_port, uint16_t op);
/* Sends the packet in a buffer of PACKET_BYTES and `extra` bytes, and waits until it is taken. */
void vsock_send(const struct packet *packet, uint32_t extra);
/* Header only, ports of the peer's packet turned around. */
void vsock_reply(const struct packet *to, uint16_t op, uint32_t flags);
/* The next packet, for which the guest waits; its buffer goes back. */
struct packet vsock_receive(void);
/* It must be of this kind. */
struct packet vsock_expect(uint16_t op);
/* Waits for the stream that the host attaches, and takes it. */
struct packet vsock_accept(void);
