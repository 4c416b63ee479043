/* SPDX-License-Identifier: Apache-2.0 */

/* The IOAPIC's registers, and its state. Delivery needs a guest: tests/guest. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/ioapic.h"

#include <errno.h>

static void put(struct vmm_ioapic *ioapic, uint32_t index, uint32_t value)
{
	vmm_ioapic_write(ioapic, 0x00, index);
	vmm_ioapic_write(ioapic, 0x10, value);
}

static uint32_t get(struct vmm_ioapic *ioapic, uint32_t index)
{
	vmm_ioapic_write(ioapic, 0x00, index);
	return vmm_ioapic_read(ioapic, 0x10);
}

static void test_registers(void **state)
{
	struct vmm_ioapic ioapic;

	vmm_ioapic_init(&ioapic, -1);
	assert_int_equal(get(&ioapic, 1), 0x00170011);
	for (uint32_t pin = 0; pin < VMM_IOAPIC_PINS; pin++) {
		assert_int_equal(get(&ioapic, 0x10 + 2 * pin), 1 << 16);
	}
	put(&ioapic, 0, 0xffffffff);
	assert_int_equal(get(&ioapic, 0), 0x0f000000);
	put(&ioapic, 0x10 + 2 * 23, 0xffffffff);
	put(&ioapic, 0x11 + 2 * 23, 0xffffffff);
	assert_int_equal(get(&ioapic, 0x10 + 2 * 23), 0x1afff);
	assert_int_equal(get(&ioapic, 0x11 + 2 * 23), 0xff000000);
	/* Past the last pin, and registers that are none. */
	put(&ioapic, 0x10 + 2 * 24, 0xffffffff);
	assert_int_equal(get(&ioapic, 0x10 + 2 * 24), 0);
	assert_int_equal(get(&ioapic, 0xff), 0);
	assert_int_equal(vmm_ioapic_read(&ioapic, 0x44), 0);
	vmm_ioapic_write(&ioapic, 0x44, 1);
}

static void test_masked_edge_waits(void **state)
{
	struct vmm_ioapic ioapic;

	vmm_ioapic_init(&ioapic, -1);
	vmm_ioapic_raise(&ioapic, 4);
	assert_int_equal(ioapic.pending, 1 << 4);
	put(&ioapic, 0x10 + 2 * 4, 0x40);
	assert_int_equal(ioapic.pending, 0);
	vmm_ioapic_raise(&ioapic, VMM_IOAPIC_PINS);
	assert_int_equal(ioapic.pending, 0);
}

static void test_state(void **state)
{
	_cleanup_writer_ struct base_writer writer = {};
	struct vmm_ioapic ioapic, loaded;
	struct base_error error = {};
	struct base_reader reader;

	vmm_ioapic_init(&ioapic, -1);
	put(&ioapic, 0x10 + 2 * 7, 0x10047);
	vmm_ioapic_raise(&ioapic, 7);
	vmm_ioapic_save(&ioapic, &writer);
	vmm_ioapic_init(&loaded, -1);
	for (size_t size = 0; size < writer.size; size++) {
		reader = base_reader_init(writer.data, size);
		assert_int_equal(vmm_ioapic_load(&loaded, &reader, &error), -EBADMSG);
	}
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_ioapic_load(&loaded, &reader, &error), 0);
	assert_int_equal(get(&loaded, 0x10 + 2 * 7), 0x10047);
	assert_int_equal(loaded.pending, 1 << 7);
	writer.data[5] = 0xff; /* pins that do not exist are pending */
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_ioapic_load(&loaded, &reader, &error), -EBADMSG);
	writer.data[5] = 0;
	writer.data[6 + 3] = 1; /* an undefined bit of entry 0 */
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_ioapic_load(&loaded, &reader, &error), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_masked_edge_waits),
		cmocka_unit_test(test_state),
	};

	return cmocka_run_group_tests_name("vmm-ioapic", tests, NULL, NULL);
}
