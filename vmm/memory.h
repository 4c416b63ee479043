/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Guest memory, through one bounds-checked door.
 *
 * The guest can change any byte at any time: copy what must not change (descriptors, headers),
 * validate the copy, use the copy. A pointer from vmm_memory_at() is for bulk data only, whose
 * content nobody validates.
 */

#include "base/util.h"

#include <stdbool.h>

typedef uint64_t gpa_t; /* guest physical address */

struct vmm_memory {
	uint8_t *base; /* mapping of the whole guest memory, gpa 0 first; owned */
	uint64_t size_bytes;
	bool shared; /* mapped MAP_SHARED (boot), else MAP_PRIVATE */
	/* Owned; -1 unless the memory is lazy. */
	int userfault_fd, image_fd;
};

/* Maps fd (borrowed), which must be exactly size_bytes long. 0 or -errno; -EINVAL for a wrong size.
 */
int vmm_memory_init(struct vmm_memory *memory, int fd, uint64_t size_bytes, bool shared);
/* Takes a zeroed one, too. */
void vmm_memory_deinit(struct vmm_memory *memory);

/*
 * Registers all of the memory for missing pages: an access to a hole of the file waits from now on
 * until whoever holds memory->userfault_fd has filled the hole and wakes it. device_fd (borrowed)
 * is /dev/userfaultfd; with any other file the system call is used. image_fd (borrowed) is the file
 * that is mapped. 0 or -errno.
 */
int vmm_memory_make_lazy(struct vmm_memory *memory, int image_fd, int device_fd);

/* No access waits for a page any more: who fills the file seals it against writing when it has no
 * holes left. */
bool vmm_memory_is_whole(const struct vmm_memory *memory);

/* The host address of [gpa, gpa + length), or NULL when any byte of it is outside guest memory. */
void *vmm_memory_at(const struct vmm_memory *memory, gpa_t gpa, uint64_t length);

/*
 * Gives the whole pages of a range back to the host. Their content is lost: shared memory reads as
 * zeros there until it is written again, and its file has a hole; private memory reads as what the
 * file has there. What is registered for missing pages stays so. 0 with the bytes given back (0 as
 * well when the host refuses), or -EFAULT.
 */
int vmm_memory_discard(const struct vmm_memory *memory, gpa_t gpa, uint64_t length,
		       uint64_t *ret_bytes);

/* Copies out of or into the guest. 0 or -EFAULT. */
int vmm_memory_read(const struct vmm_memory *memory, gpa_t gpa, void *out, uint64_t length);
int vmm_memory_write(const struct vmm_memory *memory, gpa_t gpa, const void *data, uint64_t length);
