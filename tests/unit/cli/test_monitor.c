/* SPDX-License-Identifier: Apache-2.0 */

/* cli/build_monitor.c: the console's tail, progress calls, killing the guarded process. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/build_monitor.h"

static volatile sig_atomic_t interrupted;

/* What the progress function saw. The monitor never calls it twice at once. */
struct seen {
	unsigned calls, begins;
	enum cli_build_step step;
	char detail[64], console[CLI_BUILD_LINE_MAX + 1];
};

static void see(void *userdata, const struct cli_build_progress *progress)
{
	struct seen *seen = userdata;

	seen->calls++;
	seen->begins += progress->begins;
	seen->step = progress->step;
	snprintf(seen->detail, sizeof(seen->detail), "%s",
		 progress->detail ? progress->detail : "");
	snprintf(seen->console, sizeof(seen->console), "%s",
		 progress->console ? progress->console : "");
}

static void keeps_a_harmless_tail(void **state)
{
	_cleanup_(cli_monitor_freep) struct cli_monitor *monitor = NULL;
	char tail[CLI_BUILD_CONSOLE_MAX + 1];
	char line[64];

	interrupted = 0;
	assert_int_equal(cli_monitor_new(NULL, NULL, &interrupted, &monitor), 0);
	cli_monitor_output(monitor, "a\033[2Jb\r\n\tc\xff\n", 12);
	cli_monitor_tail(monitor, tail);
	assert_string_equal(tail, "a?[2Jb\n c?\n");
	for (int i = 0; i < 1000; i++) {
		int n = snprintf(line, sizeof(line), "line %d\n", i);

		cli_monitor_output(monitor, line, (size_t)n);
	}
	cli_monitor_tail(monitor, tail);
	assert_true(strlen(tail) <= CLI_BUILD_CONSOLE_MAX);
	assert_true(strlen(tail) >= CLI_BUILD_CONSOLE_MAX / 2 - sizeof(line));
	assert_non_null(strstr(tail, "line 999\n"));
	assert_null(strstr(tail, "line 0\n"));
	cli_monitor_step(monitor, CLI_BUILD_STORE, NULL);
	cli_monitor_tail(monitor, tail);
	assert_string_equal(tail, "");
}

static void reads_the_console_to_its_last_word(void **state)
{
	_cleanup_(cli_monitor_freep) struct cli_monitor *monitor = NULL;
	char tail[CLI_BUILD_CONSOLE_MAX + 1];
	int fd;

	interrupted = 0;
	assert_int_equal(cli_monitor_new(NULL, NULL, &interrupted, &monitor), 0);
	fd = cli_monitor_console_fd(monitor);
	assert_int_equal(base_fd_write_full(fd, "Kernel panic - not syncing", 26), 0);
	/* Whether the thread or tail() gets it, it is there. */
	for (int i = 0; i < 50; i++) {
		cli_monitor_tail(monitor, tail);
		if (tail[0]) {
			break;
		}
		poll(NULL, 0, 20);
	}
	assert_string_equal(tail, "Kernel panic - not syncing");
}

static void reports_steps_and_beats(void **state)
{
	_cleanup_(cli_monitor_freep) struct cli_monitor *monitor = NULL;
	struct seen seen = {};
	unsigned before;

	interrupted = 0;
	assert_int_equal(cli_monitor_new(see, &seen, &interrupted, &monitor), 0);
	cli_monitor_output(monitor, "of the step before\n", 19);
	cli_monitor_step(monitor, CLI_BUILD_WARM, "python3");
	assert_int_equal(seen.begins, 1);
	assert_int_equal(seen.step, CLI_BUILD_WARM);
	assert_string_equal(seen.detail, "python3");
	assert_string_equal(seen.console, "");
	cli_monitor_output(monitor, "one\ntwo\n\n", 9);
	cli_monitor_detail(monitor, "more");
	assert_string_equal(seen.console, "two");
	assert_string_equal(seen.detail, "more");
	assert_int_equal(seen.begins, 1);
	before = seen.calls;
	poll(NULL, 0, 1800);
	/* Under the monitor's own lock, so that the thread is not in see(). */
	cli_monitor_detail(monitor, "last");
	assert_true(seen.calls >= before + 2);
}

static void kills_what_it_guards(void **state)
{
	_cleanup_(cli_monitor_freep) struct cli_monitor *monitor = NULL;
	_cleanup_fd_ int pidfd = -1;
	int status = 0;
	pid_t pid;

	interrupted = 0;
	assert_int_equal(cli_monitor_new(NULL, NULL, &interrupted, &monitor), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		for (;;) {
			pause();
		}
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(pidfd >= 0);
	cli_monitor_guard(monitor, pidfd);
	poll(NULL, 0, 700);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	interrupted = SIGINT;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
	cli_monitor_guard(monitor, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_a_harmless_tail),
		cmocka_unit_test(reads_the_console_to_its_last_word),
		cmocka_unit_test(reports_steps_and_beats),
		cmocka_unit_test(kills_what_it_guards),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
