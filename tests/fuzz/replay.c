/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runs a fuzz target over the files of a corpus directory, with any compiler: what a fuzzer once
 * found stays found. Each file is tried whole, cut at several places, and with each of some bits
 * flipped. Fails when the directory has no file, so that a lost corpus is not a passed test.
 */

#include "base/fd.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define INPUT_MAX_BYTES MIB(4)
#define CUTS		64
#define FLIPS		512

/* A buffer of exactly the size, so that a sanitizer sees a read past the end. */
static void try_input(const uint8_t *data, size_t size, uint64_t flip_bit)
{
	uint8_t *copy = malloc(size > 0 ? size : 1);

	if (!copy) {
		abort();
	}
	memcpy(copy, data, size);
	if (flip_bit < size * 8) {
		copy[flip_bit / 8] ^= (uint8_t)(1 << flip_bit % 8);
	}
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void try_variants(const uint8_t *data, size_t size)
{
	try_input(data, size, UINT64_MAX);
	for (size_t i = 0; i < CUTS; i++) {
		try_input(data, size * i / CUTS, UINT64_MAX);
	}
	/* All bits of a small input; of a large one those at the front, where the headers are. */
	for (uint64_t bit = 0; bit < MIN((uint64_t)size * 8, (uint64_t)FLIPS); bit++) {
		try_input(data, size, bit);
	}
}

static int replay_file(int dir_fd, const char *name)
{
	_cleanup_fd_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *data = NULL;
	size_t size = 0;

	if (fd < 0 || base_fd_read_file(fd, INPUT_MAX_BYTES, &data, &size) < 0) {
		fprintf(stderr, "cannot read %s\n", name);
		return -1;
	}
	try_variants((const uint8_t *)data, size);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned n = 0;
	int r = 0;
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;

	if (!dir) {
		fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
		return 2;
	}
	for (struct dirent *entry; r == 0 && (entry = readdir(dir));) {
		if (entry->d_name[0] != '.') {
			r = replay_file(dirfd(dir), entry->d_name);
			n++;
		}
	}
	closedir(dir);
	printf("%u inputs\n", n);
	return r == 0 && n > 0 ? 0 : 1;
}
