/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fault injection by countdown: whatever call fails, everything is given back.
 *
 * The linker turns the calls of our libraries to allocation and to the system into the __wrap
 * functions below. A scenario runs again and again; in run n the n-th such call fails (once), until
 * a run has fewer than n calls. Each failing run must return an error with a text or succeed
 * without the call (some are optional), leak no descriptor (and, under a sanitizer, no memory), and
 * leave a store in which the older snapshot is whole and nothing is half-made.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "tests/unit/snapshot/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_BYTES KIB(384)
/* No scenario has that many calls; a bound for a countdown that never ends. */
#define CALLS_MAX 5000

static atomic_int countdown; /* 0: off; the call that takes it from 1 to 0 fails */
static const char *_Atomic failed_call;

static bool hit(const char *name)
{
	if (atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1) {
		failed_call = name;
		return true;
	}
	return false;
}

#define WRAP(type, name, parameters, arguments, failure, number) \
	type __real_##name parameters;                           \
	type __wrap_##name parameters;                           \
	type __wrap_##name parameters                            \
	{                                                        \
		if (hit(#name)) {                                \
			errno = (number);                        \
			return (failure);                        \
		}                                                \
		return __real_##name arguments;                  \
	}

WRAP(void *, malloc, (size_t size), (size), NULL, ENOMEM)
WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL, ENOMEM)
WRAP(void *, realloc, (void *p, size_t size), (p, size), NULL, ENOMEM)
WRAP(char *, strdup, (const char *text), (text), NULL, ENOMEM)
WRAP(ssize_t, pread64, (int fd, void *data, size_t size, off_t at), (fd, data, size, at), -1, EIO)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), -1,
     EIO)
WRAP(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size), -1, EIO)
WRAP(int, fstat64, (int fd, struct stat *st), (fd, st), -1, EIO)
WRAP(int, ftruncate64, (int fd, off_t size), (fd, size), -1, EIO)
WRAP(int, fsync, (int fd), (fd), -1, EIO)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EIO)
WRAP(int, flock, (int fd, int operation), (fd, operation), -1, ENOLCK)
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), -1, EIO)
WRAP(int, symlinkat, (const char *target, int fd, const char *name), (target, fd, name), -1, EIO)
WRAP(int, mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode), -1, EIO)
WRAP(DIR *, fdopendir, (int fd), (fd), NULL, ENOMEM)
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), -1, EMFILE)
WRAP(void *, mmap64, (void *at, size_t size, int protection, int flags, int fd, off_t offset),
     (at, size, protection, flags, fd, offset), MAP_FAILED, ENOMEM)
/* Returns its error. */
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*fn)(void *), void *userdata),
     (thread, attributes, fn, userdata), EAGAIN, 0)

/* Variadic: the third argument is there when it is asked for. */
int __real_openat64(int fd, const char *name, int flags, ...);
int __wrap_openat64(int fd, const char *name, int flags, mode_t mode);
int __wrap_openat64(int fd, const char *name, int flags, mode_t mode)
{
	if (hit("openat")) {
		errno = EMFILE;
		return -1;
	}
	return __real_openat64(fd, name, flags, mode);
}

int __real_open64(const char *name, int flags, ...);
int __wrap_open64(const char *name, int flags, mode_t mode);
int __wrap_open64(const char *name, int flags, mode_t mode)
{
	if (hit("open")) {
		errno = EMFILE;
		return -1;
	}
	return __real_open64(name, flags, mode);
}

int __real_fcntl64(int fd, int operation, ...);
int __wrap_fcntl64(int fd, int operation, long argument);
int __wrap_fcntl64(int fd, int operation, long argument)
{
	if (hit("fcntl")) {
		errno = EPERM;
		return -1;
	}
	return __real_fcntl64(fd, operation, argument);
}

/* --- scenarios --- */

struct scene {
	struct fixture *fixture;
	int memory;
	int image;
	struct snapshot *snapshot;
};

static int publish(struct scene *scene, struct base_error *error)
{
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = NULL;
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest = fixture_manifest("subject");
	int r = snapshot_store_open(scene->fixture->store_path, true, &store, error);

	if (r == 0) {
		r = snapshot_store_add_image(store, scene->image, &manifest.disks[0], error);
	}
	if (r == 0) {
		r = snapshot_writer_new(store, &writer, error);
	}
	if (r == 0) {
		if (write(snapshot_writer_state_fd(writer), "state", 5) != 5) {
			abort();
		}
		r = snapshot_writer_memory(writer, scene->memory, MEMORY_BYTES, 2, NULL, NULL,
					   error);
	}
	if (r == 0) {
		manifest.n_disks = 1;
		r = snapshot_writer_publish(writer, &manifest, error);
	}
	return r;
}

static int open_and_list(struct scene *scene, struct base_error *error)
{
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = NULL;
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	char **names = NULL;
	size_t n = 0;
	int r = snapshot_store_open(scene->fixture->store_path, false, &store, error);

	if (r == 0) {
		r = snapshot_open(store, "subject", &snapshot, error);
	}
	if (r == 0) {
		r = snapshot_store_list(store, &names, &n, error);
	}
	for (size_t i = 0; i < n; i++) {
		free(names[i]);
	}
	free(names);
	return r;
}

static int verify(struct scene *scene, struct base_error *error)
{
	return snapshot_verify(scene->fixture->store, "subject", error);
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir)) {
		n++;
	}
	closedir(dir);
	return n;
}

/* Returns how many runs failed. */
static unsigned run_all(struct scene *scene, int (*run)(struct scene *, struct base_error *))
{
	unsigned failures = 0;

	for (int n = 1; n < CALLS_MAX; n++) {
		struct base_error error = { 0 };
		int fds = count_fds();
		int r;

		failed_call = NULL;
		atomic_store(&countdown, n);
		r = run(scene, &error);

		bool done = atomic_exchange(&countdown, 0) > 0;

		assert_int_equal(count_fds(), fds);
		if (r < 0) {
			if (!error.text[0]) {
				fail_msg("call %d (%s): no text", n, failed_call);
			}
			failures++;
		}
		/* Nothing half-made; what was there is whole. */
		if (snapshot_verify(scene->fixture->store, "subject", &error) < 0) {
			fail_msg("call %d (%s): %s", n, failed_call, error.text);
		}
		if (done) {
			assert_int_equal(r, 0);
			return failures;
		}
	}
	fail_msg("more than %d calls", CALLS_MAX);
	return failures;
}

static void scene_init(struct scene *scene, struct fixture *fixture)
{
	*scene = (struct scene){ .fixture = fixture };
	scene->memory = fixture_memory(MEMORY_BYTES, 1);
	scene->image = fixture_file(fixture, "the image of the subject");
	fixture_publish(fixture, "subject", scene->memory, MEMORY_BYTES);
	assert_int_equal(snapshot_open(fixture->store, "subject", &scene->snapshot, NULL), 0);
}

static void scene_deinit(struct scene *scene)
{
	snapshot_free(scene->snapshot);
	close(scene->memory);
	close(scene->image);
}

static void test_publish(void **state)
{
	struct scene scene;

	scene_init(&scene, *state);
	assert_true(run_all(&scene, publish) > 40);
	/* One more, undisturbed, sweeps what a failed sweep has left. */
	assert_int_equal(publish(&scene, NULL), 0);
	assert_int_equal(fixture_count(scene.fixture, "snapshots"), 1);
	assert_int_equal(fixture_count(scene.fixture, "tmp"), 0);
	assert_int_equal(fixture_count(scene.fixture, "images"), 1);
	scene_deinit(&scene);
}

static void test_open(void **state)
{
	struct scene scene;

	scene_init(&scene, *state);
	assert_true(run_all(&scene, open_and_list) > 20);
	scene_deinit(&scene);
}

static void test_verify(void **state)
{
	struct scene scene;

	scene_init(&scene, *state);
	assert_true(run_all(&scene, verify) > 20);
	scene_deinit(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_publish, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_open, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_verify, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
