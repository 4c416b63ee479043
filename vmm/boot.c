/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Booting: kernel, initramfs, command line and tables into guest memory, vCPU 0 to the entry.
 *
 * The order: unpack and load the kernel, place the initramfs above it, then the small structures,
 * then registers. A failure leaves guest memory half-written; the VM is not used then. Runs on the
 * main thread while no vCPU runs; reads its files with blocking calls.
 */

#include "vmm/boot.h"

#include "base/bytes.h"
#include "base/fd.h"

#include <asm/bootparam.h>
#include <asm/e820.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/* What the guest kernel must be told on kvm-pvm: the host's feature bits show through CPUID, but
 * the emulator that interprets the kernel does not know these instructions. And the guest's TSC is
 * the host's, which a restore cannot move: time is kept by kvmclock, which it can. Without
 * "erms" and its kin the kernel copies and clears by words: the emulator interprets `rep movsb`
 * byte by byte (a page fault 5.2 -> 2.5 ms, a read of 64 KiB 105 -> 30 ms). Plain XSAVE and XRSTOR
 * the VMM supplies (pvm_xsave.h); the kernel must have them, since ring 3 has AVX. */
#define PVM_CMDLINE                                                                                \
	" kvm_pvm clearcpuid=erms,fsrm,fsrs,fzrm,xsaveopt,xsavec,xsaves,xgetbv1,popcnt,smap,smep," \
	"umip,fsgsbase,invpcid,pcid,pku,ospke,rdrand,rdseed,cx16,rdpid,serialize nofsgsbase "      \
	"noreplace-smp percpu_alloc=page tsc=reliable clocksource=kvm-clock"

#define INITRAMFS_MAX_GPA_DEFAULT 0x7fffffffu

#define CR0_PE	 (UINT64_C(1) << 0)
#define CR0_ET	 (UINT64_C(1) << 4)
#define CR0_PG	 (UINT64_C(1) << 31)
#define CR4_PAE	 (UINT64_C(1) << 5)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)

#define PTE_PRESENT	UINT64_C(1)
#define PTE_WRITABLE	UINT64_C(2)
#define PTE_LARGE	UINT64_C(0x80)
#define IDENTITY_GIB	4u
#define LARGE_PAGE_SIZE MIB(2)

#define MSR_MTRR_DEFAULT_TYPE	 0x2ffu
#define MTRR_ENABLE_WRITE_BACK	 0x806u
#define MSR_MISC_ENABLE		 0x1a0u
#define MISC_ENABLE_FAST_STRINGS 1u
#define BOOT_FLAG		 0xaa55u
#define HEADER_MAGIC		 0x53726448u /* "HdrS" */
#define BOOT_PROTOCOL		 0x020fu
#define LOADER_UNDEFINED	 0xffu

struct initramfs {
	uint64_t gpa;
	uint64_t bytes;
};

static int load_initramfs(const struct vmm_memory *memory, int fd, uint64_t kernel_end,
			  uint64_t max_gpa, struct initramfs *ret_initramfs,
			  struct base_error *error)
{
	uint64_t limit = MIN(memory->size_bytes, max_gpa + 1);
	struct stat info;
	uint64_t bytes, gpa;
	int r;

	if (fstat(fd, &info) < 0) {
		return base_error_set_errno(error, -errno, "looking at the initramfs");
	}
	if (!S_ISREG(info.st_mode) || info.st_size == 0 ||
	    (uint64_t)info.st_size > VMM_INITRAMFS_MAX_BYTES) {
		return base_error_set(error, -EINVAL,
				      "the initramfs must be a regular file of 1 byte to %llu MiB",
				      (unsigned long long)(VMM_INITRAMFS_MAX_BYTES >> 20));
	}
	bytes = (uint64_t)info.st_size;
	if (bytes > limit || ((limit - bytes) & ~UINT64_C(4095)) < kernel_end) {
		return base_error_set(error, -E2BIG,
				      "the initramfs of %llu bytes does not fit the guest memory "
				      "of %llu MiB beside the kernel",
				      (unsigned long long)bytes,
				      (unsigned long long)(memory->size_bytes >> 20));
	}
	gpa = (limit - bytes) & ~UINT64_C(4095);
	r = base_fd_pread_full(fd, vmm_memory_at(memory, gpa, bytes), bytes, 0);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the initramfs");
	}
	*ret_initramfs = (struct initramfs){ .gpa = gpa, .bytes = bytes };
	return 0;
}

static void append(char text[VMM_CMDLINE_BYTES], size_t *used, const char *format, ...)
	_printf_(3, 4);

/* What does not fit is counted and not written. */
static void append(char text[VMM_CMDLINE_BYTES], size_t *used, const char *format, ...)
{
	size_t at = MIN(*used, (size_t)VMM_CMDLINE_BYTES);
	va_list args;

	va_start(args, format);
	*used += (size_t)vsnprintf(text + at, VMM_CMDLINE_BYTES - at, format, args);
	va_end(args);
}

/* The caller's parameters, where the devices are, and what the host kind needs; after them what the
 * caller has for init, behind " -- ", where the kernel no longer looks for parameters. */
static int write_cmdline(struct vmm_vm *vm, const char *given, struct base_error *error)
{
	const char *for_init = strstr(given, " -- ");
	char text[VMM_CMDLINE_BYTES];
	size_t used = 0;

	if (!for_init) {
		for_init = given + strlen(given);
	}
	append(text, &used, "%.*s", (int)(for_init - given), given);
	for (unsigned slot = 0; slot < vm->n_devices; slot++) {
		append(text, &used, " virtio_mmio.device=4K@%#x:%u",
		       VMM_VIRTIO_MMIO_BASE + slot * VMM_VIRTIO_MMIO_STRIDE,
		       VMM_VIRTIO_IRQ_BASE + slot);
	}
	if (vm->kind == VMM_HOST_PVM) {
		append(text, &used, "%s", PVM_CMDLINE);
	}
	append(text, &used, "%s", for_init);
	if (used >= sizeof(text)) {
		return base_error_set(error, -E2BIG,
				      "the kernel command line is too long: %zu bytes with what "
				      "the VMM adds, at most %d",
				      used, VMM_CMDLINE_BYTES - 1);
	}
	return vmm_memory_write(&vm->memory, VMM_BOOT_CMDLINE, text, used + 1);
}

static void add_e820(struct boot_params *params, uint64_t start, uint64_t end, uint32_t type)
{
	struct boot_e820_entry *entry = &params->e820_table[params->e820_entries];

	if (end <= start) {
		return;
	}
	entry->addr = start;
	entry->size = end - start;
	entry->type = type;
	params->e820_entries++;
}

static int write_zero_page(struct vmm_vm *vm, const struct vmm_bzimage *image,
			   const struct initramfs *initramfs)
{
	struct boot_params params = {};

	_Static_assert(sizeof(params) == 4096, "the zero page is a page");
	_Static_assert(offsetof(struct boot_params, hdr) == VMM_SETUP_HEADER_OFFSET,
		       "the setup header keeps its place");
	memcpy(&params.hdr, image->header, MIN(image->header_bytes, sizeof(params.hdr)));
	params.hdr.boot_flag = BOOT_FLAG;
	params.hdr.header = HEADER_MAGIC;
	if (image->header_bytes == 0) {
		params.hdr.version = BOOT_PROTOCOL;
		params.hdr.kernel_alignment = 0x1000000;
	}
	params.hdr.type_of_loader = LOADER_UNDEFINED;
	params.hdr.loadflags |= LOADED_HIGH;
	params.hdr.setup_data = 0;
	params.hdr.cmd_line_ptr = VMM_BOOT_CMDLINE;
	params.hdr.cmdline_size = VMM_CMDLINE_BYTES - 1;
	params.hdr.ramdisk_image = (uint32_t)initramfs->gpa;
	params.hdr.ramdisk_size = (uint32_t)initramfs->bytes;

	add_e820(&params, 0, VMM_BOOT_MPTABLE, E820_RAM);
	add_e820(&params, VMM_BOOT_MPTABLE, VMM_BOOT_LOW_END, E820_RESERVED);
	add_e820(&params, VMM_BOOT_KERNEL_MIN, vm->memory.size_bytes, E820_RAM);
	return vmm_memory_write(&vm->memory, VMM_BOOT_ZERO_PAGE, &params, sizeof(params));
}

/* Identity map of the first 4 GiB: PML4, PDPT, and a page directory for each GiB. */
static int write_page_tables(const struct vmm_memory *memory)
{
	const uint64_t flags = PTE_PRESENT | PTE_WRITABLE;
	uint8_t *tables = vmm_memory_at(memory, VMM_BOOT_PAGE_TABLES, (2 + IDENTITY_GIB) * 4096);
	uint8_t *directory;

	if (!tables) {
		return -EFAULT;
	}
	memset(tables, 0, 2 * 4096);
	base_store_u64(tables, (VMM_BOOT_PAGE_TABLES + 4096) | flags);
	for (unsigned i = 0; i < IDENTITY_GIB; i++) {
		base_store_u64(tables + 4096 + 8 * i,
			       (VMM_BOOT_PAGE_TABLES + (2 + i) * 4096) | flags);
	}
	directory = tables + 2 * 4096;
	for (unsigned i = 0; i < IDENTITY_GIB * 512; i++) {
		base_store_u64(directory + 8 * i, i * LARGE_PAGE_SIZE | flags | PTE_LARGE);
	}
	return 0;
}

/* Selectors 0x10 (code) and 0x18 (data), as the boot protocol wants them. */
static int write_gdt(const struct vmm_memory *memory)
{
	uint8_t gdt[32] = {};

	base_store_u64(gdt + 0x10, UINT64_C(0x00af9b000000ffff));
	base_store_u64(gdt + 0x18, UINT64_C(0x00cf93000000ffff));
	return vmm_memory_write(memory, VMM_BOOT_GDT, gdt, sizeof(gdt));
}

static struct kvm_segment flat_segment(uint16_t selector, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = code ? 0xb : 0x3,
		.present = 1,
		.s = 1,
		.l = code,
		.db = !code,
		.g = 1,
	};
}

static int set_registers(struct vmm_vm *vm, uint64_t entry, struct base_error *error)
{
	int fd = vm->vcpus[0].fd;
	/* struct kvm_msrs with two entries. */
	struct {
		uint32_t n_entries;
		uint32_t padding;
		struct kvm_msr_entry entries[2];
	} msrs = {
		.n_entries = 2,
		.entries = {
			{ .index = MSR_MTRR_DEFAULT_TYPE, .data = MTRR_ENABLE_WRITE_BACK },
			{ .index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRINGS },
		},
	};
	struct kvm_regs regs = {
		.rip = entry,
		.rsi = VMM_BOOT_ZERO_PAGE,
		.rsp = VMM_BOOT_STACK,
		.rbp = VMM_BOOT_STACK,
		.rflags = 2,
	};
	struct kvm_segment data = flat_segment(0x18, false);
	struct kvm_sregs sregs;

	if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0) {
		return base_error_set_errno(error, -errno, "reading the special registers");
	}
	sregs.cs = flat_segment(0x10, true);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.gdt = (struct kvm_dtable){ .base = VMM_BOOT_GDT, .limit = 31 };
	sregs.idt = (struct kvm_dtable){};
	sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
	sregs.cr3 = VMM_BOOT_PAGE_TABLES;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0) {
		return base_error_set_errno(error, -errno, "setting the special registers");
	}
	if (ioctl(fd, KVM_SET_REGS, &regs) < 0) {
		return base_error_set_errno(error, -errno, "setting the registers");
	}
	for (unsigned i = 0; i < vm->config.n_vcpus; i++) {
		int n = ioctl(vm->vcpus[i].fd, KVM_SET_MSRS, &msrs);

		if (n != (int)msrs.n_entries) {
			return base_error_set(error, n < 0 ? -errno : -EIO,
					      "setting the boot MSRs of vCPU %u", i);
		}
	}
	return 0;
}

int vmm_boot(struct vmm_vm *vm, int kernel_fd, int initramfs_fd, const char *cmdline,
	     struct base_error *error)
{
	struct vmm_bzimage image = { .initramfs_max_gpa = INITRAMFS_MAX_GPA_DEFAULT };
	struct initramfs initramfs = {};
	_cleanup_fd_ int unpacked_fd = -1;
	struct vmm_elf elf;
	int r;

	r = vmm_bzimage_detect(kernel_fd);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the kernel");
	}
	if (r > 0) {
		r = vmm_bzimage_unpack(kernel_fd, &image, &unpacked_fd, error);
		if (r < 0) {
			return r;
		}
	}
	r = vmm_elf_load(&vm->memory, unpacked_fd >= 0 ? unpacked_fd : kernel_fd, &elf, error);
	if (r < 0) {
		return r;
	}
	if (initramfs_fd >= 0) {
		r = load_initramfs(&vm->memory, initramfs_fd, elf.end, image.initramfs_max_gpa,
				   &initramfs, error);
		if (r < 0) {
			return r;
		}
	}
	r = write_cmdline(vm, cmdline, error);
	if (r < 0) {
		return r;
	}
	r = write_zero_page(vm, &image, &initramfs);
	if (r == 0) {
		r = write_page_tables(&vm->memory);
	}
	if (r == 0) {
		r = write_gdt(&vm->memory);
	}
	if (r == 0) {
		r = vmm_mptable_write(&vm->memory, vm->config.n_vcpus);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "writing the boot structures");
	}
	return set_registers(vm, elf.entry, error);
}
