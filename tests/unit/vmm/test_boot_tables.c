/* SPDX-License-Identifier: Apache-2.0 */

/* The MP tables: structure, checksums, every number of CPUs, no room. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/boot.h"

#include <errno.h>
#include <string.h>

static uint8_t sum(const uint8_t *p, size_t size)
{
	uint8_t total = 0;

	for (size_t i = 0; i < size; i++) {
		total = (uint8_t)(total + p[i]);
	}
	return total;
}

static void test_tables(void **state)
{
	_cleanup_fd_ int fd = -1;
	struct vmm_memory memory = {};

	assert_int_equal(base_fd_memfd("memory", MIB(1), &fd), 0);
	assert_int_equal(vmm_memory_init(&memory, fd, MIB(1), true), 0);
	for (unsigned n = 1; n <= VMM_VCPUS_MAX; n++) {
		const uint8_t *p, *table, *entry;
		unsigned cpus = 0, interrupts = 0, entries = 0;

		assert_int_equal(vmm_mptable_write(&memory, n), 0);
		p = vmm_memory_at(&memory, VMM_BOOT_MPTABLE, VMM_BOOT_MPTABLE_BYTES);
		assert_memory_equal(p, "_MP_", 4);
		assert_int_equal(sum(p, 16), 0);
		assert_int_equal(base_load_u32(p + 4), VMM_BOOT_MPTABLE + 16);
		table = p + 16;
		assert_memory_equal(table, "PCMP", 4);
		assert_int_equal(sum(table, base_load_u16(table + 4)), 0);
		for (entry = table + 44; entry < table + base_load_u16(table + 4); entries++) {
			cpus += entry[0] == 0;
			interrupts += entry[0] == 3;
			entry += entry[0] == 0 ? 20 : 8;
		}
		assert_int_equal(entries, base_load_u16(table + 34));
		assert_int_equal(cpus, n);
		assert_int_equal(interrupts, 16);
		assert_ptr_equal(entry, table + base_load_u16(table + 4));
	}
	memory.size_bytes = VMM_BOOT_MPTABLE + 100;
	assert_int_equal(vmm_mptable_write(&memory, 1), -EFAULT);
	memory.size_bytes = MIB(1);
	vmm_memory_deinit(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_tables) };

	return cmocka_run_group_tests_name("vmm-boot-tables", tests, NULL, NULL);
}
