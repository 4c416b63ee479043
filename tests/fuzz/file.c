/* SPDX-License-Identifier: Apache-2.0 */

/* See file.h: a memfd. */

#include "tests/fuzz/file.h"

#include <sys/mman.h>
#include <unistd.h>

static int file = -1;

int fuzz_file(const uint8_t *data, size_t size)
{
	if (file < 0) {
		file = memfd_create("input", MFD_CLOEXEC);
	}
	FUZZ_CHECK(ftruncate(file, 0) == 0 && lseek(file, 0, SEEK_SET) == 0);
	FUZZ_CHECK(pwrite(file, data, size, 0) == (ssize_t)size);
	return file;
}

const char *fuzz_file_path(void)
{
	static char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	return path;
}
