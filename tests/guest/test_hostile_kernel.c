/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Kernels that must be refused: cut off, forged, compressed otherwise, too large. Refused means an
 * error with words, and a VMM that boots nothing any more but is still there.
 */

#include "tests/guest/common.h"

#include "base/bytes.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <string.h>
#include <sys/mman.h>

#define PATIENCE_MS  20000
#define BZIMAGE_HEAD 1024 /* boot sector and one sector of set-up */

static char *slurp(const char *path, size_t *ret_size)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *data = NULL;

	assert_true(fd >= 0);
	assert_int_equal(base_fd_read_file(fd, MIB(4), &data, ret_size), 0);
	return data;
}

/* Boots bytes as a kernel in a fresh VM; the result of BOOT. */
static int boot_bytes(struct harness_vm *vm, const void *data, size_t size)
{
	_cleanup_fd_ int fd = file_of(data, size);
	struct harness_params params = {};

	assert_vm_ok(vm, harness_create(vm, &params));
	return harness_call(vm, VMM_OP_BOOT, NULL, 0, &fd, 1, "");
}

static void expect_refused(const void *data, size_t size, int result, const char *words)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int r = boot_bytes(&vm, data, size);

	if (r != result || !strstr(vm.error.text, words)) {
		fail_msg("wanted %d and \"%s\", got %d: %s", result, words, r, vm.error.text);
	}
	assert_int_equal(harness_resume(&vm), -EBUSY);
}

static void test_truncated_elf(void **state)
{
	_cleanup_free_ char *elf = NULL;
	size_t size;

	elf = slurp(tiny_path("exit"), &size);
	for (size_t cut = 0; cut < size; cut += MAX(cut, (size_t)1)) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		int r = boot_bytes(&vm, elf, cut);

		/* Behind the last segment come only symbols: those are not needed. */
		if (r < 0) {
			assert_int_equal(r, -ENOEXEC);
			assert_true(strlen(vm.error.text) > 0);
		} else {
			assert_true(cut > sizeof(Elf64_Ehdr));
		}
	}
}

static void test_random_kernel(void **state)
{
	uint8_t data[65536];

	srandom(1);
	for (size_t i = 0; i < sizeof(data); i++) {
		data[i] = (uint8_t)random();
	}
	expect_refused(data, sizeof(data), -ENOEXEC, "neither an ELF file nor a bzImage");
}

static void test_hostile_elf(void **state)
{
	_cleanup_free_ char *elf = NULL;
	size_t size;

	elf = slurp(tiny_path("exit"), &size);
	for (int kind = 0; kind < 8; kind++) {
		_cleanup_free_ char *copy = malloc(size);
		Elf64_Ehdr *header = (Elf64_Ehdr *)copy;
		Elf64_Phdr *segment;
		static const struct {
			int result;
			const char *words;
		} expected[] = {
			{ -ENOEXEC, "below 1 MiB" },
			{ -E2BIG, "does not fit" },
			{ -E2BIG, "does not fit" },
			{ -ENOEXEC, "program headers" },
			{ -ENOEXEC, "cut off" },
			{ -ENOEXEC, "none of its segments" },
			{ -ENOEXEC, "larger in the file" },
			{ -ENOEXEC, "not an x86-64" },
		};

		assert_non_null(copy);
		memcpy(copy, elf, size);
		segment = (Elf64_Phdr *)(copy + header->e_phoff);
		switch (kind) {
		case 0:
			segment->p_paddr = 0;
			break;
		case 1:
			segment->p_memsz = UINT64_MAX - 0x1000;
			break;
		case 2:
			segment->p_paddr = UINT64_MAX - 0x10;
			break;
		case 3:
			header->e_phnum = 0xfff0;
			break;
		case 4:
			header->e_phoff = UINT64_MAX - 8;
			break;
		case 5:
			header->e_entry = 0x500;
			break;
		case 6:
			segment->p_filesz = segment->p_memsz + 1;
			break;
		default:
			header->e_machine = EM_AARCH64;
			break;
		}
		expect_refused(copy, size, expected[kind].result, expected[kind].words);
	}
}

/* A bzImage around a payload. */
static uint8_t *make_bzimage(const void *payload, size_t payload_size, size_t *ret_size)
{
	size_t size = BZIMAGE_HEAD + payload_size;
	uint8_t *image = calloc(1, size);

	assert_non_null(image);
	image[0x1f1] = 1; /* sectors of set-up */
	base_store_u16(image + 0x1fe, 0xaa55);
	image[0x201] = 0x6a;
	memcpy(image + 0x202, "HdrS", 4);
	base_store_u16(image + 0x206, 0x020f);
	image[0x211] = 1;
	base_store_u32(image + 0x22c, 0x7fffffff);
	base_store_u16(image + 0x236, 1);
	base_store_u32(image + 0x248, 0);
	base_store_u32(image + 0x24c, (uint32_t)payload_size);
	memcpy(image + BZIMAGE_HEAD, payload, payload_size);
	*ret_size = size;
	return image;
}

/* What the kernel build makes of a vmlinux with CONFIG_KERNEL_LZ4. */
static uint8_t *make_payload(const char *elf, size_t elf_size, size_t *ret_size)
{
	int bound = LZ4_compressBound((int)elf_size);
	uint8_t *payload = malloc((size_t)bound + 12);
	int n;

	assert_non_null(payload);
	base_store_u32(payload, 0x184c2102);
	n = LZ4_compress_default(elf, (char *)payload + 8, (int)elf_size, bound);
	assert_true(n > 0);
	base_store_u32(payload + 4, (uint32_t)n);
	base_store_u32(payload + 8 + n, (uint32_t)elf_size);
	*ret_size = (size_t)n + 12;
	return payload;
}

static void test_bzimage(void **state)
{
	_cleanup_free_ char *elf = NULL;
	_cleanup_free_ uint8_t *payload = NULL, *image = NULL;
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	size_t elf_size, payload_size, size;

	elf = slurp(tiny_path("exit"), &elf_size);
	payload = make_payload(elf, elf_size, &payload_size);
	image = make_bzimage(payload, payload_size, &size);
	assert_vm_ok(&vm, boot_bytes(&vm, image, size));
	assert_vm_ok(&vm, harness_resume(&vm));
	assert_int_equal(harness_wait_exit(&vm, PATIENCE_MS), 0);
	assert_int_equal(vm.over_code, 42);

	/* Cut off anywhere, it is refused. */
	for (size_t cut = 0x260; cut < size; cut += size / 16) {
		expect_refused(image, cut, -ENOEXEC, cut < 0x280 ? "cut off" : "bzImage");
	}
	/* So it is with a payload that lies outside, a header that ends nowhere, an old protocol.
	 */
	base_store_u32(image + 0x248, UINT32_MAX);
	expect_refused(image, size, -ENOEXEC, "cut off or damaged");
	base_store_u32(image + 0x248, 0);
	image[0x201] = 0xff;
	expect_refused(image, size, -ENOEXEC, "setup header ends");
	image[0x201] = 0x6a;
	base_store_u16(image + 0x206, 0x0205);
	expect_refused(image, size, -ENOEXEC, "no 64-bit entry");
	base_store_u16(image + 0x206, 0x020f);
	/* A block that is longer than the payload, and one that is no LZ4. */
	base_store_u32(image + BZIMAGE_HEAD + 4, UINT32_MAX);
	expect_refused(image, size, -ENOEXEC, "LZ4 block");
	memcpy(image + BZIMAGE_HEAD, payload, payload_size);
	memset(image + BZIMAGE_HEAD + 8, 0xff, payload_size - 12);
	expect_refused(image, size, -ENOEXEC, "does not decompress");
}

static void test_other_compressions(void **state)
{
	static const struct {
		uint8_t magic[16];
		const char *name;
	} others[] = {
		{ { 0x1f, 0x8b, 8 }, "gzip" },
		{ { 0xfd, '7', 'z', 'X', 'Z' }, "XZ" },
		{ { 0x28, 0xb5, 0x2f, 0xfd }, "Zstandard" },
		{ { 1, 2, 3, 4 }, "unknown" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		_cleanup_free_ uint8_t *image = NULL;
		size_t size;

		image = make_bzimage(others[i].magic, sizeof(others[i].magic), &size);
		expect_refused(image, size, -EPROTONOSUPPORT, others[i].name);
	}
}

static void test_boot_arguments(void **state)
{
	_cleanup_fd_ int kernel = -1, huge = -1;
	char text[BASE_MESSAGE_TEXT_MAX + 1];
	struct harness_params params = {};

	kernel = open(tiny_path("exit"), O_RDONLY | O_CLOEXEC);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	{
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;

		assert_vm_ok(&vm, harness_create(&vm, &params));
		assert_int_equal(harness_call(&vm, VMM_OP_BOOT, NULL, 0, &kernel, 1, text), -E2BIG);
		assert_non_null(strstr(vm.error.text, "command line is too long"));
	}
	huge = memfd_create("initramfs", MFD_CLOEXEC);
	assert_int_equal(ftruncate(huge, (off_t)MIB(3)), 0);
	{
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		int fds[] = { kernel, huge };

		assert_vm_ok(&vm, harness_create(&vm, &params));
		assert_int_equal(harness_call(&vm, VMM_OP_BOOT, NULL, 0, fds, 2, ""), -E2BIG);
		assert_non_null(strstr(vm.error.text, "initramfs"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated_elf),	   cmocka_unit_test(test_random_kernel),
		cmocka_unit_test(test_hostile_elf),	   cmocka_unit_test(test_bzimage),
		cmocka_unit_test(test_other_compressions), cmocka_unit_test(test_boot_arguments),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-hostile-kernel", tests, NULL, NULL);
}
