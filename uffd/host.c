/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whether an image can be filled page by page on this host.
 *
 * With huge pages for memfds, a page that is written brings its neighbours along: they are there,
 * and zero, and nobody takes a fault for them any more. What the kernel does depends on a setting
 * for each size of page, so it is tried, on a memfd that is gone afterwards. Any thread.
 */

#include "uffd/uffd.h"

#include "base/fd.h"

#include <errno.h>
#include <unistd.h>

/* As large as the largest folio that may be given, twice, so that a whole one fits anywhere. */
#define PROBE_BYTES MIB(4)

int uffd_host_check(struct base_error *error)
{
	_cleanup_fd_ int fd = -1;
	int r = base_fd_memfd("warmbox-probe", PROBE_BYTES, &fd);
	off_t data, hole;

	if (r == 0) {
		r = base_fd_pwrite_full(fd, "", 1, PROBE_BYTES / 2);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot try out a memfd");
	}
	data = lseek(fd, 0, SEEK_DATA);
	hole = lseek(fd, data, SEEK_HOLE);
	if (data != PROBE_BYTES / 2 || hole != data + (off_t)SNAPSHOT_PAGE_BYTES) {
		return base_error_set(error, -ENOTSUP,
				      "memfds have huge pages on this host, so an image cannot be "
				      "filled page by page");
	}
	return 0;
}
