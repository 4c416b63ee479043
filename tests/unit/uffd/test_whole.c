/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the pager relies on: of a page that write() puts into a memfd, others see all or nothing.
 *
 * A reader spins on each page in turn and looks at its end the moment it is there. With a store
 * through a shared mapping in place of write(), it finds one to three half-filled pages among the
 * 4096 in most runs on two cores.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_BYTES KIB(4)
#define PAGES	   4096

struct reader {
	uint8_t *memory;
	atomic_bool stop;
	unsigned torn, seen;
};

/* A private mapping in which a missing page is an error and not a wait. */
static uint8_t *map_missing(int memfd, int *ret_uffd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_SIGBUS };
	uint8_t *memory =
		mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);
	struct uffdio_register all = {
		.range = { .start = (uintptr_t)memory, .len = PAGES * PAGE_BYTES },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	assert_ptr_not_equal(memory, MAP_FAILED);
	*ret_uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	assert_true(*ret_uffd >= 0);
	assert_int_equal(ioctl(*ret_uffd, UFFDIO_API, &api), 0);
	assert_int_equal(ioctl(*ret_uffd, UFFDIO_REGISTER, &all), 0);
	return memory;
}

static bool is_whole(const uint8_t *page)
{
	/* The end first: it is what would be written last. */
	for (size_t i = PAGE_BYTES; i-- > 0;) {
		if (((const volatile uint8_t *)page)[i] != 0xa5) {
			return false;
		}
	}
	return true;
}

static void *watch(void *userdata)
{
	struct reader *reader = userdata;

	for (unsigned i = 0; i < PAGES; i++) {
		uint8_t *page = reader->memory + i * PAGE_BYTES;

		while (madvise(page, PAGE_BYTES, MADV_POPULATE_READ) < 0) {
			if (atomic_load(&reader->stop)) {
				return NULL;
			}
		}
		reader->seen++;
		reader->torn += !is_whole(page);
	}
	return NULL;
}

static void test_pages_are_seen_whole(void **state)
{
	struct reader reader = { 0 };
	uint8_t page[PAGE_BYTES];
	int memfd = -1, uffd = -1;
	pthread_t thread;

	memset(page, 0xa5, sizeof(page));
	assert_int_equal(base_fd_memfd("test", PAGES * PAGE_BYTES, &memfd), 0);
	reader.memory = map_missing(memfd, &uffd);
	assert_int_equal(madvise(reader.memory, PAGE_BYTES, MADV_POPULATE_READ), -1);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(pthread_create(&thread, NULL, watch, &reader), 0);
	for (unsigned i = 0; i < PAGES; i++) {
		if (pwrite(memfd, page, sizeof(page), (off_t)(i * PAGE_BYTES)) != sizeof(page)) {
			atomic_store(&reader.stop, true);
		}
	}
	pthread_join(thread, NULL);
	assert_int_equal(reader.seen, PAGES);
	assert_int_equal(reader.torn, 0);
	munmap(reader.memory, PAGES * PAGE_BYTES);
	close(uffd);
	close(memfd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_are_seen_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
