/* SPDX-License-Identifier: Apache-2.0 */

/* The entropy device: what is asked for is filled, up to the bound, and nothing past it. */

#include "virtio_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static int setup(void **state)
{
	struct driver *driver = calloc(1, sizeof(*driver));

	driver_init(driver);
	assert_int_equal(vmm_virtio_rng_new(&driver->host, 2, &driver->device, NULL), 0);
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

static bool all_zero(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (bytes[i]) {
			return false;
		}
	}
	return true;
}

static void fills_buffers(void **state)
{
	struct driver *driver = *state;
	gpa_t gpa = driver_alloc(driver, 128, 1);
	const struct driver_buffer buffers[] = { { gpa, 40, true }, { gpa + 60, 40, true } };
	uint16_t head = driver_add(driver, 0, buffers, 2);
	uint8_t first[128];

	driver_kick(driver, 0);
	assert_int_equal(driver_wait(driver, 0, head), 80);
	memcpy(first, driver_at(driver, gpa, 128), 128);
	assert_false(all_zero(first, 40));
	assert_true(all_zero(first + 40, 20));
	assert_false(all_zero(first + 60, 40));
	assert_true(all_zero(first + 100, 28));
	assert_int_equal(driver->interrupts, 1);

	head = driver_add(driver, 0, buffers, 2);
	driver_kick(driver, 0);
	driver_wait(driver, 0, head);
	assert_memory_not_equal(first, driver_at(driver, gpa, 40), 40);
}

static void bounds_a_request(void **state)
{
	struct driver *driver = *state;
	gpa_t gpa = driver_alloc(driver, 8192, 1);
	const struct driver_buffer buffer = { gpa, 8192, true };
	const struct driver_buffer readable = { gpa, 16, false };
	uint16_t head = driver_add(driver, 0, &buffer, 1);

	driver_kick(driver, 0);
	assert_int_equal(driver_wait(driver, 0, head), 4096);
	assert_true(all_zero(driver_at(driver, gpa + 4096, 4096), 4096));

	head = driver_add(driver, 0, &readable, 1);
	driver_kick(driver, 0);
	assert_int_equal(driver_wait(driver, 0, head), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(fills_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_a_request, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
