/* SPDX-License-Identifier: Apache-2.0 */

/* The pager's tests: their common part. */

#include "tests/unit/uffd/scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* No VM may hang for longer. */
#define HANG_MS 20000

static void start_pager(struct scene *scene)
{
	struct base_error error = { 0 };

	if (uffd_client_start(getenv("WARMBOX_PAGER"), &scene->client, &error) < 0) {
		fail_msg("%s", error.text);
	}
}

int scene_setup(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	fixture_setup((void **)&scene->fixture);
	scene->source_fd = -1;
	start_pager(scene);
	*state = scene;
	return 0;
}

static void unpublish(struct scene *scene)
{
	if (scene->source) {
		munmap((void *)scene->source, scene->bytes);
		scene->source = NULL;
	}
	scene->source_fd = base_fd_close(scene->source_fd);
	snapshot_free(scene->snapshot);
	scene->snapshot = NULL;
}

int scene_teardown(void **state)
{
	struct scene *scene = *state;
	void *fixture = scene->fixture;
	int r;

	uffd_client_free(scene->client);
	unpublish(scene);
	r = fixture_teardown(&fixture);
	free(scene);
	return r;
}

void scene_publish(struct scene *scene, int memory_fd, uint64_t bytes)
{
	struct base_error error = { 0 };

	unpublish(scene);
	scene->bytes = bytes;
	scene->n_pages = bytes / SNAPSHOT_PAGE_BYTES;
	scene->source_fd = memory_fd;
	scene->source = mmap(NULL, bytes, PROT_READ, MAP_SHARED, memory_fd, 0);
	assert_ptr_not_equal(scene->source, MAP_FAILED);
	fixture_publish(scene->fixture, "template", memory_fd, bytes);
	if (snapshot_open(scene->fixture->store, "template", &scene->snapshot, &error) < 0) {
		fail_msg("%s", error.text);
	}
}

void scene_publish_mixed(struct scene *scene, uint64_t bytes)
{
	scene_publish(scene, fixture_memory(bytes, bytes), bytes);
}

int scene_memfd(const struct scene *scene)
{
	int fd = -1;

	assert_int_equal(base_fd_memfd("test-image", scene->bytes, &fd), 0);
	return fd;
}

int scene_image(struct scene *scene, uint64_t id, uint64_t background_bytes_per_s)
{
	struct base_error error = { 0 };
	int fd = scene_memfd(scene);

	if (uffd_client_image(scene->client, id, scene->snapshot, fd, background_bytes_per_s, 0,
			      &error) < 0) {
		fail_msg("%s", error.text);
	}
	return fd;
}

void scene_restart_pager(struct scene *scene)
{
	kill(uffd_client_pid(scene->client), SIGKILL);
	uffd_client_free(scene->client);
	start_pager(scene);
}

int scene_call(struct scene *scene, enum pager_op op, const uint64_t *args, size_t n_args,
	       const char *text, const int *fds, size_t n_fds, struct base_message *ret_reply)
{
	struct base_message request = { .op = op };
	struct base_error error = { 0 };

	memcpy(request.arg, args, n_args * sizeof(*args));
	base_message_set_text(&request, text);

	int r = uffd_client_call(scene->client, &request, fds, n_fds, ret_reply, &error);

	if (r == -ETIMEDOUT || r == -ECONNRESET) {
		fail_msg("%s", error.text);
	}
	/* A refusal says why. */
	assert_true(r == 0 || error.text[0] != '\0');
	return r;
}

bool scene_attach(struct scene *scene, uint64_t image, uint64_t id, const struct fake_vm *vm)
{
	const uint64_t args[] = { image, id, vm->address };
	struct base_message reply;

	assert_int_equal(scene_call(scene, PAGER_OP_VM, args, 3, "", &vm->uffd, 1, &reply), 0);
	return reply.arg[0] == 1;
}

struct base_message scene_counters(struct scene *scene, uint64_t image)
{
	struct base_message reply;

	assert_int_equal(scene_call(scene, PAGER_OP_COUNTERS, &image, 1, "", NULL, 0, &reply), 0);
	return reply;
}

void scene_await_complete(struct scene *scene, uint64_t image, struct base_message *ret_event)
{
	struct base_error error = { 0 };

	if (uffd_client_wait(scene->client, image, PAGER_EVENT_COMPLETE, ret_event, &error) < 0) {
		fail_msg("%s", error.text);
	}
}

struct fake_vm_order scene_order(const struct scene *scene, uint64_t first, uint64_t stride)
{
	return (struct fake_vm_order){
		.n_pages = scene->n_pages,
		.first = first,
		.stride = stride,
		.count = scene->n_pages,
	};
}

void scene_check(struct scene *scene, struct fake_vm *vm, struct fake_vm_order order)
{
	assert_int_equal(fake_vm_answer(vm, HANG_MS), fake_vm_sum(scene->source, order));
}
