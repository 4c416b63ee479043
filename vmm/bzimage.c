/* SPDX-License-Identifier: Apache-2.0 */

/*
 * bzImage: finding the compressed kernel in it, and decompressing it on the host.
 *
 * The setup header says where the payload lies; the payload is an LZ4 legacy frame (what the kernel
 * build writes): magic, then blocks with a 32-bit length, then the decompressed size. The ELF file
 * inside comes out in a memfd. All of it is checked against the file's size and named limits. Any
 * thread.
 */

#include "vmm/boot.h"

#include "base/bytes.h"
#include "base/fd.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Offsets in the file: Documentation/arch/x86/boot.rst. */
#define OFFSET_SETUP_SECTS	 0x1f1u
#define OFFSET_JUMP_LENGTH	 0x201u
#define OFFSET_MAGIC		 0x202u
#define OFFSET_VERSION		 0x206u
#define OFFSET_INITRD_MAX	 0x22cu
#define OFFSET_XLOADFLAGS	 0x236u
#define OFFSET_PAYLOAD		 0x248u
#define OFFSET_PAYLOAD_LENGTH	 0x24cu
#define HEAD_BYTES		 0x280u
#define VERSION_WITH_64BIT_ENTRY 0x020cu
#define XLOADFLAGS_64BIT	 0x1u
#define DEFAULT_SETUP_SECTS	 4u

#define LZ4_LEGACY_MAGIC	   0x184c2102u
#define LZ4_LEGACY_BLOCK_MAX_BYTES MIB(8)

int vmm_bzimage_detect(int fd)
{
	uint8_t head[OFFSET_MAGIC + 4];
	int r;

	r = base_fd_pread_full(fd, head, sizeof(head), 0);
	if (r == -ENODATA) {
		return 0;
	}
	if (r < 0) {
		return r;
	}
	return memcmp(head + OFFSET_MAGIC, "HdrS", 4) == 0;
}

static const char *compression_name(const uint8_t *magic)
{
	static const struct {
		uint8_t bytes[4];
		unsigned length;
		const char *name;
	} known[] = {
		{ { 0x1f, 0x8b }, 2, "gzip" },
		{ { 'B', 'Z', 'h' }, 3, "bzip2" },
		{ { 0x5d, 0, 0 }, 3, "LZMA" },
		{ { 0xfd, '7', 'z', 'X' }, 4, "XZ" },
		{ { 0x89, 'L', 'Z', 'O' }, 4, "LZO" },
		{ { 0x28, 0xb5, 0x2f, 0xfd }, 4, "Zstandard" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (memcmp(magic, known[i].bytes, known[i].length) == 0) {
			return known[i].name;
		}
	}
	return "an unknown method";
}

/* Decompresses one block to the end of the memfd. */
static int unpack_block(const uint8_t *data, uint32_t size, uint8_t *scratch, int out_fd,
			uint64_t *written, struct base_error *error)
{
	int n = LZ4_decompress_safe((const char *)data, (char *)scratch, (int)size,
				    (int)LZ4_LEGACY_BLOCK_MAX_BYTES);
	int r;

	if (n <= 0) {
		return base_error_set(error, -ENOEXEC,
				      "the bzImage is damaged: its LZ4 data does not decompress");
	}
	if (*written + (uint64_t)n > VMM_KERNEL_MAX_BYTES) {
		return base_error_set(error, -ENOEXEC,
				      "the kernel in the bzImage is larger than %llu MiB",
				      (unsigned long long)(VMM_KERNEL_MAX_BYTES >> 20));
	}
	r = base_fd_write_full(out_fd, scratch, (size_t)n);
	if (r < 0) {
		return base_error_set_errno(error, r, "writing the decompressed kernel");
	}
	*written += (uint64_t)n;
	return 0;
}

static int unpack(const uint8_t *payload, size_t size, int out_fd, struct base_error *error)
{
	struct base_reader reader = base_reader_init(payload, size);
	_cleanup_free_ uint8_t *scratch = NULL;
	uint64_t written = 0;

	if (size < 12 || base_reader_u32(&reader) != LZ4_LEGACY_MAGIC) {
		return base_error_set(error, -EPROTONOSUPPORT,
				      "the bzImage is compressed with %s; only LZ4 "
				      "(CONFIG_KERNEL_LZ4) and a bare vmlinux are supported",
				      size < 12 ? "nothing" : compression_name(payload));
	}
	scratch = malloc(LZ4_LEGACY_BLOCK_MAX_BYTES);
	if (!scratch) {
		return base_error_set_errno(error, -ENOMEM, "decompressing the kernel");
	}
	/* The last four bytes are the decompressed size, which the build appends. */
	while (base_reader_left(&reader) > 4) {
		uint32_t length = base_reader_u32(&reader);
		const uint8_t *block;
		int r;

		if (length == LZ4_LEGACY_MAGIC) {
			continue;
		}
		block = length && length <= (uint32_t)LZ4_compressBound(
						    (int)LZ4_LEGACY_BLOCK_MAX_BYTES)
				? base_reader_bytes(&reader, length)
				: NULL;
		if (!block) {
			return base_error_set(error, -ENOEXEC,
					      "the bzImage is damaged: LZ4 block of %u bytes",
					      length);
		}
		r = unpack_block(block, length, scratch, out_fd, &written, error);
		if (r < 0) {
			return r;
		}
	}
	if (base_reader_u32(&reader) != (uint32_t)written || base_reader_finish(&reader) < 0) {
		return base_error_set(error, -ENOEXEC,
				      "the bzImage is damaged: its kernel has the wrong size");
	}
	return 0;
}

/* Finds the payload in the file. 0 or -ENOEXEC. */
static int parse(const uint8_t *head, uint64_t file_bytes, struct vmm_bzimage *image,
		 uint64_t *ret_offset, uint32_t *ret_length, struct base_error *error)
{
	unsigned sectors =
		head[OFFSET_SETUP_SECTS] ? head[OFFSET_SETUP_SECTS] : DEFAULT_SETUP_SECTS;
	unsigned version = base_load_u16(head + OFFSET_VERSION);
	/* The jump over the header tells how long it is. */
	unsigned header_end = OFFSET_MAGIC + head[OFFSET_JUMP_LENGTH];
	uint64_t offset = (uint64_t)(sectors + 1) * 512 + base_load_u32(head + OFFSET_PAYLOAD);
	uint32_t length = base_load_u32(head + OFFSET_PAYLOAD_LENGTH);

	if (version < VERSION_WITH_64BIT_ENTRY ||
	    !(base_load_u16(head + OFFSET_XLOADFLAGS) & XLOADFLAGS_64BIT)) {
		return base_error_set(error, -ENOEXEC,
				      "the bzImage (boot protocol %u.%02u) has no 64-bit entry",
				      version >> 8, version & 0xff);
	}
	if (header_end <= OFFSET_PAYLOAD_LENGTH + 4 ||
	    header_end > VMM_SETUP_HEADER_OFFSET + VMM_SETUP_HEADER_MAX_BYTES) {
		return base_error_set(error, -ENOEXEC,
				      "the bzImage is damaged: setup header ends at %#x",
				      header_end);
	}
	if (length == 0 || offset > file_bytes || length > file_bytes - offset) {
		return base_error_set(error, -ENOEXEC,
				      "the bzImage is cut off or damaged: %u bytes of kernel at "
				      "%llu, file of %llu bytes",
				      length, (unsigned long long)offset,
				      (unsigned long long)file_bytes);
	}
	image->header_bytes = header_end - VMM_SETUP_HEADER_OFFSET;
	memcpy(image->header, head + VMM_SETUP_HEADER_OFFSET, image->header_bytes);
	image->initramfs_max_gpa = base_load_u32(head + OFFSET_INITRD_MAX);
	*ret_offset = offset;
	*ret_length = length;
	return 0;
}

int vmm_bzimage_unpack(int fd, struct vmm_bzimage *ret_image, int *ret_elf_fd,
		       struct base_error *error)
{
	_cleanup_free_ uint8_t *payload = NULL;
	_cleanup_fd_ int elf_fd = -1;
	struct vmm_bzimage image = {};
	uint8_t head[HEAD_BYTES];
	uint64_t offset = 0;
	uint32_t length = 0;
	struct stat info;
	int r;

	if (fstat(fd, &info) < 0) {
		return base_error_set_errno(error, -errno, "looking at the bzImage");
	}
	if ((uint64_t)info.st_size > VMM_KERNEL_MAX_BYTES) {
		return base_error_set(error, -ENOEXEC, "the bzImage is larger than %llu MiB",
				      (unsigned long long)(VMM_KERNEL_MAX_BYTES >> 20));
	}
	r = base_fd_pread_full(fd, head, sizeof(head), 0);
	if (r < 0) {
		return base_error_set(error, r == -ENODATA ? -ENOEXEC : r,
				      "the bzImage is cut off (setup header)");
	}
	r = parse(head, (uint64_t)info.st_size, &image, &offset, &length, error);
	if (r < 0) {
		return r;
	}
	payload = malloc(length);
	if (!payload) {
		return base_error_set_errno(error, -ENOMEM, "reading the bzImage");
	}
	r = base_fd_pread_full(fd, payload, length, (off_t)offset);
	if (r < 0) {
		return base_error_set_errno(error, r, "reading the bzImage");
	}
	elf_fd = memfd_create("kernel", MFD_CLOEXEC);
	if (elf_fd < 0) {
		return base_error_set_errno(error, -errno, "making a memfd for the kernel");
	}
	r = unpack(payload, length, elf_fd, error);
	if (r < 0) {
		return r;
	}
	*ret_image = image;
	*ret_elf_fd = TAKE_FD(elf_fd);
	return 0;
}
