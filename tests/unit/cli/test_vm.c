/* SPDX-License-Identifier: Apache-2.0 */

/* cli/build_vm.c with programs that are no VMM: what is said, and that nothing stays. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/build_vm.h"

static void says_that_there_is_no_program(void **state)
{
	struct base_error error = {};
	struct cli_vm vm;

	assert_int_equal(cli_vm_start(&vm, "/nonexistent/warmbox-vmm", STDERR_FILENO, &error),
			 -ENOENT);
	assert_non_null(strstr(error.text, "/nonexistent/warmbox-vmm"));
	cli_vm_stop(&vm);
	cli_vm_stop(&vm);
}

static void says_that_it_died(void **state)
{
	struct base_error error = {}, again = {};
	struct cli_vm vm;

	assert_int_equal(cli_vm_start(&vm, "/bin/true", STDERR_FILENO, &error), 0);
	assert_int_equal(cli_vm_call(&vm, VMM_OP_RESUME, NULL, NULL, NULL, 0, 5000, NULL, &error),
			 -ECONNRESET);
	assert_non_null(strstr(error.text, "the virtual machine ended"));
	assert_int_equal(cli_vm_check(&vm, &again), -ECONNRESET);
	cli_vm_stop(&vm);
}

/* A program that never answers is killed, reaped, and lets no call hang. */
static void stops_what_hangs(void **state)
{
	static const char script[] = "#!/bin/sh\nexec sleep 1000\n";
	char path[] = "/tmp/warmbox-test-vmm.XXXXXX";
	struct base_error error = {};
	struct cli_vm vm;
	pid_t pid;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(base_fd_write_full(fd, script, sizeof(script) - 1), 0);
	assert_int_equal(fchmod(fd, 0700), 0);
	close(fd);
	assert_int_equal(cli_vm_start(&vm, path, STDERR_FILENO, &error), 0);
	pid = vm.pid;
	assert_int_equal(cli_vm_check(&vm, &error), 0);
	assert_int_equal(cli_vm_call(&vm, VMM_OP_RESUME, NULL, NULL, NULL, 0, 300, NULL, &error),
			 -ETIMEDOUT);
	/* In a group of its own: the terminal's Ctrl-C is not for it. */
	assert_int_equal(getpgid(pid), pid);
	cli_vm_stop(&vm);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	unlink(path);
}

static void refuses_a_long_command_line(void **state)
{
	char text[BASE_MESSAGE_TEXT_MAX + 2];
	struct base_error error = {};
	struct cli_vm vm;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(cli_vm_start(&vm, "/bin/true", STDERR_FILENO, &error), 0);
	assert_int_equal(cli_vm_call(&vm, VMM_OP_BOOT, NULL, text, NULL, 0, 5000, NULL, &error),
			 -E2BIG);
	cli_vm_stop(&vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_that_there_is_no_program),
		cmocka_unit_test(says_that_it_died),
		cmocka_unit_test(stops_what_hangs),
		cmocka_unit_test(refuses_a_long_command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
