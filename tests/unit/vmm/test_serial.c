/* SPDX-License-Identifier: Apache-2.0 */

/* The serial port: output, its limit, interrupts, loopback, save and load. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/serial.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned raised;

static void on_raise(void *userdata, unsigned irq)
{
	assert_int_equal(irq, VMM_SERIAL_IRQ);
	raised++;
}

static void start(struct vmm_serial *serial, int *ret_console)
{
	*ret_console = memfd_create("console", MFD_CLOEXEC);
	raised = 0;
	vmm_serial_init(serial, dup(*ret_console), on_raise, NULL);
}

static void test_output(void **state)
{
	_cleanup_fd_ int console = -1;
	struct vmm_serial serial;
	struct stat info;
	char text[3] = "";

	start(&serial, &console);
	vmm_serial_write(&serial, 0, 'o');
	vmm_serial_write(&serial, 3, 0x80); /* now offset 0 is the divisor */
	vmm_serial_write(&serial, 0, 'x');
	assert_int_equal(vmm_serial_read(&serial, 0), 'x');
	vmm_serial_write(&serial, 3, 0x03);
	vmm_serial_write(&serial, 0, 'k');
	assert_int_equal(pread(console, text, 2, 0), 2);
	assert_string_equal(text, "ok");
	assert_int_equal(vmm_serial_read(&serial, 5), 0x60);
	assert_int_equal(raised, 0);
	/* A regular file starts over at the limit. */
	serial.console_bytes = VMM_CONSOLE_MAX_BYTES;
	vmm_serial_write(&serial, 0, 'n');
	assert_int_equal(fstat(console, &info), 0);
	assert_int_equal(info.st_size, 1);
	assert_int_equal(serial.dropped_bytes, 0);
	vmm_serial_deinit(&serial);
}

static void test_interrupts(void **state)
{
	_cleanup_fd_ int console = -1;
	struct vmm_serial serial;

	start(&serial, &console);
	assert_int_equal(vmm_serial_read(&serial, 2) & 0x0f, 0x01);
	vmm_serial_write(&serial, 1, 0x02);
	assert_int_equal(raised, 1);
	assert_int_equal(vmm_serial_read(&serial, 2) & 0x0f, 0x02);
	assert_int_equal(vmm_serial_read(&serial, 2) & 0x0f, 0x01);
	vmm_serial_write(&serial, 0, 'x');
	assert_int_equal(raised, 2);
	/* Taken, but lost with the snapshot: it comes again. */
	assert_int_equal(vmm_serial_read(&serial, 2) & 0x0f, 0x02);
	vmm_serial_resume(&serial);
	assert_int_equal(raised, 3);
	vmm_serial_deinit(&serial);
}

static void test_loopback(void **state)
{
	_cleanup_fd_ int console = -1;
	struct vmm_serial serial;
	struct stat info;

	start(&serial, &console);
	vmm_serial_write(&serial, 4, 0x1a);
	assert_int_equal(vmm_serial_read(&serial, 6), 0x90);
	vmm_serial_write(&serial, 0, 'l');
	assert_int_equal(vmm_serial_read(&serial, 5), 0x61);
	assert_int_equal(vmm_serial_read(&serial, 0), 'l');
	assert_int_equal(vmm_serial_read(&serial, 5), 0x60);
	assert_int_equal(fstat(console, &info), 0);
	assert_int_equal(info.st_size, 0);
	vmm_serial_deinit(&serial);
}

static void test_state(void **state)
{
	_cleanup_writer_ struct base_writer writer = {};
	_cleanup_fd_ int console = -1;
	struct vmm_serial serial, loaded;
	struct base_error error = {};
	struct base_reader reader;

	start(&serial, &console);
	vmm_serial_write(&serial, 1, 0x02);
	vmm_serial_write(&serial, 7, 0x5a);
	vmm_serial_save(&serial, &writer);
	vmm_serial_init(&loaded, -1, on_raise, NULL);
	for (size_t size = 0; size < writer.size; size++) {
		reader = base_reader_init(writer.data, size);
		assert_int_equal(vmm_serial_load(&loaded, &reader, &error), -EBADMSG);
		assert_int_equal(vmm_serial_read(&loaded, 7), 0);
	}
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_serial_load(&loaded, &reader, &error), 0);
	assert_int_equal(vmm_serial_read(&loaded, 7), 0x5a);
	assert_int_equal(vmm_serial_read(&loaded, 1), 0x02);
	writer.data[0] = 0xff; /* interrupt enable: undefined bits */
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_serial_load(&loaded, &reader, &error), -EBADMSG);
	vmm_serial_deinit(&serial);
}

/* Beyond its rate bytes are dropped and counted, and everything else is as ever. */
static void test_limit(void **state)
{
	_cleanup_fd_ int console = -1;
	struct vmm_serial serial;
	struct stat info;

	start(&serial, &console);
	vmm_serial_write(&serial, 1, 0x02);
	(void)vmm_serial_read(&serial, 2);
	/* One byte in 8 s: the test does not last so long. */
	vmm_ratelimit_set(&serial.limit, 1, 100, base_clock_monotonic_ns() + 8 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 1000; i++) {
		unsigned before = raised;

		vmm_serial_write(&serial, 0, 'x');
		assert_int_equal(raised, before + 1);
		assert_int_equal(vmm_serial_read(&serial, 2) & 0x0f, 0x02);
	}
	assert_int_equal(fstat(console, &info), 0);
	assert_int_equal(info.st_size, 100);
	assert_int_equal(serial.limited_bytes, 900);
	assert_int_equal(serial.dropped_bytes, 0);
	/* Time fills it again. */
	vmm_ratelimit_set(&serial.limit, 1, 100, 0);
	vmm_serial_write(&serial, 0, 'x');
	assert_int_equal(serial.limited_bytes, 900);
	vmm_serial_deinit(&serial);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output),	 cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_loopback), cmocka_unit_test(test_state),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests_name("vmm-serial", tests, NULL, NULL);
}
