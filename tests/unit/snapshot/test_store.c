/* SPDX-License-Identifier: Apache-2.0 */

/* The store: names, replacing, removing, what is swept and what is not, several writers, crashes.
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
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEMORY_BYTES KIB(256)

static void join(struct fixture *fixture, const char *name, char path[FIXTURE_PATH_MAX * 2])
{
	snprintf(path, FIXTURE_PATH_MAX * 2, "%s/%s", fixture->store_path, name);
}

static void test_names(void **state)
{
	static const char *const good[] = { "a", "0", "python", "python3.11-slim_x", "a.b", "a.." };
	static const char *const bad[] = { "",	  ".",	  "..",	 "-a",	"_a",	    ".a", "A",
					   "a/b", "../a", "a b", "a\n", "\xc3\xa4", "a/", "/a" };
	char longest[SNAPSHOT_NAME_MAX + 2] = { 0 };
	struct fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(snapshot_name_is_valid(good[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct snapshot *snapshot = NULL;

		assert_false(snapshot_name_is_valid(bad[i]));
		assert_int_equal(snapshot_open(fixture->store, bad[i], &snapshot, NULL), -ENOENT);
		assert_int_equal(snapshot_store_remove(fixture->store, bad[i], NULL), -EINVAL);
	}
	memset(longest, 'x', SNAPSHOT_NAME_MAX);
	assert_true(snapshot_name_is_valid(longest));
	longest[SNAPSHOT_NAME_MAX] = 'x';
	assert_false(snapshot_name_is_valid(longest));
}

static void test_open_store(void **state)
{
	struct fixture *fixture = *state;
	struct snapshot_store *store = NULL;
	struct base_error error = { 0 };
	char path[FIXTURE_PATH_MAX * 2];

	join(fixture, "absent", path);
	assert_int_equal(snapshot_store_open(path, false, &store, &error), -ENOENT);
	assert_non_null(strstr(error.text, path));
	assert_int_equal(snapshot_store_open("", true, &store, &error), -EINVAL);

	/* Parents are made as well; a second opening finds everything. */
	join(fixture, "absent/deep", path);
	assert_int_equal(snapshot_store_open(path, true, &store, &error), 0);
	snapshot_store_free(store);
	assert_int_equal(snapshot_store_open(path, false, &store, &error), 0);
	snapshot_store_free(store);
	snapshot_store_free(NULL);

	/* A link where a directory belongs is not followed. */
	join(fixture, "absent/deep/templates", path);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink("/tmp", path), 0);
	join(fixture, "absent/deep", path);
	assert_int_equal(snapshot_store_open(path, true, &store, &error), -ENOTDIR);
}

static void assert_names(struct fixture *fixture, size_t n, const char *const *names)
{
	char **listed = NULL;
	size_t n_listed = 99;

	assert_int_equal(snapshot_store_list(fixture->store, &listed, &n_listed, NULL), 0);
	assert_int_equal(n_listed, n);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(listed[i], names[i]);
		free(listed[i]);
	}
	free(listed);
}

static void test_list_and_remove(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	char path[FIXTURE_PATH_MAX * 2];
	struct base_error error = { 0 };

	assert_names(fixture, 0, NULL);
	fixture_publish(fixture, "zebra", memory, MEMORY_BYTES);
	fixture_publish(fixture, "ant", memory, MEMORY_BYTES);
	fixture_publish(fixture, "mole", memory, MEMORY_BYTES);
	join(fixture, "templates/.hidden", path);
	fixture_write(path, "", 0);
	assert_names(fixture, 3, (const char *const[]){ "ant", "mole", "zebra" });
	unlink(path);

	assert_int_equal(snapshot_store_remove(fixture->store, "mole", NULL), 0);
	assert_names(fixture, 2, (const char *const[]){ "ant", "zebra" });
	assert_int_equal(fixture_count(fixture, "snapshots"), 2);
	assert_int_equal(fixture_count(fixture, "images"), 2);
	assert_int_equal(snapshot_store_remove(fixture->store, "mole", &error), -ENOENT);
	assert_non_null(strstr(error.text, "mole"));
	assert_int_equal(snapshot_verify(fixture->store, "ant", NULL), 0);
	assert_int_equal(snapshot_verify(fixture->store, "zebra", NULL), 0);

	assert_int_equal(snapshot_store_remove(fixture->store, "ant", NULL), 0);
	assert_int_equal(snapshot_store_remove(fixture->store, "zebra", NULL), 0);
	assert_int_equal(fixture_count(fixture, "snapshots"), 0);
	assert_int_equal(fixture_count(fixture, "images"), 0);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	close(memory);
}

/* A snapshot that is open outlives its replacement and its removal. */
static void test_replace_while_open(void **state)
{
	struct fixture *fixture = *state;
	int old_memory = fixture_memory(MEMORY_BYTES, 1), new_memory = fixture_memory(MIB(1), 2);
	struct snapshot *old = NULL, *new = NULL;
	char id[SNAPSHOT_ID_LENGTH + 1];
	int image = -1;

	assert_int_equal(snapshot_store_lookup(fixture->store, "name", id, NULL), -ENOENT);
	assert_int_equal(snapshot_store_lookup(fixture->store, "../name", id, NULL), -ENOENT);

	struct snapshot_manifest first = fixture_publish(fixture, "name", old_memory, MEMORY_BYTES);

	assert_int_equal(snapshot_open(fixture->store, "name", &old, NULL), 0);
	assert_int_equal(snapshot_store_lookup(fixture->store, "name", id, NULL), 0);
	assert_string_equal(id, first.id);
	assert_int_equal(snapshot_store_lookup(fixture->store, first.id, id, NULL), 0);
	assert_string_equal(id, first.id);

	struct snapshot_manifest second = fixture_publish(fixture, "name", new_memory, MIB(1));

	assert_string_not_equal(first.id, second.id);
	assert_names(fixture, 1, (const char *const[]){ "name" });
	assert_int_equal(fixture_count(fixture, "snapshots"), 1);

	assert_int_equal(snapshot_store_lookup(fixture->store, "name", id, NULL), 0);
	assert_string_equal(id, second.id);
	assert_int_equal(snapshot_store_lookup(fixture->store, first.id, id, NULL), -ENOENT);
	assert_int_equal(snapshot_open(fixture->store, first.id, &new, NULL), -ENOENT);
	assert_int_equal(snapshot_open(fixture->store, second.id, &new, NULL), 0);
	assert_string_equal(snapshot_manifest(new)->id, second.id);
	snapshot_free(new);
	assert_int_equal(snapshot_store_remove(fixture->store, "name", NULL), 0);
	assert_int_equal(snapshot_open(fixture->store, "name", &new, NULL), -ENOENT);

	assert_int_equal(fixture_fill(old, &image, NULL, NULL), 0);
	assert_int_equal(fixture_compare(old_memory, image, MEMORY_BYTES), 0);
	close(image);
	snapshot_free(old);
	close(old_memory);
	close(new_memory);
}

/* Another name for the same snapshot keeps it. */
static void test_two_names(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	struct snapshot_manifest manifest = fixture_publish(fixture, "one", memory, MEMORY_BYTES);
	char target[128], path[FIXTURE_PATH_MAX * 2];

	snprintf(target, sizeof(target), "../snapshots/%s", manifest.id);
	join(fixture, "templates/two", path);
	assert_int_equal(symlink(target, path), 0);
	assert_int_equal(snapshot_store_remove(fixture->store, "one", NULL), 0);
	assert_int_equal(snapshot_verify(fixture->store, "two", NULL), 0);
	assert_int_equal(snapshot_store_remove(fixture->store, "two", NULL), 0);
	assert_int_equal(fixture_count(fixture, "snapshots"), 0);
	close(memory);
}

static void test_links_are_not_followed(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	struct snapshot_manifest manifest = fixture_publish(fixture, "real", memory, MEMORY_BYTES);
	char absolute[FIXTURE_PATH_MAX * 2], path[FIXTURE_PATH_MAX * 2];
	char dangling[] = "../snapshots/0123456789abcdef0123456789abcdef";
	const char *const targets[] = { "/etc",
					"../snapshots/..",
					"../snapshots/",
					absolute,
					"../snapshots/0123456789abcdef0123456789abcdeF",
					"../snapshots/0123456789abcdef0123456789abcdef0",
					dangling };

	snprintf(absolute, sizeof(absolute), "%s/snapshots/%s", fixture->store_path, manifest.id);
	join(fixture, "templates/bad", path);
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
		struct snapshot *snapshot = NULL;
		struct base_error error = { 0 };

		assert_int_equal(symlink(targets[i], path), 0);
		assert_int_equal(snapshot_open(fixture->store, "bad", &snapshot, &error), -EBADMSG);
		assert_non_null(strstr(error.text, "templates/bad: link: "));
		/* In doubt nothing is swept. */
		fixture_publish(fixture, "other", memory, MEMORY_BYTES);
		assert_int_equal(snapshot_verify(fixture->store, "real", NULL), 0);
		assert_int_equal(unlink(path), 0);
	}
	/* A file is no link. */
	fixture_write(path, "x", 1);

	struct snapshot *snapshot = NULL;

	assert_int_equal(snapshot_open(fixture->store, "bad", &snapshot, NULL), -EBADMSG);
	/* Publishing replaces whatever stands there. */
	fixture_publish(fixture, "bad", memory, MEMORY_BYTES);
	assert_int_equal(snapshot_verify(fixture->store, "bad", NULL), 0);
	assert_int_equal(fixture_count(fixture, "snapshots"), 3);
	close(memory);
}

static void test_failed_publish_takes_back(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	struct snapshot_manifest manifest = fixture_manifest("name");
	struct snapshot_writer *writer = NULL;
	struct base_error error = { 0 };
	char path[FIXTURE_PATH_MAX * 2];

	/* A directory under the template's name cannot be replaced by a link. */
	join(fixture, "templates/name", path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(snapshot_writer_new(fixture->store, &writer, NULL), 0);
	assert_int_equal(base_fd_write_full(snapshot_writer_state_fd(writer), "s", 1), 0);
	assert_int_equal(snapshot_writer_memory(writer, memory, MEMORY_BYTES, 1, NULL, NULL, NULL),
			 0);
	assert_int_equal(snapshot_writer_publish(writer, &manifest, &error), -EISDIR);
	assert_non_null(strstr(error.text, "name"));
	assert_string_equal(manifest.id, "");
	assert_int_equal(fixture_count(fixture, "snapshots"), 0);

	/* The writer is as before and may try again. */
	assert_int_equal(rmdir(path), 0);
	manifest.n_disks = 1;
	manifest.disks[0] = (struct snapshot_disk){ .size_bytes = 5, .read_only = true };
	memset(manifest.disks[0].digest, 'a', SNAPSHOT_DIGEST_LENGTH);
	assert_int_equal(snapshot_writer_publish(writer, &manifest, &error), -EBADMSG);
	assert_non_null(strstr(error.text, "missing"));
	manifest.n_disks = 0;
	assert_int_equal(snapshot_writer_publish(writer, &manifest, &error), 0);
	snapshot_writer_free(writer);
	assert_int_equal(snapshot_verify(fixture->store, "name", NULL), 0);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	close(memory);
}

/* --- images --- */

static void test_images(void **state)
{
	struct fixture *fixture = *state;
	struct snapshot_disk one, two, same;
	struct base_error error = { 0 };
	char digest[SNAPSHOT_DIGEST_LENGTH + 1];
	int file = fixture_file(fixture, "an image"), other = fixture_file(fixture, "another");
	int empty = fixture_file(fixture, ""), fd = -1;

	assert_int_equal(snapshot_store_add_image(fixture->store, file, &one, NULL), 0);
	assert_int_equal(snapshot_store_add_image(fixture->store, other, &two, NULL), 0);
	assert_int_equal(snapshot_store_add_image(fixture->store, file, &same, NULL), 0);
	assert_int_equal(fixture_count(fixture, "images"), 2);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	assert_memory_equal(&one, &same, sizeof(one));
	assert_int_equal(one.size_bytes, 8);
	assert_true(one.read_only);

	assert_int_equal(snapshot_store_open_image(fixture->store, &one, &fd, NULL), 0);
	assert_int_equal(snapshot_digest_fd(fd, digest, NULL), 0);
	assert_string_equal(digest, one.digest);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);

	assert_int_equal(snapshot_store_add_image(fixture->store, empty, &two, &error), -EINVAL);
	strcpy(same.digest, "../../../../../../../etc/passwd");
	assert_int_equal(snapshot_store_open_image(fixture->store, &same, &fd, &error), -EINVAL);
	assert_int_equal(snapshot_digest_fd(-1, digest, &error), -EBADF);
	close(file);
	close(other);
	close(empty);
}

static void test_large_image(void **state)
{
	struct fixture *fixture = *state;
	struct snapshot_disk disk;
	char path[FIXTURE_PATH_MAX * 2], digest[SNAPSHOT_DIGEST_LENGTH + 1];
	int memory = fixture_memory(MIB(5) + 4096, 8), fd = -1;

	/* From a memfd: neither extents nor ranges can be shared with the store's file system. */
	assert_int_equal(snapshot_store_add_image(fixture->store, memory, &disk, NULL), 0);
	assert_int_equal(snapshot_digest_fd(memory, digest, NULL), 0);
	assert_string_equal(disk.digest, digest);
	assert_int_equal(snapshot_store_open_image(fixture->store, &disk, &fd, NULL), 0);
	assert_int_equal(fixture_compare(memory, fd, MIB(5) + 4096), 0);

	/* One that has lost its end is replaced. */
	snprintf(path, sizeof(path), "%s/images/%s.img", fixture->store_path, disk.digest);
	chmod(path, 0600);
	assert_int_equal(truncate(path, 4096), 0);
	close(fd);
	assert_int_equal(snapshot_store_open_image(fixture->store, &disk, &fd, NULL), -EBADMSG);
	assert_int_equal(snapshot_store_add_image(fixture->store, memory, &disk, NULL), 0);
	assert_int_equal(snapshot_store_open_image(fixture->store, &disk, &fd, NULL), 0);
	assert_int_equal(fixture_compare(memory, fd, MIB(5) + 4096), 0);
	close(fd);
	close(memory);
}

/* An image is safe from others until a snapshot names it, and goes with a handle that never used
 * it. */
static void test_pins(void **state)
{
	struct fixture *fixture = *state;
	struct snapshot_store *builder = NULL;
	struct snapshot_disk disk;
	int memory = fixture_memory(MEMORY_BYTES, 1), file = fixture_file(fixture, "pinned");

	assert_int_equal(snapshot_store_open(fixture->store_path, false, &builder, NULL), 0);
	assert_int_equal(snapshot_store_add_image(builder, file, &disk, NULL), 0);
	fixture_publish(fixture, "other", memory, MEMORY_BYTES);
	assert_int_equal(snapshot_store_remove(fixture->store, "other", NULL), 0);
	assert_int_equal(fixture_count(fixture, "images"), 1);
	snapshot_store_free(builder);
	assert_int_equal(fixture_count(fixture, "images"), 0);
	close(file);
	close(memory);
}

/* A manifest that cannot be read may name any image: none is removed. */
static void test_damage_keeps_images(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	struct snapshot_manifest sick = fixture_publish(fixture, "sick", memory, MEMORY_BYTES);

	fixture_publish(fixture, "sound", memory, MEMORY_BYTES);
	fixture_write(fixture_path(fixture, sick.id, "manifest"), "x", 1);
	assert_int_equal(snapshot_store_remove(fixture->store, "sound", NULL), 0);
	assert_int_equal(fixture_count(fixture, "images"), 2);
	/* With the damaged one gone, everything can be judged again. */
	assert_int_equal(snapshot_store_remove(fixture->store, "sick", NULL), 0);
	assert_int_equal(fixture_count(fixture, "images"), 0);
	assert_int_equal(fixture_count(fixture, "snapshots"), 0);
	close(memory);
}

/* --- crashes and company --- */

/* In a child: gone when the test is gone, however that ends. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) {
		_exit(1);
	}
}

/* A process that starts a snapshot, says so, and waits to be killed. */
static pid_t start_writer(struct fixture *fixture)
{
	int ready[2];
	char byte = 0;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);

	pid_t parent = getpid(), pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		die_with(parent);

		struct snapshot_store *store = NULL;
		struct snapshot_writer *writer = NULL;

		if (snapshot_store_open(fixture->store_path, false, &store, NULL) < 0 ||
		    snapshot_writer_new(store, &writer, NULL) < 0 ||
		    base_fd_write_full(snapshot_writer_state_fd(writer), "half", 4) < 0 ||
		    write(ready[1], "r", 1) != 1) {
			_exit(1);
		}
		for (;;) {
			pause();
		}
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void test_leftovers_are_swept(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	struct snapshot_manifest kept = fixture_publish(fixture, "kept", memory, MEMORY_BYTES);
	struct snapshot_writer *writer = NULL;
	char path[FIXTURE_PATH_MAX * 2], orphan[FIXTURE_PATH_MAX * 2];
	pid_t alive = start_writer(fixture), dead = start_writer(fixture);
	int status;

	assert_int_equal(fixture_count(fixture, "tmp"), 2);
	assert_int_equal(kill(dead, SIGKILL), 0);
	assert_int_equal(waitpid(dead, &status, 0), dead);

	/* What other ways of dying leave: a file, a link, a published snapshot without a name. */
	join(fixture, "tmp/0123.image", path);
	fixture_write(path, "half an image", 13);
	join(fixture, "tmp/0123.link", path);
	assert_int_equal(symlink("../snapshots/0123", path), 0);
	join(fixture, "snapshots/00000000000000000000000000000000", orphan);
	assert_int_equal(mkdir(orphan, 0700), 0);
	join(fixture, "snapshots/00000000000000000000000000000000/memory", path);
	fixture_write(path, "m", 1);

	assert_int_equal(snapshot_writer_new(fixture->store, &writer, NULL), 0);
	assert_int_equal(fixture_count(fixture, "tmp"), 2); /* the live one, and this */
	assert_int_equal(fixture_count(fixture, "snapshots"), 1);
	snapshot_writer_free(writer);
	assert_int_equal(fixture_count(fixture, "tmp"), 1);
	assert_int_equal(kill(alive, SIGKILL), 0);
	assert_int_equal(waitpid(alive, &status, 0), alive);
	assert_int_equal(snapshot_writer_new(fixture->store, &writer, NULL), 0);
	snapshot_writer_free(writer);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	assert_int_equal(snapshot_verify(fixture->store, kept.template_name, NULL), 0);
	close(memory);
}

struct racer {
	struct fixture *fixture;
	int memory;
	unsigned rounds;
	bool reader;
	int result;
};

static int write_once(struct racer *racer, struct base_error *error)
{
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer = NULL;
	struct snapshot_manifest manifest = fixture_manifest("contested");
	int file = fixture_file(racer->fixture, "the image of both");
	int r = snapshot_store_add_image(racer->fixture->store, file, &manifest.disks[0], error);

	close(file);
	manifest.n_disks = 1;
	if (r == 0) {
		r = snapshot_writer_new(racer->fixture->store, &writer, error);
	}
	if (r == 0) {
		r = base_fd_write_full(snapshot_writer_state_fd(writer), "s", 1);
	}
	if (r == 0) {
		r = snapshot_writer_memory(writer, racer->memory, MEMORY_BYTES, 1, NULL, NULL,
					   error);
	}
	return r < 0 ? r : snapshot_writer_publish(writer, &manifest, error);
}

static void *race(void *userdata)
{
	struct racer *racer = userdata;

	for (unsigned i = 0; i < racer->rounds && racer->result == 0; i++) {
		struct base_error error = { 0 };

		racer->result =
			racer->reader ? snapshot_verify(racer->fixture->store, "contested", &error)
				      : write_once(racer, &error);
		if (racer->result < 0) {
			fprintf(stderr, "# %s: %s\n", racer->reader ? "reader" : "writer",
				error.text);
		}
	}
	return NULL;
}

/* Two writers of one name and a reader that must always find it whole. */
static void test_two_writers(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	struct racer racers[] = {
		{ .fixture = fixture, .memory = memory, .rounds = 20 },
		{ .fixture = fixture, .memory = memory, .rounds = 20 },
		{ .fixture = fixture, .memory = memory, .rounds = 200, .reader = true },
	};
	pthread_t threads[ARRAY_SIZE(racers)];
	struct base_error error = { 0 };

	assert_int_equal(write_once(&racers[0], &error), 0);
	for (size_t i = 0; i < ARRAY_SIZE(racers); i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(racers); i++) {
		pthread_join(threads[i], NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(racers); i++) {
		assert_int_equal(racers[i].result, 0);
	}
	assert_int_equal(fixture_count(fixture, "snapshots"), 1);
	assert_int_equal(fixture_count(fixture, "images"), 1);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	assert_int_equal(snapshot_verify(fixture->store, "contested", &error), 0);
	close(memory);
}

/* Nobody opens between a rename and the link, or between a link and what it led to. */
static void test_opening_waits_for_a_change(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MEMORY_BYTES, 1);
	struct racer racer = { .fixture = fixture, .rounds = 1, .reader = true };
	int lock = open(fixture->store_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pthread_t thread;

	fixture_publish(fixture, "contested", memory, MEMORY_BYTES);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	assert_int_equal(pthread_create(&thread, NULL, race, &racer), 0);
	usleep(50000); /* too short can only let a fault pass */
	assert_int_equal(pthread_tryjoin_np(thread, NULL), EBUSY);
	close(lock);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(racer.result, 0);
	close(memory);
}

/* A writer that is killed at some moment: the name means something whole, before and after. */
static void test_killed_anywhere(void **state)
{
	struct fixture *fixture = *state;
	int memory = fixture_memory(MIB(1), 1);
	uint64_t seed = (uint64_t)getpid() * 2 + 1;
	struct base_error error = { 0 };

	print_message("# seed %llu\n", (unsigned long long)seed);
	fixture_publish(fixture, "contested", memory, MIB(1));
	for (unsigned round = 0; round < 60; round++) {
		struct racer racer = { .fixture = fixture, .memory = memory, .rounds = UINT32_MAX };
		pid_t parent = getpid(), pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0) {
			die_with(parent);
			racer.memory = fixture_memory(MEMORY_BYTES, round);
			race(&racer);
			_exit(1);
		}
		usleep((useconds_t)(fixture_random(&seed) % 12000));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status)); /* and did not end by itself, with an error */
		if (snapshot_verify(fixture->store, "contested", &error) < 0) {
			fail_msg("%s", error.text);
		}
		assert_names(fixture, 1, (const char *const[]){ "contested" });
	}
	fixture_publish(fixture, "contested", memory, MIB(1));
	assert_int_equal(fixture_count(fixture, "snapshots"), 1);
	assert_int_equal(fixture_count(fixture, "images"), 1);
	assert_int_equal(fixture_count(fixture, "tmp"), 0);
	close(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_names, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_open_store, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_list_and_remove, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_replace_while_open, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_two_names, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_links_are_not_followed, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_failed_publish_takes_back, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_images, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_large_image, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_pins, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_damage_keeps_images, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_leftovers_are_swept, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_two_writers, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_opening_waits_for_a_change, fixture_setup,
						fixture_teardown),
		cmocka_unit_test_setup_teardown(test_killed_anywhere, fixture_setup,
						fixture_teardown),
	};

	int failed;

	fixture_pager_start();
	failed = cmocka_run_group_tests_name("store", tests, NULL, NULL);
	fixture_pager_stop();
	return failed;
}
