/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A disk that fills up, at every step: a clear error, and nothing left behind. The disk is a small
 * tmpfs in a mount namespace of this process, so that not even a crash leaves the mount. Needs
 * root; skipped without.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "tests/unit/snapshot/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DISK_BYTES "1m"

static int setup(void **state)
{
	char root[] = "/tmp/warmbox-full-XXXXXX";
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	*state = fixture;
	if (geteuid() != 0) {
		return 0;
	}
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_non_null(mkdtemp(root));
	assert_int_equal(mount("warmbox-test", root, "tmpfs", 0, "size=" DISK_BYTES), 0);
	return fixture_setup_at(fixture, root);
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	if (fixture->store) {
		snapshot_store_free(fixture->store);
		umount2(fixture->root, MNT_DETACH);
		rmdir(fixture->root);
	}
	free(fixture);
	return 0;
}

static uint64_t free_bytes(struct fixture *fixture)
{
	struct statvfs fs;

	assert_int_equal(statvfs(fixture->root, &fs), 0);
	return (uint64_t)fs.f_bfree * fs.f_bsize;
}

/* Publishes with `spare` bytes left on the disk. */
static int publish_with(struct fixture *fixture, int memory, uint64_t memory_bytes, uint64_t spare,
			struct base_error *error)
{
	struct snapshot_manifest manifest = fixture_manifest("full");
	struct snapshot_writer *writer = NULL;
	char ballast[FIXTURE_PATH_MAX * 2];
	int fd, r;

	snprintf(ballast, sizeof(ballast), "%s/ballast", fixture->root);
	fd = open(ballast, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	if (free_bytes(fixture) > spare) {
		r = posix_fallocate(fd, 0, (off_t)(free_bytes(fixture) - spare));
		assert_int_equal(r, 0);
	}
	r = snapshot_writer_new(fixture->store, &writer, error);
	if (r == 0) {
		r = base_fd_write_full(snapshot_writer_state_fd(writer), "state", 5);
		if (r < 0) {
			base_error_set_errno(error, r, "state");
		}
	}
	if (r == 0) {
		size_t n;
		_cleanup_free_ uint32_t *pages = fixture_working_set(memory_bytes, &n);

		r = snapshot_writer_working_set(writer, pages, n, error);
	}
	if (r == 0) {
		r = snapshot_writer_memory(writer, memory, memory_bytes, 2, NULL, NULL, error);
	}
	if (r == 0) {
		r = snapshot_writer_publish(writer, &manifest, error);
	}
	snapshot_writer_free(writer);
	close(fd);
	assert_int_equal(unlink(ballast), 0);
	return r;
}

static void test_publish(void **state)
{
	struct fixture *fixture = *state;
	uint64_t before;
	unsigned refused = 0;
	int r = -1;

	if (!fixture->store) {
		skip();
	}

	int memory = fixture_memory(KIB(512), 1);

	before = free_bytes(fixture);
	/* Page by page, so that it ends in the state, the working set, the chunks, the table and
	 * the manifest. */
	for (uint64_t spare = 0; spare < KIB(512) && r != 0; spare += KIB(4)) {
		struct base_error error = { 0 };

		r = publish_with(fixture, memory, KIB(512), spare, &error);
		if (r < 0) {
			if (r != -ENOSPC || !strstr(error.text, "No space left")) {
				fail_msg("with %llu bytes: %d, %s", (unsigned long long)spare, r,
					 error.text);
			}
			refused++;
			assert_int_equal(fixture_count(fixture, "tmp"), 0);
			assert_int_equal(fixture_count(fixture, "snapshots"), 0);
			assert_int_equal(fixture_count(fixture, "templates"), 0);
			assert_int_equal(free_bytes(fixture), before);
		}
	}
	assert_int_equal(r, 0);
	assert_true(refused > 10);
	assert_int_equal(snapshot_verify(fixture->store, "full", NULL), 0);

	/* A replacement that does not fit leaves the name as it was. */
	struct snapshot *snapshot = NULL;

	assert_int_equal(publish_with(fixture, memory, KIB(512), KIB(64), NULL), -ENOSPC);
	assert_int_equal(snapshot_verify(fixture->store, "full", NULL), 0);
	assert_int_equal(snapshot_open(fixture->store, "full", &snapshot, NULL), 0);
	snapshot_free(snapshot);
	assert_int_equal(fixture_count(fixture, "snapshots"), 1);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	close(memory);
}

static void test_add_image(void **state)
{
	struct fixture *fixture = *state;
	struct base_error error = { 0 };
	struct snapshot_disk disk;

	if (!fixture->store) {
		skip();
	}

	uint64_t before = free_bytes(fixture);
	int image = fixture_memory(MIB(4), 2);

	assert_int_equal(snapshot_store_add_image(fixture->store, image, &disk, &error), -ENOSPC);
	assert_non_null(strstr(error.text, "No space left"));
	assert_int_equal(fixture_count(fixture, "images"), 0);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	assert_int_equal(free_bytes(fixture), before);
	close(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_publish, setup, teardown),
		cmocka_unit_test_setup_teardown(test_add_image, setup, teardown),
	};

	return cmocka_run_group_tests_name("full-disk", tests, NULL, NULL);
}
