/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reading /proc/PID/status, /proc/PID/smaps and /proc/meminfo.
 *
 * Happy path: the process is found to be ours by its parent, then each of its mappings adds to one
 * figure: the image's by device and inode, the others by what backs them.
 *
 * Failure: a process that ends meanwhile, or whose number means another one by now, is -ESRCH; no
 * half of a measurement is ever returned.
 */

#include "pool/measure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* THREAD_SIZE of x86-64 Linux (arch/x86/include/asm/page_64_types.h). */
#define KERNEL_STACK_BYTES KIB(16)
#define LINE_BYTES_MAX	   (4 * PATH_MAX + 128) /* each byte of a path may be escaped */
#define READ_BYTES	   KIB(32)

static void file_close(FILE *file)
{
	fclose(file);
}
BASE_DEFINE_CLEANUP(FILE *, file_close)

static int proc_open(pid_t pid, const char *name, FILE **ret_file)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	file = fopen(path, "re");
	if (!file) {
		return errno == ENOENT ? -ESRCH : -errno;
	}
	*ret_file = file;
	return 0;
}

/* A line "Key:   123 kB" (or without a unit, multiplied all the same). */
static bool take_kib(const char *line, const char *key, uint64_t *ret_bytes)
{
	size_t size = strlen(key);
	uint64_t value;

	if (strncmp(line, key, size) != 0 || line[size] != ':' ||
	    sscanf(line + size + 1, "%" SCNu64, &value) != 1) {
		return false;
	}
	*ret_bytes = value * 1024;
	return true;
}

/* --- /proc/PID/status --- */

static int read_status(pid_t pid, struct pool_memory *memory)
{
	_cleanup_(file_closep) FILE *file = NULL;
	char line[LINE_BYTES_MAX];
	int parent = 0;
	unsigned threads = 0;
	int r = proc_open(pid, "status", &file);

	if (r < 0) {
		return r;
	}
	while (fgets(line, sizeof(line), file)) {
		take_kib(line, "VmPTE", &memory->page_tables);
		sscanf(line, "PPid: %d", &parent);
		sscanf(line, "Threads: %u", &threads);
	}
	memory->kernel_stacks = threads * KERNEL_STACK_BYTES;
	return parent == getpid() ? 0 : -ESRCH;
}

/* --- /proc/PID/smaps --- */

enum backing { BACKING_IMAGE, BACKING_HEAP, BACKING_FILE, BACKING_OTHER };

struct mapping {
	enum backing backing;
	uint64_t rss, pss, private_dirty, anonymous, swap;
};

/* The first line of a mapping: "start-end perms offset major:minor inode path". */
static bool parse_mapping(const char *line, dev_t image_dev, ino_t image_inode,
			  struct mapping *ret_mapping)
{
	unsigned major, minor;
	uint64_t inode;
	int path = 0;

	if (sscanf(line, "%*x-%*x %*4s %*x %x:%x %" SCNu64 " %n", &major, &minor, &inode, &path) <
		    3 ||
	    path == 0) {
		return false;
	}
	*ret_mapping = (struct mapping){ .backing = BACKING_OTHER };
	if (inode == image_inode && makedev(major, minor) == image_dev) {
		ret_mapping->backing = BACKING_IMAGE;
	} else if (strncmp(line + path, "[heap]", 6) == 0) {
		ret_mapping->backing = BACKING_HEAP;
	} else if (inode != 0 && line[path] == '/') {
		ret_mapping->backing = BACKING_FILE;
	}
	return true;
}

static void add_mapping(const struct mapping *mapping, struct pool_memory *memory)
{
	uint64_t private = mapping->private_dirty + mapping->swap;

	memory->pss += mapping->pss;
	switch (mapping->backing) {
	case BACKING_IMAGE:
		/* Only a written page is anonymous. Another one is the image's, also when this
		 * process happens to be the only one that has it mapped. */
		memory->guest_private += mapping->anonymous + mapping->swap;
		memory->image_shared += mapping->rss - mapping->anonymous;
		return;
	case BACKING_HEAP:
		memory->vmm_heap += private;
		break;
	case BACKING_FILE:
		memory->vmm_data += private;
		break;
	case BACKING_OTHER:
		memory->vmm_other += private;
		break;
	}
	memory->program_shared += mapping->rss - mapping->private_dirty;
}

static void take_figure(const char *line, struct mapping *mapping)
{
	take_kib(line, "Rss", &mapping->rss);
	take_kib(line, "Pss", &mapping->pss);
	take_kib(line, "Private_Dirty", &mapping->private_dirty);
	take_kib(line, "Anonymous", &mapping->anonymous);
	take_kib(line, "Swap", &mapping->swap);
}

static int read_mappings(pid_t pid, dev_t image_dev, ino_t image_inode, struct pool_memory *memory)
{
	_cleanup_(file_closep) FILE *file = NULL;
	char line[LINE_BYTES_MAX], buffer[READ_BYTES];
	struct mapping mapping = { 0 }, next;
	unsigned n = 0;
	int r = proc_open(pid, "smaps", &file);

	if (r < 0) {
		return r;
	}
	/* Every read walks some of the mappings under a lock of the process. */
	setvbuf(file, buffer, _IOFBF, sizeof(buffer));
	while (fgets(line, sizeof(line), file)) {
		if (!parse_mapping(line, image_dev, image_inode, &next)) {
			take_figure(line, &mapping);
			continue;
		}
		if (n++ == POOL_MEASURE_MAPPINGS_MAX) {
			return -E2BIG;
		}
		add_mapping(&mapping, memory);
		mapping = next;
	}
	add_mapping(&mapping, memory);
	/* A process that has ended has no mappings, but may still be a child. */
	return ferror(file) || n == 0 ? -ESRCH : 0;
}

int pool_measure_process(pid_t pid, dev_t image_dev, ino_t image_inode,
			 struct pool_memory *ret_memory)
{
	struct pool_memory memory = { 0 };
	int r = read_mappings(pid, image_dev, image_inode, &memory);

	if (r < 0) {
		return r;
	}
	/* Afterwards: as long as it is our child, the number has not meant another process. */
	r = read_status(pid, &memory);
	if (r < 0) {
		return r;
	}
	*ret_memory = memory;
	return 0;
}

/* --- /proc/meminfo --- */

int pool_measure_host(struct pool_host_memory *ret_host)
{
	struct pool_host_memory host = { 0 };
	uint64_t cached = 0, buffers = 0, known;
	const struct {
		const char *key;
		uint64_t *value;
	} fields[] = {
		{ "MemTotal", &host.total },
		{ "MemFree", &host.free },
		{ "MemAvailable", &host.available },
		{ "Buffers", &buffers },
		{ "Cached", &cached },
		{ "AnonPages", &host.anonymous },
		{ "Shmem", &host.shmem },
		{ "Slab", &host.slab },
		{ "PageTables", &host.page_tables },
		{ "SecPageTables", &host.secondary_page_tables },
		{ "KernelStack", &host.kernel_stacks },
		{ "VmallocUsed", &host.vmalloc },
		{ "Percpu", &host.percpu },
	};
	_cleanup_(file_closep) FILE *file = fopen("/proc/meminfo", "re");
	char line[LINE_BYTES_MAX];

	if (!file) {
		return -errno;
	}
	while (fgets(line, sizeof(line), file)) {
		for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
			take_kib(line, fields[i].key, fields[i].value);
		}
	}
	if (host.total == 0) {
		return -EIO;
	}
	host.cache = cached + buffers;
	/* Stacks are part of vmalloc, too. */
	host.vmalloc -= MIN(host.vmalloc, host.kernel_stacks);
	known = host.free + host.cache + host.anonymous + host.slab + host.page_tables +
		host.secondary_page_tables + host.kernel_stacks + host.vmalloc + host.percpu;
	host.unaccounted = host.total - MIN(host.total, known);
	*ret_host = host;
	return 0;
}
