/* SPDX-License-Identifier: Apache-2.0 */

/* The balloon device: what is given back is gone from where it was, nothing else is, and requests
 * that no driver would make stop the device. */

#include "virtio_driver.h"

#include "base/fd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE	  4096u
#define PAGES_MAX 1024u /* of an inflate request that are looked at */

enum { INFLATE, DEFLATE, REPORTING };

static int setup(void **state)
{
	struct driver *driver = calloc(1, sizeof(*driver));

	driver_init(driver);
	assert_int_equal(vmm_virtio_balloon_new(&driver->host, 2, &driver->device, NULL), 0);
	driver_start(driver);
	*state = driver;
	return 0;
}

static int teardown(void **state)
{
	driver_deinit(*state);
	free(*state);
	return 0;
}

/* n pages that hold something. */
static gpa_t fill(struct driver *driver, unsigned n)
{
	gpa_t gpa = driver_alloc(driver, n * PAGE, PAGE);

	memset(driver_at(driver, gpa, n * PAGE), 0xa5, n * PAGE);
	return gpa;
}

/* Whether all bytes of a page are the given one. */
static bool holds(struct driver *driver, gpa_t gpa, uint8_t byte)
{
	const uint8_t *page = driver_at(driver, gpa, PAGE);

	for (size_t i = 0; i < PAGE; i++) {
		if (page[i] != byte) {
			return false;
		}
	}
	return true;
}

static uint64_t returned(struct driver *driver)
{
	return vmm_virtio_balloon_returned_bytes(driver->device);
}

/* A request that is served and comes back with nothing written. */
static void request(struct driver *driver, unsigned queue, const struct driver_buffer *buffers,
		    unsigned n)
{
	uint16_t head = driver_add(driver, queue, buffers, n);

	driver_kick(driver, queue);
	assert_int_equal(driver_wait(driver, queue, head), 0);
}

static void inflate(struct driver *driver, unsigned queue, const uint32_t *pages, size_t n)
{
	struct driver_buffer buffer = { .length = (uint32_t)(n * sizeof(*pages)) };

	buffer.gpa = driver_alloc(driver, buffer.length, 4);
	memcpy(driver_at(driver, buffer.gpa, buffer.length), pages, buffer.length);
	request(driver, queue, &buffer, 1);
}

static void asks_for_nothing(void **state)
{
	struct driver *driver = *state;

	assert_int_equal(driver_read(driver, REG_DEVICE_ID), 5);
	driver_write(driver, REG_DEVICE_FEATURES_SELECT, 0);
	assert_int_equal(driver_read(driver, REG_DEVICE_FEATURES), 1u << 5);
	driver_write(driver, REG_CONFIG + 4, 17);
	for (uint32_t offset = 0; offset < 16; offset += 4) {
		assert_int_equal(driver_read(driver, REG_CONFIG + offset), 0);
	}
}

/* While a template boots, its memory file gets holes. */
static void shared_memory_gets_holes(void **state)
{
	struct driver *driver = *state;
	gpa_t gpa = fill(driver, 8);
	const struct driver_buffer buffers[] = { { gpa + PAGE, 2 * PAGE, true },
						 { gpa + 5 * PAGE, PAGE, true } };
	const uint32_t pages[] = { (uint32_t)(gpa / PAGE) + 7 };

	request(driver, REPORTING, buffers, 2);
	assert_int_equal(returned(driver), 3 * PAGE);
	assert_int_equal(lseek(driver->memory_fd, (off_t)(gpa + PAGE), SEEK_DATA), gpa + 3 * PAGE);
	assert_int_equal(lseek(driver->memory_fd, (off_t)(gpa + 5 * PAGE), SEEK_DATA),
			 gpa + 6 * PAGE);
	inflate(driver, INFLATE, pages, 1);
	assert_int_equal(returned(driver), 4 * PAGE);
	for (unsigned i = 0; i < 8; i++) {
		bool gone = i == 1 || i == 2 || i == 5 || i == 7;

		assert_true(holds(driver, gpa + i * PAGE, gone ? 0 : 0xa5));
	}
	assert_int_equal(driver->interrupts, 2);
}

static void inflates_in_either_order(void **state)
{
	struct driver *driver = *state;
	gpa_t gpa = fill(driver, 10);
	uint32_t page = (uint32_t)(gpa / PAGE);
	const uint32_t pages[] = { page + 1, page + 2, page + 9, page + 8, page + 7, page + 4 };
	const char gone[] = "-xx-x--xxx";

	inflate(driver, INFLATE, pages, ARRAY_SIZE(pages));
	for (unsigned i = 0; i < 10; i++) {
		assert_true(holds(driver, gpa + i * PAGE, gone[i] == 'x' ? 0 : 0xa5));
	}
	assert_int_equal(returned(driver), 6 * PAGE);
}

static void deflating_changes_nothing(void **state)
{
	struct driver *driver = *state;
	gpa_t gpa = fill(driver, 1);
	const uint32_t pages[] = { (uint32_t)(gpa / PAGE) };

	inflate(driver, DEFLATE, pages, 1);
	assert_true(holds(driver, gpa, 0xa5));
	assert_int_equal(returned(driver), 0);
}

static void only_whole_pages_are_given_back(void **state)
{
	struct driver *driver = *state;
	gpa_t gpa = fill(driver, 4);
	const struct driver_buffer buffers[] = { { gpa + 1, 2 * PAGE, true },
						 { gpa + 3 * PAGE + 1, PAGE - 2, true } };

	request(driver, REPORTING, buffers, 2);
	assert_int_equal(returned(driver), PAGE);
	assert_true(holds(driver, gpa, 0xa5));
	assert_true(holds(driver, gpa + PAGE, 0));
	assert_true(holds(driver, gpa + 2 * PAGE, 0xa5));
	assert_true(holds(driver, gpa + 3 * PAGE, 0xa5));
	/* Nor does half a number name a page. */
	request(driver, INFLATE, &(struct driver_buffer){ gpa, 3, false }, 1);
	assert_int_equal(returned(driver), PAGE);
}

static void a_request_is_looked_at_up_to_its_limit(void **state)
{
	struct driver *driver = *state;
	gpa_t gpa = fill(driver, 2);
	uint32_t pages[PAGES_MAX + 1];

	for (unsigned i = 0; i < PAGES_MAX; i++) {
		pages[i] = (uint32_t)(gpa / PAGE);
	}
	pages[PAGES_MAX] = (uint32_t)(gpa / PAGE) + 1;
	inflate(driver, INFLATE, pages, PAGES_MAX + 1);
	assert_true(holds(driver, gpa, 0));
	assert_true(holds(driver, gpa + PAGE, 0xa5));
	pages[PAGES_MAX - 1] = pages[PAGES_MAX];
	inflate(driver, INFLATE, pages, PAGES_MAX);
	assert_true(holds(driver, gpa + PAGE, 0));
}

static void pages_outside_of_memory_stop_the_device(void **state)
{
	const uint32_t outside[] = { DRIVER_MEMORY_BYTES / PAGE, UINT32_MAX };
	struct driver *driver = *state;

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		gpa_t gpa = fill(driver, 1);
		const uint32_t pages[] = { outside[i], (uint32_t)(gpa / PAGE) };
		struct driver_buffer buffer = { driver_alloc(driver, 8, 4), 8, false };

		memcpy(driver_at(driver, buffer.gpa, 8), pages, 8);
		driver_add(driver, INFLATE, &buffer, 1);
		driver_kick(driver, INFLATE);
		driver_settle(driver);
		assert_true(driver_read(driver, REG_STATUS) & STATUS_NEEDS_RESET);
		assert_true(holds(driver, gpa, 0xa5));
		driver_start(driver);
	}
	/* The last page is one. */
	inflate(driver, INFLATE, (uint32_t[]){ DRIVER_MEMORY_BYTES / PAGE - 1 }, 1);
	assert_int_equal(returned(driver), PAGE);
}

static void chains_that_no_driver_makes_do_no_harm(void **state)
{
	struct driver *driver = *state;
	uint64_t random = 0x9e3779b97f4a7c15;

	for (int i = 0; i < 2000; i++) {
		unsigned queue = (unsigned)i % 3;

		/* It may have given its rings back. */
		if (driver_read(driver, REG_STATUS) & STATUS_NEEDS_RESET || i % 50 == 0) {
			driver->next_free = 0x1000;
			driver_start(driver);
		}
		driver_scramble(driver, queue, &random);
		driver_kick(driver, queue);
		driver_settle(driver);
	}
}

/* Two VMs restored from one image: what one gives back becomes the image's for it, and is as it was
 * for the other and in the image. */
static void private_memory_falls_back_to_the_image(void **state)
{
	struct driver *one = *state;
	gpa_t gpa = fill(one, 3);
	const struct driver_buffer buffer = { gpa, 2 * PAGE, true };
	struct vmm_memory shared = one->memory, private[2];
	_cleanup_fd_ int image = -1;
	uint8_t byte;

	assert_int_equal(base_fd_reopen_readonly(one->memory_fd, &image), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(vmm_memory_init(&private[i], image, DRIVER_MEMORY_BYTES, false),
				 0);
		memset(vmm_memory_at(&private[i], gpa, 3 * PAGE), 0x11 * (i + 1), 3 * PAGE);
	}
	one->memory = private[0];
	driver_start(one);
	request(one, REPORTING, &buffer, 1);
	assert_int_equal(returned(one), 2 * PAGE);
	assert_true(holds(one, gpa, 0xa5));
	assert_true(holds(one, gpa + PAGE, 0xa5));
	assert_true(holds(one, gpa + 2 * PAGE, 0x11));
	assert_int_equal(vmm_memory_read(&private[1], gpa, &byte, 1), 0);
	assert_int_equal(byte, 0x22);
	assert_int_equal(vmm_memory_read(&shared, gpa, &byte, 1), 0);
	assert_int_equal(byte, 0xa5);

	/* Written again, it is this VM's own again. */
	memset(driver_at(one, gpa, PAGE), 0x33, PAGE);
	assert_int_equal(pread(image, &byte, 1, (off_t)gpa), 1);
	assert_int_equal(byte, 0xa5);
	vmm_memory_deinit(&private[0]);
	vmm_memory_deinit(&private[1]);
	one->memory = shared;
}

static void state_is_that_of_the_transport(void **state)
{
	struct driver *driver = *state;
	_cleanup_(vmm_virtio_freep) struct vmm_virtio *copy = NULL;
	gpa_t gpa = fill(driver, 1);
	struct base_writer writer = {};
	struct base_reader reader;

	request(driver, REPORTING, &(struct driver_buffer){ gpa, PAGE, true }, 1);
	assert_int_equal(vmm_virtio_drain(driver->device), 0);
	vmm_virtio_save(driver->device, &writer);
	assert_int_equal(vmm_virtio_balloon_new(&driver->host, 2, &copy, NULL), 0);
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_virtio_load(copy, &reader, NULL), 0);
	assert_int_equal(base_reader_left(&reader), 0);
	assert_int_equal(vmm_virtio_balloon_returned_bytes(copy), 0);

	vmm_virtio_free(driver->device);
	driver->device = TAKE_PTR(copy);
	vmm_virtio_resume(driver->device);
	gpa = fill(driver, 1);
	request(driver, REPORTING, &(struct driver_buffer){ gpa, PAGE, true }, 1);
	assert_true(holds(driver, gpa, 0));
	base_writer_deinit(&writer);
}

/* Pages without neighbours take long: in between others have their turn. */
static void gives_others_their_turn(void **state)
{
	struct driver *driver = *state;
	gpa_t list = driver_alloc(driver, PAGES_MAX * 4, 4), gpa = fill(driver, 3);
	const struct driver_buffer buffer = { list, PAGES_MAX * 4, false };
	unsigned used = 0;
	uint32_t length;
	uint16_t head;

	for (uint32_t i = 0; i < PAGES_MAX; i++) {
		base_store_u32(driver_at(driver, list + 4 * i, 4),
			       (uint32_t)(gpa / PAGE) + i % 2 * 2);
	}
	for (unsigned i = 0; i < 4; i++) {
		driver_add(driver, INFLATE, &buffer, 1);
	}
	driver_kick(driver, INFLATE);
	assert_true(driver_turn(driver, 0));
	assert_true(driver_used(driver, INFLATE, &head, &length));
	assert_false(driver_used(driver, INFLATE, &head, &length));
	driver_settle(driver);
	while (driver_used(driver, INFLATE, &head, &length)) {
		used++;
	}
	assert_int_equal(used, 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(asks_for_nothing),
		TEST(shared_memory_gets_holes),
		TEST(inflates_in_either_order),
		TEST(deflating_changes_nothing),
		TEST(only_whole_pages_are_given_back),
		TEST(a_request_is_looked_at_up_to_its_limit),
		TEST(pages_outside_of_memory_stop_the_device),
		TEST(chains_that_no_driver_makes_do_no_harm),
		TEST(private_memory_falls_back_to_the_image),
		TEST(gives_others_their_turn),
		TEST(state_is_that_of_the_transport),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
