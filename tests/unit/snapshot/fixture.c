/* SPDX-License-Identifier: Apache-2.0 */

/* See fixture.h. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "tests/unit/snapshot/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	}
	closedir(dir);
	return n;
}

int fixture_setup_at(struct fixture *fixture, const char *root)
{
	struct base_error error = { 0 };

	snprintf(fixture->root, sizeof(fixture->root), "%s", root);
	snprintf(fixture->store_path, sizeof(fixture->store_path), "%s/store", root);
	fixture->fds_before = count_entries("/proc/self/fd");
	if (snapshot_store_open(fixture->store_path, true, &fixture->store, &error) < 0) {
		fail_msg("%s", error.text);
	}
	return 0;
}

int fixture_setup(void **state)
{
	char root[] = "/tmp/warmbox-snapshot-XXXXXX";
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	assert_non_null(mkdtemp(root));
	*state = fixture;
	return fixture_setup_at(fixture, root);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void fixture_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	snapshot_store_free(fixture->store);

	int leaked = count_entries("/proc/self/fd") - fixture->fds_before;

	fixture_remove_tree(fixture->root);
	free(fixture);
	if (leaked != 0) {
		print_error("%d descriptors leaked\n", leaked);
	}
	return leaked;
}

/* xorshift64* */
uint64_t fixture_random(uint64_t *seed)
{
	*seed ^= *seed >> 12;
	*seed ^= *seed << 25;
	*seed ^= *seed >> 27;
	return *seed * UINT64_C(2685821657736338717);
}

static void fill_chunk(uint8_t *chunk, size_t size, unsigned kind, uint64_t *seed)
{
	switch (kind) {
	case 0: /* a hole */
	case 1: /* zeros that are there */
		break;
	case 2: /* random */
		for (size_t i = 0; i < size; i++) {
			chunk[i] = (uint8_t)fixture_random(seed);
		}
		break;
	case 3: /* one byte, somewhere */
		chunk[fixture_random(seed) % size] = 1;
		break;
	default: /* compressible: a quarter random */
		for (size_t i = 0; i < size; i++) {
			chunk[i] = i % 64 < 16 ? (uint8_t)fixture_random(seed) : (uint8_t)(i >> 8);
		}
		break;
	}
}

int fixture_memory(uint64_t memory_bytes, uint64_t seed)
{
	uint8_t *chunk = malloc(SNAPSHOT_CHUNK_BYTES);
	int fd = -1;

	seed = seed * 2 + 1;
	assert_non_null(chunk);
	assert_int_equal(base_fd_memfd("test-memory", memory_bytes, &fd), 0);
	for (uint64_t offset = 0, n = 0; offset < memory_bytes; n++) {
		size_t size = (size_t)MIN(SNAPSHOT_CHUNK_BYTES, memory_bytes - offset);
		unsigned kind = (unsigned)(n % 6);

		memset(chunk, 0, size);
		fill_chunk(chunk, size, kind, &seed);
		if (kind != 0) {
			assert_int_equal(base_fd_pwrite_full(fd, chunk, size, (off_t)offset), 0);
		}
		offset += size;
	}
	free(chunk);
	return fd;
}

uint32_t *fixture_working_set(uint64_t memory_bytes, size_t *ret_n)
{
	uint32_t n_pages = (uint32_t)(memory_bytes / SNAPSHOT_PAGE_BYTES);
	uint32_t *pages = calloc(n_pages, sizeof(*pages));

	assert_non_null(pages);
	*ret_n = n_pages / 3;
	for (size_t i = 0; i < *ret_n; i++) {
		pages[i] = n_pages - 1 - (uint32_t)i * 3;
	}
	return pages;
}

struct snapshot_manifest fixture_manifest(const char *name)
{
	struct snapshot_manifest manifest = {
		.host_kind = 3,
		.host_fingerprint = UINT64_C(0xfedcba9876543210),
		.n_vcpus = 2,
		.guest_cid = 3,
		.kernel_digest = "00112233445566778899aabbccddeeff",
		.cmdline = "console=ttyS0 quiet",
		.has_resident = true,
	};

	strncpy(manifest.template_name, name, SNAPSHOT_NAME_MAX);
	return manifest;
}

int fixture_file(struct fixture *fixture, const char *content)
{
	int fd = open(fixture->root, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(base_fd_write_full(fd, content, strlen(content)), 0);
	return fd;
}

struct snapshot_manifest fixture_publish(struct fixture *fixture, const char *name, int memory_fd,
					 uint64_t memory_bytes)
{
	struct snapshot_manifest manifest = fixture_manifest(name);
	struct snapshot_writer *writer = NULL;
	struct base_error error = { 0 };
	char content[128];
	uint32_t *pages;
	size_t n_pages;

	snprintf(content, sizeof(content), "the root image of %s", name);

	int image = fixture_file(fixture, content);
	int r = snapshot_store_add_image(fixture->store, image, &manifest.disks[0], &error);

	close(image);
	manifest.n_disks = 1;
	if (r == 0) {
		r = snapshot_writer_new(fixture->store, &writer, &error);
	}
	if (r == 0) {
		const char *state = "registers, clocks and devices";

		assert_int_equal(
			base_fd_write_full(snapshot_writer_state_fd(writer), state, strlen(state)),
			0);
		pages = fixture_working_set(memory_bytes, &n_pages);
		r = snapshot_writer_working_set(writer, pages, n_pages, &error);
		free(pages);
	}
	if (r == 0) {
		r = snapshot_writer_memory(writer, memory_fd, memory_bytes, 2, NULL, NULL, &error);
	}
	if (r == 0) {
		r = snapshot_writer_publish(writer, &manifest, &error);
	}
	snapshot_writer_free(writer);
	if (r < 0) {
		fail_msg("%s", error.text);
	}
	return manifest;
}

int fixture_count(struct fixture *fixture, const char *directory)
{
	char path[FIXTURE_PATH_MAX * 2];

	snprintf(path, sizeof(path), "%s/%s", fixture->store_path, directory);
	return count_entries(path);
}

const char *fixture_path(struct fixture *fixture, const char *id, const char *file)
{
	static char path[FIXTURE_PATH_MAX * 2];

	snprintf(path, sizeof(path), "%s/snapshots/%s/%s", fixture->store_path, id, file);
	return path;
}

uint8_t *fixture_read(const char *path, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *data = NULL;

	assert_true(fd >= 0);
	assert_int_equal(base_fd_read_file(fd, MIB(64), &data, ret_size), 0);
	close(fd);
	return (uint8_t *)data;
}

void fixture_write(const char *path, const void *data, size_t size)
{
	chmod(path, 0600);

	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(base_fd_write_full(fd, data, size), 0);
	close(fd);
}

int fixture_compare(int a, int b, uint64_t size)
{
	uint8_t *x = mmap(NULL, size, PROT_READ, MAP_PRIVATE, a, 0);
	uint8_t *y = mmap(NULL, size, PROT_READ, MAP_PRIVATE, b, 0);

	assert_true(x != MAP_FAILED && y != MAP_FAILED);

	int r = memcmp(x, y, size);

	munmap(x, size);
	munmap(y, size);
	return r;
}

static struct uffd_client *pager;

void fixture_pager_start(void)
{
	const char *program = getenv("WARMBOX_PAGER");
	struct base_error error = { 0 };

	if (!program || uffd_client_start(program, &pager, &error) < 0) {
		print_error("WARMBOX_PAGER: %s\n", program ? error.text : "not set");
		exit(1);
	}
}

void fixture_pager_stop(void)
{
	uffd_client_free(pager);
	pager = NULL;
}

int fixture_fill(const struct snapshot *snapshot, int *ret_fd, struct base_message *ret_complete,
		 struct base_error *error)
{
	static uint64_t id;

	return uffd_client_fill(pager, ++id, snapshot, ret_fd, ret_complete, error);
}
