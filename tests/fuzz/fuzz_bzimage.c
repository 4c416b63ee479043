/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The unpacker of bzImages. An input is a file; what comes out of it goes on to the ELF loader, as
 * it does in a boot.
 */

#include "base/fd.h"
#include "tests/fuzz/file.h"
#include "tests/fuzz/guest.h"
#include "vmm/boot.h"

#define MEMORY_BYTES MIB(2)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vmm_memory memory;
	struct vmm_bzimage image = { 0 };
	struct base_error error = { 0 };
	_cleanup_fd_ int elf_fd = -1;
	struct vmm_elf elf;
	int fd, r;

	if (!memory.base) {
		fuzz_memory_init(&memory, MEMORY_BYTES);
	}
	fd = fuzz_file(data, size);
	r = vmm_bzimage_detect(fd);
	FUZZ_CHECK(r == 0 || r == 1);
	/* Also of what does not look like one: the magic is checked apart. */
	r = vmm_bzimage_unpack(fd, &image, &elf_fd, &error);
	if (r < 0) {
		FUZZ_CHECK(elf_fd == -1 && error.text[0] != '\0');
		return 0;
	}
	FUZZ_CHECK(elf_fd >= 0 && image.header_bytes <= sizeof(image.header));
	(void)vmm_elf_load(&memory, elf_fd, &elf, NULL);
	return 0;
}
