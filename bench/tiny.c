/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Freezing tiny guests: one VM that is booted, told to stop when it has said that it is ready, and
 * saved. A failure carries the words of the VMM. Blocking; one thread.
 */

#include "bench/tiny.h"

#include "tests/guest/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READY_TIMEOUT_MS 30000

char *bench_path(const char *name, const char *built)
{
	char self[4096], *slash, *path = NULL;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		*slash = '\0';
		if (asprintf(&path, "%s/%s", self, name) < 0) {
			return NULL;
		}
		if (access(path, F_OK) == 0) {
			return path;
		}
		free(path);
	}
	return strdup(built);
}

void bench_use_vmm(void)
{
	_cleanup_free_ char *path = bench_path("warmbox-vmm", BENCH_BUILT_VMM);

	if (path) {
		setenv("WARMBOX_VMM", path, 0);
	}
}

static int freeze(struct harness_vm *vm, const char *path, uint64_t memory_bytes, const char *ready,
		  struct bench_tiny *ret_tiny)
{
	struct harness_params params = { .memory_bytes = memory_bytes };
	int state = -1;
	int r;

	r = harness_create(vm, &params);
	r = r ?: harness_boot(vm, path, NULL, "");
	r = r ?: harness_resume(vm);
	if (r == 0) {
		r = harness_wait_console(vm, ready, READY_TIMEOUT_MS);
		if (r < 0) {
			base_error_set_errno(&vm->error, r, "the guest does not say \"%s\"", ready);
		}
	}
	r = r ?: harness_pause(vm);
	r = r ?: harness_save(vm, &state, NULL);
	if (r < 0) {
		return r;
	}
	/* As the manager's are. */
	if (fcntl(state, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0) {
		r = -errno;
		close(state);
		return r;
	}
	*ret_tiny = (struct bench_tiny){ vm->memory, state, vm->memory_bytes };
	vm->memory_is_borrowed = true;
	return 0;
}

int bench_tiny_make(const char *path, uint64_t memory_bytes, const char *ready,
		    struct bench_tiny *ret_tiny, struct base_error *error)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int r;

	bench_use_vmm();
	r = freeze(&vm, path, memory_bytes, ready, ret_tiny);
	if (r < 0) {
		return base_error_set(error, r, "freezing %s: %s", path, vm.error.text);
	}
	return 0;
}

int bench_tiny_identity(struct bench_tiny *ret_tiny, struct base_error *error)
{
	_cleanup_free_ char *path = bench_path("tiny-identity", BENCH_BUILT_TINY "/tiny-identity");

	if (!path) {
		return base_error_set_errno(error, -ENOMEM, "finding the tiny guest");
	}
	return bench_tiny_make(path, BENCH_TINY_MEMORY_BYTES, "ready", ret_tiny, error);
}
