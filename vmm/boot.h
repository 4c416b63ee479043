/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Loading a kernel: the Linux 64-bit boot protocol.
 *
 * The kernel file and the initramfs are read here and are not trusted: every header field is
 * checked. Layout of guest memory at entry:
 *
 *    0x00000500  GDT            0x00007000  zero page (rsi)     0x00008ff0  stack
 *    0x00009000  page tables    0x00020000  command line        0x0009fc00  MP table
 *    0x00100000  kernel segments, at their physical addresses
 *    end         initramfs, as high as it may be
 */

#include "vmm/vm.h"

#define VMM_BOOT_GDT	       0x500u
#define VMM_BOOT_ZERO_PAGE     0x7000u
#define VMM_BOOT_STACK	       0x8ff0u
#define VMM_BOOT_PAGE_TABLES   0x9000u
#define VMM_BOOT_CMDLINE       0x20000u
#define VMM_BOOT_MPTABLE       0x9fc00u
#define VMM_BOOT_MPTABLE_BYTES 0x400u
#define VMM_BOOT_LOW_END       0xa0000u
#define VMM_BOOT_KERNEL_MIN    0x100000u

#define VMM_KERNEL_MAX_BYTES	MIB(512)
#define VMM_INITRAMFS_MAX_BYTES GIB(1)
/* COMMAND_LINE_SIZE of x86 Linux, with the NUL. */
#define VMM_CMDLINE_BYTES 2048

/* Loads everything and sets the registers of vCPU 0. initramfs_fd may be -1. 0 or -errno with what
 * is wrong in error; guest memory is undefined then. */
int vmm_boot(struct vmm_vm *vm, int kernel_fd, int initramfs_fd, const char *cmdline,
	     struct base_error *error);

/* --- elf.c --- */

struct vmm_elf {
	uint64_t entry;
	uint64_t end; /* first byte after the highest segment */
};

/* Loads the segments of a static x86-64 ELF file to their physical addresses. 0, -ENOEXEC for a
 * file that is no such ELF or is damaged, -E2BIG when it does not fit guest memory, or -errno. */
int vmm_elf_load(const struct vmm_memory *memory, int fd, struct vmm_elf *ret_elf,
		 struct base_error *error);

/* --- bzimage.c --- */

/* The part of a bzImage that goes to the zero page: the setup header. */
#define VMM_SETUP_HEADER_OFFSET	   0x1f1u
#define VMM_SETUP_HEADER_MAX_BYTES 0x7fu

struct vmm_bzimage {
	uint8_t header[VMM_SETUP_HEADER_MAX_BYTES];
	size_t header_bytes;
	uint32_t initramfs_max_gpa; /* highest address of an initramfs byte */
};

/* 1: the file is a bzImage. 0: it is not. <0: -errno. */
int vmm_bzimage_detect(int fd);

/* Decompresses the ELF kernel of a bzImage into a new memfd. -ENOEXEC for a damaged file,
 * -EPROTONOSUPPORT naming another compression than LZ4. */
int vmm_bzimage_unpack(int fd, struct vmm_bzimage *ret_image, int *ret_elf_fd,
		       struct base_error *error);

/* --- mptable.c --- */

/* Writes the MP tables: CPUs, an ISA bus, the IOAPIC and its 16 legacy interrupts. 0 or -EFAULT. */
int vmm_mptable_write(const struct vmm_memory *memory, unsigned n_vcpus);
