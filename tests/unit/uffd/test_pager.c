/* SPDX-License-Identifier: Apache-2.0 */

/* The real pager, and processes that fault like VMMs: what they see, and what it counts. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "tests/unit/uffd/scene.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* So slow that after its first read the background does nothing within a test. */
#define NO_BACKGROUND 1

static void assert_filled(struct scene *scene, int memfd)
{
	assert_int_equal(fcntl(memfd, F_GET_SEALS),
			 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	assert_int_equal(fixture_compare(scene->source_fd, memfd, scene->bytes), 0);
}

static void test_sizes(void **state)
{
	struct scene *scene = *state;
	/* One page; a chunk, a read, and their neighbours. */
	const uint64_t sizes[] = {
		KIB(4), KIB(60),	 KIB(64),	   KIB(68), MIB(1) - KIB(4),
		MIB(1), MIB(1) + KIB(4), MIB(5) + KIB(36), MIB(24),
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct base_message event;

		scene_publish_mixed(scene, sizes[i]);

		int memfd = scene_image(scene, i, 0);

		scene_await_complete(scene, i, &event);
		assert_filled(scene, memfd);
		assert_true(event.arg[2] <= sizes[i]);
		assert_true(event.arg[3] <= event.arg[2]);
		assert_true(event.arg[3] > 0 || sizes[i] < MIB(1)); /* of the working set */
		assert_int_equal(event.arg[5], 0);		    /* nobody faulted */
		close(memfd);
	}
}

static void test_many_images_and_vms(void **state)
{
	enum { IMAGES = 4, VMS = 6 };
	struct scene *scene = *state;
	struct fake_vm vms[IMAGES][VMS];
	int memfds[IMAGES];

	scene_publish_mixed(scene, MIB(8) + KIB(20));
	for (unsigned i = 0; i < IMAGES; i++) {
		memfds[i] = scene_image(scene, i, MIB(4));
		for (unsigned v = 0; v < VMS; v++) {
			vms[i][v] = fake_vm_start(memfds[i], scene->bytes);
			(void)scene_attach(scene, i, v, &vms[i][v]);
			fake_vm_ask(&vms[i][v], scene_order(scene, v * 77, 2 * v + 1));
		}
	}
	for (unsigned i = 0; i < IMAGES; i++) {
		for (unsigned v = 0; v < VMS; v++) {
			scene_check(scene, &vms[i][v], scene_order(scene, v * 77, 2 * v + 1));
		}
	}
	for (unsigned i = 0; i < IMAGES; i++) {
		struct base_message event;

		scene_await_complete(scene, i, &event);
		assert_true(event.arg[5] > 0);
		assert_filled(scene, memfds[i]);
		for (unsigned v = 0; v < VMS; v++) {
			fake_vm_end(&vms[i][v]);
		}
		close(memfds[i]);
	}
}

/* Pages that are loaded once cost the next VM nothing. */
static void test_second_vm_takes_no_fault(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(24));

	int memfd = scene_image(scene, 1, NO_BACKGROUND);
	struct fake_vm_order half = scene_order(scene, scene->n_pages / 2, 1);
	uint64_t faults;

	half.count /= 2;
	for (unsigned v = 0; v < 3; v++) {
		struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

		assert_false(scene_attach(scene, 1, v, &vm));
		fake_vm_ask(&vm, half);
		scene_check(scene, &vm, half);

		struct base_message counters = scene_counters(scene, 1);

		if (v == 0) {
			faults = counters.arg[3];
			assert_true(faults > 0);
			assert_true(counters.arg[5] > 0);
		}
		assert_int_equal(counters.arg[3], faults);
		assert_int_equal(counters.arg[7] & PAGER_IMAGE_COMPLETE, 0);
		fake_vm_end(&vm);
	}
	close(memfd);
}

static void test_vm_of_a_complete_image(void **state)
{
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(2));

	int memfd = scene_image(scene, 1, 0);
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);
	struct fake_vm_order order = scene_order(scene, 0, 1);

	scene_await_complete(scene, 1, NULL);
	/* It waits until it is let go. */
	fake_vm_ask(&vm, order);
	assert_true(fake_vm_is_silent(&vm, 50));
	assert_true(scene_attach(scene, 1, 1, &vm));
	scene_check(scene, &vm, order);
	assert_int_equal(scene_counters(scene, 1).arg[3], 0);
	assert_int_equal(scene_counters(scene, 1).arg[7] & PAGER_IMAGE_COMPLETE,
			 PAGER_IMAGE_COMPLETE);
	fake_vm_end(&vm);
	close(memfd);
}

/* Only the first and the last page are not zero. */
static void test_zero_chunks_are_not_read(void **state)
{
	struct scene *scene = *state;
	const uint64_t bytes = MIB(8);
	uint8_t one = 1;
	int source = -1;

	assert_int_equal(base_fd_memfd("test", bytes, &source), 0);
	assert_int_equal(base_fd_pwrite_full(source, &one, 1, 0), 0);
	assert_int_equal(base_fd_pwrite_full(source, &one, 1, (off_t)bytes - 1), 0);
	scene_publish(scene, source, bytes);

	int memfd = scene_image(scene, 1, NO_BACKGROUND);
	struct fake_vm_order middle = scene_order(scene, 64, 1);
	uint64_t faults = 0;

	middle.count = 640; /* 40 chunks */
	for (unsigned v = 0; v < 2; v++) {
		struct fake_vm vm = fake_vm_start(memfd, scene->bytes);
		bool complete = scene_attach(scene, 1, v, &vm);

		fake_vm_ask(&vm, middle);
		scene_check(scene, &vm, middle);

		struct base_message counters = scene_counters(scene, 1);

		/* The two chunks that are stored, compressed to next to nothing. */
		assert_true(counters.arg[2] <= KIB(16));
		assert_true(counters.arg[0] <= 2 * SNAPSHOT_CHUNK_BYTES);
		assert_true(counters.arg[3] <= 40);
		assert_true(v == 0 || complete || counters.arg[3] == faults);
		faults = counters.arg[3];
		fake_vm_end(&vm);
	}
	close(memfd);
}

/* What is in the working set is there before anybody asks, and is not read a second time for it. */
static void test_working_set(void **state)
{
	struct scene *scene = *state;
	const uint64_t bytes = MIB(6);
	uint64_t *content = malloc(bytes), seed = 1;
	struct base_message event, counters;
	struct base_error error = { 0 };
	int source = -1;

	assert_non_null(content);
	for (size_t i = 0; i < bytes / sizeof(*content); i++) {
		content[i] = fixture_random(&seed);
	}
	assert_int_equal(base_fd_memfd("test", bytes, &source), 0);
	assert_int_equal(base_fd_pwrite_full(source, content, bytes, 0), 0);
	free(content);
	scene_publish(scene, source, bytes);

	uint64_t ws_pages = snapshot_memory_ws_pages(snapshot_memory(scene->snapshot));
	/* As fixture_working_set() has them: every third page, downwards. */
	struct fake_vm_order order = scene_order(scene, scene->n_pages - 1, scene->n_pages - 3);
	int memfd = scene_image(scene, 1, NO_BACKGROUND);
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);

	order.count = ws_pages;
	assert_int_equal(ws_pages, scene->n_pages / 3);
	if (uffd_client_wait(scene->client, 1, PAGER_EVENT_PREFETCHED, &event, &error) < 0) {
		fail_msg("%s", error.text);
	}
	assert_int_equal(event.arg[2], ws_pages * SNAPSHOT_PAGE_BYTES);
	assert_false(scene_attach(scene, 1, 1, &vm));
	fake_vm_ask(&vm, order);
	scene_check(scene, &vm, order);
	counters = scene_counters(scene, 1);
	assert_int_equal(counters.arg[3], 0);
	assert_int_equal(counters.arg[5], 0);
	/* The background's first read may have come between. */
	assert_in_range(counters.arg[1], 1, ws_pages * SNAPSHOT_PAGE_BYTES);
	fake_vm_end(&vm);
	close(memfd);
}

/* Without it everything comes all the same, by faults and in the background. */
static void test_no_working_set(void **state)
{
	struct scene *scene = *state;
	struct base_error error = { 0 };
	struct base_message event;

	scene_publish_mixed(scene, MIB(8));
	assert_true(snapshot_memory_ws_pages(snapshot_memory(scene->snapshot)) > 0);

	int memfd = scene_memfd(scene);
	struct fake_vm vm = fake_vm_start(memfd, scene->bytes);
	struct fake_vm_order all = scene_order(scene, 0, 1);

	if (uffd_client_image(scene->client, 1, scene->snapshot, memfd, 0,
			      PAGER_FILL_NO_WORKING_SET, &error) < 0) {
		fail_msg("%s", error.text);
	}
	(void)scene_attach(scene, 1, 1, &vm);
	fake_vm_ask(&vm, all);
	scene_check(scene, &vm, all);
	scene_await_complete(scene, 1, &event);
	assert_int_equal(event.arg[3], 0);
	assert_filled(scene, memfd);
	fake_vm_end(&vm);
	close(memfd);
}

/* More than the first read and what the time allows is never filled. */
static void test_background_limit(void **state)
{
	const uint64_t limit = MIB(2), a_read = MIB(4);
	struct scene *scene = *state;

	scene_publish_mixed(scene, MIB(48));

	uint64_t start_ns = base_clock_monotonic_ns();
	int memfd = scene_image(scene, 1, limit);
	struct base_message counters;

	do {
		usleep(20000);
		counters = scene_counters(scene, 1);

		uint64_t elapsed_ns = base_clock_monotonic_ns() - start_ns;
		uint64_t background = counters.arg[0] - counters.arg[1];

		assert_true(background <= a_read + limit * elapsed_ns / NSEC_PER_SEC);
	} while (counters.arg[6] < 100);
	assert_int_equal(counters.arg[7] & PAGER_IMAGE_COMPLETE, 0);
	close(memfd);
}

/* Whether a file of this directory can be opened with O_DIRECT. */
static bool takes_direct(const char *directory)
{
	_cleanup_fd_ int fd = open(directory, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	return fd >= 0;
}

/* ramfs has no O_DIRECT: the pager reads through the page cache, and says so. */
static void test_direct_and_not(void **state)
{
	struct scene *scene = *state;
	struct fixture *usual = scene->fixture, ram = { 0 };
	struct base_message event;
	char path[FIXTURE_PATH_MAX + 8];

	scene_publish_mixed(scene, MIB(3));
	close(scene_image(scene, 1, 0));
	scene_await_complete(scene, 1, &event);
	assert_int_equal((event.arg[7] & PAGER_IMAGE_DIRECT) != 0, takes_direct(usual->root));

	if (geteuid() != 0) {
		skip();
	}
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	snprintf(path, sizeof(path), "%s/ram", usual->root);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(mount("warmbox-test", path, "ramfs", 0, NULL), 0);
	assert_int_equal(fixture_setup_at(&ram, path), 0);
	scene->fixture = &ram;
	scene_publish_mixed(scene, MIB(3));

	int memfd = scene_image(scene, 2, 0);

	scene_await_complete(scene, 2, &event);
	assert_int_equal(event.arg[7] & PAGER_IMAGE_DIRECT, 0);
	assert_filled(scene, memfd);
	close(memfd);
	snapshot_store_free(ram.store);
	scene->fixture = usual;
	assert_int_equal(umount2(path, MNT_DETACH), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sizes, scene_setup, scene_teardown),
		cmocka_unit_test_setup_teardown(test_many_images_and_vms, scene_setup,
						scene_teardown),
		cmocka_unit_test_setup_teardown(test_second_vm_takes_no_fault, scene_setup,
						scene_teardown),
		cmocka_unit_test_setup_teardown(test_vm_of_a_complete_image, scene_setup,
						scene_teardown),
		cmocka_unit_test_setup_teardown(test_zero_chunks_are_not_read, scene_setup,
						scene_teardown),
		cmocka_unit_test_setup_teardown(test_working_set, scene_setup, scene_teardown),
		cmocka_unit_test_setup_teardown(test_no_working_set, scene_setup, scene_teardown),
		cmocka_unit_test_setup_teardown(test_background_limit, scene_setup, scene_teardown),
		cmocka_unit_test_setup_teardown(test_direct_and_not, scene_setup, scene_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
