/* SPDX-License-Identifier: Apache-2.0 */

/* The ELF loader, into a memory with guard pages around it. An input is a file. */

#include "base/fd.h"
#include "tests/fuzz/file.h"
#include "tests/fuzz/guest.h"
#include "vmm/boot.h"

#define MEMORY_BYTES MIB(2) /* one above the boot structures */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vmm_memory memory;
	struct base_error error = { 0 };
	struct vmm_elf elf = { 0 };
	int r;

	if (!memory.base) {
		fuzz_memory_init(&memory, MEMORY_BYTES);
	}
	r = vmm_elf_load(&memory, fuzz_file(data, size), &elf, &error);
	if (r == 0) {
		FUZZ_CHECK(elf.end > VMM_BOOT_KERNEL_MIN && elf.end <= MEMORY_BYTES);
		FUZZ_CHECK(elf.entry >= VMM_BOOT_KERNEL_MIN && elf.entry < elf.end);
	} else {
		FUZZ_CHECK(r < 0 && error.text[0] != '\0');
	}
	return 0;
}
