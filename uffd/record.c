/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Recording which pages a restored VM touches, in the order of their first touch.
 *
 * Each run has an empty image and a thread of its own, which waits for faults, writes the one page
 * that is missing into the image and wakes who waits for it. Page by page, unlike the pager: what
 * is written along with a page is not seen to be touched. write() shows a page to the VM only when
 * all of it is there, which a store through a mapping does not (see uffd/control.h).
 *
 * A fault that cannot be answered would wait for ever, so the thread kills the VM then, and stop()
 * tells why; a VM that points outside of its memory is treated alike. A VM that dies by itself only
 * leaves the thread nothing to do. stop() ends the thread through an eventfd.
 *
 * Threads: the caller's, and between start() and stop() that of the run, which alone touches what
 * is grouped as its own.
 */

#include "uffd/uffd.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MESSAGES_MAX 16 /* taken at once */

struct uffd_recorder {
	int memory_fd; /* borrowed */
	uint64_t n_pages;

	/* The run; -1 and NULL between runs. */
	int image_fd;		   /* owned */
	int userfault_fd, stop_fd; /* owned */
	int pidfd;		   /* borrowed */
	uint64_t address;
	bool has_thread;
	pthread_t thread;

	/* The thread's, while there is one. */
	uint8_t *filled;   /* a bit for each page of the image; owned */
	uint8_t *recorded; /* a bit for each page in `pages`; owned */
	uint32_t *pages;   /* of all runs so far; owned */
	size_t n_recorded;
	int result;
	struct base_error error;
};

int uffd_recorder_new(int memory_fd, uint64_t memory_bytes, struct uffd_recorder **ret_recorder,
		      struct base_error *error)
{
	_cleanup_(uffd_recorder_freep) struct uffd_recorder *recorder = NULL;
	int r = uffd_host_check(error);

	if (r < 0) {
		return r;
	}
	recorder = calloc(1, sizeof(*recorder));
	if (!recorder) {
		return base_error_set_errno(error, -ENOMEM, "recorder");
	}
	recorder->memory_fd = memory_fd;
	recorder->n_pages = memory_bytes / SNAPSHOT_PAGE_BYTES;
	recorder->image_fd = recorder->userfault_fd = recorder->stop_fd = -1;
	recorder->filled = calloc(recorder->n_pages / 8 + 1, 1);
	recorder->recorded = calloc(recorder->n_pages / 8 + 1, 1);
	recorder->pages = calloc(recorder->n_pages + 1, sizeof(*recorder->pages));
	if (!recorder->filled || !recorder->recorded || !recorder->pages) {
		return base_error_set_errno(error, -ENOMEM, "recorder");
	}
	*ret_recorder = TAKE_PTR(recorder);
	return 0;
}

void uffd_recorder_free(struct uffd_recorder *recorder)
{
	if (!recorder) {
		return;
	}
	uffd_recorder_stop(recorder, NULL);
	free(recorder->filled);
	free(recorder->recorded);
	free(recorder->pages);
	free(recorder);
}

/* False when the bit was set before. */
static bool set_bit(uint8_t *bits, uint64_t n)
{
	uint8_t bit = (uint8_t)(1 << n % 8);
	bool was_set = bits[n / 8] & bit;

	bits[n / 8] |= bit;
	return !was_set;
}

/* --- the thread --- */

static int fill_page(const struct uffd_recorder *recorder, uint64_t page, struct base_error *error)
{
	uint8_t data[SNAPSHOT_PAGE_BYTES];
	off_t offset = (off_t)(page * SNAPSHOT_PAGE_BYTES);
	int r = base_fd_pread_full(recorder->memory_fd, data, sizeof(data), offset);

	if (r < 0) {
		return base_error_set_errno(error, r, "cannot read the saved memory");
	}
	r = base_fd_pwrite_full(recorder->image_fd, data, sizeof(data), offset);
	return r < 0 ? base_error_set_errno(error, r, "cannot fill the image") : 0;
}

static int answer(struct uffd_recorder *recorder, uint64_t address, struct base_error *error)
{
	uint64_t page = (address - recorder->address) / SNAPSHOT_PAGE_BYTES;
	struct uffdio_range range = {
		.start = recorder->address + page * SNAPSHOT_PAGE_BYTES,
		.len = SNAPSHOT_PAGE_BYTES,
	};
	int r;

	if (address < recorder->address || page >= recorder->n_pages) {
		return base_error_set(error, -EPROTO, "a fault outside of the guest's memory");
	}
	/* Several vCPUs may wait for the same page. */
	if (set_bit(recorder->filled, page)) {
		r = fill_page(recorder, page, error);
		if (r < 0) {
			return r;
		}
		if (set_bit(recorder->recorded, page)) {
			recorder->pages[recorder->n_recorded++] = (uint32_t)page;
		}
	}
	/* Fails when the VM has died meanwhile. */
	ioctl(recorder->userfault_fd, UFFDIO_WAKE, &range);
	return 0;
}

static int answer_all(struct uffd_recorder *recorder, struct base_error *error)
{
	struct uffd_msg messages[MESSAGES_MAX];
	ssize_t n = read(recorder->userfault_fd, messages, sizeof(messages));
	int r = n < 0 ? -errno : 0;

	if (r == -EAGAIN || r == -EINTR) {
		return 0;
	}
	if (r < 0 || n == 0) {
		return base_error_set_errno(error, r < 0 ? r : -EPROTO, "cannot read faults");
	}
	for (size_t i = 0; r == 0 && i < (size_t)n / sizeof(messages[0]); i++) {
		if (messages[i].event == UFFD_EVENT_PAGEFAULT) {
			r = answer(recorder, messages[i].arg.pagefault.address, error);
		}
	}
	return r;
}

static void *record(void *userdata)
{
	struct uffd_recorder *recorder = userdata;
	struct pollfd fds[] = {
		{ .fd = recorder->stop_fd, .events = POLLIN },
		{ .fd = recorder->userfault_fd, .events = POLLIN },
	};

	while (recorder->result == 0) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
			continue; /* only EINTR is possible */
		}
		if (fds[0].revents) {
			return NULL;
		}
		recorder->result = answer_all(recorder, &recorder->error);
	}
	syscall(SYS_pidfd_send_signal, recorder->pidfd, SIGKILL, NULL, 0);
	return NULL;
}

/* --- the caller --- */

int uffd_recorder_image(struct uffd_recorder *recorder, int *ret_fd, struct base_error *error)
{
	_cleanup_fd_ int fd = -1;
	int r = base_fd_memfd("warmbox-record", recorder->n_pages * SNAPSHOT_PAGE_BYTES, &fd);

	if (r < 0) {
		return base_error_set_errno(error, r, "cannot make an image");
	}
	r = base_fd_reopen_readonly(fd, ret_fd);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot reopen an image");
	}
	base_fd_close(recorder->image_fd);
	recorder->image_fd = TAKE_FD(fd);
	memset(recorder->filled, 0, recorder->n_pages / 8 + 1);
	return 0;
}

int uffd_recorder_start(struct uffd_recorder *recorder, int userfault_fd, uint64_t address,
			int pidfd, struct base_error *error)
{
	sigset_t all, before;
	int r;

	recorder->userfault_fd = userfault_fd;
	recorder->address = address;
	recorder->pidfd = pidfd;
	recorder->result = 0;
	recorder->stop_fd = eventfd(0, EFD_CLOEXEC);
	/* The VM may have left it blocking. */
	if (recorder->stop_fd < 0 || fcntl(userfault_fd, F_SETFL, O_NONBLOCK) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "cannot record faults");
	}
	/* Signals are for the caller. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&recorder->thread, NULL, record, recorder);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot start a thread");
	}
	recorder->has_thread = true;
	return 0;
}

int uffd_recorder_stop(struct uffd_recorder *recorder, struct base_error *error)
{
	int r = 0;

	if (recorder->has_thread) {
		eventfd_write(recorder->stop_fd, 1);
		pthread_join(recorder->thread, NULL);
		recorder->has_thread = false;
		r = recorder->result;
	}
	recorder->image_fd = base_fd_close(recorder->image_fd);
	recorder->userfault_fd = base_fd_close(recorder->userfault_fd);
	recorder->stop_fd = base_fd_close(recorder->stop_fd);
	return r < 0 ? base_error_set(error, r, "%s", recorder->error.text) : 0;
}

const uint32_t *uffd_recorder_pages(const struct uffd_recorder *recorder, size_t *ret_n)
{
	*ret_n = recorder->n_recorded;
	return recorder->pages;
}
