/* SPDX-License-Identifier: Apache-2.0 */

/* Log lines: form, level, length, the journal's prefix. Standard error goes to a pipe meanwhile. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct capture {
	int saved, pipe[2];
	char text[8192];
};

static void capture_start(struct capture *capture)
{
	capture->saved = dup(STDERR_FILENO);
	assert_int_equal(pipe2(capture->pipe, O_CLOEXEC | O_NONBLOCK), 0);
	assert_true(dup2(capture->pipe[1], STDERR_FILENO) >= 0);
}

static const char *capture_end(struct capture *capture)
{
	dup2(capture->saved, STDERR_FILENO);
	close(capture->saved);
	close(capture->pipe[1]);

	ssize_t n = read(capture->pipe[0], capture->text, sizeof(capture->text) - 1);

	close(capture->pipe[0]);
	capture->text[n > 0 ? n : 0] = '\0';
	return capture->text;
}

static int setup(void **state)
{
	unsetenv("JOURNAL_STREAM");
	base_log_set_level(BASE_LOG_INFO);
	return 0;
}

static void test_lines(void **state)
{
	struct capture capture;

	capture_start(&capture);
	log_error("a %d", 1);
	log_warning("b %s", "two");
	log_info("c");
	log_debug("not shown");
	assert_string_equal(capture_end(&capture), "error: a 1\nwarning: b two\ninfo: c\n");
}

static void test_level(void **state)
{
	struct capture capture;

	capture_start(&capture);
	base_log_set_level(BASE_LOG_ERROR);
	log_warning("not shown");
	log_error("shown");
	base_log_set_level(BASE_LOG_DEBUG);
	log_debug("shown too");
	assert_string_equal(capture_end(&capture), "error: shown\ndebug: shown too\n");
}

static void test_journal(void **state)
{
	struct capture capture;

	setenv("JOURNAL_STREAM", "8:1", 1);
	capture_start(&capture);
	log_error("x");
	log_warning("y");
	log_info("z");
	assert_string_equal(capture_end(&capture), "<3>x\n<4>y\n<6>z\n");
}

static void test_long_line(void **state)
{
	struct capture capture;
	char text[4096];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	capture_start(&capture);
	log_info("%s", text);

	const char *line = capture_end(&capture);
	size_t length = strlen(line);

	/* Cut, and still one line. */
	assert_true(length > 1000 && length < sizeof(text));
	assert_int_equal(strncmp(line, "info: xxx", 9), 0);
	assert_ptr_equal(strchr(line, '\n'), line + length - 1);
}

static void test_nowhere(void **state)
{
	struct capture capture;

	capture_start(&capture);
	close(STDERR_FILENO);
	log_error("into the void");
	assert_string_equal(capture_end(&capture), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_lines, setup),
		cmocka_unit_test_setup(test_level, setup),
		cmocka_unit_test_setup(test_journal, setup),
		cmocka_unit_test_setup(test_long_line, setup),
		cmocka_unit_test_setup(test_nowhere, setup),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
