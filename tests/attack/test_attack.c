/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every attack of attacks.h, each in a VMM of its own that the spawner has jailed: with its
 * filters, on a vCPU's thread and on the main thread, and without them, so that each wall stands
 * alone. Afterwards the image is what it was, and the test, which is the process that was attacked,
 * lives.
 */

#include "tests/attack/attacks.h"
#include "tests/guest/common.h"

#include "base/fd.h"
#include "pool/spawner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <xxhash.h>

#define PATIENCE_MS 30000
#define POLL_MS	    2
#define ATTACK_UID  200042
#define DISK_BYTES  4096

struct expectation {
	const char *name;
	int filter, jail, jail_or;
};

#define ATTACK_EXPECTATION(name, filter, jail, or) { #name, filter, jail, or },
static const struct expectation expectations[] = { ATTACKS(ATTACK_EXPECTATION) };

static struct image image = { -1, -1, 0 };
static int disk = -1;

/* --- a spawner --- */

struct spawner {
	pid_t pid;
	int socket;
};

static void start_spawner(struct spawner *spawner, const char *vmm)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	spawner->pid = fork();
	assert_true(spawner->pid >= 0);
	if (spawner->pid == 0) {
		if (dup2(pair[1], SPAWNER_CONTROL_FD) < 0) {
			_exit(EXIT_FAILURE);
		}
		execl(SPAWNER, "warmbox-spawner", vmm, "empty", NULL);
		_exit(EXIT_FAILURE);
	}
	close(pair[1]);
	spawner->socket = pair[0];
}

static void stop_spawner(struct spawner *spawner)
{
	close(spawner->socket);
	assert_int_equal(waitpid(spawner->pid, NULL, 0), spawner->pid);
}

/* The VMM is the test's child, as it is the manager's. */
static void start_jailed(struct spawner *spawner, struct harness_vm *vm)
{
	struct base_message request = {
		.op = SPAWNER_OP_START,
		.sequence = 1,
		.arg = { 0, ATTACK_UID, ATTACK_UID,
			 SPAWNER_JAIL_NAMESPACES | SPAWNER_JAIL_NETWORK | SPAWNER_JAIL_IDENTITY },
	};
	struct base_message reply;
	struct base_error error = {};
	int fds[] = { vm->theirs, STDERR_FILENO }, pidfd = -1;

	if (base_message_call(spawner->socket, "spawner", &request, fds, ARRAY_SIZE(fds),
			      PATIENCE_MS, NULL, NULL, &reply, &pidfd, &error) < 0) {
		fail_msg("%s", error.text);
	}
	base_fd_close(pidfd);
	vm->pid = (pid_t)reply.arg[0];
	vm->theirs = base_fd_close(vm->theirs);
}

/* --- one attack --- */

static struct harness_params params_of(bool restored)
{
	return (struct harness_params){
		.image_fd = restored ? image.memory : 0,
		.memory_bytes = restored ? image.memory_bytes : 0,
		.disk_fds = { disk },
		.n_disks = 1,
		.read_only_disks = 1,
	};
}

static void attack(struct spawner *spawner, struct harness_vm *vm, uint32_t number)
{
	struct harness_params params = params_of(true);

	mailbox_set(image.memory, 1, number);
	mailbox_set(image.memory, 2, (uint32_t)getpid());
	mailbox_set(image.memory, 0, 1);
	assert_vm_ok(vm, harness_prepare(vm, &params));
	start_jailed(spawner, vm);
	assert_vm_ok(vm, harness_created(vm));
	assert_vm_ok(vm, harness_load(vm, image.state));
	/* What it attacks with may kill it before it has answered. */
	(void)harness_resume(vm);
}

/* The errno, or KILLED. */
static int outcome(struct harness_vm *vm)
{
	for (int waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
		_cleanup_free_ char *console = harness_console(vm);
		const char *line = console ? strstr(console, "attack: ") : NULL;
		int status;

		if (line && strchr(line, '\n')) {
			return atoi(line + strlen("attack: "));
		}
		if (waitpid(vm->pid, &status, WNOHANG) == vm->pid) {
			vm->pid = 0;
			if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
				fail_msg("the VMM ended with status %#x", (unsigned)status);
			}
			return KILLED;
		}
		poll(NULL, 0, POLL_MS);
	}
	fail_msg("nothing came of it");
	return 0;
}

static uint64_t checksum(void)
{
	void *p = mmap(NULL, image.memory_bytes, PROT_READ, MAP_SHARED, image.memory, 0);
	uint64_t sum;

	assert_ptr_not_equal(p, MAP_FAILED);
	sum = XXH64(p, image.memory_bytes, 0);
	munmap(p, image.memory_bytes);
	return sum;
}

static int try_attack(const char *vmm, uint32_t number)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct spawner spawner;
	uint64_t before;
	int result;

	start_spawner(&spawner, vmm);
	attack(&spawner, &vm, number);
	before = checksum();
	result = outcome(&vm);
	assert_true(checksum() == before);
	harness_stop(&vm);
	stop_spawner(&spawner);
	return result;
}

static void test_attack(void **state)
{
	const struct expectation *expected = *state;
	uint32_t number = (uint32_t)(expected - expectations);
	int by_vcpu = try_attack(ATTACKED, number);
	int by_main = try_attack(ATTACKED, number | ATTACK_ON_MAIN);
	int unfiltered = try_attack(ATTACKED_UNFILTERED, number | ATTACK_ON_MAIN);

	if (by_vcpu != KILLED) {
		fail_msg("filtered, a vCPU's thread: %s", strerror(by_vcpu));
	}
	if (by_main != expected->filter) {
		fail_msg("filtered, the main thread: %s",
			 by_main == KILLED ? "killed" : strerror(by_main));
	}
	if (unfiltered != expected->jail && unfiltered != expected->jail_or) {
		fail_msg("in the jail alone: %s",
			 unfiltered == KILLED ? "killed" : strerror(unfiltered));
	}
}

/* --- what they share --- */

static int set_up(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	struct harness_params params;

	disk = memfd_create("disk", MFD_CLOEXEC);
	assert_int_equal(ftruncate(disk, DISK_BYTES), 0);
	params = params_of(false);
	assert_vm_ok(&vm, harness_create(&vm, &params));
	assert_vm_ok(&vm, harness_boot(&vm, tiny_path("clock"), NULL, ""));
	assert_vm_ok(&vm, harness_resume(&vm));
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_vm_ok(&vm, harness_save(&vm, &image.state, NULL));
	image.memory = vm.memory;
	image.memory_bytes = vm.memory_bytes;
	vm.memory_is_borrowed = true;
	return 0;
}

static int tear_down(void **state)
{
	image_release(&image);
	base_fd_close(disk);
	return 0;
}

int main(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = ATTACK_ABSTRACT };
	struct CMUnitTest tests[ARRAY_SIZE(expectations)];
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (skip_all()) {
		return EXIT_SUCCESS;
	}
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, 1) < 0) {
		perror("listening");
		return EXIT_FAILURE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(expectations); i++) {
		tests[i] = (struct CMUnitTest){
			.name = expectations[i].name,
			.test_func = test_attack,
			.initial_state = (void *)&expectations[i],
		};
	}
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
