/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Restoring from an image that still has holes, with a pager of our own: what it does not answer
 * waits, a pause and an end get through, and a page that is there is not asked for again.
 */

#include "tests/guest/common.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define PATIENCE_MS 30000
#define PAGE_BYTES  4096u

/* Fills the holes of one VM's image from the whole one. */
struct pager {
	pthread_t thread;
	struct harness_vm *vm; /* borrowed */
	int source;	       /* borrowed: the whole image */
	int target;	       /* borrowed: the image with holes */
	unsigned delay_ms;     /* before the first answer */
	unsigned faults;
	int stop[2]; /* a pipe: closing the second ends the thread */
};

static void answer(struct pager *pager, uint64_t address)
{
	uint64_t offset = (address & ~(uint64_t)(PAGE_BYTES - 1)) - pager->vm->address;
	struct uffdio_range range = { pager->vm->address + offset, PAGE_BYTES };
	uint8_t page[PAGE_BYTES];

	assert_true(offset < pager->vm->memory_bytes);
	assert_int_equal(base_fd_pread_full(pager->source, page, PAGE_BYTES, (off_t)offset), 0);
	assert_int_equal(base_fd_pwrite_full(pager->target, page, PAGE_BYTES, (off_t)offset), 0);
	assert_int_equal(ioctl(pager->vm->userfault, UFFDIO_WAKE, &range), 0);
}

static void *pager_main(void *argument)
{
	struct pager *pager = argument;
	struct pollfd items[2] = {
		{ .fd = pager->vm->userfault, .events = POLLIN },
		{ .fd = pager->stop[0] },
	};
	struct uffd_msg message;

	for (;;) {
		poll(items, 2, -1);
		if (items[1].revents) {
			return NULL;
		}
		if (read(pager->vm->userfault, &message, sizeof(message)) != sizeof(message)) {
			continue; /* who waited was kicked meanwhile */
		}
		if (pager->faults++ == 0) {
			poll(NULL, 0, (int)pager->delay_ms);
		}
		answer(pager, message.arg.pagefault.address);
	}
}

static void pager_start(struct pager *pager)
{
	assert_int_equal(pipe(pager->stop), 0);
	assert_int_equal(pthread_create(&pager->thread, NULL, pager_main, pager), 0);
}

static void pager_stop(struct pager *pager)
{
	close(pager->stop[1]);
	pthread_join(pager->thread, NULL);
	close(pager->stop[0]);
}

static void expect_end(struct harness_vm *vm)
{
	assert_int_equal(harness_wait_exit(vm, PATIENCE_MS), 0);
	if (vm->over_reason != VMM_EXIT_GUEST || vm->over_code != 0) {
		fail_msg("reason %d, code %d: %s", vm->over_reason, vm->over_code, vm->over_text);
	}
}

/* A saved "registers" guest that goes on at once, and an image of its size that is all holes. */
static void make_lazy_image(struct image *whole, int *ret_holes)
{
	make_image("registers", 1, 0, "ready", whole);
	mailbox_set(whole->memory, 0, 1);
	assert_int_equal(base_fd_memfd("holes", whole->memory_bytes, ret_holes), 0);
}

static void restore_lazy(struct harness_vm *vm, const struct image *whole, int holes)
{
	struct harness_params params = {
		.image_fd = holes,
		.memory_bytes = whole->memory_bytes,
		.lazy = true,
	};

	assert_vm_ok(vm, harness_create(vm, &params));
	assert_true(vm->userfault >= 0);
	assert_vm_ok(vm, harness_load(vm, whole->state));
}

/* The first fault has come. */
static void wait_for_fault(const struct harness_vm *vm)
{
	struct pollfd item = { .fd = vm->userfault, .events = POLLIN };

	assert_int_equal(poll(&item, 1, PATIENCE_MS), 1);
}

static void test_runs(void **state)
{
	_cleanup_vm_ struct harness_vm first = HARNESS_VM_NONE, second = HARNESS_VM_NONE;
	_cleanup_image_ struct image whole = { -1, -1, 0 };
	_cleanup_fd_ int holes = -1;
	struct pager pager = { .vm = &first };

	make_lazy_image(&whole, &holes);
	pager.source = whole.memory;
	pager.target = holes;
	restore_lazy(&first, &whole, holes);
	pager_start(&pager);
	assert_vm_ok(&first, harness_resume(&first));
	expect_end(&first);
	pager_stop(&pager);
	assert_true(pager.faults > 0);

	/* What the first has missed the second finds. */
	pager = (struct pager){ .vm = &second, .source = whole.memory, .target = holes };
	restore_lazy(&second, &whole, holes);
	pager_start(&pager);
	assert_vm_ok(&second, harness_resume(&second));
	expect_end(&second);
	pager_stop(&pager);
	assert_int_equal(pager.faults, 0);
}

/* A pause comes back, at the latest with the page, and the guest goes on as if nothing was. */
static void test_pause_while_missing(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_image_ struct image whole = { -1, -1, 0 };
	_cleanup_fd_ int holes = -1;
	struct pager pager = { .vm = &vm, .delay_ms = 200 };

	make_lazy_image(&whole, &holes);
	pager.source = whole.memory;
	pager.target = holes;
	restore_lazy(&vm, &whole, holes);
	assert_vm_ok(&vm, harness_resume(&vm));
	wait_for_fault(&vm);
	pager_start(&pager);
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_vm_ok(&vm, harness_resume(&vm));
	expect_end(&vm);
	pager_stop(&pager);
}

/* Nobody answers, and even the registration's other holder goes: no hole is read as zeros, and the
 * VMM still ends when its starter does, with a pause outstanding as well. */
static void test_never_answered(void **state)
{
	for (unsigned pausing = 0; pausing < 2; pausing++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		_cleanup_image_ struct image whole = { -1, -1, 0 };
		struct base_message pause = { .op = VMM_OP_PAUSE, .sequence = 1000 };
		_cleanup_fd_ int holes = -1;
		int status;

		make_lazy_image(&whole, &holes);
		restore_lazy(&vm, &whole, holes);
		assert_vm_ok(&vm, harness_resume(&vm));
		wait_for_fault(&vm);
		vm.userfault = base_fd_close(vm.userfault);
		assert_int_equal(harness_wait_exit(&vm, 300), -ETIMEDOUT);
		if (pausing) {
			assert_int_equal(base_message_send(vm.control, &pause, NULL, 0), 0);
			poll(NULL, 0, 50);
		}
		status = harness_stop(&vm);
		assert_true(WIFEXITED(status));
	}
}

static void test_refused(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct harness_params params = { .lazy = true };

	assert_int_equal(harness_create(&vm, &params), -EINVAL);
	assert_non_null(strstr(vm.error.text, "lazy"));
}

static int nice_of_threads(pid_t pid, unsigned *ret_threads)
{
	unsigned threads = 0;
	int worst = -20;

	/* Thread ids follow the process's closely; those of others are not in its directory. */
	for (pid_t tid = pid; tid < pid + 64; tid++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/task/%d", pid, tid);
		if (access(path, F_OK) == 0) {
			worst = MAX(worst, getpriority(PRIO_PROCESS, (id_t)tid));
			threads++;
		}
	}
	*ret_threads = threads;
	return worst;
}

static void test_foreground(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct harness_params params = { .nice = 5, .n_vcpus = 2 };
	uint64_t flags = VMM_RESUME_FOREGROUND, unknown = 1u << 7;
	int ours = getpriority(PRIO_PROCESS, 0);
	unsigned threads;

	assert_vm_ok(&vm, harness_create(&vm, &params));
	assert_vm_ok(&vm, harness_boot(&vm, tiny_path("memory"), NULL, ""));
	assert_vm_ok(&vm, harness_resume(&vm));
	assert_int_equal(nice_of_threads(vm.pid, &threads), 5);
	assert_true(threads >= 3);
	assert_int_equal(harness_call(&vm, VMM_OP_RESUME, &unknown, 1, NULL, 0, NULL), -EINVAL);
	assert_vm_ok(&vm, harness_call(&vm, VMM_OP_RESUME, &flags, 1, NULL, 0, NULL));
	assert_int_equal(nice_of_threads(vm.pid, &threads), 0);
	assert_int_equal(getpriority(PRIO_PROCESS, 0), ours);
}

static void test_counters_and_stamps(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_image_ struct image image = { -1, -1, 0 };
	struct harness_params params = {};
	uint64_t before_ns;

	make_image("memory", 1, 0, "ready", &image);
	params.image_fd = image.memory;
	params.memory_bytes = image.memory_bytes;
	assert_vm_ok(&vm, harness_create(&vm, &params));
	before_ns = base_clock_monotonic_ns();
	assert_vm_ok(&vm, harness_load(&vm, image.state));
	assert_in_range(vm.reply.arg[3], before_ns, vm.reply.arg[4]);
	assert_in_range(vm.reply.arg[4], before_ns, base_clock_monotonic_ns());
	assert_vm_ok(&vm, harness_call(&vm, VMM_OP_COUNTERS, NULL, 0, NULL, 0, NULL));
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(vm.reply.arg[i], 0);
	}

	/* "go" in its private memory cannot be set from here: in the image, before it looks. */
	mailbox_set(image.memory, 0, 1);
	assert_vm_ok(&vm, harness_resume(&vm));
	assert_vm_ok(&vm, harness_wait_console(&vm, "wrote ", PATIENCE_MS));
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_vm_ok(&vm, harness_call(&vm, VMM_OP_COUNTERS, NULL, 0, NULL, 0, NULL));
	/* One port access for each character. */
	assert_true(vm.reply.arg[1] >= strlen("wrote "));
	assert_true(vm.reply.arg[0] >= vm.reply.arg[1] + vm.reply.arg[2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs),	       cmocka_unit_test(test_pause_while_missing),
		cmocka_unit_test(test_never_answered), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_foreground),     cmocka_unit_test(test_counters_and_stamps),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-lazy", tests, NULL, NULL);
}
