/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What must be refused: bad kernels, damaged states, requests in the wrong order, packets that are
 * no requests. Refused means an error with words, and a VMM that is still there or ended in good
 * order.
 */

#include "tests/guest/common.h"

#include "base/bytes.h"
#include "vmm/state_format.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <xxhash.h>

#define PATIENCE_MS  20000
#define BIT_FLIPS    400
#define MUTATIONS    200
#define BZIMAGE_HEAD 1024 /* boot sector and one sector of set-up */

static char *slurp(const char *path, size_t *ret_size)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *data = NULL;

	assert_true(fd >= 0);
	assert_int_equal(base_fd_read_file(fd, MIB(4), &data, ret_size), 0);
	return data;
}

static int file_of(const void *data, size_t size)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(base_fd_pwrite_full(fd, data, size, 0), 0);
	return fd;
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

/* --- damaged states --- */

struct saved {
	char *data;
	size_t size;
};

static void save_one(struct saved *ret_saved)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_fd_ int state_fd = -1;

	boot_tiny(&vm, "memory", 1, 0);
	assert_vm_ok(&vm, harness_wait_console(&vm, "ready", PATIENCE_MS));
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_vm_ok(&vm, harness_save(&vm, &state_fd, NULL));
	assert_int_equal(lseek(state_fd, 0, SEEK_SET), 0);
	assert_int_equal(base_fd_read_file(state_fd, MIB(4), &ret_saved->data, &ret_saved->size),
			 0);
}

/* LOAD of bytes in a fresh VM. */
static int load_bytes(struct harness_vm *vm, const void *data, size_t size)
{
	_cleanup_fd_ int fd = file_of(data, size);
	struct harness_params params = {};

	assert_vm_ok(vm, harness_create(vm, &params));
	return harness_load(vm, fd);
}

static void expect_damaged(const void *data, size_t size)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int r = load_bytes(&vm, data, size);
	int status;

	if (r != -EBADMSG || !strstr(vm.error.text, "state")) {
		fail_msg("size %zu: %d: %s", size, r, vm.error.text);
	}
	status = harness_stop(&vm);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_truncated_state(void **state)
{
	struct saved saved = {};
	size_t position = VMM_STATE_HEADER_BYTES;

	save_one(&saved);
	expect_damaged(saved.data, 0);
	expect_damaged(saved.data, VMM_STATE_HEADER_BYTES - 1);
	while (position < saved.size) {
		uint32_t length = base_load_u32(saved.data + position + 12);

		expect_damaged(saved.data, position);
		expect_damaged(saved.data, position + 7);
		expect_damaged(saved.data, position + VMM_SECTION_HEAD_BYTES + length / 2);
		position += VMM_SECTION_HEAD_BYTES + length + 8;
	}
	assert_int_equal(position, saved.size);
	expect_damaged(saved.data, saved.size - 1);
	saved.data = realloc(saved.data, saved.size + 1);
	saved.data[saved.size] = 0;
	expect_damaged(saved.data, saved.size + 1);
	free(saved.data);
}

static void test_flipped_bits(void **state)
{
	struct saved saved = {};

	save_one(&saved);
	srandom(2);
	for (unsigned i = 0; i < BIT_FLIPS; i++) {
		/* The header's bits one by one, then anywhere. */
		size_t bit = i < 8 * VMM_STATE_HEADER_BYTES / 4
				     ? 4 * i
				     : (size_t)random() % (8 * saved.size);

		saved.data[bit / 8] ^= (char)(1 << bit % 8);
		expect_damaged(saved.data, saved.size);
		saved.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	free(saved.data);
}

/* Sections of devices with other bytes and right checksums: what a forger would make. Refused, or
 * loaded and run; never a crash. */
static void test_forged_devices(void **state)
{
	struct saved saved = {};

	save_one(&saved);
	srandom(3);
	for (unsigned i = 0; i < MUTATIONS; i++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		_cleanup_free_ char *copy = malloc(saved.size);
		size_t position = VMM_STATE_HEADER_BYTES;
		int status;

		assert_non_null(copy);
		memcpy(copy, saved.data, saved.size);
		while (position < saved.size) {
			char *section = copy + position;
			uint32_t length = base_load_u32(section + 12);

			if (base_load_u32(section) != VMM_SECTION_VCPU && length > 0) {
				for (int n = 0; n < 2; n++) {
					section[VMM_SECTION_HEAD_BYTES + random() % length] =
						(char)random();
				}
				base_store_u64(
					section + VMM_SECTION_HEAD_BYTES + length,
					XXH64(section, VMM_SECTION_HEAD_BYTES + length, position));
			}
			position += VMM_SECTION_HEAD_BYTES + length + 8;
		}
		if (load_bytes(&vm, copy, saved.size) == 0) {
			assert_vm_ok(&vm, harness_resume(&vm));
			assert_vm_ok(&vm, harness_pause(&vm));
		} else {
			assert_true(strlen(vm.error.text) > 0);
		}
		status = harness_stop(&vm);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	free(saved.data);
}

/* --- the control protocol --- */

static void test_wrong_order(void **state)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	_cleanup_fd_ int file = file_of("x", 1);
	int fds[2] = { file, file };
	struct harness_params params = {};
	uint64_t args[BASE_MESSAGE_ARGS] = { MIB(4), 1, 0, 0, 0, 3 };

	assert_int_equal(harness_spawn(&vm), 0);
	assert_int_equal(harness_call(&vm, VMM_OP_BOOT, NULL, 0, fds, 1, ""), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_LOAD, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_ATTACH, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_resume(&vm), -EBUSY);
	assert_int_equal(harness_pause(&vm), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_call(&vm, (enum vmm_op)99, NULL, 0, NULL, 0, NULL), -ENOSYS);
	/* An answer that nobody asked for has no reply and does no harm. */
	{
		struct base_message message = { .op = VMM_OP_CONNECTED, .sequence = 7 };

		assert_int_equal(base_message_send(vm.control, &message, fds, 1), 0);
	}
	assert_int_equal(harness_resume(&vm), -EBUSY);
	harness_stop(&vm);

	boot_tiny(&vm, "memory", 1, 0);
	assert_int_equal(harness_call(&vm, VMM_OP_CREATE, args, BASE_MESSAGE_ARGS, NULL, 0, NULL),
			 -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_BOOT, NULL, 0, fds, 1, ""), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_LOAD, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, fds, 1, NULL), -EBUSY);
	assert_vm_ok(&vm, harness_pause(&vm));
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, NULL, 0, NULL), -EINVAL);
	assert_int_equal(harness_call(&vm, VMM_OP_SAVE, NULL, 0, fds, 2, NULL), -EINVAL);
	assert_int_equal(harness_call(&vm, VMM_OP_RESUME, NULL, 0, fds, 1, NULL), -EINVAL);
	assert_int_equal(harness_call(&vm, VMM_OP_ATTACH, NULL, 0, NULL, 0, NULL), -EINVAL);
	assert_vm_ok(&vm, harness_resume(&vm));
	harness_stop(&vm);

	/* A kernel is not booted into a private image. */
	params.image_fd = memfd_create("image", MFD_CLOEXEC);
	assert_int_equal(ftruncate(params.image_fd, (off_t)MIB(4)), 0);
	assert_vm_ok(&vm, harness_create(&vm, &params));
	assert_int_equal(harness_boot(&vm, tiny_path("exit"), NULL, ""), -EBUSY);
	close(params.image_fd);
}

static void test_create_arguments(void **state)
{
	_cleanup_fd_ int memory = -1;
	static const struct {
		uint64_t args[BASE_MESSAGE_ARGS];
		size_t n_fds;
	} bad[] = {
		{ { MIB(4) + 1, 1, 0, 0, 0, 3 }, 3 }, /* no whole pages */
		{ { MIB(1) - 4096, 1, 0, 0, 0, 3 }, 3 },
		{ { GIB(3) + 4096, 1, 0, 0, 0, 3 }, 3 },
		{ { UINT64_MAX, 1, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), 0, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), VMM_VCPUS_MAX + 1, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), UINT64_C(1) << 32 | 1, 0, 0, 0, 3 }, 3 },
		{ { MIB(4), 1, 2, 0, 0, 3 }, 3 },
		{ { MIB(4), 1, 0, VMM_DISKS_MAX + 1, 0, 3 }, 3 },
		{ { MIB(4), 1, 0, 1, 2, 3 }, 4 }, /* a read-only disk that is not there */
		{ { MIB(4), 1, 0, 0, 0, 2 }, 3 },
		{ { MIB(4), 1, 0, 0, 0, UINT32_MAX }, 3 },
		{ { MIB(4), 1, 0, 0, 0, 3 }, 2 }, /* descriptors missing */
		{ { MIB(4), 1, 0, 1, 0, 3 }, 3 },
		{ { MIB(4), 1, 0, 0, 0, 3 }, 4 }, /* one too many */
		{ { MIB(4), 1, 0, 0, 0, 3 }, 0 },
		{ { MIB(8), 1, 0, 0, 0, 3 }, 3 }, /* not the size of the memory file */
	};

	assert_int_equal(base_fd_memfd("memory", MIB(4), &memory), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
		int fds[4] = { memory, memory, memory, memory };
		int r;

		assert_int_equal(harness_spawn(&vm), 0);
		r = harness_call(&vm, VMM_OP_CREATE, bad[i].args, BASE_MESSAGE_ARGS, fds,
				 bad[i].n_fds, NULL);
		if (r != -EINVAL || strlen(vm.error.text) == 0) {
			fail_msg("case %zu: %d: %s", i, r, vm.error.text);
		}
	}
}

/* Sends one packet that is no request: the VMM ends, with an error status and no signal. */
static void expect_end(const void *packet, size_t size, size_t n_fds)
{
	_cleanup_vm_ struct harness_vm vm = HARNESS_VM_NONE;
	int fds[BASE_FD_PASS_MAX];
	char byte;
	int status;

	assert_int_equal(harness_spawn(&vm), 0);
	for (size_t i = 0; i < n_fds; i++) {
		fds[i] = vm.control;
	}
	assert_true(base_fd_send(vm.control, packet, size, fds, n_fds, 0) >= 0);
	assert_true(recv(vm.control, &byte, 1, 0) <= 0);
	status = harness_stop(&vm);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void test_malformed_packets(void **state)
{
	const size_t head = offsetof(struct base_message, text);
	static char large[8192];
	struct base_message message = { .op = VMM_OP_RESUME, .sequence = 1 };

	expect_end("x", 1, 0);
	expect_end(&message, head - 1, 0);
	expect_end(&message, head + 1, 0); /* a text that the length does not mention */
	message.text_length = 5;
	expect_end(&message, head + 4, 0);
	expect_end(&message, head + 5, 0); /* NULs in the text */
	message.text_length = BASE_MESSAGE_TEXT_MAX + 1;
	expect_end(&message, sizeof(message), 0);
	message.text_length = 0;
	message.reserved = 1;
	expect_end(&message, head, 0);
	message.reserved = 0;
	expect_end(&message, head, BASE_MESSAGE_FDS_MAX + 1);
	expect_end(large, sizeof(large), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated_elf),	   cmocka_unit_test(test_random_kernel),
		cmocka_unit_test(test_hostile_elf),	   cmocka_unit_test(test_bzimage),
		cmocka_unit_test(test_other_compressions), cmocka_unit_test(test_boot_arguments),
		cmocka_unit_test(test_truncated_state),	   cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_forged_devices),	   cmocka_unit_test(test_wrong_order),
		cmocka_unit_test(test_create_arguments),   cmocka_unit_test(test_malformed_packets),
	};

	if (skip_all()) {
		return 0;
	}
	return cmocka_run_group_tests_name("guest-hostile", tests, NULL, NULL);
}
