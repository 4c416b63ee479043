/* SPDX-License-Identifier: Apache-2.0 */

/* The virtio-mmio transport, with the entropy device behind it: registers, the status machine,
 * freezing, and states that somebody has tampered with. */

#include "virtio_driver.h"

#include "base/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int setup(void **state)
{
	struct driver *driver = calloc(1, sizeof(*driver));

	driver_init(driver);
	assert_int_equal(vmm_virtio_rng_new(&driver->host, 2, &driver->device, NULL), 0);
	*state = driver;
	return 0;
}

static int teardown(void **state)
{
	driver_deinit(*state);
	free(*state);
	return 0;
}

static bool works(struct driver *driver)
{
	const struct driver_buffer buffer = { driver_alloc(driver, 8, 8), 8, true };
	uint16_t head = driver_add(driver, 0, &buffer, 1);
	uint32_t length;

	driver_kick(driver, 0);
	driver_settle(driver);
	return driver_used(driver, 0, &head, &length) && length == 8;
}

static void identifies_itself(void **state)
{
	struct driver *driver = *state;
	uint8_t bytes[8];

	assert_int_equal(driver_read(driver, REG_MAGIC), 0x74726976);
	assert_int_equal(driver_read(driver, REG_VERSION), 2);
	assert_int_equal(driver_read(driver, REG_DEVICE_ID), 4);
	assert_int_equal(driver_read(driver, REG_QUEUE_SIZE_MAX), 64);
	assert_int_equal(vmm_virtio_queue_count(driver->device), 1);
	driver_write(driver, REG_QUEUE_SELECT, 1);
	assert_int_equal(driver_read(driver, REG_QUEUE_SIZE_MAX), 0);
	driver_write(driver, REG_QUEUE_SELECT, UINT32_MAX);
	assert_int_equal(driver_read(driver, REG_QUEUE_SIZE_MAX), 0);
	assert_int_equal(driver_read(driver, REG_QUEUE_READY), 0);
	driver_write(driver, REG_DEVICE_FEATURES_SELECT, 1);
	assert_int_equal(driver_read(driver, REG_DEVICE_FEATURES), 1);
	driver_write(driver, REG_DEVICE_FEATURES_SELECT, 2);
	assert_int_equal(driver_read(driver, REG_DEVICE_FEATURES), 0);
	assert_int_equal(driver_read(driver, 0xb0), UINT32_MAX); /* no shared memory */

	/* Registers are read four bytes at a time, at their own offset. */
	for (unsigned length = 1; length <= 8; length *= 2) {
		if (length != 4) {
			memset(bytes, 0xff, sizeof(bytes));
			vmm_virtio_mmio_read(driver->device, REG_MAGIC, bytes, length);
			assert_int_equal(bytes[0], 0);
		}
	}
	vmm_virtio_mmio_read(driver->device, 2, bytes, 4);
	assert_int_equal(base_load_u32(bytes), 0);
	assert_int_equal(driver_read(driver, REG_CONFIG), 0);
	assert_int_equal(driver_read(driver, 0xffc), 0);
}

static void climbs_the_status_in_order(void **state)
{
	struct driver *driver = *state;

	driver_write(driver, REG_STATUS, 4);
	assert_int_equal(driver_read(driver, REG_STATUS), 0);
	driver_write(driver, REG_STATUS, 8);
	assert_int_equal(driver_read(driver, REG_STATUS), 0);
	driver_write(driver, REG_STATUS, 1);
	driver_write(driver, REG_STATUS, 1 | 4);
	assert_int_equal(driver_read(driver, REG_STATUS), 1);
	driver_write(driver, REG_STATUS, 3);
	driver_write(driver, REG_STATUS, 1); /* bits are not taken back */
	assert_int_equal(driver_read(driver, REG_STATUS), 3);
	driver_write(driver, REG_STATUS, 3 | 0x40 | 0x30); /* not the driver's */
	assert_int_equal(driver_read(driver, REG_STATUS), 3);
	driver_start(driver);
	assert_true(works(driver));
	driver_write(driver, REG_STATUS, 0x80 | STATUS_RUNNING);
	assert_int_equal(driver_read(driver, REG_STATUS), 0x80 | STATUS_RUNNING);
	assert_false(works(driver));
	driver_start(driver);
	assert_true(works(driver));
}

static void insists_on_version_1(void **state)
{
	struct driver *driver = *state;
	const uint32_t bad[][2] = {
		{ 0, 0 }, { 1, 1 }, { 0, 3 }, { 1u << 29, 1 }, { 0, 0x80000001 }
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_write(driver, REG_STATUS, 0);
		driver_write(driver, REG_STATUS, 3);
		for (uint32_t half = 0; half < 2; half++) {
			driver_write(driver, REG_DRIVER_FEATURES_SELECT, half);
			driver_write(driver, REG_DRIVER_FEATURES, bad[i][half]);
		}
		driver_write(driver, REG_STATUS, 11);
		assert_int_equal(driver_read(driver, REG_STATUS), 3);
		driver_write(driver, REG_STATUS, 15);
		assert_int_equal(driver_read(driver, REG_STATUS), 3);
	}
	driver_negotiate(driver);
	driver_write(driver, REG_DRIVER_FEATURES_SELECT, 0);
	driver_write(driver, REG_DRIVER_FEATURES, 1); /* too late */
	driver_setup_queue(driver, 0, 64);
	driver_write(driver, REG_STATUS, STATUS_RUNNING);
	assert_true(works(driver));
}

static void locks_queues_that_run(void **state)
{
	struct driver *driver = *state;

	/* Not before the features are settled. */
	driver_write(driver, REG_STATUS, 3);
	driver_setup_queue(driver, 0, 64);
	assert_int_equal(driver_read(driver, REG_QUEUE_READY), 0);

	driver_start(driver);
	for (int pass = 0; pass < 2; pass++) {
		driver_write(driver, REG_QUEUE_SIZE, 3);
		driver_write(driver, REG_QUEUE_DESC, 0x123);
		driver_write(driver, REG_QUEUE_DESC + 4, 0xffffffff);
		driver_write(driver, REG_QUEUE_AVAIL, 0x123);
		driver_write(driver, REG_QUEUE_USED + 4, 1);
		driver_write(driver, REG_QUEUE_READY, 0);
		driver_write(driver, REG_QUEUE_READY, 1);
		assert_int_equal(driver_read(driver, REG_QUEUE_READY), 1);
		assert_true(works(driver));
	}

	/* A queue that was not set up before DRIVER_OK stays out of use. */
	driver_negotiate(driver);
	driver_write(driver, REG_STATUS, STATUS_RUNNING);
	driver_setup_queue(driver, 0, 64);
	assert_int_equal(driver_read(driver, REG_QUEUE_READY), 0);
	assert_false(works(driver));
	assert_int_equal(driver_read(driver, REG_STATUS), STATUS_RUNNING);
}

static void refuses_bad_queue_addresses(void **state)
{
	struct driver *driver = *state;
	const struct {
		uint32_t offset, value;
	} bad[] = {
		{ REG_QUEUE_SIZE, 0 },
		{ REG_QUEUE_SIZE, 128 },
		{ REG_QUEUE_SIZE, 63 },
		{ REG_QUEUE_DESC, 0x1008 },
		{ REG_QUEUE_DESC, DRIVER_MEMORY_BYTES - 16 },
		{ REG_QUEUE_DESC + 4, 1 },
		{ REG_QUEUE_AVAIL, 0x1001 },
		{ REG_QUEUE_AVAIL + 4, 0xffffffff },
		{ REG_QUEUE_USED, 0x1002 },
		{ REG_QUEUE_USED, DRIVER_MEMORY_BYTES - 4 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_negotiate(driver);
		driver_write(driver, REG_QUEUE_SELECT, 0);
		driver_write(driver, REG_QUEUE_SIZE, 64);
		driver_write(driver, REG_QUEUE_DESC, 0x1000);
		driver_write(driver, REG_QUEUE_AVAIL, 0x2000);
		driver_write(driver, REG_QUEUE_USED, 0x3000);
		driver_write(driver, bad[i].offset, bad[i].value);
		driver_write(driver, REG_QUEUE_READY, 1);
		assert_int_equal(driver_read(driver, REG_QUEUE_READY), 0);
		assert_true(driver_read(driver, REG_STATUS) & STATUS_NEEDS_RESET);
	}
	driver_start(driver);
	assert_true(works(driver));
}

static void wants_a_reset_after_nonsense(void **state)
{
	struct driver *driver = *state;
	unsigned interrupts;

	driver_start(driver);
	interrupts = driver->interrupts;
	driver_offer(driver, 0, 64); /* no such descriptor */
	driver_kick(driver, 0);
	driver_settle(driver);
	assert_int_equal(driver_read(driver, REG_STATUS), STATUS_RUNNING | STATUS_NEEDS_RESET);
	assert_int_equal(driver_read(driver, REG_INTERRUPT_STATUS), 2);
	assert_int_equal(driver->interrupts, interrupts + 1);
	driver_kick(driver, 0);
	driver_settle(driver);
	assert_int_equal(driver->interrupts, interrupts + 1);
	assert_false(works(driver));
	driver_write(driver, REG_STATUS, STATUS_RUNNING); /* no way but a reset */
	assert_true(driver_read(driver, REG_STATUS) & STATUS_NEEDS_RESET);

	driver_start(driver);
	assert_int_equal(driver_read(driver, REG_INTERRUPT_STATUS), 0);
	assert_true(works(driver));
	driver_kick(driver, 1); /* no such queue */
	driver_kick(driver, UINT32_MAX);
	driver_settle(driver);
	assert_true(works(driver));
}

static void keeps_interrupts_until_acknowledged(void **state)
{
	struct driver *driver = *state;
	unsigned interrupts;

	driver_start(driver);
	assert_true(works(driver));
	assert_int_equal(driver_read(driver, REG_INTERRUPT_STATUS), 1);
	driver_write(driver, REG_INTERRUPT_ACK, 2);
	assert_int_equal(driver_read(driver, REG_INTERRUPT_STATUS), 1);

	/* One that was not acknowledged is raised again after a freeze. */
	interrupts = driver->interrupts;
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_resume(driver->device);
	assert_int_equal(driver->interrupts, interrupts + 1);
	driver_write(driver, REG_INTERRUPT_ACK, 1);
	assert_int_equal(driver_read(driver, REG_INTERRUPT_STATUS), 0);
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_resume(driver->device);
	assert_int_equal(driver->interrupts, interrupts + 1);
}

static void stands_still_while_drained(void **state)
{
	struct driver *driver = *state;
	uint16_t head;
	uint32_t length;

	driver_start(driver);
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	assert_int_equal(vmm_virtio_drain(driver->device), 0); /* again is fine */
	assert_false(works(driver));
	vmm_virtio_resume(driver->device); /* finds the work without a kick */
	vmm_virtio_resume(driver->device);
	assert_true(driver_used(driver, 0, &head, &length));
	assert_true(works(driver));
}

static void replace_device(struct driver *driver)
{
	vmm_virtio_free(driver->device);
	driver->device = NULL;
	assert_int_equal(vmm_virtio_rng_new(&driver->host, 2, &driver->device, NULL), 0);
}

static void round_trips(void **state)
{
	struct driver *driver = *state;
	_cleanup_writer_ struct base_writer first = { 0 }, second = { 0 };
	struct base_reader reader;

	driver_start(driver);
	for (int i = 0; i < 100; i++) {
		assert_true(works(driver));
	}
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_save(driver->device, &first);
	for (int generation = 0; generation < 2; generation++) {
		replace_device(driver);
		reader = base_reader_init(first.data, first.size);
		assert_int_equal(vmm_virtio_load(driver->device, &reader, NULL), 0);
		assert_int_equal(base_reader_finish(&reader), 0);
	}
	vmm_virtio_save(driver->device, &second);
	assert_int_equal(second.size, first.size);
	assert_memory_equal(second.data, first.data, first.size);
	vmm_virtio_resume(driver->device);
	assert_true(works(driver));
}

/* The state again, with one field overwritten. */
static int load_with(struct driver *driver, const struct base_writer *saved, size_t offset,
		     uint64_t value, size_t width, struct base_error *error)
{
	uint8_t bytes[256];
	struct base_reader reader = base_reader_init(bytes, saved->size);

	assert_true(saved->size <= sizeof(bytes) && offset + width <= saved->size);
	memcpy(bytes, saved->data, saved->size);
	memcpy(bytes + offset, &value, width);
	replace_device(driver);
	return vmm_virtio_load(driver->device, &reader, error);
}

static void refuses_states_that_cannot_be(void **state)
{
	struct driver *driver = *state;
	_cleanup_writer_ struct base_writer saved = { 0 };
	/* id 0, features 4, status 12, interrupt 16, driver features 20, selects 28 32 36, queues
	 * 40, then size 44, ready 48, desc 52, avail 60, used 68, indices 76 78 */
	const struct {
		size_t offset;
		uint64_t value;
		size_t width;
		const char *field;
	} bad[] = {
		{ 0, 2, 4, "type" },
		{ 4, 1, 8, "offered features" },
		{ 12, 4, 4, "status" },
		{ 12, 13, 4, "status" },
		{ 12, 0x1f, 4, "status" },
		{ 12, UINT32_MAX, 4, "status" },
		{ 16, 4, 4, "interrupt status" },
		{ 20, 0, 8, "driver features" },
		{ 20, UINT64_MAX, 8, "driver features" },
		{ 40, 2, 4, "number of queues" },
		{ 44, 65, 4, "size" },
		{ 44, 0, 4, "size" },
		{ 48, 2, 4, "ready" },
		{ 52, 8, 8, "address" },
		{ 52, DRIVER_MEMORY_BYTES, 8, "address" },
		{ 60, UINT64_MAX - 1, 8, "address" },
		{ 68, DRIVER_MEMORY_BYTES - 8, 8, "address" },
		{ 76, 77, 2, "indices" },
		{ 48, 0, 4, "indices" },
	};

	driver_start(driver);
	assert_true(works(driver));
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_save(driver->device, &saved);
	assert_int_equal(saved.size, 80);
	assert_int_equal(load_with(driver, &saved, 28, 7, 4, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct base_error error = { 0 };

		if (load_with(driver, &saved, bad[i].offset, bad[i].value, bad[i].width, &error) !=
		    -EBADMSG) {
			fail_msg("a bad %s was loaded", bad[i].field);
		}
		if (!strstr(error.text, bad[i].field)) {
			fail_msg("the message for a bad %s is: %s", bad[i].field, error.text);
		}
	}
	for (size_t size = 0; size < saved.size; size++) {
		struct base_reader reader = base_reader_init(saved.data, size);

		replace_device(driver);
		assert_int_equal(vmm_virtio_load(driver->device, &reader, NULL), -EBADMSG);
	}
}

/* Any state that loads is one the device can live with. */
static void survives_flipped_bits(void **state)
{
	struct driver *driver = *state;
	_cleanup_writer_ struct base_writer saved = { 0 };
	unsigned loaded = 0;

	driver_start(driver);
	assert_true(works(driver));
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_save(driver->device, &saved);
	for (size_t bit = 0; bit < saved.size * 8; bit++) {
		uint8_t byte = saved.data[bit / 8] ^ (uint8_t)(1u << bit % 8);

		if (load_with(driver, &saved, bit / 8, byte, 1, NULL) == 0) {
			loaded++;
			vmm_virtio_resume(driver->device);
			driver_kick(driver, 0);
			driver_settle(driver);
			driver_write(driver, REG_STATUS, 0);
		}
	}
	assert_true(loaded > 0 && loaded < saved.size * 8);
}

/* Registers in any order with any value. */
static void survives_random_accesses(void **state)
{
	struct driver *driver = *state;
	uint64_t random = base_clock_monotonic_ns() | 1;

	print_message("# seed %llu\n", (unsigned long long)random);
	for (unsigned i = 0; i < 200000; i++) {
		const uint32_t values[] = { 0, 1, 2, 3, 11, 15, 64, 0x1000, 0x2000, 0x3ffff0 };
		const unsigned lengths[] = { 1, 2, 4, 4, 4, 4, 8 };
		uint8_t bytes[8] = { 0 };
		uint32_t offset;
		unsigned length;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		offset = (uint32_t)(random >> 8) % (random % 16 ? 0x110 : 0x1000);
		length = lengths[(random >> 40) % ARRAY_SIZE(lengths)];
		offset &= random & 0x30 ? ~3u : ~0u;
		base_store_u32(bytes, random & 0xc0 ? values[(random >> 48) % ARRAY_SIZE(values)]
						    : (uint32_t)(random >> 24));
		if (random & 0x800000) {
			vmm_virtio_mmio_write(driver->device, offset, bytes, length);
		} else {
			vmm_virtio_mmio_read(driver->device, offset, bytes, length);
		}
		if (random % 64 == 0) {
			driver_settle(driver);
		}
	}
	memset(driver->memory.base, 0, driver->memory.size_bytes);
	driver_settle(driver);
	driver_start(driver);
	assert_true(works(driver));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(identifies_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(climbs_the_status_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(insists_on_version_1, setup, teardown),
		cmocka_unit_test_setup_teardown(locks_queues_that_run, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_bad_queue_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(wants_a_reset_after_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_interrupts_until_acknowledged, setup,
						teardown),
		cmocka_unit_test_setup_teardown(stands_still_while_drained, setup, teardown),
		cmocka_unit_test_setup_teardown(round_trips, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_states_that_cannot_be, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_flipped_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_random_accesses, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
