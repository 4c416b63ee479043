/* SPDX-License-Identifier: Apache-2.0 */

/* Measuring a real process: a child whose mappings this test knows to the page. */

#include "pool/measure.h"

#include "base/fd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	    4096
#define IMAGE_PAGES 64
#define OWN_PAGES   512
/* What the steps themselves may write: stack, and the shadow memory of a sanitizer. */
#define NOISE_PAGES 32

struct child {
	pid_t pid;
	int fd; /* a byte to it: the next step; a byte from it: done */
	struct stat image;
};

static void *wait_for_ever(void *unused)
{
	for (;;) {
		pause();
	}
	return NULL;
}

static void touch(char *memory, size_t pages, bool dirty)
{
	for (size_t i = 0; i < pages; i++) {
		volatile char *byte = memory + i * PAGE;

		if (dirty) {
			*byte = 1;
		} else {
			(void)*byte;
		}
	}
}

static void step(int fd)
{
	char byte = 'x';

	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) {
		_exit(0);
	}
}

/* Reads the whole image; then writes 5 pages of it; then some of its own; then has 2 more
 * threads; then more mappings than are measured. */
static void child_main(int image, int fd)
{
	char *guest = mmap(NULL, IMAGE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, image, 0);
	char *own = mmap(NULL, OWN_PAGES * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *many = mmap(NULL, 2 * POOL_MEASURE_MAPPINGS_MAX * PAGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	touch(guest, IMAGE_PAGES, false);
	step(fd);
	step(fd);
	touch(guest, 5, true);
	step(fd);
	touch(own, OWN_PAGES, true);
	step(fd);
	for (unsigned i = 0; i < 2; i++) {
		if (pthread_create(&thread, NULL, wait_for_ever, NULL) != 0) {
			_exit(1);
		}
	}
	step(fd);
	for (size_t i = 0; i < 2 * POOL_MEASURE_MAPPINGS_MAX; i += 2) {
		if (mprotect(many + i * PAGE, PAGE, PROT_READ) < 0) {
			_exit(1);
		}
	}
	step(fd);
	_exit(0);
}

static int child_start(void **state)
{
	struct child *child = calloc(1, sizeof(*child));
	_cleanup_fd_ int image = -1;
	int pair[2];

	assert_int_equal(base_fd_memfd("image", IMAGE_PAGES * PAGE, &image), 0);
	for (unsigned i = 0; i < IMAGE_PAGES; i++) {
		assert_int_equal(base_fd_pwrite_full(image, "page", 4, i * PAGE), 0);
	}
	assert_int_equal(fstat(image, &child->image), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fflush(NULL);
	child->pid = fork();
	assert_true(child->pid >= 0);
	if (child->pid == 0) {
		close(pair[0]);
		child_main(image, pair[1]);
	}
	close(pair[1]);
	child->fd = pair[0];
	*state = child;
	return 0;
}

static int child_end(void **state)
{
	struct child *child = *state;

	kill(child->pid, SIGKILL);
	waitpid(child->pid, NULL, 0);
	close(child->fd);
	free(child);
	return 0;
}

static void child_arrive(struct child *child)
{
	char byte;

	assert_int_equal(read(child->fd, &byte, 1), 1);
}

static void child_go_on(struct child *child)
{
	assert_int_equal(write(child->fd, "x", 1), 1);
	child_arrive(child);
}

static int measure(const struct child *child, struct pool_memory *ret_memory)
{
	return pool_measure_process(child->pid, child->image.st_dev, child->image.st_ino,
				    ret_memory);
}

/* A figure that the kernel adds up itself. */
static uint64_t kernel_says(pid_t pid, const char *file, const char *key)
{
	char path[64], line[512];
	uint64_t kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') {
			kib = strtoull(line + strlen(key) + 1, NULL, 10);
		}
	}
	fclose(f);
	return kib * 1024;
}

static void counts_every_page_once_and_where_it_belongs(void **state)
{
	struct child *child = *state;
	struct pool_memory before, after;

	child_arrive(child);
	child_go_on(child);
	assert_int_equal(measure(child, &before), 0);
	assert_int_equal(before.guest_private, 0);
	assert_int_equal(before.image_shared, IMAGE_PAGES * PAGE);
	assert_true(before.program_shared > 0);
	assert_int_equal(before.page_tables, kernel_says(child->pid, "status", "VmPTE"));
	assert_true(before.page_tables > 0);

	child_go_on(child);
	assert_int_equal(measure(child, &after), 0);
	assert_int_equal(after.guest_private, 5 * PAGE);
	assert_int_equal(after.image_shared, (IMAGE_PAGES - 5) * PAGE);
	assert_in_range(after.vmm_other - before.vmm_other, 0, NOISE_PAGES * PAGE);
	before = after;

	child_go_on(child);
	assert_int_equal(measure(child, &after), 0);
	assert_in_range(after.vmm_other - before.vmm_other, OWN_PAGES * PAGE,
			(OWN_PAGES + NOISE_PAGES) * PAGE);
	assert_int_equal(after.guest_private, before.guest_private);
	assert_int_equal(after.kernel_stacks, KIB(16));
	/* The sums are the kernel's. The image's pages count as private there, for nobody else has
	 * them mapped. */
	assert_int_equal(after.guest_private + after.vmm_heap + after.vmm_data + after.vmm_other +
				 after.image_shared,
			 kernel_says(child->pid, "smaps_rollup", "Private_Dirty"));
	assert_int_equal(after.guest_private + after.vmm_heap + after.vmm_data + after.vmm_other +
				 after.image_shared + after.program_shared,
			 kernel_says(child->pid, "smaps_rollup", "Rss"));
	assert_in_range(after.pss, kernel_says(child->pid, "smaps_rollup", "Pss") - 64 * 1024,
			kernel_says(child->pid, "smaps_rollup", "Pss") + 64 * 1024);
	assert_int_equal(pool_memory_own(&after), after.guest_private + after.vmm_heap +
							  after.vmm_data + after.vmm_other +
							  after.page_tables + KIB(16));

	child_go_on(child);
	assert_int_equal(measure(child, &after), 0);
	assert_int_equal(after.kernel_stacks, 3 * KIB(16));
}

static void does_not_read_without_end(void **state)
{
	struct child *child = *state;
	struct pool_memory memory = { .pss = 4711 };

	child_arrive(child);
	for (unsigned i = 0; i < 5; i++) {
		child_go_on(child);
	}
	assert_int_equal(measure(child, &memory), -E2BIG);
	assert_int_equal(memory.pss, 4711);
}

static void measures_only_children_that_live(void **state)
{
	struct child *child = *state;
	struct pool_memory memory;
	siginfo_t info;

	assert_int_equal(pool_measure_process(getppid(), 0, 0, &memory), -ESRCH);
	child_arrive(child);
	kill(child->pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(measure(child, &memory), -ESRCH);
	waitpid(child->pid, NULL, 0);
	assert_int_equal(measure(child, &memory), -ESRCH);
}

static void the_host_adds_up(void **state)
{
	struct pool_host_memory host;

	assert_int_equal(pool_measure_host(&host), 0);
	assert_true(host.free <= host.available && host.available <= host.total);
	assert_true(host.shmem <= host.cache && host.cache < host.total);
	assert_true(host.slab > 0 && host.page_tables > 0 && host.kernel_stacks > 0);
	assert_true(host.unaccounted < host.total / 2);
	assert_true(host.free + host.cache + host.anonymous + host.slab + host.page_tables +
			    host.secondary_page_tables + host.kernel_stacks + host.vmalloc +
			    host.percpu + host.unaccounted >=
		    host.total);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, child_start, child_end)
	const struct CMUnitTest tests[] = {
		TEST(counts_every_page_once_and_where_it_belongs),
		TEST(does_not_read_without_end),
		TEST(measures_only_children_that_live),
		cmocka_unit_test(the_host_adds_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
