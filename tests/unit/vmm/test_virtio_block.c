/* SPDX-License-Identifier: Apache-2.0 */

/* The block device against a real file: every request type, what it refuses, reset and drain. */

#include "virtio_driver.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DISK_BYTES   MIB(2)
#define DISK_SECTORS (DISK_BYTES / 512)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2 };

struct fixture {
	struct driver driver;
	int disk; /* the test's own descriptor of the file */
	gpa_t header, status, data;
};

static uint8_t pattern(uint64_t offset)
{
	return (uint8_t)(offset * 7 + offset / 512 * 13 + 1);
}

/* A file of its own on a real file system, without a name. */
static int make_disk(void)
{
	char path[] = "/var/tmp/warmbox-test-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	uint8_t *bytes = malloc(DISK_BYTES);

	assert_true(fd >= 0);
	unlink(path);
	for (uint64_t i = 0; i < DISK_BYTES; i++) {
		bytes[i] = pattern(i);
	}
	assert_int_equal(base_fd_write_full(fd, bytes, DISK_BYTES), 0);
	free(bytes);
	return fd;
}

static int setup_with(void **state, bool read_only)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct driver *driver = &f->driver;

	driver_init(driver);
	f->disk = make_disk();
	assert_int_equal(vmm_virtio_block_new(&driver->host, 2, dup(f->disk), read_only,
					      &driver->device, NULL),
			 0);
	driver_start(driver);
	f->header = driver_alloc(driver, 16, 16);
	f->status = driver_alloc(driver, 1, 1);
	f->data = driver_alloc(driver, KIB(256), 4096);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, false);
}

static int setup_read_only(void **state)
{
	return setup_with(state, true);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	driver_deinit(&f->driver);
	close(f->disk);
	free(f);
	return 0;
}

static void set_header(struct fixture *f, uint32_t type, uint64_t sector)
{
	uint8_t *header = driver_at(&f->driver, f->header, 16);

	base_store_u32(header, type);
	base_store_u64(header + 8, sector);
	*(uint8_t *)driver_at(&f->driver, f->status, 1) = 0xff;
}

/* One request with one data buffer; its status. */
static uint8_t request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t length,
		       uint32_t *ret_written)
{
	bool writable = type == IN || type == GET_ID;
	struct driver_buffer buffers[3] = { { f->header, 16, false } };
	unsigned n = 1;
	uint32_t written;
	uint16_t head;

	set_header(f, type, sector);
	if (length > 0) {
		buffers[n++] = (struct driver_buffer){ f->data, length, writable };
	}
	buffers[n++] = (struct driver_buffer){ f->status, 1, true };
	head = driver_add(&f->driver, 0, buffers, n);
	driver_kick(&f->driver, 0);
	written = driver_wait(&f->driver, 0, head);
	if (ret_written) {
		*ret_written = written;
	}
	return *(uint8_t *)driver_at(&f->driver, f->status, 1);
}

static void check_data(struct fixture *f, uint64_t offset, uint32_t length)
{
	const uint8_t *data = driver_at(&f->driver, f->data, length);

	for (uint32_t i = 0; i < length; i++) {
		if (data[i] != pattern(offset + i)) {
			fail_msg("byte %u of the read at %llu is wrong", i,
				 (unsigned long long)offset);
		}
	}
}

static void has_a_configuration(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[8];

	assert_int_equal(driver_read(&f->driver, REG_DEVICE_ID), 2);
	vmm_virtio_mmio_read(f->driver.device, REG_CONFIG, bytes, 8);
	assert_int_equal(base_load_u64(bytes), DISK_SECTORS);
	assert_int_equal(driver_read(&f->driver, REG_CONFIG), DISK_SECTORS);
	assert_int_equal(driver_read(&f->driver, REG_CONFIG + 12), 126);
	memset(bytes, 0xff, 8);
	vmm_virtio_mmio_read(f->driver.device, REG_CONFIG + 56, bytes, 8); /* over the end */
	assert_int_equal(base_load_u64(bytes), 0);
	vmm_virtio_mmio_read(f->driver.device, REG_CONFIG + 56, bytes, 1);
	assert_int_equal(bytes[0], 1);
	memset(bytes, 0xff, 8);
	vmm_virtio_mmio_write(f->driver.device, REG_CONFIG, bytes, 8);
	assert_int_equal(driver_read(&f->driver, REG_CONFIG), DISK_SECTORS);
}

static void reads(void **state)
{
	struct fixture *f = *state;
	uint32_t written;

	assert_int_equal(request(f, IN, 0, 512, &written), OK);
	assert_int_equal(written, 513);
	check_data(f, 0, 512);
	assert_int_equal(request(f, IN, 100, KIB(256), &written), OK);
	assert_int_equal(written, KIB(256) + 1);
	check_data(f, 100 * 512, KIB(256));
	assert_int_equal(request(f, IN, DISK_SECTORS - 1, 512, NULL), OK);
	check_data(f, DISK_BYTES - 512, 512);
	assert_true(f->driver.interrupts >= 3);
}

static void writes_and_flushes(void **state)
{
	struct fixture *f = *state;
	uint32_t written;
	uint8_t back[1024];

	memset(driver_at(&f->driver, f->data, 1024), 0x5a, 1024);
	assert_int_equal(request(f, OUT, 7, 1024, &written), OK);
	assert_int_equal(written, 1);
	assert_int_equal(request(f, FLUSH, 0, 0, NULL), OK);
	assert_int_equal(base_fd_pread_full(f->disk, back, 1024, 7 * 512), 0);
	assert_memory_equal(back, driver_at(&f->driver, f->data, 1024), 1024);
	assert_int_equal(request(f, IN, 9, 512, NULL), OK);
	check_data(f, 9 * 512, 512);
}

static void checks_the_bounds(void **state)
{
	struct fixture *f = *state;
	const struct {
		uint64_t sector;
		uint32_t length;
	} bad[] = {
		{ DISK_SECTORS, 512 },
		{ DISK_SECTORS - 1, 1024 },
		{ UINT64_MAX, 512 },
		{ UINT64_MAX / 512, 512 },
		{ UINT64_C(1) << 55, 512 },
		{ 0, 511 },
		{ 0, 513 },
		{ 0, 0 },
	};

	memset(driver_at(&f->driver, f->data, 4096), 0, 4096);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint32_t written;

		assert_int_equal(request(f, IN, bad[i].sector, bad[i].length, &written), IOERR);
		assert_int_equal(written, 1);
		assert_int_equal(request(f, OUT, bad[i].sector, bad[i].length, NULL), IOERR);
	}
	assert_int_equal(request(f, IN, 0, 512, NULL), OK);
	check_data(f, 0, 512); /* nothing was written */
	assert_int_equal(request(f, 99, 0, 512, NULL), UNSUPP);
	assert_int_equal(lseek(f->disk, 0, SEEK_END), DISK_BYTES);
}

/* 32 pieces of 1 MiB, all the same guest memory, and some more. */
static uint8_t large_read(struct fixture *f, gpa_t data, uint32_t extra)
{
	struct driver_buffer buffers[36] = { { f->header, 16, false } };
	uint16_t head;
	unsigned n = 1;

	set_header(f, IN, 0);
	for (; n < 33; n++) {
		buffers[n] = (struct driver_buffer){ data, MIB(1), true };
	}
	if (extra > 0) {
		buffers[n++] = (struct driver_buffer){ data, extra, true };
	}
	buffers[n++] = (struct driver_buffer){ f->status, 1, true };
	head = driver_add(&f->driver, 0, buffers, n);
	driver_kick(&f->driver, 0);
	driver_wait(&f->driver, 0, head);
	return *(uint8_t *)driver_at(&f->driver, f->status, 1);
}

static void bounds_a_request(void **state)
{
	struct fixture *f = *state;
	gpa_t data = driver_alloc(&f->driver, MIB(1), 4096);
	int disk = -1;

	assert_int_equal(base_fd_memfd("disk", MIB(64), &disk), 0);
	vmm_virtio_free(f->driver.device);
	assert_int_equal(
		vmm_virtio_block_new(&f->driver.host, 2, disk, false, &f->driver.device, NULL), 0);
	driver_start(&f->driver);
	assert_int_equal(large_read(f, data, 0), OK);
	assert_int_equal(large_read(f, data, 512), IOERR);
}

static void transfers_many_segments(void **state)
{
	struct fixture *f = *state;
	struct driver_buffer buffers[128];
	uint16_t head;
	unsigned n = 0;

	/* The header in two pieces, data in 124 pieces of changing size, the status behind the last
	 * piece of data in the same buffer. */
	set_header(f, IN, 3);
	buffers[n++] = (struct driver_buffer){ f->header, 5, false };
	buffers[n++] = (struct driver_buffer){ f->header + 5, 11, false };
	for (uint32_t at = 0; n < 126; n++) {
		uint32_t length = n % 2 ? 100 : 412;

		buffers[n] = (struct driver_buffer){ f->data + at, length, true };
		at += length;
	}
	buffers[n - 1].length++; /* the status */
	head = driver_add(&f->driver, 0, buffers, n);
	driver_kick(&f->driver, 0);
	assert_int_equal(driver_wait(&f->driver, 0, head), 62 * 512 + 1);
	check_data(f, 3 * 512, 62 * 512);
	assert_int_equal(*(uint8_t *)driver_at(&f->driver, f->data + 62 * 512, 1), OK);
}

static void tells_its_id(void **state)
{
	struct fixture *f = *state;
	uint32_t written;

	assert_int_equal(request(f, GET_ID, 0, 20, &written), OK);
	assert_int_equal(written, 21);
	assert_string_equal(driver_at(&f->driver, f->data, 20), "warmbox-disk-2");
	assert_int_equal(request(f, GET_ID, 0, 19, NULL), IOERR);
}

static uint8_t range_request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t sectors,
			     uint32_t flags)
{
	uint8_t *range = driver_at(&f->driver, f->data, 16);

	base_store_u64(range, sector);
	base_store_u32(range + 8, sectors);
	base_store_u32(range + 12, flags);
	return request(f, type, 0, 16, NULL);
}

static void discards_and_zeroes(void **state)
{
	struct fixture *f = *state;
	uint8_t back[4096], zero[4096] = { 0 };

	assert_int_equal(range_request(f, WRITE_ZEROES, 8, 8, 0), OK);
	assert_int_equal(base_fd_pread_full(f->disk, back, 4096, 4096), 0);
	assert_memory_equal(back, zero, 4096);
	assert_int_equal(range_request(f, WRITE_ZEROES, 16, 8, 1), OK);
	assert_int_equal(base_fd_pread_full(f->disk, back, 4096, 8192), 0);
	assert_memory_equal(back, zero, 4096);
	assert_int_equal(range_request(f, DISCARD, 32, 8, 0), OK);
	assert_int_equal(base_fd_pread_full(f->disk, back, 1, 12288), 0);
	assert_int_equal(back[0], pattern(12288));

	assert_int_equal(range_request(f, DISCARD, 0, 8, 1), UNSUPP);
	assert_int_equal(range_request(f, WRITE_ZEROES, 0, 8, 2), UNSUPP);
	assert_int_equal(range_request(f, DISCARD, DISK_SECTORS - 1, 2, 0), IOERR);
	assert_int_equal(range_request(f, DISCARD, UINT64_MAX, 8, 0), IOERR);
	assert_int_equal(range_request(f, WRITE_ZEROES, 0, 0, 0), IOERR);
	assert_int_equal(request(f, DISCARD, 0, 32, NULL), IOERR); /* two ranges */
	assert_int_equal(request(f, DISCARD, 0, 15, NULL), IOERR);
	assert_int_equal(lseek(f->disk, 0, SEEK_END), DISK_BYTES);
	assert_int_equal(request(f, IN, 0, 512, NULL), OK);
	check_data(f, 0, 512);
}

static void refuses_to_write_when_read_only(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(driver_read(&f->driver, REG_STATUS), STATUS_RUNNING);
	driver_write(&f->driver, REG_DEVICE_FEATURES_SELECT, 0);
	assert_int_equal(driver_read(&f->driver, REG_DEVICE_FEATURES), 1 << 5 | 1 << 2);
	assert_int_equal(request(f, OUT, 0, 512, NULL), IOERR);
	assert_int_equal(range_request(f, DISCARD, 0, 8, 0), UNSUPP);
	assert_int_equal(range_request(f, WRITE_ZEROES, 0, 8, 0), UNSUPP);
	assert_int_equal(request(f, FLUSH, 0, 0, NULL), OK);
	assert_int_equal(request(f, IN, 0, 512, NULL), OK);
	check_data(f, 0, 512);
}

static void reports_a_file_that_was_cut(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ftruncate(f->disk, 1024), 0);
	assert_int_equal(request(f, IN, 2, 512, NULL), IOERR);
	assert_int_equal(request(f, IN, 1, 1024, NULL), IOERR);
	assert_int_equal(request(f, IN, 1, 512, NULL), OK);
}

static void breaks_without_header_or_status(void **state)
{
	struct fixture *f = *state;
	const struct driver_buffer no_status[] = { { f->header, 16, false } };
	const struct driver_buffer short_header[] = { { f->header, 15, false },
						      { f->status, 1, true } };
	unsigned interrupts = f->driver.interrupts;

	driver_add(&f->driver, 0, no_status, 1);
	driver_kick(&f->driver, 0);
	driver_settle(&f->driver);
	assert_int_equal(driver_read(&f->driver, REG_STATUS), STATUS_RUNNING | STATUS_NEEDS_RESET);
	assert_int_equal(driver_read(&f->driver, REG_INTERRUPT_STATUS), 2);
	assert_int_equal(f->driver.interrupts, interrupts + 1);

	driver_start(&f->driver); /* a reset cures it */
	assert_int_equal(request(f, IN, 0, 512, NULL), OK);
	driver_add(&f->driver, 0, short_header, 2);
	driver_kick(&f->driver, 0);
	driver_settle(&f->driver);
	assert_true(driver_read(&f->driver, REG_STATUS) & STATUS_NEEDS_RESET);
}

/* Fills the queue with reads of one sector each. */
static void add_many(struct fixture *f, unsigned n, gpa_t headers, gpa_t statuses)
{
	for (unsigned i = 0; i < n; i++) {
		const struct driver_buffer buffers[] = {
			{ headers + 16 * i, 16, false },
			{ f->data + 4096 * i, 4096, true },
			{ statuses + i, 1, true },
		};
		uint8_t *header = driver_at(&f->driver, headers + 16 * i, 16);

		base_store_u32(header, IN);
		base_store_u64(header + 8, 8 * i);
		driver_add(&f->driver, 0, buffers, 3);
	}
	memset(driver_at(&f->driver, statuses, n), 0xff, n);
}

static void drains_what_is_in_flight(void **state)
{
	struct fixture *f = *state;
	gpa_t headers = driver_alloc(&f->driver, 16 * 42, 16);
	gpa_t statuses = driver_alloc(&f->driver, 42, 1);
	uint16_t head;
	uint32_t length;

	add_many(f, 42, headers, statuses);
	assert_int_equal(posix_fadvise(f->disk, 0, 0, POSIX_FADV_DONTNEED), 0);
	driver_kick(&f->driver, 0);
	driver_turn(&f->driver, 1000); /* the kick; completions may not be there yet */
	assert_int_equal(vmm_virtio_drain(f->driver.device), 0);
	for (unsigned i = 0; i < 42; i++) {
		assert_true(driver_used(&f->driver, 0, &head, &length));
		assert_int_equal(length, 4097);
	}
	check_data(f, 0, 42 * 4096);

	/* Drained: work is left alone until the resume, which finds it without a kick. */
	add_many(f, 1, headers, statuses);
	driver_kick(&f->driver, 0);
	driver_settle(&f->driver);
	assert_false(driver_used(&f->driver, 0, &head, &length));
	vmm_virtio_resume(f->driver.device);
	driver_wait(&f->driver, 0, 42 * 3 % DRIVER_QUEUE_SIZE);
}

static void forgets_what_is_in_flight_at_a_reset(void **state)
{
	struct fixture *f = *state;
	gpa_t headers = driver_alloc(&f->driver, 16 * 42, 16);
	gpa_t statuses = driver_alloc(&f->driver, 42, 1);
	uint8_t *data = driver_at(&f->driver, f->data, 42 * 4096);

	for (unsigned round = 0; round < 20; round++) {
		add_many(f, 42, headers, statuses);
		assert_int_equal(posix_fadvise(f->disk, 0, 0, POSIX_FADV_DONTNEED), 0);
		driver_kick(&f->driver, 0);
		driver_turn(&f->driver, 1000);
		driver_write(&f->driver, REG_STATUS, 0);
		/* From here on the memory is the guest's again. */
		memset(data, 0xee, 42 * 4096);
		memset(driver_at(&f->driver, statuses, 42), 0xee, 42);
		driver_settle(&f->driver);
		usleep(1000);
		driver_settle(&f->driver);
		for (unsigned i = 0; i < 42 * 4096; i++) {
			assert_int_equal(data[i], 0xee);
		}
		for (unsigned i = 0; i < 42; i++) {
			assert_int_equal(*(uint8_t *)driver_at(&f->driver, statuses + i, 1), 0xee);
		}
		driver_start(&f->driver);
	}
	assert_int_equal(request(f, IN, 0, 512, NULL), OK);
	check_data(f, 0, 512);
}

/* Descriptors at random, over rings and data alike: no fault, no hang, and a reset cures it. */
static void survives_random_rings(void **state)
{
	struct fixture *f = *state;
	struct driver *driver = &f->driver;
	uint64_t random = base_clock_monotonic_ns() | 1;
	gpa_t start = driver->next_free;

	print_message("# seed %llu\n", (unsigned long long)random);
	for (unsigned round = 0; round < 1000; round++) {
		/* Plausible headers all over the place. */
		for (gpa_t gpa = 0; gpa < DRIVER_MEMORY_BYTES; gpa += 4096 + random % 512) {
			uint8_t *header = driver_at(driver, gpa & ~15u, 16);

			base_store_u32(header, (uint32_t)(random >> (gpa % 31)) % 15);
			base_store_u64(header + 8, (random >> (gpa % 29)) % (2 * DISK_SECTORS));
		}
		driver->next_free = start;
		driver_start(driver);
		for (unsigned i = 0; i < 4; i++) {
			driver_scramble(driver, 0, &random);
			driver_kick(driver, 0);
			driver_settle(driver);
		}
		assert_int_equal(vmm_virtio_drain(driver->device), 0);
		vmm_virtio_resume(driver->device);
	}
	driver->next_free = start;
	driver_start(driver);
	assert_int_equal(request(f, GET_ID, 0, 20, NULL), OK);
	assert_int_equal(lseek(f->disk, 0, SEEK_END), DISK_BYTES);
}

static void refuses_what_is_no_disk(void **state)
{
	struct fixture *f = *state;
	struct vmm_virtio *device = NULL;
	struct base_error error = { 0 };
	int fds[2], empty = -1;

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(base_fd_memfd("empty", 511, &empty), 0);
	assert_int_equal(vmm_virtio_block_new(&f->driver.host, 3, fds[0], false, &device, &error),
			 -ENOTBLK);
	assert_non_null(strstr(error.text, "slot 3"));
	assert_int_equal(vmm_virtio_block_new(&f->driver.host, 3, empty, false, &device, NULL),
			 -EINVAL);
	assert_null(device);
	close(empty); /* still ours */
	close(fds[0]);
	close(fds[1]);
}

static void restores(void **state)
{
	struct fixture *f = *state;
	struct driver *driver = &f->driver;
	_cleanup_writer_ struct base_writer writer = { 0 };
	struct base_reader reader;

	assert_int_equal(request(f, IN, 0, 512, NULL), OK);
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_save(driver->device, &writer);
	assert_int_equal(base_writer_result(&writer), 0);
	vmm_virtio_free(driver->device);

	assert_int_equal(
		vmm_virtio_block_new(&driver->host, 2, dup(f->disk), false, &driver->device, NULL),
		0);
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_virtio_load(driver->device, &reader, NULL), 0);
	assert_int_equal(base_reader_finish(&reader), 0);
	vmm_virtio_resume(driver->device);
	assert_int_equal(request(f, IN, 5, 512, NULL), OK);
	check_data(f, 5 * 512, 512);

	/* Another disk, or another kind of it, is not the one of the state. */
	assert_int_equal(ftruncate(f->disk, DISK_BYTES / 2), 0);
	for (int read_only = 0; read_only < 2; read_only++) {
		struct base_error error = { 0 };

		vmm_virtio_free(driver->device);
		assert_int_equal(vmm_virtio_block_new(&driver->host, 2, dup(f->disk), read_only,
						      &driver->device, NULL),
				 0);
		reader = base_reader_init(writer.data, writer.size);
		assert_int_equal(vmm_virtio_load(driver->device, &reader, &error), -EBADMSG);
		assert_non_null(strstr(error.text, read_only ? "features" : "sectors"));
	}
}

/* A guest that broke its disk may be frozen, and may reset the disk when it runs again. */
static void restores_a_broken_device(void **state)
{
	struct fixture *f = *state;
	struct driver *driver = &f->driver;
	_cleanup_writer_ struct base_writer writer = { 0 };
	const struct driver_buffer no_status = { f->header, 16, false };
	struct base_reader reader;

	driver_add(driver, 0, &no_status, 1);
	driver_kick(driver, 0);
	driver_settle(driver);
	assert_true(driver_read(driver, REG_STATUS) & STATUS_NEEDS_RESET);
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_save(driver->device, &writer);
	vmm_virtio_free(driver->device);

	assert_int_equal(
		vmm_virtio_block_new(&driver->host, 2, dup(f->disk), false, &driver->device, NULL),
		0);
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_virtio_load(driver->device, &reader, NULL), 0);
	vmm_virtio_resume(driver->device);
	driver_settle(driver);
	assert_true(driver_read(driver, REG_STATUS) & STATUS_NEEDS_RESET);
	driver_start(driver);
	assert_int_equal(request(f, IN, 0, 512, NULL), OK);
	check_data(f, 0, 512);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(has_a_configuration, setup, teardown),
		cmocka_unit_test_setup_teardown(reads, setup, teardown),
		cmocka_unit_test_setup_teardown(writes_and_flushes, setup, teardown),
		cmocka_unit_test_setup_teardown(checks_the_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_a_request, setup, teardown),
		cmocka_unit_test_setup_teardown(transfers_many_segments, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_its_id, setup, teardown),
		cmocka_unit_test_setup_teardown(discards_and_zeroes, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_to_write_when_read_only, setup_read_only,
						teardown),
		cmocka_unit_test_setup_teardown(reports_a_file_that_was_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(breaks_without_header_or_status, setup, teardown),
		cmocka_unit_test_setup_teardown(drains_what_is_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(forgets_what_is_in_flight_at_a_reset, setup,
						teardown),
		cmocka_unit_test_setup_teardown(survives_random_rings, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_what_is_no_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(restores, setup, teardown),
		cmocka_unit_test_setup_teardown(restores_a_broken_device, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
