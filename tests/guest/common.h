/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the test programs of tests/guest share. cmocka's headers come in here in their order. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/guest/harness.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* As in tests/guest/tiny/guest.h. */
#define MAILBOX_GPA 0x90000

#define IMAGE_PATIENCE_MS 30000

/* True, with the reason said in TAP, on a host where none of these tests can run. */
static inline bool skip_all(void)
{
	if (access("/dev/kvm", R_OK | W_OK) == 0) {
		return false;
	}
	printf("1..0 # SKIP /dev/kvm cannot be used here\n");
	return true;
}

/* The path of a tiny guest, in a static buffer. */
static inline const char *tiny_path(const char *name)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/tiny-%s", TINY_GUESTS_DIR, name);
	return path;
}

/* A memfd with these bytes. */
static inline int file_of(const void *data, size_t size)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(base_fd_pwrite_full(fd, data, size, 0), 0);
	return fd;
}

/* Fails the test with the harness's words. */
#define assert_vm_ok(vm, call)                                                       \
	do {                                                                         \
		int vm_result_ = (call);                                             \
		if (vm_result_ < 0) {                                                \
			fail_msg("%s: %d: %s", #call, vm_result_, (vm)->error.text); \
		}                                                                    \
	} while (0)

/* Sets a word of the mailbox in a memory file. */
static inline void mailbox_set(int memory_fd, unsigned word, uint32_t value)
{
	assert_int_equal(base_fd_pwrite_full(memory_fd, &value, sizeof(value),
					     MAILBOX_GPA + 4 * (off_t)word),
			 0);
}

/* A VM that runs a tiny guest, shared memory, 4 MiB. */
static inline void boot_tiny(struct harness_vm *vm, const char *name, unsigned n_vcpus,
			     uint32_t parameter)
{
	struct harness_params params = { .n_vcpus = n_vcpus };

	assert_vm_ok(vm, harness_create(vm, &params));
	assert_vm_ok(vm, harness_boot(vm, tiny_path(name), NULL, ""));
	mailbox_set(vm->memory, 1, parameter);
	assert_vm_ok(vm, harness_resume(vm));
}

/* What a snapshot is made of, in memory. */
struct image {
	int memory;
	int state;
	uint64_t memory_bytes;
};

static inline void image_release(struct image *image)
{
	base_fd_close(image->memory);
	base_fd_close(image->state);
}
#define _cleanup_image_ _cleanup_(image_release)

/* Boots a tiny guest, waits until it has said `ready`, and saves it. */
static inline void make_image(const char *name, unsigned n_vcpus, uint32_t parameter,
			      const char *ready, struct image *ret_image)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

	boot_tiny(&vm, name, n_vcpus, parameter);
	assert_vm_ok(&vm, harness_wait_console(&vm, ready, IMAGE_PATIENCE_MS));
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_vm_ok(&vm, harness_save(&vm, &ret_image->state, NULL));
	ret_image->memory = vm.memory;
	ret_image->memory_bytes = vm.memory_bytes;
	vm.memory_is_borrowed = true;
}
