/* SPDX-License-Identifier: Apache-2.0 */

/* Saving and restoring tiny guests: registers, timers, clocks, CPUs, clones, generations. */

#include "tests/guest/common.h"

#include "base/clock.h"
#include "guest/agent.h"
#include "vmm/state_format.h"
#include "vmm/state_vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <xxhash.h>

#define PATIENCE_MS 30000
#define CLONES	    50
#define BATCH	    10
/* What is left of an armed timer when it is saved: 0.8 to 2 s on CPUs of 2 to 5 GHz. */
#define TIMER_TICKS_M 4000

static void expect_end(struct harness_vm *vm, int code)
{
	assert_int_equal(harness_wait_exit(vm, PATIENCE_MS), 0);
	if (vm->over_reason != VMM_EXIT_GUEST || vm->over_code != code) {
		fail_msg("reason %d, code %d: %s", vm->over_reason, vm->over_code, vm->over_text);
	}
}

static void restore_as(struct harness_vm *vm, const struct image *image, unsigned n_vcpus,
		       bool savable)
{
	struct harness_params params = {
		.n_vcpus = n_vcpus,
		.savable = savable,
		.image_fd = image->memory,
		.memory_bytes = image->memory_bytes,
	};

	assert_vm_ok(vm, harness_create(vm, &params));
	assert_vm_ok(vm, harness_load(vm, image->state));
}

static void restore(struct harness_vm *vm, const struct image *image, unsigned n_vcpus)
{
	restore_as(vm, image, n_vcpus, false);
}

static uint64_t checksum(int fd, uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	uint64_t sum;

	assert_ptr_not_equal(p, MAP_FAILED);
	sum = XXH64(p, bytes, 0);
	munmap(p, bytes);
	return sum;
}

static void test_registers(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_image_ struct image image = { -1, -1, 0 };

	make_image("registers", 1, 0, "ready", &image);
	mailbox_set(image.memory, 0, 1);
	restore(&vm, &image, 1);
	assert_vm_ok(&vm, harness_resume(&vm));
	expect_end(&vm, 0);
}

/* The VM that was saved goes on, too. */
static void test_original_continues(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int state_fd = -1;

	boot_tiny(&vm, "registers", 1, 0);
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_vm_ok(&vm, harness_save(&vm, &state_fd, NULL));
	close(state_fd);
	mailbox_set(vm.memory, 0, 1);
	assert_vm_ok(&vm, harness_resume(&vm));
	expect_end(&vm, 0);
}

/* Restored 50 times with a timer that has still to fire, in batches at the same time. */
static void test_armed_timer(void **state)
{
	_cleanup_image_ struct image image = { -1, -1, 0 };

	make_image("timer", 1, TIMER_TICKS_M, "armed", &image);
	for (unsigned batch = 0; batch < CLONES / BATCH; batch++) {
		struct harness_vm vms[BATCH];

		for (unsigned i = 0; i < BATCH; i++) {
			restore(&vms[i], &image, 1);
			assert_vm_ok(&vms[i], harness_resume(&vms[i]));
		}
		for (unsigned i = 0; i < BATCH; i++) {
			_cleanup_free_ char *console = NULL;

			expect_end(&vms[i], 0);
			console = harness_console(&vms[i]);
			assert_string_equal(console, "fired\nagain\n");
			harness_stop(&vms[i]);
		}
	}
}

/* A snapshot of a restored VM restores, memory included, with the image untouched. */
static void test_second_generation(void **state)
{
	_cleanup_vm_ struct harness_vm second = HARNESS_VM_NONE, third = HARNESS_VM_NONE;
	_cleanup_image_ struct image image = { -1, -1, 0 }, again = { -1, -1, 0 };
	uint64_t before;

	make_image("clock", 1, 0, "ready", &image);
	before = checksum(image.memory, image.memory_bytes);
	restore_as(&second, &image, 1, true);
	assert_vm_ok(&second, harness_resume(&second));
	poll(NULL, 0, 20);
	assert_vm_ok(&second, harness_pause(&second));
	assert_vm_ok(&second, harness_save(&second, &again.state, &again.memory));
	again.memory_bytes = image.memory_bytes;
	/* It ran: its memory is no longer the image's, and the image is what it was. */
	assert_true(checksum(again.memory, again.memory_bytes) != before);
	assert_true(checksum(image.memory, image.memory_bytes) == before);

	mailbox_set(again.memory, 0, 1);
	restore(&third, &again, 1);
	assert_vm_ok(&third, harness_resume(&third));
	expect_end(&third, 0);
}

/* Saved again before it ever ran: the same guest. */
static void test_save_after_load(void **state)
{
	_cleanup_vm_ struct harness_vm second = HARNESS_VM_NONE, third = HARNESS_VM_NONE;
	_cleanup_image_ struct image image = { -1, -1, 0 }, again = { -1, -1, 0 };

	make_image("registers", 1, 0, "ready", &image);
	restore_as(&second, &image, 1, true);
	assert_vm_ok(&second, harness_save(&second, &again.state, &again.memory));
	again.memory_bytes = image.memory_bytes;
	assert_true(checksum(again.memory, again.memory_bytes) ==
		    checksum(image.memory, image.memory_bytes));
	mailbox_set(again.memory, 0, 1);
	restore(&third, &again, 1);
	assert_vm_ok(&third, harness_resume(&third));
	expect_end(&third, 0);
}

static void find_value(struct harness_vm *vm, char value[17])
{
	_cleanup_free_ char *console = harness_console(vm);
	const char *found = console ? strstr(console, "wrote ") : NULL;

	if (!found) {
		fail_msg("no value on the console");
		return;
	}
	memcpy(value, found + 6, 16);
	value[16] = '\0';
}

/* 50 clones of one image at the same time, each with its own value in the same guest pages. */
static void test_clones_are_apart(void **state)
{
	_cleanup_image_ struct image image = { -1, -1, 0 };
	static struct harness_vm vms[CLONES];
	char values[CLONES][17];
	uint64_t before;

	make_image("memory", 1, 0, "ready", &image);
	mailbox_set(image.memory, 0, 1);
	before = checksum(image.memory, image.memory_bytes);
	for (unsigned i = 0; i < CLONES; i++) {
		restore(&vms[i], &image, 1);
	}
	/* All have written, and are stopped, before any goes on to its end. */
	for (unsigned i = 0; i < CLONES; i++) {
		assert_vm_ok(&vms[i], harness_resume(&vms[i]));
		assert_vm_ok(&vms[i], harness_wait_console(&vms[i], "wrote ", PATIENCE_MS));
		assert_vm_ok(&vms[i], harness_pause(&vms[i]));
	}
	for (unsigned i = 0; i < CLONES; i++) {
		assert_vm_ok(&vms[i], harness_resume(&vms[i]));
	}
	for (unsigned i = 0; i < CLONES; i++) {
		expect_end(&vms[i], 0);
		find_value(&vms[i], values[i]);
		for (unsigned j = 0; j < i; j++) {
			assert_string_not_equal(values[i], values[j]);
		}
	}
	for (unsigned i = 0; i < CLONES; i++) {
		harness_stop(&vms[i]);
	}
	assert_true(checksum(image.memory, image.memory_bytes) == before);
}

static void test_two_cpus(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_image_ struct image image = { -1, -1, 0 };

	make_image("smp", 2, 0, "ready", &image);
	mailbox_set(image.memory, 0, 1);
	restore(&vm, &image, 2);
	assert_vm_ok(&vm, harness_resume(&vm));
	expect_end(&vm, 0);
}

/* Copies a state, with the TSC and the deadline of its (only) vCPU moved by `ticks`. */
static int shift_tsc(int state_fd, int64_t ticks)
{
	static struct vmm_vcpu_state vcpu;
	_cleanup_writer_ struct base_writer writer = {};
	_cleanup_free_ char *data = NULL;
	struct vmm_state_header header;
	struct base_reader reader, payload;
	size_t size, section, tail;
	int shifted;

	assert_int_equal(lseek(state_fd, 0, SEEK_SET), 0);
	assert_int_equal(base_fd_read_file(state_fd, MIB(4), &data, &size), 0);
	reader = base_reader_init(data, size);
	assert_int_equal(vmm_state_read_header(&reader, &header, NULL), 0);
	assert_int_equal(vmm_section_read(&reader, VMM_SECTION_VCPU, 0, &payload, NULL), 0);
	assert_int_equal(vmm_vcpu_state_read(&vcpu, &payload, NULL), 0);
	vcpu.tsc += (uint64_t)ticks;
	if (vcpu.tsc_deadline) {
		vcpu.tsc_deadline += (uint64_t)ticks;
	}
	vmm_state_begin(&writer);
	section = vmm_section_begin(&writer, VMM_SECTION_VCPU, 0);
	vmm_vcpu_state_write(&vcpu, &writer);
	vmm_section_end(&writer, section);
	/* The same length: the other sections keep their places and their checksums. */
	tail = reader.position;
	assert_int_equal(writer.size, tail);
	base_writer_bytes(&writer, data + tail, size - tail);
	assert_int_equal(vmm_state_finish(&writer, &header), 0);
	shifted = memfd_create("shifted", MFD_CLOEXEC);
	assert_int_equal(base_fd_pwrite_full(shifted, writer.data, writer.size, 0), 0);
	return shifted;
}

static uint64_t number_after(struct harness_vm *vm, const char *word)
{
	_cleanup_free_ char *console = harness_console(vm);
	const char *found = console ? strstr(console, word) : NULL;

	if (!found) {
		fail_msg("no \"%s\" on the console", word);
		return 0;
	}
	return strtoull(found + strlen(word), NULL, 16);
}

/*
 * The guest's clock across a snapshot whose TSC is an hour behind the host's (a snapshot that is an
 * hour old), the same, and an hour ahead (the host was restarted since): it never goes back, it
 * does not leap, an armed timer fires after what was left of it, and the pair that the load answers
 * is the present.
 */
static void test_clock_and_timer_of_an_old_snapshot(void **state)
{
	_cleanup_image_ struct image image = { -1, -1, 0 }, timer = { -1, -1, 0 };
	uint64_t ready_ns;

	{
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

		boot_tiny(&vm, "clock", 1, 0);
		assert_vm_ok(&vm, harness_wait_console(&vm, "\n", PATIENCE_MS));
		assert_vm_ok(&vm, harness_pause(&vm));
		assert_vm_ok(&vm, harness_save(&vm, &image.state, NULL));
		ready_ns = number_after(&vm, "ready ");
		image.memory = vm.memory;
		image.memory_bytes = vm.memory_bytes;
		vm.memory_is_borrowed = true;
	}
	mailbox_set(image.memory, 0, 1);
	make_image("timer", 1, TIMER_TICKS_M, "armed", &timer);
	/* Let real time pass, too: it must not show in the guest. */
	poll(NULL, 0, 300);

	for (int hours = -1; hours <= 1; hours++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE, sleeper = HARNESS_VM_NONE;
		_cleanup_image_ struct image old = { -1, -1, 0 }, old_timer = { -1, -1, 0 };
		int64_t ticks = (int64_t)hours * 3600 * 2600000000;
		uint64_t before_ns = base_clock_realtime_ns();
		uint64_t start_ns, now_ns;

		old.state = shift_tsc(image.state, ticks);
		old.memory = dup(image.memory);
		old.memory_bytes = image.memory_bytes;
		restore(&vm, &old, 1);
		assert_in_range(vm.reply.arg[0], before_ns, base_clock_realtime_ns());
		assert_true(vm.reply.arg[2] > 100000);
		assert_vm_ok(&vm, harness_resume(&vm));
		expect_end(&vm, 0);
		now_ns = number_after(&vm, "now ");
		assert_true(now_ns >= ready_ns);
		assert_true(now_ns < ready_ns + 60 * NSEC_PER_SEC);

		old_timer.state = shift_tsc(timer.state, ticks);
		old_timer.memory = dup(timer.memory);
		old_timer.memory_bytes = timer.memory_bytes;
		restore(&sleeper, &old_timer, 1);
		start_ns = base_clock_monotonic_ns();
		assert_vm_ok(&sleeper, harness_resume(&sleeper));
		expect_end(&sleeper, 0);
		assert_true(base_clock_monotonic_ns() - start_ns > 100 * NSEC_PER_MSEC);
		assert_true(base_clock_monotonic_ns() - start_ns < 10 * NSEC_PER_SEC);
	}
}

/* The stand-in for an agent: it acknowledges an identity that was there before it ran, then echoes.
 */
static void test_identity(void **state)
{
	_cleanup_image_ struct image image = { -1, -1, 0 };

	make_image("identity", 1, 0, "ready", &image);
	for (unsigned generation = 0; generation < 3; generation++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		_cleanup_fd_ int ours = -1, theirs = -1;
		uint64_t port = GUEST_AGENT_PORT;
		char buffer[GUEST_IDENTITY_ACK_BYTES];
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		ours = pair[0];
		theirs = pair[1];
		restore(&vm, &image, 1);
		assert_int_equal(base_fd_write_full(ours, "an identity", 11), 0);
		assert_vm_ok(&vm, harness_call(&vm, VMM_OP_ATTACH, &port, 1, &theirs, 1, NULL));
		assert_vm_ok(&vm, harness_resume(&vm));
		assert_int_equal(base_fd_read_full(ours, buffer, sizeof(buffer)), 0);
		assert_memory_equal(buffer, GUEST_IDENTITY_ACK, sizeof(buffer));
		for (unsigned i = 0; i < 20; i++) {
			assert_int_equal(base_fd_write_full(ours, "echo", 4), 0);
			assert_int_equal(base_fd_read_full(ours, buffer, 4), 0);
			assert_memory_equal(buffer, "echo", 4);
		}
	}
}

/* With the state there when the VM is made, KVM is not asked for what the state says; another
 * host's state is refused, by what we are told this host is. */
static void test_state_at_creation(void **state)
{
	_cleanup_vm_ struct harness_vm other = HARNESS_VM_NONE;
	_cleanup_image_ struct image image = { -1, -1, 0 };
	_cleanup_fd_ int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct harness_params params = {};

	make_image("smp", 2, 0, "ready", &image);
	mailbox_set(image.memory, 0, 1);
	params.n_vcpus = 2;
	params.image_fd = image.memory;
	params.memory_bytes = image.memory_bytes;
	params.state_fd = image.state;
	assert_int_equal(vmm_host_fingerprint(kvm_fd, &params.fingerprint), 0);
	for (unsigned sealed = 0; sealed < 2; sealed++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

		/* One that cannot change is not read a second time. */
		if (sealed) {
			assert_int_equal(fcntl(image.state, F_ADD_SEALS, F_SEAL_WRITE), 0);
		}
		assert_vm_ok(&vm, harness_create(&vm, &params));
		assert_vm_ok(&vm, harness_load(&vm, image.state));
		assert_vm_ok(&vm, harness_pause(&vm));
		assert_vm_ok(&vm, harness_resume(&vm));
		expect_end(&vm, 0);
	}

	params.fingerprint ^= 1;
	assert_int_equal(harness_create(&other, &params), -EXDEV);
}

/* A state fits the VM that it was saved from, and no other. */
static void test_other_configuration(void **state)
{
	_cleanup_image_ struct image image = { -1, -1, 0 };
	const struct harness_params others[] = {
		{ .memory_bytes = MIB(8) },
		{ .n_vcpus = 2 },
		{ .cid = 77 },
	};

	make_image("timer", 1, TIMER_TICKS_M, "armed", &image);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

		assert_vm_ok(&vm, harness_create(&vm, &others[i]));
		assert_int_equal(harness_load(&vm, image.state), -EINVAL);
		assert_non_null(strstr(vm.error.text, "the state is of a VM with"));
		/* And it stays refused. */
		assert_int_equal(harness_resume(&vm), -EBUSY);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_original_continues),
		cmocka_unit_test(test_armed_timer),
		cmocka_unit_test(test_second_generation),
		cmocka_unit_test(test_save_after_load),
		cmocka_unit_test(test_clones_are_apart),
		cmocka_unit_test(test_two_cpus),
		cmocka_unit_test(test_clock_and_timer_of_an_old_snapshot),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_state_at_creation),
		cmocka_unit_test(test_other_configuration),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-snapshot", tests, NULL, NULL);
}
