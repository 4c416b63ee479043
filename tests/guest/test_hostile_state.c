/* SPDX-License-Identifier: Apache-2.0 */

/*
 * States that are damaged or forged: refused with words, or, with right checksums, loaded and run.
 * Never a crash.
 */

#include "tests/guest/common.h"

#include "base/bytes.h"
#include "vmm/state_format.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <xxhash.h>

#define PATIENCE_MS 20000
#define BIT_FLIPS   400
#define MUTATIONS   200

struct saved {
	char *data;
	size_t size;
};

static void save_one(struct saved *ret_saved)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_fd_ int state_fd = -1;

	boot_tiny(&vm, "memory", 1, 0);
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_vm_ok(&vm, harness_save(&vm, &state_fd, NULL));
	assert_int_equal(lseek(state_fd, 0, SEEK_SET), 0);
	assert_int_equal(base_fd_read_file(state_fd, MIB(4), &ret_saved->data, &ret_saved->size),
			 0);
}

/* LOAD of bytes in a fresh VM. */
static int load_bytes(struct harness_vm *vm, const void *data, size_t size)
{
	_cleanup_fd_ int fd = file_of(data, size);
	struct harness_params params = {};

	assert_vm_ok(vm, harness_create(vm, &params));
	return harness_load(vm, fd);
}

static void expect_damaged(const void *data, size_t size)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int r = load_bytes(&vm, data, size);
	int status;

	if (r != -EBADMSG || !strstr(vm.error.text, "state")) {
		fail_msg("size %zu: %d: %s", size, r, vm.error.text);
	}
	status = harness_stop(&vm);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_truncated_state(void **state)
{
	struct saved saved = {};
	size_t position = VMM_STATE_HEADER_BYTES;

	save_one(&saved);
	expect_damaged(saved.data, 0);
	expect_damaged(saved.data, VMM_STATE_HEADER_BYTES - 1);
	while (position < saved.size) {
		uint32_t length = base_load_u32(saved.data + position + 12);

		expect_damaged(saved.data, position);
		expect_damaged(saved.data, position + 7);
		expect_damaged(saved.data, position + VMM_SECTION_HEAD_BYTES + length / 2);
		position += VMM_SECTION_HEAD_BYTES + length + 8;
	}
	assert_int_equal(position, saved.size);
	expect_damaged(saved.data, saved.size - 1);
	saved.data = realloc(saved.data, saved.size + 1);
	saved.data[saved.size] = 0;
	expect_damaged(saved.data, saved.size + 1);
	free(saved.data);
}

static void test_flipped_bits(void **state)
{
	struct saved saved = {};

	save_one(&saved);
	srandom(2);
	for (unsigned i = 0; i < BIT_FLIPS; i++) {
		/* The header's bits one by one, then anywhere. */
		size_t bit = i < 8 * VMM_STATE_HEADER_BYTES / 4
				     ? 4 * i
				     : (size_t)random() % (8 * saved.size);

		saved.data[bit / 8] ^= (char)(1 << bit % 8);
		expect_damaged(saved.data, saved.size);
		saved.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	free(saved.data);
}

/* Sections of devices with other bytes and right checksums: what a forger would make. Refused, or
 * loaded and run; never a crash. */
static void test_forged_devices(void **state)
{
	struct saved saved = {};

	save_one(&saved);
	srandom(3);
	for (unsigned i = 0; i < MUTATIONS; i++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		_cleanup_free_ char *copy = malloc(saved.size);
		size_t position = VMM_STATE_HEADER_BYTES;
		int status;

		assert_non_null(copy);
		memcpy(copy, saved.data, saved.size);
		while (position < saved.size) {
			char *section = copy + position;
			uint32_t length = base_load_u32(section + 12);

			if (base_load_u32(section) != VMM_SECTION_VCPU && length > 0) {
				for (int n = 0; n < 2; n++) {
					section[VMM_SECTION_HEAD_BYTES + random() % length] =
						(char)random();
				}
				base_store_u64(
					section + VMM_SECTION_HEAD_BYTES + length,
					XXH64(section, VMM_SECTION_HEAD_BYTES + length, position));
			}
			position += VMM_SECTION_HEAD_BYTES + length + 8;
		}
		if (load_bytes(&vm, copy, saved.size) == 0) {
			assert_vm_ok(&vm, harness_resume(&vm));
			assert_vm_ok(&vm, harness_pause(&vm));
		} else {
			assert_true(strlen(vm.error.text) > 0);
		}
		status = harness_stop(&vm);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	free(saved.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated_state),
		cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_forged_devices),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-hostile-state", tests, NULL, NULL);
}
