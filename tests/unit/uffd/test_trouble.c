/* SPDX-License-Identifier: Apache-2.0 */

/* The pager when things go wrong: rotten files, dying processes, its own death, nonsense. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "tests/unit/uffd/scene.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define NO_BACKGROUND 1

/* Waits for FAILED and says with what. */
static int await_failed(struct scene *scene, uint64_t image, const char *text)
{
	struct base_error error = { 0 };
	int r = uffd_client_wait(scene->client, image, PAGER_EVENT_COMPLETE, NULL, &error);

	if (r >= 0 || !strstr(error.text, text)) {
		fail_msg("%d, \"%s\" instead of \"%s\"", r, error.text, text);
	}
	return r;
}

static int open_memory_file(struct scene *scene)
{
	const char *id = snapshot_manifest(scene->snapshot)->id;
	int fd = open(fixture_path(scene->fixture, id, "memory"), O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void fill_whole(struct scene *scene, uint64_t image)
{
	int memfd = scene_image(scene, image, 0);

	scene_await_complete(scene, image, NULL);
	assert_int_equal(fixture_compare(scene->source_fd, memfd, scene->bytes), 0);
	close(memfd);
}

/* --- files --- */

static void flip_byte(int fd, uint64_t offset)
{
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

static const struct snapshot_chunk *last_stored(struct scene *scene)
{
	const struct snapshot_memory *memory = snapshot_memory(scene->snapshot);
	uint64_t n = snapshot_memory_chunk_count(memory);

	do {
		n--;
	} while (snapshot_memory_chunk(memory, n)->encoding == SNAPSHOT_CHUNK_ZERO);
	return snapshot_memory_chunk(memory, n);
}

static void test_rotten_chunk(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(4));

	int file = open_memory_file(scene), memfd;

	flip_byte(file, last_stored(scene)->offset + 1);
	memfd = scene_image(scene, 1, 0);
	assert_int_equal(await_failed(scene, 1, "chunk"), -EBADMSG);
	close(file);
	/* Others go on, and the failed one can be given up. */
	scene_publish_mixed(scene, MIB(4));
	fill_whole(scene, 2);
	assert_int_equal(
		scene_call(scene, PAGER_OP_IMAGE_GONE, (uint64_t[]){ 1 }, 1, "", NULL, 0, NULL), 0);
	close(memfd);
}

static void test_rotten_working_set(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(4));

	const struct snapshot_memory *memory = snapshot_memory(scene->snapshot);
	int file = open_memory_file(scene), memfd;

	assert_true(snapshot_memory_ws_pages(memory) > 0);
	flip_byte(file, snapshot_memory_ws_offset(memory));
	memfd = scene_image(scene, 1, 0);
	assert_int_equal(await_failed(scene, 1, "working set"), -EBADMSG);
	close(memfd);
	close(file);
}

static void test_rotten_table(void **state)
{
	struct scene *scene = *state;
	const struct snapshot_manifest *manifest;

	scene_publish_mixed(scene, MIB(4));
	manifest = snapshot_manifest(scene->snapshot);

	int file = open_memory_file(scene), memfd = scene_memfd(scene);
	const int fds[] = { memfd, file };
	const uint64_t args[] = { 1, scene->bytes, 0 };

	flip_byte(file, 100);
	assert_int_equal(scene_call(scene, PAGER_OP_IMAGE, args, 3, manifest->chunk_table_digest,
				    fds, 2, NULL),
			 -EBADMSG);
	/* The id is free again. */
	flip_byte(file, 100);
	assert_int_equal(scene_call(scene, PAGER_OP_IMAGE, args, 3, manifest->chunk_table_digest,
				    fds, 2, NULL),
			 0);
	scene_await_complete(scene, 1, NULL);
	close(memfd);
	close(file);
}

static void test_file_cut_while_filling(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(24));

	int file = open_memory_file(scene);
	int memfd = scene_image(scene, 1, NO_BACKGROUND);
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

	scene_attach(scene, 1, 1, &vm);
	assert_int_equal(ftruncate(file, (off_t)last_stored(scene)->offset), 0);
	fake_vm_ask(&vm, scene_order(scene, 0, 1));
	assert_int_equal(await_failed(scene, 1, "cut"), -EBADMSG);
	/* What is missing is never answered. */
	assert_true(fake_vm_is_silent(&vm, 50));
	fake_vm_end(&vm);
	close(memfd);
	close(file);
}

/* --- memfds --- */

/* Somebody keeps a mapping through which pages could still be written. */
static void test_seal_waits(void **state)
{
	struct scene *scene = *state;
	struct base_message counters;

	scene_publish_mixed(scene, MIB(2));

	int memfd = scene_memfd(scene);
	void *mapping = mmap(NULL, KIB(4), PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	assert_ptr_not_equal(mapping, MAP_FAILED);
	assert_int_equal(uffd_client_image(scene->client, 1, scene->snapshot, memfd, 0, 0, NULL),
			 0);
	usleep(200000);
	counters = scene_counters(scene, 1);
	assert_int_equal(counters.arg[7] & PAGER_IMAGE_COMPLETE, 0);
	munmap(mapping, KIB(4));
	scene_await_complete(scene, 1, NULL);
	close(memfd);
}

static void test_memfd_that_cannot_be_written(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(24));

	int memfd = scene_image(scene, 1, NO_BACKGROUND);
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

	scene_attach(scene, 1, 1, &vm);
	assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	fake_vm_ask(&vm, scene_order(scene, 0, 1));
	assert_int_equal(await_failed(scene, 1, "cannot fill"), -EPERM);
	fake_vm_end(&vm);
	close(memfd);
	fill_whole(scene, 2);
}

/* An earlier pager sealed it, and died before it could say so. */
static void test_sealed_already(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(2));

	int memfd = scene_image(scene, 1, 0);

	scene_await_complete(scene, 1, NULL);
	scene_restart_pager(scene);
	assert_int_equal(uffd_client_image(scene->client, 1, scene->snapshot, memfd, 0, 0, NULL),
			 0);
	scene_await_complete(scene, 1, NULL);

	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

	assert_true(scene_attach(scene, 1, 1, &vm));
	fake_vm_ask(&vm, scene_order(scene, 0, 1));
	scene_check(scene, &vm, scene_order(scene, 0, 1));
	fake_vm_end(&vm);
	close(memfd);
}

/* --- deaths --- */

/* A pager has taken the fault's message and died before it could answer. */
static void test_fault_taken_by_a_dead_pager(void **state)
{
	struct scene *scene = *state;
	struct fake_vm_order one;
	uint8_t message[32];
	struct pollfd item;

	scene_publish_mixed(scene, MIB(24));
	one = scene_order(scene, scene->n_pages - 40, 1);
	one.count = 1;

	int memfd = scene_image(scene, 1, NO_BACKGROUND);
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

	fake_vm_ask(&vm, one);
	item = (struct pollfd){ .fd = vm.uffd, .events = POLLIN };
	assert_int_equal(poll(&item, 1, 20000), 1);
	assert_int_equal(read(vm.uffd, message, sizeof(message)), sizeof(message));
	assert_true(fake_vm_is_silent(&vm, 20));
	assert_false(scene_attach(scene, 1, 1, &vm));
	scene_check(scene, &vm, one);
	fake_vm_end(&vm);
	close(memfd);
}

static void test_pager_dies(void **state)
{
	enum { VMS = 64, DEATHS = 3 };
	struct scene *scene = *state;
	static struct fake_vm vms[VMS];

	scene_publish_mixed(scene, MIB(16) + KIB(8));

	int memfd = scene_image(scene, 1, MIB(8));

	for (unsigned v = 0; v < VMS; v++) {
		vms[v] = fake_vm_start(memfd, scene->bytes);
	}
	for (unsigned death = 0; death <= DEATHS; death++) {
		if (death > 0) {
			usleep(2000 << death);
			scene_restart_pager(scene);
			assert_int_equal(uffd_client_image(scene->client, 1, scene->snapshot, memfd,
							   death < DEATHS ? MIB(8) : 0, 0, NULL),
					 0);
		}
		for (unsigned v = 0; v < VMS; v++) {
			scene_attach(scene, 1, v, &vms[v]);
			if (death == 0) {
				fake_vm_ask(&vms[v], scene_order(scene, v * 61, 2 * v + 1));
			}
		}
	}
	for (unsigned v = 0; v < VMS; v++) {
		scene_check(scene, &vms[v], scene_order(scene, v * 61, 2 * v + 1));
		fake_vm_end(&vms[v]);
	}
	scene_await_complete(scene, 1, NULL);
	assert_int_equal(fixture_compare(scene->source_fd, memfd, scene->bytes), 0);
	close(memfd);
}

/* The manager is gone: the VM that waits, and what it has not touched yet, is served to the end in
 * spite of the limit; what nobody uses is not. */
static void test_orphaned(void **state)
{
	struct scene *scene = *state;
	struct fake_vm_order first, all;

	scene_publish_mixed(scene, MIB(24));
	first = scene_order(scene, scene->n_pages - 40, 1);
	first.count = 1;
	all = scene_order(scene, 0, 1);

	int used = scene_image(scene, 1, NO_BACKGROUND),
	    unused = scene_image(scene, 2, NO_BACKGROUND);
	struct fake_vm vm = fake_vm_start(used, scene->bytes);

	assert_false(scene_attach(scene, 1, 1, &vm));
	fake_vm_ask(&vm, first);
	scene_check(scene, &vm, first);
	assert_int_equal(fcntl(used, F_GET_SEALS) & F_SEAL_WRITE, 0);
	/* Closes the socket and waits for the pager's end. */
	uffd_client_free(TAKE_PTR(scene->client));
	assert_int_equal(fcntl(used, F_GET_SEALS) & F_SEAL_WRITE, F_SEAL_WRITE);
	assert_int_equal(fcntl(unused, F_GET_SEALS) & F_SEAL_WRITE, 0);
	fake_vm_ask(&vm, all);
	scene_check(scene, &vm, all);
	assert_int_equal(fixture_compare(scene->source_fd, used, scene->bytes), 0);
	fake_vm_end(&vm);
	close(used);
	close(unused);
}

/* The image that is used turns out to be rotten: the pager does not stay for it. */
static void test_orphaned_and_rotten(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(24));

	int file = open_memory_file(scene), memfd;
	struct fake_vm vm;

	flip_byte(file, last_stored(scene)->offset + 1);
	memfd = scene_image(scene, 1, NO_BACKGROUND);
	vm = fake_vm_start(memfd, scene->bytes);
	assert_false(scene_attach(scene, 1, 1, &vm));
	uffd_client_free(TAKE_PTR(scene->client));
	assert_int_equal(fcntl(memfd, F_GET_SEALS) & F_SEAL_WRITE, 0);
	fake_vm_end(&vm);
	close(memfd);
	close(file);
}

static unsigned count_fds(pid_t pid)
{
	char path[64];
	unsigned n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);

	DIR *directory = opendir(path);

	assert_non_null(directory);
	while (readdir(directory)) {
		n++;
	}
	closedir(directory);
	return n;
}

static void test_vms_die(void **state)
{
	enum { VMS = 8 };
	struct scene *scene = *state;
	struct fake_vm vms[VMS];

	scene_publish_mixed(scene, MIB(16));

	unsigned fds = count_fds(uffd_client_pid(scene->client));
	int memfd = scene_image(scene, 1, MIB(4));

	for (unsigned v = 0; v < VMS; v++) {
		vms[v] = fake_vm_start(memfd, scene->bytes);
		scene_attach(scene, 1, v, &vms[v]);
		fake_vm_ask(&vms[v], scene_order(scene, v * 500, 1));
	}
	for (unsigned v = 0; v < VMS / 2; v++) {
		fake_vm_end(&vms[v]);
		/* Of some the pager is told; the others it finds out, or not. */
		if (v % 2 == 0) {
			assert_int_equal(scene_call(scene, PAGER_OP_VM_GONE, (uint64_t[]){ 1, v },
						    2, "", NULL, 0, NULL),
					 0);
		}
	}
	for (unsigned v = VMS / 2; v < VMS; v++) {
		scene_check(scene, &vms[v], scene_order(scene, v * 500, 1));
		fake_vm_end(&vms[v]);
	}
	scene_await_complete(scene, 1, NULL);
	assert_int_equal(
		scene_call(scene, PAGER_OP_IMAGE_GONE, (uint64_t[]){ 1 }, 1, "", NULL, 0, NULL), 0);
	assert_int_equal(count_fds(uffd_client_pid(scene->client)), fds);
	close(memfd);
}

static void test_image_gone_while_filling(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(32));

	unsigned fds = count_fds(uffd_client_pid(scene->client));

	for (uint64_t id = 1; id <= 20; id++) {
		int memfd = scene_image(scene, id, 0);
		struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

		scene_attach(scene, id, 1, &vm);
		fake_vm_ask(&vm, scene_order(scene, 0, 1));
		usleep((unsigned)id * 200);
		assert_int_equal(scene_call(scene, PAGER_OP_IMAGE_GONE, &id, 1, "", NULL, 0, NULL),
				 0);
		assert_int_equal(scene_call(scene, PAGER_OP_COUNTERS, &id, 1, "", NULL, 0, NULL),
				 -ENOENT);
		assert_int_equal(count_fds(uffd_client_pid(scene->client)), fds);
		fake_vm_end(&vm);
		close(memfd);
	}
	fill_whole(scene, 21);
}

/* --- messages --- */

/* A restarted pager is told everything at once. */
static void test_vm_before_the_reply(void **state)
{
	struct scene *scene = *state;
	int socket = uffd_client_socket(scene->client);

	scene_publish_mixed(scene, MIB(4));

	int memfd = scene_memfd(scene), fds[BASE_MESSAGE_FDS_MAX];
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);
	const int image_fds[] = { memfd, snapshot_memory_fd(snapshot_memory(scene->snapshot)) };
	struct base_message message = {
		.op = PAGER_OP_IMAGE,
		.sequence = 1000,
		.arg = { 1, scene->bytes },
	};
	size_t n_fds;

	fake_vm_ask(&vm, scene_order(scene, 0, 1));
	base_message_set_text(&message, snapshot_manifest(scene->snapshot)->chunk_table_digest);
	assert_int_equal(base_message_send(socket, &message, image_fds, 2), 0);
	message = (struct base_message){
		.op = PAGER_OP_VM,
		.sequence = 1001,
		.arg = { 1, 1, vm.address },
	};
	assert_int_equal(base_message_send(socket, &message, &vm.uffd, 1), 0);
	for (unsigned replies = 0; replies<2; replies += message.sequence> 0) {
		assert_int_equal(base_message_receive(socket, &message, fds, &n_fds), 1);
		assert_int_equal(message.result, 0);
	}
	scene_check(scene, &vm, scene_order(scene, 0, 1));
	fake_vm_end(&vm);
	close(memfd);
}

static void test_flood(void **state)
{
	struct scene *scene = *state;
	int socket = uffd_client_socket(scene->client), fds[BASE_MESSAGE_FDS_MAX];
	struct base_message message = { .op = PAGER_OP_COUNTERS, .arg = { 1 } };
	uint64_t sent = 0, answered = 0;
	size_t n_fds;
	int r = 0;

	scene_publish_mixed(scene, MIB(8));

	int memfd = scene_image(scene, 1, 0);

	/* Until nothing more goes in: the pager has stopped to read. */
	for (unsigned full = 0; full < 20;) {
		message.sequence = sent + 1;
		r = send(socket, &message, BASE_MESSAGE_HEADER_BYTES, MSG_DONTWAIT);
		if (r < 0) {
			assert_int_equal(errno, EAGAIN);
			full++;
			usleep(5000);
		} else {
			full = 0;
			sent++;
		}
	}
	while (answered < sent) {
		assert_int_equal(base_message_receive(socket, &message, fds, &n_fds), 1);
		if (message.sequence > 0) {
			assert_int_equal(message.sequence, ++answered);
			assert_int_equal(message.result, 0);
		}
	}
	assert_true(sent > 0);
	fill_whole(scene, 2);
	close(memfd);
}

static void test_no_message_ends_it(void **state)
{
	struct scene *scene = *state;
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds;

	assert_int_equal(send(uffd_client_socket(scene->client), "hello", 5, 0), 5);
	assert_int_equal(
		base_message_receive(uffd_client_socket(scene->client), &message, fds, &n_fds), 0);
}

static int try_image(struct scene *scene, uint64_t bytes, const char *digest, int memfd, int file)
{
	const uint64_t args[] = { 7, bytes, 0 };
	const int fds[] = { memfd, file };

	return scene_call(scene, PAGER_OP_IMAGE, args, 3, digest, fds, 2, NULL);
}

static void test_images_refused(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(1));

	const char *digest = snapshot_manifest(scene->snapshot)->chunk_table_digest;
	int file = snapshot_memory_fd(snapshot_memory(scene->snapshot));
	int good = scene_memfd(scene), unsealed = memfd_create("test", MFD_ALLOW_SEALING);
	int future = scene_memfd(scene), read_only = -1, pipes[2];
	char half[SNAPSHOT_DIGEST_LENGTH];

	assert_int_equal(ftruncate(unsealed, (off_t)scene->bytes), 0);
	assert_int_equal(fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	assert_int_equal(base_fd_reopen_readonly(good, &read_only), 0);
	assert_int_equal(pipe(pipes), 0);
	snprintf(half, sizeof(half), "%s", digest);

	assert_int_equal(try_image(scene, scene->bytes + KIB(4), digest, good, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes - KIB(4), digest, good, file), -EINVAL);
	assert_int_equal(try_image(scene, 0, digest, good, file), -EINVAL);
	assert_int_equal(try_image(scene, UINT64_MAX, digest, good, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, half, good, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, "", good, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, digest, unsealed, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, digest, future, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, digest, read_only, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, digest, file, file), -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, digest, good, pipes[0]), -EINVAL);

	const uint64_t no_such_flag[] = { 7, scene->bytes, 0, PAGER_FILL_NO_WORKING_SET << 1 };

	assert_int_equal(scene_call(scene, PAGER_OP_IMAGE, no_such_flag, 4, digest,
				    (const int[]){ good, file }, 2, NULL),
			 -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, digest, good, good), -EBADMSG);
	assert_int_equal(
		try_image(scene, scene->bytes, "00000000000000000000000000000000", good, file),
		-EBADMSG);
	assert_int_equal(scene_call(scene, PAGER_OP_IMAGE, (uint64_t[]){ 7, scene->bytes }, 2,
				    digest, &good, 1, NULL),
			 -EINVAL);
	assert_int_equal(try_image(scene, scene->bytes, digest, good, file), 0);
	assert_int_equal(try_image(scene, scene->bytes, digest, good, file), -EEXIST);
	scene_await_complete(scene, 7, NULL);
	close(good);
	close(unsealed);
	close(future);
	close(read_only);
	close(pipes[0]);
	close(pipes[1]);
}

static int try_vm(struct scene *scene, uint64_t image, uint64_t id, uint64_t address, int uffd)
{
	const uint64_t args[] = { image, id, address };

	return scene_call(scene, PAGER_OP_VM, args, 3, "", &uffd, 1, NULL);
}

static void test_vms_refused(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(24));

	int memfd = scene_image(scene, 1, NO_BACKGROUND);
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

	assert_int_equal(try_vm(scene, 2, 1, vm.address, vm.uffd), -ENOENT);
	assert_int_equal(try_vm(scene, 1, 1, vm.address + 1, vm.uffd), -EINVAL);
	assert_int_equal(try_vm(scene, 1, 1, UINT64_MAX - KIB(4) + 1, vm.uffd), -EINVAL);
	assert_int_equal(try_vm(scene, 1, 1, UINT64_MAX - scene->bytes + 1, vm.uffd), -EINVAL);
	assert_int_equal(try_vm(scene, 1, 1, UINT64_C(1) << 60, vm.uffd), -EINVAL);
	assert_int_equal(try_vm(scene, 1, 1, vm.address, memfd), -EINVAL);
	assert_int_equal(scene_call(scene, PAGER_OP_VM, (uint64_t[]){ 1, 1, vm.address }, 3, "",
				    NULL, 0, NULL),
			 -EINVAL);
	assert_int_equal(try_vm(scene, 1, 1, vm.address, vm.uffd), 0);
	assert_int_equal(try_vm(scene, 1, 1, vm.address, vm.uffd), -EEXIST);
	assert_int_equal(
		scene_call(scene, PAGER_OP_IMAGE_GONE, (uint64_t[]){ 2 }, 1, "", NULL, 0, NULL),
		-ENOENT);
	assert_int_equal(
		scene_call(scene, (enum pager_op)99, (uint64_t[]){ 1 }, 1, "", NULL, 0, NULL),
		-EOPNOTSUPP);
	fake_vm_ask(&vm, scene_order(scene, 0, 1));
	scene_check(scene, &vm, scene_order(scene, 0, 1));
	fake_vm_end(&vm);
	close(memfd);
}

static void test_limits(void **state)
{
	struct scene *scene = *state;
	int memfds[PAGER_IMAGES_MAX];

	scene_publish_mixed(scene, MIB(24));
	for (unsigned i = 0; i < PAGER_IMAGES_MAX; i++) {
		memfds[i] = scene_image(scene, i + 1, NO_BACKGROUND);
	}
	assert_int_equal(
		uffd_client_image(scene->client, 1000, scene->snapshot, memfds[0], 0, 0, NULL),
		-EMFILE);
	assert_int_equal(
		scene_call(scene, PAGER_OP_IMAGE_GONE, (uint64_t[]){ 1 }, 1, "", NULL, 0, NULL), 0);
	assert_int_equal(
		uffd_client_image(scene->client, 1000, scene->snapshot, memfds[0], 0, 0, NULL), 0);

	struct fake_vm vm = fake_vm_start(memfds[1], scene->bytes);

	for (unsigned i = 0; i < PAGER_VMS_MAX; i++) {
		assert_int_equal(try_vm(scene, 2, i, vm.address, vm.uffd), 0);
	}
	assert_int_equal(try_vm(scene, 2, PAGER_VMS_MAX, vm.address, vm.uffd), -EMFILE);
	fake_vm_end(&vm);
	for (unsigned i = 0; i < PAGER_IMAGES_MAX; i++) {
		close(memfds[i]);
	}
}

#define TROUBLE(name) cmocka_unit_test_setup_teardown(name, scene_setup, scene_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TROUBLE(test_rotten_chunk),
		TROUBLE(test_rotten_working_set),
		TROUBLE(test_rotten_table),
		TROUBLE(test_file_cut_while_filling),
		TROUBLE(test_seal_waits),
		TROUBLE(test_memfd_that_cannot_be_written),
		TROUBLE(test_sealed_already),
		TROUBLE(test_fault_taken_by_a_dead_pager),
		TROUBLE(test_orphaned),
		TROUBLE(test_orphaned_and_rotten),
		TROUBLE(test_pager_dies),
		TROUBLE(test_vms_die),
		TROUBLE(test_image_gone_while_filling),
		TROUBLE(test_vm_before_the_reply),
		TROUBLE(test_flood),
		TROUBLE(test_no_message_ends_it),
		TROUBLE(test_images_refused),
		TROUBLE(test_vms_refused),
		TROUBLE(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
