/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Guests for bench-cold.
 *
 * The tiny one is booted and frozen; then its memory is filled from outside, where the guest has
 * nothing, with pages that compress like a heap and begin with a word that the guest can check. A
 * VM of it is restored once with every page recorded as it is touched, by the recorder that
 * templates are built with, and does just what is measured later: that is its working set.
 *
 * Both kinds are sent the same identity, as the manager does it: the message is in the stream when
 * it is attached. Everything a failure leaves is released by cold_guest_close().
 */

#include "bench/cold_guest.h"

#include "base/clock.h"
#include "bench/tiny.h"
#include "guest/identity.h"
#include "uffd/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define TEMPLATE      "touch"
#define GUEST_WAIT_MS 60000
/* The tiny guest itself lies below. */
#define FIRST_PAGE (BENCH_TINY_MEMORY_BYTES / TOUCH_PAGE_BYTES)

/* --- its memory --- */

/* Pointers and small numbers between zeros, as in a real heap. */
static void fill_page(uint64_t *words, uint64_t page, uint64_t *seed)
{
	words[0] = TOUCH_WORD(page);
	for (size_t i = 1; i < TOUCH_PAGE_BYTES / sizeof(words[0]); i++) {
		*seed = *seed * UINT64_C(6364136223846793005) + 1;
		words[i] = i % 3 == 0 ? UINT64_C(0x00007f0000000000) | (*seed >> 48) << 4
				      : *seed >> 60;
	}
}

static int fill_memory(int memory, uint64_t bytes)
{
	uint64_t words[TOUCH_PAGE_BYTES / sizeof(uint64_t)], seed = 1;
	int r = 0;

	for (uint64_t page = FIRST_PAGE; r == 0 && page < bytes / TOUCH_PAGE_BYTES; page++) {
		fill_page(words, page, &seed);
		r = base_fd_pwrite_full(memory, words, sizeof(words),
					(off_t)(page * TOUCH_PAGE_BYTES));
	}
	return r;
}

static uint32_t divisor(uint32_t a, uint32_t b)
{
	return b == 0 ? a : divisor(b, a % b);
}

/* The golden section spreads any number of visits evenly; without a common divisor no page is
 * visited twice. */
static struct touch make_touch(uint64_t memory_bytes, uint32_t n_visits)
{
	struct touch touch = {
		.first_page = FIRST_PAGE,
		.n_pages = (uint32_t)(memory_bytes / TOUCH_PAGE_BYTES - FIRST_PAGE),
		.count = n_visits,
	};

	touch.stride = (uint32_t)((uint64_t)touch.n_pages * 618 / 1000);
	while (divisor(touch.n_pages, touch.stride) != 1) {
		touch.stride++;
	}
	return touch;
}

/* --- identity --- */

/* reply: of LOAD, which says what time it is. */
static int write_identity(int stream, const struct base_message *reply)
{
	struct guest_identity_clock clock = { reply->arg[0], reply->arg[1], reply->arg[2] };
	uint8_t request[GUEST_IDENTITY_REQUEST_MAX];
	struct guest_identity identity;
	int r = guest_identity_generate(&identity);

	if (r < 0) {
		return r;
	}
	return base_fd_write_full(stream, request,
				  guest_identity_encode(&identity, 1, &clock, false, request));
}

static int read_ack(int stream, struct base_error *error)
{
	char ack[GUEST_IDENTITY_ACK_BYTES];
	int r = base_fd_read_full(stream, ack, sizeof(ack));

	if (r < 0) {
		return base_error_set_errno(error, r, "waiting for the acknowledgement");
	}
	if (memcmp(ack, GUEST_IDENTITY_ACK, sizeof(ack)) != 0) {
		return base_error_set(error, -EPROTO, "the guest did not take its identity");
	}
	return 0;
}

/* --- the first exec --- */

static int touch_pages(int stream, const struct touch *touch, struct base_error *error)
{
	struct touch answer;
	int r = base_fd_write_full(stream, touch, sizeof(*touch));

	r = r ?: base_fd_read_full(stream, &answer, sizeof(answer));
	if (r < 0) {
		return base_error_set_errno(error, r, "waiting for the guest");
	}
	if (answer.touched != touch->count || answer.wrong > 0) {
		return base_error_set(error, -EPROTO, "of %u pages the guest saw %u, %u wrong",
				      touch->count, answer.touched, answer.wrong);
	}
	return 0;
}

static int start_exec(struct warmbox_agent *agent, const char *code, uint32_t *ret_id,
		      struct warmbox_error *failure)
{
	static char *const argv[] = { (char *)"/bin/true", NULL };
	int r;

	if (!code) {
		return warmbox_agent_exec(agent, &(struct warmbox_exec_params){ .argv = argv },
					  ret_id, failure);
	}
	r = warmbox_agent_resident(agent, ret_id, failure);
	r = r ?: warmbox_agent_stdin(agent, *ret_id, code, strlen(code), failure);
	return r ?: warmbox_agent_stdin(agent, *ret_id, NULL, 0, failure);
}

/* stream is consumed. */
static int exec_program(int stream, const char *code, struct cold_times *times,
			struct base_error *error)
{
	const struct warmbox_stdio stdio = { .stdin_fd = -1 };
	struct warmbox_agent *agent = NULL;
	struct warmbox_error failure = {};
	struct warmbox_exit ended = {};
	uint32_t id;
	int r;

	r = warmbox_agent_new(stream, &agent, &failure);
	r = r ?: start_exec(agent, code, &id, &failure);
	r = r ?: warmbox_agent_run(agent, id, GUEST_WAIT_MS, &stdio, &ended, &failure);
	times->exec_ns = base_clock_monotonic_ns();
	warmbox_agent_free(agent);
	if (r < 0) {
		return base_error_set(error, r, "first exec: %s", failure.text);
	}
	if (ended.signaled || ended.code != 0) {
		return base_error_set(error, -EPROTO, "first exec: ended with %s %d",
				      ended.signaled ? "signal" : "status",
				      ended.signaled ? ended.signal : ended.code);
	}
	return 0;
}

/* --- a VM --- */

struct harness_params cold_guest_params(const struct cold_guest *guest, int image, bool lazy)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(guest->snapshot);
	struct harness_params params = {
		.memory_bytes = manifest->memory_bytes,
		.n_vcpus = manifest->n_vcpus,
		.image_fd = image,
		.state_fd = snapshot_state_fd(guest->snapshot),
		.fingerprint = guest->fingerprint,
		.lazy = lazy,
		.cid = manifest->guest_cid,
	};

	if (guest->root >= 0) {
		params.disk_fds[params.n_disks++] = guest->root;
		params.read_only_disks = 1;
	}
	return params;
}

static int make_stream(int *ret_ours, int *ret_theirs)
{
	const struct timeval patience = { .tv_sec = GUEST_WAIT_MS / 1000 };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	return 0;
}

/* Until the guest runs; the identity is in its stream. */
static int start_guest(struct harness_vm *vm, int state, int ours, int theirs)
{
	uint64_t port = GUEST_AGENT_PORT, foreground = VMM_RESUME_FOREGROUND;
	int r = harness_load(vm, state);

	if (r == 0 && (r = write_identity(ours, &vm->reply)) < 0) {
		return base_error_set_errno(&vm->error, r, "sending the identity");
	}
	r = r ?: harness_post(vm, VMM_OP_ATTACH, &port, 1, &theirs, 1, NULL);
	r = r ?: harness_post(vm, VMM_OP_RESUME, &foreground, 1, NULL, 0, NULL);
	r = r ?: harness_reply(vm, VMM_OP_ATTACH);
	return r ?: harness_reply(vm, VMM_OP_RESUME);
}

static uint64_t cpu_ns(pid_t pid)
{
	struct timespec time = {};
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) == 0) {
		clock_gettime(clock, &time);
	}
	return (uint64_t)time.tv_sec * NSEC_PER_SEC + (uint64_t)time.tv_nsec;
}

/* The same for a snapshot and for what is not stored yet. touch NULL: it is Linux. */
static int run(struct harness_vm *vm, int state, const struct touch *touch, const char *code,
	       struct cold_times *times, struct base_error *error)
{
	_cleanup_fd_ int ours = -1, theirs = -1;
	int r = make_stream(&ours, &theirs);

	if (r < 0) {
		return base_error_set_errno(error, r, "making a stream");
	}
	r = start_guest(vm, state, ours, theirs);
	if (r < 0) {
		return base_error_set(error, r, "%s", vm->error.text);
	}
	theirs = base_fd_close(theirs);
	r = read_ack(ours, error);
	times->agent_ns = base_clock_monotonic_ns();
	if (r == 0 && touch) {
		r = touch_pages(ours, touch, error);
		times->exec_ns = base_clock_monotonic_ns();
	} else if (r == 0) {
		r = exec_program(TAKE_FD(ours), code, times, error);
	}
	if (r < 0) {
		return r;
	}
	times->cpu_ns = cpu_ns(vm->pid);
	r = harness_wait_entered(vm);
	times->entry_ns = vm->entered_ns;
	return r < 0 ? base_error_set(error, r, "%s", vm->error.text) : 0;
}

int cold_guest_run(const struct cold_guest *guest, struct harness_vm *vm, const char *code,
		   struct cold_times *ret_times, struct base_error *error)
{
	struct cold_times times;
	int r = run(vm, snapshot_state_fd(guest->snapshot),
		    guest->touch.count > 0 ? &guest->touch : NULL, code, &times, error);

	if (r == 0) {
		*ret_times = times;
	}
	return r;
}

/* --- the tiny guest --- */

static int record_run(struct uffd_recorder *recorder, const struct bench_tiny *tiny,
		      const struct touch *touch, struct base_error *error)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_fd_ int image = -1, pidfd = -1;
	struct cold_times times;
	struct harness_params params = {
		.memory_bytes = tiny->memory_bytes,
		.state_fd = tiny->state,
		.lazy = true,
	};
	int r = uffd_recorder_image(recorder, &image, error);

	if (r < 0) {
		return r;
	}
	params.image_fd = image;
	r = harness_create(&vm, &params);
	if (r < 0) {
		return base_error_set(error, r, "%s", vm.error.text);
	}
	pidfd = pidfd_open(vm.pid, 0);
	r = pidfd < 0 ? base_error_set_errno(error, -errno, "pidfd") : 0;
	r = r ?: uffd_recorder_start(recorder, TAKE_FD(vm.userfault), vm.address, pidfd, error);
	r = r ?: run(&vm, tiny->state, touch, NULL, &times, error);
	/* The run ends after the VM. */
	harness_stop(&vm);
	return uffd_recorder_stop(recorder, r < 0 ? NULL : error) ?: r;
}

static int record(struct snapshot_writer *writer, const struct bench_tiny *tiny,
		  const struct touch *touch, struct base_error *error)
{
	_cleanup_(uffd_recorder_freep) struct uffd_recorder *recorder = NULL;
	const uint32_t *pages;
	size_t n;
	int r = uffd_recorder_new(tiny->memory, tiny->memory_bytes, &recorder, error);

	r = r ?: record_run(recorder, tiny, touch, error);
	if (r < 0) {
		return base_error_prefix(error, r, "recording the working set");
	}
	pages = uffd_recorder_pages(recorder, &n);
	return snapshot_writer_working_set(writer, pages, n, error);
}

static int copy_state(int from, int to, struct base_error *error)
{
	_cleanup_free_ char *data = NULL;
	size_t size = 0;
	int r;

	r = base_fd_read_file(from, SNAPSHOT_STATE_MAX_BYTES, &data, &size);
	r = r ?: base_fd_pwrite_full(to, data, size, 0);
	return r < 0 ? base_error_set_errno(error, r, "storing the state") : 0;
}

static int publish(struct cold_guest *guest, const struct bench_tiny *tiny,
		   struct base_error *error)
{
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest = {
		.template_name = TEMPLATE,
		.memory_bytes = tiny->memory_bytes,
		.n_vcpus = 1,
		.guest_cid = 3,
		.host_fingerprint = guest->fingerprint,
	};
	int r;

	r = snapshot_writer_new(guest->store, &writer, error);
	r = r ?: copy_state(tiny->state, snapshot_writer_state_fd(writer), error);
	r = r ?: record(writer, tiny, &guest->touch, error);
	r = r
		    ?: snapshot_writer_memory(writer, tiny->memory, tiny->memory_bytes, 0, NULL,
					      NULL, error);
	return r ?: snapshot_writer_publish(writer, &manifest, error);
}

static int open_store(struct cold_guest *guest, const char *directory, struct base_error *error)
{
	if (asprintf(&guest->directory, "%s/warmbox-bench-XXXXXX", directory) < 0) {
		guest->directory = NULL;
		return base_error_set_errno(error, -ENOMEM, "setting up");
	}
	if (!mkdtemp(guest->directory)) {
		int r = base_error_set_errno(error, -errno, "%s", guest->directory);

		free(TAKE_PTR(guest->directory));
		return r;
	}
	return snapshot_store_open(guest->directory, true, &guest->store, error);
}

static int find_fingerprint(struct cold_guest *guest, struct base_error *error)
{
	_cleanup_fd_ int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int r = vmm_host_fingerprint(kvm_fd, &guest->fingerprint);

	return r < 0 ? base_error_set_errno(error, r, "looking at this host's KVM") : 0;
}

int cold_guest_make(struct cold_guest *guest, const char *directory, uint64_t memory_bytes,
		    uint32_t n_pages, struct base_error *error)
{
	_cleanup_free_ char *path = bench_path("tiny-touch", BENCH_BUILT_TINY "/tiny-touch");
	_cleanup_tiny_ struct bench_tiny tiny = BENCH_TINY_NONE;
	int r = path ? 0 : base_error_set_errno(error, -ENOMEM, "finding the tiny guest");

	r = r ?: find_fingerprint(guest, error);
	r = r ?: open_store(guest, directory, error);
	r = r ?: bench_tiny_make(path, memory_bytes, "ready", &tiny, error);
	if (r == 0 && (r = fill_memory(tiny.memory, memory_bytes)) < 0) {
		return base_error_set_errno(error, r, "filling the guest's memory");
	}
	guest->touch = make_touch(memory_bytes, n_pages);
	r = r ?: publish(guest, &tiny, error);
	return r ?: snapshot_open(guest->store, TEMPLATE, &guest->snapshot, error);
}

/* --- Linux --- */

int cold_guest_open(struct cold_guest *guest, const char *store, const char *template_name,
		    struct base_error *error)
{
	const struct snapshot_manifest *manifest;
	int r;

	bench_use_vmm();
	r = find_fingerprint(guest, error);
	r = r ?: snapshot_store_open(store, false, &guest->store, error);
	r = r ?: snapshot_open(guest->store, template_name, &guest->snapshot, error);
	if (r < 0) {
		return r;
	}
	manifest = snapshot_manifest(guest->snapshot);
	if (manifest->n_disks != 1) {
		return base_error_set(error, -ENOTSUP, "template %s has %u disks instead of one",
				      template_name, manifest->n_disks);
	}
	return snapshot_store_open_image(guest->store, &manifest->disks[0], &guest->root, error);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void cold_guest_close(struct cold_guest *guest)
{
	snapshot_free(TAKE_PTR(guest->snapshot));
	snapshot_store_free(TAKE_PTR(guest->store));
	guest->root = base_fd_close(guest->root);
	if (guest->directory) {
		nftw(guest->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
		free(TAKE_PTR(guest->directory));
	}
}
