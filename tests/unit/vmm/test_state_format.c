/* SPDX-License-Identifier: Apache-2.0 */

/* The framing of the state file, and one vCPU's bytes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/state_format.h"
#include "vmm/state_vcpu.h"

#include <errno.h>
#include <string.h>

static void make(struct base_writer *writer)
{
	struct vmm_state_header header = {
		.n_sections = 2,
		.kind = VMM_HOST_PVM,
		.fingerprint = 0x1122334455667788,
		.config = { .memory_bytes = MIB(64), .n_vcpus = 3, .n_disks = 2, .cid = 5 },
	};
	size_t section;

	vmm_state_begin(writer);
	section = vmm_section_begin(writer, VMM_SECTION_CLOCK, 0);
	base_writer_u64(writer, 42);
	vmm_section_end(writer, section);
	section = vmm_section_begin(writer, VMM_SECTION_DEVICE, 1);
	vmm_section_end(writer, section);
	assert_int_equal(vmm_state_finish(writer, &header), 0);
}

static int read_all(const void *data, size_t size, struct base_error *error)
{
	struct base_reader reader = base_reader_init(data, size), payload;
	struct vmm_state_header header;
	int r = vmm_state_read_header(&reader, &header, error);

	if (r == 0) {
		r = vmm_section_read(&reader, VMM_SECTION_CLOCK, 0, &payload, error);
	}
	if (r == 0) {
		r = vmm_section_read(&reader, VMM_SECTION_DEVICE, 1, &payload, error);
	}
	return r < 0 ? r : base_reader_finish(&reader);
}

static void test_every_bit_and_length(void **state)
{
	_cleanup_writer_ struct base_writer writer = {};

	make(&writer);
	assert_int_equal(read_all(writer.data, writer.size, NULL), 0);
	for (size_t bit = 0; bit < 8 * writer.size; bit++) {
		struct base_error error = {};

		writer.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(read_all(writer.data, writer.size, &error), -EBADMSG);
		assert_true(strlen(error.text) > 0);
		writer.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (size_t size = 0; size < writer.size; size++) {
		assert_int_equal(read_all(writer.data, size, NULL), -EBADMSG);
	}
}

static void test_other_section(void **state)
{
	_cleanup_writer_ struct base_writer writer = {};
	struct base_reader reader, payload;
	struct vmm_state_header header;
	struct base_error error = {};

	make(&writer);
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_state_read_header(&reader, &header, NULL), 0);
	assert_int_equal(header.kind, VMM_HOST_PVM);
	assert_int_equal(header.config.n_vcpus, 3);
	assert_int_equal(header.config.memory_bytes, MIB(64));
	assert_int_equal(vmm_section_read(&reader, VMM_SECTION_IOAPIC, 0, &payload, &error),
			 -EBADMSG);
	assert_non_null(strstr(error.text, "another section"));
}

static void test_vcpu(void **state)
{
	static struct vmm_vcpu_state saved, loaded;
	_cleanup_writer_ struct base_writer writer = {};
	struct base_reader reader;

	saved.regs.rip = 0x1234;
	saved.sregs.cr3 = 0x9000;
	saved.xsave_bytes = 4096;
	saved.xsave[4095] = 7;
	saved.xcrs.nr_xcrs = 1;
	saved.xcrs.xcrs[0].value = 3;
	saved.cpuid.n_entries = VMM_CPUID_ENTRIES_MAX;
	saved.cpuid.entries[255].edx = 9;
	saved.msrs.n_entries = VMM_MSRS_MAX;
	saved.msrs.entries[511] = (struct kvm_msr_entry){ .index = 1, .data = 2 };
	saved.tsc_deadline = 99;
	saved.events.sipi_vector = 5;
	vmm_vcpu_state_write(&saved, &writer);
	reader = base_reader_init(writer.data, writer.size);
	assert_int_equal(vmm_vcpu_state_read(&loaded, &reader, NULL), 0);
	assert_memory_equal(&saved, &loaded, sizeof(saved));
	for (size_t size = 0; size < writer.size; size += 61) {
		reader = base_reader_init(writer.data, size);
		assert_int_equal(vmm_vcpu_state_read(&loaded, &reader, NULL), -EBADMSG);
	}
	/* One past each limit. */
	for (int kind = 0; kind < 3; kind++) {
		size_t position = 4 + 18 * 8 + 8 * 23 + 2 * 10 + 8 * 8 + 4 * 8;
		uint32_t count = VMM_XSAVE_BYTES_MAX + 1;

		if (kind > 0) {
			position += 4 + 4096 + 4 + 4 + 12 + 7 * 8 + 1024 + 4;
			count = VMM_CPUID_ENTRIES_MAX + 1;
		}
		if (kind > 1) {
			position += 4 + 28 * VMM_CPUID_ENTRIES_MAX;
			count = VMM_MSRS_MAX + 1;
		}
		uint32_t before = base_load_u32(writer.data + position);

		assert_int_equal(before, count - 1 == VMM_XSAVE_BYTES_MAX ? 4096 : count - 1);
		base_store_u32(writer.data + position, count);
		reader = base_reader_init(writer.data, writer.size);
		assert_int_equal(vmm_vcpu_state_read(&loaded, &reader, NULL), -EBADMSG);
		base_store_u32(writer.data + position, before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_bit_and_length),
		cmocka_unit_test(test_other_section),
		cmocka_unit_test(test_vcpu),
	};

	return cmocka_run_group_tests_name("vmm-state-format", tests, NULL, NULL);
}
