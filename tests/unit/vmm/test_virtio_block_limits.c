/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A limited block device: what waits, in which order it is served, and that a reset, a pause, a
 * snapshot and a disk's end have nothing of it to deal with.
 */

#include "virtio_driver.h"

#include "base/clock.h"
#include "base/fd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DISK_BYTES MIB(1)
#define REQUESTS   40
#define SECTOR	   512u

enum { IN = 0, OUT = 1, FLUSH = 4, WRITE_ZEROES = 13 };

struct fixture {
	struct driver driver;
	struct vmm_disk_limits limits;
	int disk; /* the test's own descriptor of the file */
	gpa_t headers, statuses, data;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct driver *driver = &f->driver;

	driver_init(driver);
	driver->host.disk_limits = &f->limits;
	assert_int_equal(base_fd_memfd("disk", DISK_BYTES, &f->disk), 0);
	assert_int_equal(
		vmm_virtio_block_new(&driver->host, 2, dup(f->disk), false, &driver->device, NULL),
		0);
	driver_start(driver);
	f->headers = driver_alloc(driver, 16 * REQUESTS, 16);
	f->statuses = driver_alloc(driver, REQUESTS, 1);
	f->data = driver_alloc(driver, KIB(64), 4096);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	driver_deinit(&f->driver);
	close(f->disk);
	free(f);
	return 0;
}

static uint8_t status_of(struct fixture *f, unsigned i)
{
	return *(uint8_t *)driver_at(&f->driver, f->statuses + i, 1);
}

/* Request i, of `length` bytes, all at the same place. */
static uint16_t add(struct fixture *f, unsigned i, uint32_t type, uint32_t length)
{
	const struct driver_buffer buffers[] = {
		{ f->headers + 16 * i, 16, false },
		{ f->data, length, type == IN },
		{ f->statuses + i, 1, true },
	};
	const struct driver_buffer bare[] = { buffers[0], buffers[2] };
	uint8_t *header = driver_at(&f->driver, f->headers + 16 * i, 16);

	base_store_u32(header, type);
	base_store_u64(header + 8, 0);
	*(uint8_t *)driver_at(&f->driver, f->statuses + i, 1) = 0xff;
	return driver_add(&f->driver, 0, length > 0 ? buffers : bare, length > 0 ? 3 : 2);
}

static unsigned count_used(struct fixture *f)
{
	uint32_t length;
	uint16_t head;
	unsigned n = 0;

	while (driver_used(&f->driver, 0, &head, &length)) {
		n++;
	}
	return n;
}

/* Lets the loop run for so long. */
static void pass(struct fixture *f, unsigned ms)
{
	uint64_t end_ns = base_clock_monotonic_ns() + ms * NSEC_PER_MSEC;

	while (base_clock_monotonic_ns() < end_ns) {
		driver_turn(&f->driver, 1);
	}
}

/* A bucket that gives `burst` now and nothing more while a test lasts. */
static void give(struct vmm_ratelimit *limit, uint64_t burst)
{
	vmm_ratelimit_set(limit, 1, burst, base_clock_monotonic_ns() + 60 * NSEC_PER_SEC);
}

static void holds_back_what_has_no_tokens(void **state)
{
	struct fixture *f = *state;

	give(&f->limits.operations, 7);
	for (unsigned i = 0; i < REQUESTS; i++) {
		add(f, i, IN, SECTOR);
	}
	driver_kick(&f->driver, 0);
	pass(f, 20);
	assert_int_equal(count_used(f), 7);
	assert_int_equal(f->limits.waits, 1);
	assert_int_equal(f->driver.limited, 1);
	/* A storm of kicks gets nothing, and costs no more than a look. */
	for (unsigned i = 0; i < 1000; i++) {
		driver_kick(&f->driver, 0);
		driver_settle(&f->driver);
	}
	assert_int_equal(count_used(f), 0);
	assert_int_equal(f->limits.waits, 1);
	/* More are allowed: at once. */
	give(&f->limits.operations, 100);
	vmm_virtio_block_limits_changed(f->driver.device);
	pass(f, 20);
	assert_int_equal(count_used(f), REQUESTS - 7);
	for (unsigned i = 0; i < REQUESTS; i++) {
		assert_int_equal(status_of(f, i), 0);
	}
}

static void counts_bytes_of_reads_and_writes(void **state)
{
	struct fixture *f = *state;

	/* A read pays for its status byte, a write for its header. */
	give(&f->limits.bytes, 2 * 4096 + 1 + 16);
	add(f, 0, IN, 4096);
	add(f, 1, FLUSH, 0);
	add(f, 2, OUT, 4096);
	add(f, 3, FLUSH, 0);
	add(f, 4, OUT, SECTOR);
	add(f, 5, FLUSH, 0); /* behind one that waits: it waits, too */
	driver_kick(&f->driver, 0);
	pass(f, 20);
	assert_int_equal(count_used(f), 4);
	assert_int_equal(status_of(f, 4), 0xff);
	assert_int_equal(status_of(f, 5), 0xff);
}

/* One request larger than the burst passes when the bucket is full, and is paid for afterwards. */
static void lets_large_requests_through(void **state)
{
	struct fixture *f = *state;

	give(&f->limits.bytes, 1024);
	add(f, 0, IN, KIB(64));
	add(f, 1, IN, SECTOR);
	driver_kick(&f->driver, 0);
	pass(f, 20);
	assert_int_equal(count_used(f), 1);
	assert_int_equal(status_of(f, 0), 0);
	assert_int_equal(f->limits.bytes.level, 1024 - (int64_t)KIB(64) - 1);
}

static void zeroing_costs_what_is_zeroed(void **state)
{
	struct fixture *f = *state;
	uint8_t *range = driver_at(&f->driver, f->data, 16);

	base_store_u64(range, 0);
	base_store_u32(range + 8, 128);
	give(&f->limits.bytes, 10);
	add(f, 0, WRITE_ZEROES, 16);
	add(f, 1, FLUSH, 0);
	driver_kick(&f->driver, 0);
	pass(f, 20);
	assert_int_equal(count_used(f), 1);
	assert_int_equal(f->limits.bytes.level, 10 - 128 * (int64_t)SECTOR);
	base_store_u32(range + 12, 1); /* a hole will do: an operation as any other */
	give(&f->limits.bytes, 10);
	add(f, 2, WRITE_ZEROES, 16);
	vmm_virtio_block_limits_changed(f->driver.device);
	pass(f, 20);
	assert_int_equal(count_used(f), 2);
	assert_int_equal(f->limits.bytes.level, 10);
}

/* In the order of the queue, at the rate: no sooner than it allows, and all of it in the end. */
static void serves_in_order_at_the_rate(void **state)
{
	struct fixture *f = *state;
	uint64_t start_ns = base_clock_monotonic_ns();
	uint16_t heads[REQUESTS];

	vmm_ratelimit_set(&f->limits.operations, 200, 10, start_ns);
	for (unsigned i = 0; i < REQUESTS; i++) {
		heads[i] = add(f, i, IN, SECTOR);
	}
	driver_kick(&f->driver, 0);
	for (unsigned i = 0; i < REQUESTS; i++) {
		assert_int_equal(driver_wait(&f->driver, 0, heads[i]), SECTOR + 1);
		/* 10 at once, then one every 5 ms. */
		if (i >= 10) {
			assert_true(base_clock_monotonic_ns() - start_ns >=
				    (i - 9) * 5 * NSEC_PER_MSEC);
		}
	}
	assert_true(f->limits.waits > 0);
}

static void keeps_nothing_at_a_reset(void **state)
{
	struct fixture *f = *state;
	uint8_t *data = driver_at(&f->driver, f->data, KIB(64));

	/* Tokens come soon after the reset, when the memory is the guest's again. */
	vmm_ratelimit_set(&f->limits.operations, 100, 1, base_clock_monotonic_ns());
	for (unsigned i = 0; i < REQUESTS; i++) {
		add(f, i, IN, 4096);
	}
	driver_kick(&f->driver, 0);
	driver_turn(&f->driver, 1000);
	assert_int_equal(f->limits.waits, 1);
	driver_write(&f->driver, REG_STATUS, 0);
	memset(data, 0xee, KIB(64));
	memset(driver_at(&f->driver, f->statuses, REQUESTS), 0xee, REQUESTS);
	pass(f, 50);
	for (unsigned i = 0; i < KIB(64); i++) {
		assert_int_equal(data[i], 0xee);
	}
	for (unsigned i = 0; i < REQUESTS; i++) {
		assert_int_equal(status_of(f, i), 0xee);
	}
	driver_start(&f->driver);
	add(f, 0, IN, 4096);
	driver_kick(&f->driver, 0);
	pass(f, 30);
	assert_int_equal(count_used(f), 1);
	assert_int_equal(status_of(f, 0), 0);
}

static void keeps_nothing_in_a_pause(void **state)
{
	struct fixture *f = *state;

	vmm_ratelimit_set(&f->limits.operations, 100, 1, base_clock_monotonic_ns());
	for (unsigned i = 0; i < 3; i++) {
		add(f, i, IN, SECTOR);
	}
	driver_kick(&f->driver, 0);
	driver_turn(&f->driver, 1000);
	assert_int_equal(vmm_virtio_drain(f->driver.device), 0);
	assert_int_equal(count_used(f), 1);
	pass(f, 50); /* tokens there are, but nobody runs */
	assert_int_equal(count_used(f), 0);
	vmm_virtio_resume(f->driver.device);
	pass(f, 50);
	assert_int_equal(count_used(f), 2);
}

/* What waits is in the guest's queue, so it is in the snapshot. */
static void a_snapshot_has_what_waits(void **state)
{
	struct fixture *f = *state;
	struct driver *driver = &f->driver;
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct base_reader reader;

	give(&f->limits.operations, 2);
	for (unsigned i = 0; i < 5; i++) {
		add(f, i, IN, SECTOR);
	}
	driver_kick(driver, 0);
	pass(f, 10);
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_save(driver->device, &writer);
	assert_int_equal(base_writer_result(&writer), 0);
	vmm_virtio_free(driver->device);
	assert_int_equal(count_used(f), 2);

	/* Where it is restored, other limits hold. */
	vmm_ratelimit_set(&f->limits.operations, 0, 0, 0);
	assert_int_equal(
		vmm_virtio_block_new(&driver->host, 2, dup(f->disk), false, &driver->device, NULL),
		0);
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_virtio_load(driver->device, &reader, NULL), 0);
	vmm_virtio_resume(driver->device);
	pass(f, 20);
	assert_int_equal(count_used(f), 3);
	assert_int_equal(status_of(f, 4), 0);
}

/* Freed while a request waits: the timer goes with it. */
static void ends_while_one_waits(void **state)
{
	struct fixture *f = *state;

	vmm_ratelimit_set(&f->limits.operations, 100, 1, base_clock_monotonic_ns());
	add(f, 0, IN, SECTOR);
	add(f, 1, IN, SECTOR);
	driver_kick(&f->driver, 0);
	pass(f, 5);
	vmm_virtio_free(f->driver.device);
	f->driver.device = NULL;
	assert_int_equal(vmm_loop_timeout_ms(&f->driver.loop, 0), -1);
	pass(f, 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(holds_back_what_has_no_tokens, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_bytes_of_reads_and_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(lets_large_requests_through, setup, teardown),
		cmocka_unit_test_setup_teardown(zeroing_costs_what_is_zeroed, setup, teardown),
		cmocka_unit_test_setup_teardown(serves_in_order_at_the_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_nothing_at_a_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_nothing_in_a_pause, setup, teardown),
		cmocka_unit_test_setup_teardown(a_snapshot_has_what_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_while_one_waits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
