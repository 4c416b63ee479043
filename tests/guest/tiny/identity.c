/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Stands in for an agent where Linux is not the point: takes a connection on the agent's port,
 * swallows the first packet, which is the identity, answers with the acknowledgement, and from then
 * on sends back what it is sent. One connection at a time: a new one takes the place of the old.
 *
 * It says "ready" when its vsock device is set up, and then sleeps until the device interrupts, so
 * that a snapshot at that point holds a guest that waits. It wants few exits and few instructions:
 * no interrupt is acknowledged at the device, none is asked for by the transmit queue, and one kick
 * covers all that a burst of packets is answered with. It never ends by itself.
 *
 * Limits: a packet it is sent may have PAYLOAD_BYTES, and it takes its credit for granted, so no
 * more than 64 KiB may be on the way back.
 */

#include "guest/agent.h"
#include "tests/guest/tiny/guest.h"

/* The VM's second virtio device (vmm/vm.h). */
#define DEVICE	   0xd0001000
#define DEVICE_IRQ 6
#define IOAPIC	   ((volatile uint32_t *)0xfec00000)
#define VECTOR	   0x40

/* virtio-mmio registers and status bits (virtio 1.2, sections 4.2.2 and 2.1). */
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
	REG_CONFIG = 0x100,
};
#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER	   2
#define STATUS_DRIVER_OK   4
#define STATUS_FEATURES_OK 8

#define QUEUE_RX	   0
#define QUEUE_TX	   1
#define QUEUE_SIZE	   8
#define DESC_WRITE	   2
#define AVAIL_NO_INTERRUPT 1
#define HOST_CID	   2
#define CREDIT_BYTES	   65536
#define PACKET_BYTES	   1024
#define PAYLOAD_BYTES	   (PACKET_BYTES - 44)
#define TYPE_STREAM	   1
#define SHUTDOWN_BOTH	   3
#define PAGE_BYTES	   4096

enum {
	OP_REQUEST = 1,
	OP_RESPONSE = 2,
	OP_RST = 3,
	OP_SHUTDOWN = 4,
	OP_RW = 5,
	OP_CREDIT_UPDATE = 6,
	OP_CREDIT_REQUEST = 7,
};

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t length;
	uint16_t type, op;
	uint32_t flags;
	uint32_t buffer_bytes, forwarded;
	uint8_t payload[PAYLOAD_BYTES];
} __attribute__((packed, aligned(8)));
_Static_assert(sizeof(struct packet) == PACKET_BYTES, "virtio 1.2, section 5.10.6");

struct queue {
	struct {
		uint64_t gpa;
		uint32_t length;
		uint16_t flags, next;
	} desc[QUEUE_SIZE];
	struct {
		uint16_t flags;
		volatile uint16_t index;
		uint16_t ring[QUEUE_SIZE];
		uint16_t event;
	} avail;
	struct {
		uint16_t flags;
		volatile uint16_t index;
		struct {
			uint32_t id, length;
		} ring[QUEUE_SIZE];
		uint16_t event;
	} used;
} __attribute__((aligned(16)));

/* All that is written after the snapshot lies together: each page of it is one that a restored VM
 * has of its own. */
static struct {
	struct queue rx, tx;
	uint16_t rx_seen;
	uint8_t identified;
	uint32_t cid;
	uint32_t received; /* bytes, of the connection */
	struct packet rx_packets[QUEUE_SIZE], tx_packets[QUEUE_SIZE];
} device __attribute__((aligned(PAGE_BYTES)));

static inline volatile uint32_t *reg(uint32_t offset)
{
	return (volatile uint32_t *)(uintptr_t)(DEVICE + offset);
}

static void set_up_queue(uint32_t number, struct queue *queue)
{
	*reg(REG_QUEUE_SELECT) = number;
	*reg(REG_QUEUE_SIZE) = QUEUE_SIZE;
	/* The high halves are 0 since the device was reset. */
	*reg(REG_QUEUE_DESC) = (uint32_t)(uintptr_t)queue->desc;
	*reg(REG_QUEUE_AVAIL) = (uint32_t)(uintptr_t)&queue->avail;
	*reg(REG_QUEUE_USED) = (uint32_t)(uintptr_t)&queue->used;
	*reg(REG_QUEUE_READY) = 1;
}

static void set_up(void)
{
	for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
		device.rx.desc[i].gpa = (uintptr_t)&device.rx_packets[i];
		device.rx.desc[i].length = PACKET_BYTES;
		device.rx.desc[i].flags = DESC_WRITE;
		device.rx.avail.ring[i] = i;
		device.tx.desc[i].gpa = (uintptr_t)&device.tx_packets[i];
		device.tx.avail.ring[i] = i;
	}
	device.rx.avail.index = QUEUE_SIZE;
	device.tx.avail.flags = AVAIL_NO_INTERRUPT;

	IOAPIC[0] = 0x10 + 2 * DEVICE_IRQ;
	IOAPIC[4] = VECTOR;

	*reg(REG_STATUS) = 0;
	*reg(REG_STATUS) = STATUS_ACKNOWLEDGE;
	*reg(REG_STATUS) = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
	*reg(REG_DRIVER_FEATURES_SELECT) = 1;
	*reg(REG_DRIVER_FEATURES) = 1; /* VIRTIO_F_VERSION_1 */
	*reg(REG_STATUS) = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
	set_up_queue(QUEUE_RX, &device.rx);
	set_up_queue(QUEUE_TX, &device.tx);
	*reg(REG_STATUS) =
		STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
	device.cid = *reg(REG_CONFIG);
}

/* Memory operands, so that the compiler has no memcpy() to call. */
static inline void copy(void *to, const void *from, uint64_t bytes)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void send(const struct packet *to, uint16_t op, const void *payload, uint32_t length)
{
	uint16_t slot = device.tx.avail.index % QUEUE_SIZE;
	struct packet *packet = &device.tx_packets[slot];

	while ((uint16_t)(device.tx.avail.index - device.tx.used.index) == QUEUE_SIZE) {
		*reg(REG_QUEUE_NOTIFY) = QUEUE_TX;
		__asm__ volatile("pause");
	}
	packet->src_cid = device.cid;
	packet->dst_cid = HOST_CID;
	packet->src_port = to->dst_port;
	packet->dst_port = to->src_port;
	packet->length = length;
	packet->type = TYPE_STREAM;
	packet->op = op;
	packet->flags = 0;
	packet->buffer_bytes = CREDIT_BYTES;
	packet->forwarded = device.received;
	copy(packet->payload, payload, length);
	device.tx.desc[slot].length = sizeof(*packet) - PAYLOAD_BYTES + length;
	__asm__ volatile("" : : : "memory");
	device.tx.avail.index++;
}

/* What is done with a message before it is sent back; a guest with work to do has its own. */
__attribute__((weak)) void agent_work(uint8_t *payload, uint32_t length)
{
	(void)payload;
	(void)length;
}

static void handle(struct packet *packet)
{
	switch (packet->op) {
	case OP_REQUEST:
		device.received = 0;
		send(packet, packet->dst_port == GUEST_AGENT_PORT ? OP_RESPONSE : OP_RST, 0, 0);
		break;
	case OP_RW:
		device.received += packet->length;
		if (device.identified) {
			agent_work(packet->payload, packet->length);
			send(packet, OP_RW, packet->payload, packet->length);
		} else {
			device.identified = 1;
			send(packet, OP_RW, GUEST_IDENTITY_ACK, GUEST_IDENTITY_ACK_BYTES);
		}
		break;
	case OP_SHUTDOWN:
		if ((packet->flags & SHUTDOWN_BOTH) == SHUTDOWN_BOTH) {
			send(packet, OP_RST, 0, 0);
		}
		break;
	case OP_CREDIT_REQUEST:
		send(packet, OP_CREDIT_UPDATE, 0, 0);
		break;
	default:
		break;
	}
}

uint32_t guest_main(void)
{
	interrupts_init();
	set_up();
	print("ready\n");
	for (;;) {
		uint16_t sent = device.tx.avail.index;
		uint16_t taken = 0;

		while (device.rx_seen != device.rx.used.index) {
			uint16_t id = (uint16_t)device.rx.used.ring[device.rx_seen % QUEUE_SIZE].id;

			handle(&device.rx_packets[id]);
			device.rx.avail.ring[device.rx.avail.index % QUEUE_SIZE] = id;
			__asm__ volatile("" : : : "memory");
			device.rx.avail.index++;
			device.rx_seen++;
			taken++;
		}
		if (device.tx.avail.index != sent) {
			*reg(REG_QUEUE_NOTIFY) = QUEUE_TX;
		}
		if (taken >= QUEUE_SIZE) {
			/* The device had none left: it may have more for the guest. */
			*reg(REG_QUEUE_NOTIFY) = QUEUE_RX;
		}
		if (device.rx_seen == device.rx.used.index) {
			/* Interrupts are let in only after the next instruction: none is lost. */
			__asm__ volatile("sti; hlt; cli" : : : "memory");
		}
	}
}
