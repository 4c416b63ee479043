/* SPDX-License-Identifier: Apache-2.0 */

/* The driver of tests/guest/tiny/hostile/driver.h. */

#include "tests/guest/tiny/hostile/driver.h"

#define PATIENCE_TICKS UINT64_C(30000000000)
#define DRIVER_STATUS  (S_ACKNOWLEDGE | S_DRIVER)

struct queue queues[DEVICES][QUEUES_MAX];
uint8_t scratch[SCRATCH_BYTES] __attribute__((aligned(4096)));
struct blk_header blk_header;
volatile uint8_t blk_status;
static struct packet rx_packets[RING_SIZE];
static struct packet tx_packet;

/* The compiler calls these for structures. */
void *memset(void *to, int value, uint64_t bytes);
void *memcpy(void *to, const void *from, uint64_t bytes);

void *memset(void *to, int value, uint64_t bytes)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
	return start;
}

void *memcpy(void *to, const void *from, uint64_t bytes)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	return start;
}

void fail(const char *what)
{
	print(what);
	print("\n");
	outb(PORT_EXIT, 1);
	for (;;) {
		__asm__ volatile("cli; hlt");
	}
}

void wait_ticks(uint64_t ticks)
{
	uint64_t end = rdtsc() + ticks;

	while (rdtsc() < end) {
		__asm__ volatile("pause");
	}
}

void device_negotiate(unsigned device)
{
	*reg(device, REG_STATUS) = 0;
	*reg(device, REG_STATUS) = S_ACKNOWLEDGE;
	*reg(device, REG_STATUS) = DRIVER_STATUS;
	*reg(device, REG_DRIVER_FEATURES_SELECT) = 1;
	*reg(device, REG_DRIVER_FEATURES) = 1; /* VIRTIO_F_VERSION_1 */
	*reg(device, REG_STATUS) = DRIVER_STATUS | S_FEATURES_OK;
	EXPECT(*reg(device, REG_STATUS) == (DRIVER_STATUS | S_FEATURES_OK));
}

void queue_registers(unsigned device, unsigned number, uint32_t size, uint64_t desc, uint64_t avail,
		     uint64_t used)
{
	*reg(device, REG_QUEUE_SELECT) = number;
	*reg(device, REG_QUEUE_SIZE) = size;
	*reg(device, REG_QUEUE_DESC) = (uint32_t)desc;
	*reg(device, REG_QUEUE_DESC + 4) = (uint32_t)(desc >> 32);
	*reg(device, REG_QUEUE_AVAIL) = (uint32_t)avail;
	*reg(device, REG_QUEUE_AVAIL + 4) = (uint32_t)(avail >> 32);
	*reg(device, REG_QUEUE_USED) = (uint32_t)used;
	*reg(device, REG_QUEUE_USED + 4) = (uint32_t)(used >> 32);
}

struct queue *queue_set_up(unsigned device, unsigned number)
{
	struct queue *queue = &queues[device][number];

	memset(queue, 0, sizeof(*queue));
	queue->device = device;
	queue->number = number;
	queue_registers(device, number, RING_SIZE, gpa_of(queue->desc), gpa_of(&queue->avail),
			gpa_of(&queue->used));
	*reg(device, REG_QUEUE_READY) = 1;
	EXPECT(*reg(device, REG_QUEUE_READY) == 1);
	return queue;
}

void device_start(unsigned device)
{
	static const uint8_t n_queues[DEVICES] = { 1, 3, 3, 1 };

	device_negotiate(device);
	for (unsigned i = 0; i < n_queues[device]; i++) {
		queue_set_up(device, i);
	}
	*reg(device, REG_STATUS) = S_RUNNING;
	EXPECT(*reg(device, REG_STATUS) == S_RUNNING);
}

void queue_desc(struct queue *queue, unsigned index, uint64_t gpa, uint32_t length, uint16_t flags,
		uint16_t next)
{
	queue->desc[index].gpa = gpa;
	queue->desc[index].length = length;
	queue->desc[index].flags = flags;
	queue->desc[index].next = next;
}

void queue_offer(struct queue *queue, uint16_t head)
{
	queue->avail.ring[queue->avail.index % RING_SIZE] = head;
	queue->avail.index++;
}

void queue_kick(const struct queue *queue)
{
	*reg(queue->device, REG_QUEUE_NOTIFY) = queue->number;
}

void queue_buffer(struct queue *queue, uint64_t gpa, uint32_t length, uint16_t flags)
{
	queue_desc(queue, 0, gpa, length, flags, 0);
	queue_offer(queue, 0);
	queue_kick(queue);
}

uint32_t queue_wait(struct queue *queue)
{
	uint64_t end = rdtsc() + PATIENCE_TICKS;

	while (queue->used.index == queue->seen) {
		EXPECT(rdtsc() < end);
		__asm__ volatile("pause");
	}
	return queue->used.ring[queue->seen++ % RING_SIZE].length;
}

void expect_nothing(struct queue *queue)
{
	wait_ticks(TICKS_SHORT);
	EXPECT(queue->used.index == queue->seen);
}

void expect_needs_reset(unsigned device)
{
	uint64_t end = rdtsc() + PATIENCE_TICKS;

	while (!(*reg(device, REG_STATUS) & S_NEEDS_RESET)) {
		EXPECT(rdtsc() < end);
	}
}

void blk_submit(uint32_t type, uint64_t sector, volatile void *data, uint32_t length)
{
	struct queue *queue = &queues[DISK][0];
	uint16_t to_driver = type == BLK_IN || type == BLK_GET_ID ? DESC_WRITE : 0;

	blk_header.type = type;
	blk_header.sector = sector;
	blk_status = BLK_NONE;
	queue_desc(queue, 0, gpa_of(&blk_header), sizeof(blk_header), DESC_NEXT, length ? 1 : 2);
	queue_desc(queue, 1, gpa_of(data), length, DESC_NEXT | to_driver, 2);
	queue_desc(queue, 2, gpa_of(&blk_status), 1, DESC_WRITE, 0);
	queue_offer(queue, 0);
	queue_kick(queue);
}

uint8_t blk_request(uint32_t type, uint64_t sector, volatile void *data, uint32_t length)
{
	blk_submit(type, sector, data, length);
	queue_wait(&queues[DISK][0]);
	return blk_status;
}

static void offer_rx(unsigned index)
{
	struct queue *rx = &queues[VSOCK][RX];

	queue_desc(rx, index, gpa_of(&rx_packets[index]), RX_BYTES, DESC_WRITE, 0);
	queue_offer(rx, (uint16_t)index);
	queue_kick(rx);
}

void vsock_start(void)
{
	device_start(VSOCK);
	for (unsigned i = 0; i < RING_SIZE; i++) {
		offer_rx(i);
	}
}

struct packet vsock_packet(uint32_t guest_port, uint32_t host_port, uint16_t op)
{
	struct packet packet;

	packet.src_cid = CID_GUEST;
	packet.dst_cid = CID_HOST;
	packet.src_port = guest_port;
	packet.dst_port = host_port;
	packet.length = 0;
	packet.type = TYPE_STREAM;
	packet.op = op;
	packet.flags = 0;
	packet.buffer_bytes = 65536;
	packet.forwarded = 0;
	return packet;
}

void vsock_send(const struct packet *packet, uint32_t extra)
{
	struct queue *tx = &queues[VSOCK][TX];

	memcpy(&tx_packet, packet, PACKET_BYTES);
	queue_buffer(tx, gpa_of(&tx_packet), PACKET_BYTES + extra, 0);
	queue_wait(tx);
}

void vsock_reply(const struct packet *to, uint16_t op, uint32_t flags)
{
	struct packet packet = vsock_packet(to->dst_port, to->src_port, op);

	packet.flags = flags;
	vsock_send(&packet, 0);
}

struct packet vsock_receive(void)
{
	struct queue *rx = &queues[VSOCK][RX];
	struct packet packet;
	uint32_t id, length;

	length = queue_wait(rx);
	id = rx->used.ring[(uint16_t)(rx->seen - 1) % RING_SIZE].id;
	EXPECT(id < RING_SIZE && length >= PACKET_BYTES && length <= RX_BYTES);
	memcpy(&packet, &rx_packets[id], length);
	EXPECT(packet.length == length - PACKET_BYTES);
	EXPECT(packet.src_cid == CID_HOST && packet.dst_cid == CID_GUEST);
	offer_rx(id);
	return packet;
}

struct packet vsock_expect(uint16_t op)
{
	struct packet packet = vsock_receive();

	EXPECT(packet.op == op);
	return packet;
}

struct packet vsock_accept(void)
{
	struct packet packet = vsock_expect(OP_REQUEST);

	EXPECT(packet.dst_port == AGENT_PORT);
	vsock_reply(&packet, OP_RESPONSE, 0);
	return packet;
}

static void rng_serves(void)
{
	struct queue *queue = &queues[RNG][0];
	uint32_t any = 0;

	memset(scratch, 0, 16);
	queue_buffer(queue, gpa_of(scratch), 16, DESC_WRITE);
	EXPECT(queue_wait(queue) == 16);
	for (unsigned i = 0; i < 16; i++) {
		any |= scratch[i];
	}
	EXPECT(any != 0);
}

/* Data for a connection that there is not. */
static void vsock_serves(void)
{
	struct packet packet = vsock_packet(9, 999, OP_RW);

	vsock_send(&packet, 0);
	packet = vsock_expect(OP_RST);
	EXPECT(packet.src_port == 999 && packet.dst_port == 9);
}

static void balloon_serves(void)
{
	struct queue *inflate = &queues[BALLOON][0];

	*(volatile uint32_t *)scratch = (uint32_t)(gpa_of(scratch) >> 12) + 1;
	queue_buffer(inflate, gpa_of(scratch), 4, 0);
	EXPECT(queue_wait(inflate) == 0);
}

static void disk_serves(void)
{
	for (uint32_t sector = 7; sector < 9; sector++) {
		EXPECT(blk_request(BLK_IN, sector, scratch, 512) == BLK_OK);
		EXPECT(*(volatile uint32_t *)scratch == sector);
	}
}

void expect_serves(unsigned device)
{
	static void (*const serves[DEVICES])(void) = { rng_serves, vsock_serves, balloon_serves,
						       disk_serves };

	serves[device]();
	EXPECT(*reg(device, REG_STATUS) == S_RUNNING);
}

void expect_works(unsigned device)
{
	if (device == VSOCK) {
		vsock_start();
	} else {
		device_start(device);
	}
	expect_serves(device);
}
