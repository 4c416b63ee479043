/* SPDX-License-Identifier: Apache-2.0 */

/* cli/build_inputs.c: each mistake that is found before a VM is made has its own words. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/build_inputs.h"

struct files {
	char directory[64];
	char kernel[96], initramfs[96], root[96], other[96];
	struct cli_build_params params;
};

static void write_file(const char *path, size_t size, size_t offset, const void *data,
		       size_t data_size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(base_fd_pwrite_full(fd, data, data_size, (off_t)offset), 0);
	close(fd);
}

static int setup(void **state)
{
	struct files *files = calloc(1, sizeof(*files));

	strcpy(files->directory, "/tmp/warmbox-test-inputs.XXXXXX");
	assert_non_null(mkdtemp(files->directory));
	snprintf(files->kernel, sizeof(files->kernel), "%s/kernel", files->directory);
	snprintf(files->initramfs, sizeof(files->initramfs), "%s/initramfs", files->directory);
	snprintf(files->root, sizeof(files->root), "%s/root", files->directory);
	snprintf(files->other, sizeof(files->other), "%s/other", files->directory);
	write_file(files->kernel, 4096, 0, "\177ELF", 4);
	write_file(files->initramfs, 512, 0, "070701", 6);
	write_file(files->root, 8192, 1024, "\xe2\xe1\xf5\xe0", 4);
	files->params = (struct cli_build_params){
		.name = "test",
		.kernel_path = files->kernel,
		.initramfs_path = files->initramfs,
		.root_image_path = files->root,
		.memory_bytes = MIB(64),
		.n_vcpus = 1,
	};
	*state = files;
	return 0;
}

static int teardown(void **state)
{
	struct files *files = *state;

	unlink(files->kernel);
	unlink(files->initramfs);
	unlink(files->root);
	unlink(files->other);
	assert_int_equal(rmdir(files->directory), 0);
	free(files);
	return 0;
}

static void expect(const struct files *files, int r, const char *words)
{
	struct cli_build_inputs inputs = CLI_BUILD_INPUTS_NONE;
	struct base_error error = {};

	assert_int_equal(cli_build_inputs_open(&inputs, &files->params, "base", &error), r);
	if (words && !strstr(error.text, words)) {
		fail_msg("'%s' is not in '%s'", words, error.text);
	}
	cli_build_inputs_close(&inputs);
}

static void takes_what_is_right(void **state)
{
	struct files *files = *state;
	struct cli_build_inputs inputs = CLI_BUILD_INPUTS_NONE;

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		skip();
	}
	files->params.cmdline = "x=y";
	assert_int_equal(cli_build_inputs_open(&inputs, &files->params, "base", NULL), 0);
	assert_string_equal(inputs.cmdline, "base warmbox.fstype=erofs x=y");
	assert_int_equal(strlen(inputs.kernel_digest), SNAPSHOT_DIGEST_LENGTH);
	assert_int_equal(cli_build_inputs_unchanged(&inputs, &files->params, NULL), 0);
	poll(NULL, 0, 20); /* a coarse file system clock */
	write_file(files->root, 8192, 1024, "\xe2\xe1\xf5\xe0", 4);
	assert_int_equal(cli_build_inputs_unchanged(&inputs, &files->params, NULL), -ESTALE);
	cli_build_inputs_close(&inputs);

	write_file(files->kernel, 4096, 0x202, "HdrS", 4);
	write_file(files->root, 8192, 1080, "\x53\xef", 2);
	assert_int_equal(cli_build_inputs_open(&inputs, &files->params, "base", NULL), 0);
	assert_string_equal(inputs.cmdline, "base warmbox.fstype=ext4 x=y");
	cli_build_inputs_close(&inputs);
}

static void refuses_wrong_files(void **state)
{
	struct files *files = *state;

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		skip();
	}
	files->params.kernel_path = files->other;
	expect(files, -ENOENT, files->other);
	write_file(files->other, 0, 0, "", 0);
	expect(files, -EINVAL, "empty");
	write_file(files->other, 3, 0, "abc", 3);
	expect(files, -ENOEXEC, "not a Linux kernel");
	files->params.kernel_path = files->directory;
	expect(files, -EINVAL, "not a regular file");
	files->params.kernel_path = files->kernel;
	files->params.initramfs_path = files->other;
	expect(files, -EINVAL, "not an initramfs");
	files->params.initramfs_path = files->initramfs;
	files->params.root_image_path = files->other;
	expect(files, -EINVAL, "not a root image");
}

static void refuses_wrong_sizes(void **state)
{
	static const uint64_t wrong[] = { 0, CLI_BUILD_MEMORY_MIN_BYTES - KIB(64), MIB(64) + 4096,
					  VMM_MEMORY_MAX_BYTES + KIB(64), UINT64_MAX };
	struct files *files = *state;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		files->params.memory_bytes = wrong[i];
		expect(files, -EINVAL, "memory");
	}
	files->params.memory_bytes = MIB(64);
	files->params.n_vcpus = 0;
	expect(files, -EINVAL, "vCPUs");
	files->params.n_vcpus = VMM_VCPUS_MAX + 1;
	expect(files, -EINVAL, "vCPUs");
	files->params.n_vcpus = 1;
	files->params.name = "../up";
	expect(files, -EINVAL, "not a template name");
}

static void refuses_a_long_command_line(void **state)
{
	struct files *files = *state;
	_cleanup_free_ char *text = calloc(1, SNAPSHOT_CMDLINE_MAX + 1);

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		skip();
	}
	memset(text, 'x', SNAPSHOT_CMDLINE_MAX);
	files->params.cmdline = text;
	expect(files, -E2BIG, "too long");
	/* "base warmbox.fstype=erofs " and this make exactly the limit. */
	text[SNAPSHOT_CMDLINE_MAX - 26] = '\0';
	expect(files, 0, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(takes_what_is_right, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_wrong_files, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_wrong_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_a_long_command_line, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
