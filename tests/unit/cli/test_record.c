/* SPDX-License-Identifier: Apache-2.0 */

/* cli/build_record.c with a VMM that is none: what is said, and that the recorder is at rest. What
 * it records of a real guest is seen in tests/integration/test_build.py. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "cli/build_record.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct scene {
	volatile sig_atomic_t interrupted;
	struct cli_build_params build;
	struct cli_record_params params;
	struct uffd_recorder *recorder;
};

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	int r;

	assert_non_null(scene);
	*state = scene;
	scene->build = (struct cli_build_params){
		.memory_bytes = MIB(1),
		.n_vcpus = 1,
		.vmm_path = "/bin/true",
		.timeout_ms = 5000,
		.n_records = 2,
	};
	scene->params = (struct cli_record_params){
		.build = &scene->build,
		.interrupted = &scene->interrupted,
		.state_fd = -1,
		.root_fd = STDIN_FILENO,
	};
	assert_int_equal(base_fd_memfd("test-memory", MIB(1), &scene->params.memory_fd), 0);
	assert_int_equal(cli_monitor_new(NULL, NULL, &scene->interrupted, &scene->params.monitor),
			 0);
	r = uffd_recorder_new(scene->params.memory_fd, MIB(1), &scene->recorder, NULL);
	if (r == -ENOTSUP) {
		print_message("# SKIP: memfds have huge pages here\n");
		skip();
	}
	return r;
}

static int teardown(void **state)
{
	struct scene *scene = *state;

	uffd_recorder_free(scene->recorder);
	cli_monitor_free(scene->params.monitor);
	close(scene->params.memory_fd);
	free(scene);
	return 0;
}

static void test_vmm_dies(void **state)
{
	struct scene *scene = *state;
	struct base_error error = {};
	size_t n = 1;

	assert_int_equal(cli_record(&scene->params, scene->recorder, &error), -ECONNRESET);
	assert_string_equal(error.text,
			    "the frozen guest, restored: the virtual machine ended: its "
			    "VMM died without a word");
	uffd_recorder_pages(scene->recorder, &n);
	assert_int_equal(n, 0);

	scene->build.vmm_path = "/nonexistent/warmbox-vmm";
	assert_int_equal(cli_record(&scene->params, scene->recorder, &error), -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/warmbox-vmm"));
}

static void test_nothing_to_do(void **state)
{
	struct scene *scene = *state;
	struct base_error error = {};

	scene->build.n_records = 0;
	assert_int_equal(cli_record(&scene->params, scene->recorder, &error), 0);
}

static void test_interrupted(void **state)
{
	struct scene *scene = *state;
	struct base_error error = {};

	scene->interrupted = 1;
	assert_int_equal(cli_record(&scene->params, scene->recorder, &error), -EINTR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_vmm_dies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_to_do, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupted, setup, teardown),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
