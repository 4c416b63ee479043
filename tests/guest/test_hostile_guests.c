/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Guests that do what no driver may, one tiny program for each kind (tests/guest/tiny/hostile/).
 *
 * A guest itself asserts what it sees, most often that its device works again after a reset, and
 * ends with 0; this side plays the host's part and knows how the guest has to end. Whatever the
 * guest did, its VMM ends in good order or by itself, the disk has changed only where it was asked
 * for, and in the end there are as many processes, descriptors and bytes as before.
 */

#include "tests/guest/common.h"

#include "base/bytes.h"
#include "bench/cgroup.h"
#include "bench/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* As in tests/guest/tiny/hostile/driver.h. */
#define AGENT_PORT   1024u
#define DISK_SECTORS 2048u
/* What guests may write to. */
#define DISK_FIRST_VICTIM 1000u

#define PATIENCE_MS 60000
/* How long a guest that may end or stand still is given to end. */
#define DOUBT_MS 500
#define GOING_MS 100
/* What page tables, slabs and the like may keep after a hundred VMs. */
#define SLACK_BYTES MIB(8)

struct play {
	struct harness_vm vm;
	int stream; /* that is attached; -1 */
	int disk;
};

enum outcome {
	WORKS,	/* ends with 0 */
	SEVEN,	/* ends with 7 */
	CRASH,	/* resets itself, or KVM gives up on it */
	GIVEUP, /* KVM gives up on it */
	STANDS, /* goes on without end, and can be paused */
	EITHER, /* one of these, by the CPU */
};

struct hostile {
	const char *name;
	enum outcome outcome;
	const char *words; /* in the VM's last words */
	unsigned n_vcpus;  /* 0: 1 */
	uint64_t memory_bytes;
	bool read_only, uncached; /* the disk */
	bool attach;
	void (*host)(struct play *play); /* the host's part, when the guest has started */
};

/* --- the host's part --- */

static void go(struct play *play)
{
	mailbox_set(play->vm.memory, 0, 1);
}

/* The stream gives exactly this, and then, if so, its end. */
static void hear(const struct play *play, const char *text, size_t size, bool end)
{
	char got[1024];
	size_t n = 0;

	while (n < size || end) {
		struct pollfd item = { .fd = play->stream, .events = POLLIN };
		ssize_t r;

		assert_int_equal(poll(&item, 1, PATIENCE_MS), 1);
		r = recv(play->stream, got + n, sizeof(got) - n, 0);
		assert_true(r >= 0);
		if (r == 0) {
			break;
		}
		n += (size_t)r;
		assert_true(n <= size);
	}
	assert_int_equal(n, size);
	assert_memory_equal(got, text, size);
}

static void hear_done(struct play *play)
{
	hear(play, "done", 4, false);
	go(play);
}

static void hear_end(struct play *play)
{
	hear(play, "", 0, true);
	go(play);
}

static void hear_garbage(struct play *play)
{
	char text[400];

	for (size_t i = 0; i < sizeof(text); i++) {
		text[i] = (char)('a' + i % 26);
	}
	hear(play, text, sizeof(text), false);
	go(play);
}

/* Reads nothing until the VMM has closed it. */
static void read_nothing(struct play *play)
{
	struct pollfd item = { .fd = play->stream };

	assert_int_equal(poll(&item, 1, PATIENCE_MS), 1);
	assert_true(item.revents & POLLHUP);
	go(play);
}

static void send_much(struct play *play)
{
	static const char bytes[8000];

	assert_int_equal(send(play->stream, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
	go(play);
}

static void let_go(struct play *play)
{
	go(play);
}

/* Nobody answers: the VMM must not wait for it. */
static void count_connects(struct play *play, unsigned expected)
{
	assert_vm_ok(&play->vm, harness_wait_console(&play->vm, "asked", PATIENCE_MS));
	assert_vm_ok(&play->vm, harness_call(&play->vm, VMM_OP_COUNTERS, NULL, 0, NULL, 0, NULL));
	assert_int_equal(play->vm.connects, expected);
	go(play);
}

static void ignore_flood(struct play *play)
{
	count_connects(play, VMM_CONNECTS_MAX);
}

static void ignore_reuse(struct play *play)
{
	hear(play, "", 0, true);
	count_connects(play, 10);
}

/* A stream that nobody takes holds up nothing. */
static void pause_silent(struct play *play)
{
	assert_int_equal(send(play->stream, "identity", 8, MSG_NOSIGNAL), 8);
	assert_vm_ok(&play->vm, harness_wait_console(&play->vm, "asked", PATIENCE_MS));
	assert_vm_ok(&play->vm, harness_pause(&play->vm));
	assert_vm_ok(&play->vm, harness_resume(&play->vm));
	go(play);
}

/* --- the guests --- */

/* clang-format off */
static struct hostile guests[] = {
	/* registers */
	{ "status_order" },
	{ "features" },
	{ "queue_after_ready" },
	{ "queue_late" },
	{ "queue_size" },
	{ "queue_address" },
	{ "notify_storm" },
	{ "config_access" },
	{ "register_widths" },
	/* rings and descriptors */
	{ "avail_jump" },
	{ "avail_head" },
	{ "chain_cycle" },
	{ "chain_order" },
	{ "chain_bytes", .memory_bytes = GIB(1) },
	{ "chain_overlap" },
	{ "ring_overlap" },
	{ "desc_indirect" },
	{ "desc_length" },
	{ "desc_hole" },
	/* resets */
	{ "reset_storm" },
	{ "reset_forgets" },
	{ "block_reset_in_flight", .uncached = true },
	/* two CPUs */
	{ "race_descriptors", .n_vcpus = 2 },
	{ "race_avail", .n_vcpus = 2 },
	{ "race_block", .n_vcpus = 2 },
	{ "race_vsock", .n_vcpus = 2, .attach = true, .host = let_go },
	{ "race_registers", .n_vcpus = 2 },
	{ "race_reset", .n_vcpus = 2, .uncached = true },
	/* the disk */
	{ "block_range" },
	{ "block_header" },
	{ "block_types" },
	{ "block_readonly", .read_only = true },
	{ "block_discard" },
	{ "block_flood" },
	{ "block_overlap" },
	/* entropy */
	{ "rng_huge" },
	/* balloon */
	{ "balloon_hole" },
	{ "balloon_rings" },
	{ "balloon_kernel", EITHER },
	{ "balloon_odd" },
	{ "balloon_report" },
	{ "balloon_in_flight" },
	/* vsock */
	{ "vsock_length", .attach = true, .host = hear_done },
	{ "vsock_cids" },
	{ "vsock_ops", .attach = true, .host = hear_end },
	{ "vsock_state", .attach = true, .host = hear_end },
	{ "vsock_credit", .attach = true, .host = send_much },
	{ "vsock_beyond_credit", .attach = true, .host = read_nothing },
	{ "vsock_connect_flood", .host = ignore_flood },
	{ "vsock_rst_storm" },
	{ "vsock_shutdown", .attach = true, .host = hear_end },
	{ "vsock_port_reuse", .attach = true, .host = ignore_reuse },
	{ "vsock_rx_small" },
	{ "vsock_silent", .attach = true, .host = pause_silent },
	{ "vsock_refuses", .attach = true, .host = hear_end },
	{ "vsock_garbage", .attach = true, .host = hear_garbage },
	/* interrupts */
	{ "ioapic_registers" },
	{ "ioapic_widths" },
	{ "ioapic_vectors" },
	{ "ioapic_delivery" },
	{ "ioapic_level" },
	{ "ioapic_init", CRASH },
	{ "ioapic_smi", EITHER },
	{ "interrupt_ack" },
	{ "interrupt_storm" },
	{ "lapic_init", CRASH, .n_vcpus = 2 },
	{ "nmi_storm" },
	/* ports, addresses, the CPU */
	{ "serial_flood" },
	{ "serial_registers" },
	{ "ports_unknown" },
	{ "mmio_unknown" },
	{ "exit_string", SEVEN },
	{ "reset_widths", CRASH, "0xcf9" },
	{ "msr_games" },
	{ "cpuid_games" },
	{ "triple_in_flight", CRASH, "triple fault" },
	{ "execute_hole", CRASH },
	{ "stack_hole", CRASH },
	{ "idt_hole", CRASH },
	{ "page_tables_hole", CRASH },
	{ "hypercalls", EITHER },
	{ "xsave_hole", GIVEUP, "cannot emulate" },
	{ "dirty_everything" },
	{ "cpu_halted", STANDS, .n_vcpus = 2 },
	{ "cpu_spinning", STANDS, .n_vcpus = 2 },
};
/* clang-format on */

/* Where it is uncached, on the file system of the build, requests take a while. */
static int make_disk(const struct hostile *hostile)
{
	char path[64];
	int fd = -1, direct;

	if (hostile->uncached) {
		fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, 512 * DISK_SECTORS), 0);
	} else {
		assert_int_equal(base_fd_memfd("disk", 512 * DISK_SECTORS, &fd), 0);
	}
	for (uint32_t sector = 0; sector < DISK_SECTORS; sector++) {
		assert_int_equal(
			base_fd_pwrite_full(fd, &sector, sizeof(sector), 512 * (off_t)sector), 0);
	}
	if (hostile->uncached) {
		assert_int_equal(fsync(fd), 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
		if (direct >= 0) {
			close(fd);
			return direct;
		}
		print_message("# %s: no O_DIRECT here\n", hostile->name);
	}
	return fd;
}

static void check_disk(const struct play *play, const struct hostile *hostile)
{
	uint32_t last = hostile->read_only ? DISK_SECTORS : DISK_FIRST_VICTIM;

	assert_int_equal(lseek(play->disk, 0, SEEK_END), 512 * DISK_SECTORS);
	/* Not past the cache, which wants more of its buffers. */
	assert_int_equal(fcntl(play->disk, F_SETFL, 0), 0);
	for (uint32_t sector = 0; sector < last; sector++) {
		uint32_t word;

		assert_int_equal(
			base_fd_pread_full(play->disk, &word, sizeof(word), 512 * (off_t)sector),
			0);
		assert_int_equal(word, sector);
	}
}

static void start(struct play *play, const struct hostile *hostile)
{
	struct harness_vm *vm = &play->vm;
	struct harness_params params = {
		.n_vcpus = hostile->n_vcpus,
		.memory_bytes = hostile->memory_bytes,
		.n_disks = 1,
		.disk_fds = { play->disk },
		.read_only_disks = hostile->read_only,
	};
	uint64_t port = AGENT_PORT;
	char name[64];
	int pair[2];

	snprintf(name, sizeof(name), "hostile-%s", hostile->name);
	assert_vm_ok(vm, harness_create(vm, &params));
	assert_vm_ok(vm, harness_boot(vm, tiny_path(name), NULL, ""));
	if (hostile->attach) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		assert_vm_ok(vm, harness_call(vm, VMM_OP_ATTACH, &port, 1, &pair[1], 1, NULL));
		close(pair[1]);
		play->stream = pair[0];
	}
	assert_vm_ok(vm, harness_resume(vm));
}

static bool ended_as(const struct harness_vm *vm, enum outcome outcome)
{
	bool crashed = (vm->over_reason == VMM_EXIT_RESET || vm->over_reason == VMM_EXIT_FAILURE) &&
		       vm->over_text[0] != '\0';

	switch (outcome) {
	case WORKS:
		return vm->over_reason == VMM_EXIT_GUEST && vm->over_code == 0;
	case SEVEN:
		return vm->over_reason == VMM_EXIT_GUEST && vm->over_code == 7;
	case CRASH:
		return crashed;
	case GIVEUP:
		return vm->over_reason == VMM_EXIT_FAILURE && vm->over_text[0] != '\0';
	default:
		return crashed || (vm->over_reason == VMM_EXIT_GUEST && vm->over_code == 0);
	}
}

/* A guest that will not end: the VMM is there all the same. */
static void expect_standing(struct harness_vm *vm)
{
	assert_vm_ok(vm, harness_pause(vm));
	assert_vm_ok(vm, harness_call(vm, VMM_OP_COUNTERS, NULL, 0, NULL, 0, NULL));
	assert_vm_ok(vm, harness_resume(vm));
	assert_false(vm->is_over);
}

static void expect_outcome(struct harness_vm *vm, const struct hostile *hostile)
{
	_cleanup_free_ char *console = NULL;
	int r;

	if (hostile->outcome == STANDS) {
		assert_vm_ok(vm, harness_wait_console(vm, "going", PATIENCE_MS));
		assert_int_equal(harness_wait_exit(vm, GOING_MS), -ETIMEDOUT);
		expect_standing(vm);
		return;
	}
	r = harness_wait_exit(vm, hostile->outcome == EITHER ? DOUBT_MS : PATIENCE_MS);
	if (r == -ETIMEDOUT && hostile->outcome == EITHER) {
		expect_standing(vm);
		return;
	}
	if (r < 0 || !ended_as(vm, hostile->outcome) ||
	    (hostile->words && !strstr(vm->over_text, hostile->words))) {
		console = harness_console(vm);
		fail_msg("%s: %d, reason %d, code %d: %s\n%s", hostile->name, r, vm->over_reason,
			 vm->over_code, vm->over_text, console ? console : "");
	}
}

static void test_guest(void **state)
{
	const struct hostile *hostile = *state;
	struct play play = { .vm = HARNESS_VM_NONE, .stream = -1 };
	int status;

	play.disk = make_disk(hostile);
	start(&play, hostile);
	if (hostile->host) {
		hostile->host(&play);
	}
	expect_outcome(&play.vm, hostile);
	/* An abort, or a sanitizer's report, is a signal or another status. */
	status = harness_stop(&play.vm);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	check_disk(&play, hostile);
	close(play.disk);
	base_fd_close(play.stream);
}

/* --- before and after --- */

static struct {
	struct bench_cgroup cgroup;
	uint64_t bytes;
	unsigned fds;
} before;

static unsigned count_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(directory);
	while (readdir(directory)) {
		n++;
	}
	closedir(directory);
	return n;
}

/* The first VM brings along what stays: libraries' buffers, the host's caches. */
static int note_before(void **state)
{
	void *first = &guests[0];

	test_guest(&first);
	if (bench_cgroup_enter(&before.cgroup, getpid()) < 0) {
		print_message("# no memory cgroup can be made here: memory is not compared\n");
	}
	test_guest(&first);
	before.bytes = bench_cgroup_bytes(&before.cgroup);
	before.fds = count_fds();
	return 0;
}

static int compare_after(void **state)
{
	uint64_t bytes = 0;
	bool returned = false;

	/* Memory of VMs that have just ended is given back by grace periods of the kernel. */
	for (int tries = 0; tries < 50 && !returned; tries++) {
		bytes = bench_cgroup_bytes(&before.cgroup);
		returned = bytes <= before.bytes + SLACK_BYTES;
		poll(NULL, 0, returned ? 0 : 100);
	}
	print_message("# memory: %llu KiB before, %llu KiB after\n",
		      (unsigned long long)before.bytes >> 10, (unsigned long long)bytes >> 10);
	bench_cgroup_leave(&before.cgroup, getpid());
	if (!returned || count_fds() != before.fds || waitpid(-1, NULL, WNOHANG) != -1 ||
	    errno != ECHILD) {
		print_error("memory, descriptors (%u before, %u after) or processes stay behind\n",
			    before.fds, count_fds());
		return -1;
	}
	return 0;
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(guests)] = {};

	if (skip_all()) {
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(guests); i++) {
		tests[i] = (struct CMUnitTest){
			.name = guests[i].name,
			.test_func = test_guest,
			.initial_state = &guests[i],
		};
	}
	return cmocka_run_group_tests_name("guest-hostile-guests", tests, note_before,
					   compare_after);
}
