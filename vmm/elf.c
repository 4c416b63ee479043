/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Loading an ELF kernel.
 *
 * The headers are copied and checked before anything is written: class, machine, type, sizes,
 * every loadable segment inside the file and inside guest memory above the boot structures, the
 * entry point inside a segment. A file that shrinks meanwhile fails the read. Any thread.
 */

#include "vmm/boot.h"

#include "base/fd.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define SEGMENTS_MAX 64

static int check_header(const Elf64_Ehdr *header, uint64_t file_bytes, struct base_error *error)
{
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) {
		return base_error_set(error, -ENOEXEC,
				      "the kernel is neither an ELF file nor a bzImage");
	}
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
	    header->e_machine != EM_X86_64) {
		return base_error_set(error, -ENOEXEC, "the kernel is not an x86-64 ELF file");
	}
	if (header->e_type != ET_EXEC && header->e_type != ET_DYN) {
		return base_error_set(error, -ENOEXEC,
				      "the kernel is an ELF file of type %u, not "
				      "an executable",
				      header->e_type);
	}
	if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 ||
	    header->e_phnum > SEGMENTS_MAX) {
		return base_error_set(error, -ENOEXEC,
				      "the kernel has %u program headers of %u bytes",
				      header->e_phnum, header->e_phentsize);
	}
	if (header->e_phoff > file_bytes ||
	    header->e_phnum * sizeof(Elf64_Phdr) > file_bytes - header->e_phoff) {
		return base_error_set(error, -ENOEXEC,
				      "the kernel file is cut off (program headers)");
	}
	return 0;
}

static int check_segment(const Elf64_Phdr *segment, unsigned index, const struct vmm_memory *memory,
			 uint64_t file_bytes, struct base_error *error)
{
	if (segment->p_filesz > segment->p_memsz) {
		return base_error_set(error, -ENOEXEC,
				      "segment %u of the kernel is larger in the file than in "
				      "memory",
				      index);
	}
	if (segment->p_offset > file_bytes || segment->p_filesz > file_bytes - segment->p_offset) {
		return base_error_set(error, -ENOEXEC, "the kernel file is cut off (segment %u)",
				      index);
	}
	if (segment->p_paddr < VMM_BOOT_KERNEL_MIN) {
		return base_error_set(error, -ENOEXEC,
				      "segment %u of the kernel lies at %#llx, below 1 MiB", index,
				      (unsigned long long)segment->p_paddr);
	}
	if (!vmm_memory_at(memory, segment->p_paddr, segment->p_memsz)) {
		return base_error_set(error, -E2BIG,
				      "segment %u of the kernel (%llu bytes at %#llx) does not fit "
				      "the guest memory of %llu MiB",
				      index, (unsigned long long)segment->p_memsz,
				      (unsigned long long)segment->p_paddr,
				      (unsigned long long)(memory->size_bytes >> 20));
	}
	return 0;
}

static int load_segment(const Elf64_Phdr *segment, const struct vmm_memory *memory, int fd)
{
	uint8_t *target = vmm_memory_at(memory, segment->p_paddr, segment->p_memsz);
	int r;

	r = base_fd_pread_full(fd, target, segment->p_filesz, (off_t)segment->p_offset);
	if (r < 0) {
		return r;
	}
	/* Guest memory starts as holes, but segments may overlap in a hostile file. */
	memset(target + segment->p_filesz, 0, segment->p_memsz - segment->p_filesz);
	return 0;
}

int vmm_elf_load(const struct vmm_memory *memory, int fd, struct vmm_elf *ret_elf,
		 struct base_error *error)
{
	Elf64_Phdr segments[SEGMENTS_MAX];
	struct vmm_elf elf = {};
	bool entry_found = false;
	Elf64_Ehdr header;
	struct stat info;
	uint64_t file_bytes;
	int r;

	if (fstat(fd, &info) < 0) {
		return base_error_set_errno(error, -errno, "looking at the kernel");
	}
	if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size > VMM_KERNEL_MAX_BYTES) {
		return base_error_set(error, -ENOEXEC,
				      "the kernel is no regular file of at most %llu MiB",
				      (unsigned long long)(VMM_KERNEL_MAX_BYTES >> 20));
	}
	file_bytes = (uint64_t)info.st_size;
	if (file_bytes < sizeof(header)) {
		return base_error_set(error, -ENOEXEC,
				      "the kernel file is too short for an ELF file");
	}
	r = base_fd_pread_full(fd, &header, sizeof(header), 0);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the kernel");
	}
	r = check_header(&header, file_bytes, error);
	if (r < 0) {
		return r;
	}
	r = base_fd_pread_full(fd, segments, header.e_phnum * sizeof(Elf64_Phdr),
			       (off_t)header.e_phoff);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the kernel");
	}
	for (unsigned i = 0; i < header.e_phnum; i++) {
		const Elf64_Phdr *segment = &segments[i];

		if (segment->p_type != PT_LOAD || segment->p_memsz == 0) {
			continue;
		}
		r = check_segment(segment, i, memory, file_bytes, error);
		if (r < 0) {
			return r;
		}
		elf.end = MAX(elf.end, segment->p_paddr + segment->p_memsz);
		entry_found |= header.e_entry >= segment->p_paddr &&
			       header.e_entry - segment->p_paddr < segment->p_filesz;
	}
	if (!entry_found) {
		return base_error_set(error, -ENOEXEC,
				      "the entry point %#llx of the kernel is in none of its "
				      "segments",
				      (unsigned long long)header.e_entry);
	}
	for (unsigned i = 0; i < header.e_phnum; i++) {
		if (segments[i].p_type != PT_LOAD || segments[i].p_memsz == 0) {
			continue;
		}
		r = load_segment(&segments[i], memory, fd);
		if (r < 0) {
			return base_error_set_errno(error, r, "reading segment %u of the kernel",
						    i);
		}
	}
	elf.entry = header.e_entry;
	*ret_elf = elf;
	return 0;
}
