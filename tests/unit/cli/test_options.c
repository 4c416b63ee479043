/* SPDX-License-Identifier: Apache-2.0 */

/* cli/options.c: words, numbers, times, common options. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cli.h"

static const struct cli cli = { .command = "test" };

static void expect_words(const char *text, const char *const *words)
{
	_cleanup_free_ char **split = NULL;
	size_t i;

	assert_int_equal(cli_words_split(text, &split, NULL), 0);
	for (i = 0; words[i]; i++) {
		assert_non_null(split[i]);
		assert_string_equal(split[i], words[i]);
	}
	assert_null(split[i]);
}

static void splits_like_a_shell(void **state)
{
	expect_words("a", (const char *[]){ "a", NULL });
	expect_words("  a  b\tc\n", (const char *[]){ "a", "b", "c", NULL });
	expect_words("a b c d e f", (const char *[]){ "a", "b", "c", "d", "e", "f", NULL });
	expect_words("sh -c 'echo \"$x\" \\n'",
		     (const char *[]){ "sh", "-c", "echo \"$x\" \\n", NULL });
	expect_words("a\"b c\"d", (const char *[]){ "ab cd", NULL });
	expect_words("\"\" ''", (const char *[]){ "", "", NULL });
	expect_words("a\\ b \\'", (const char *[]){ "a b", "'", NULL });
	expect_words("\"\\\" \\$ \\a\"", (const char *[]){ "\" $ \\a", NULL });
	expect_words("$HOME `ls` *", (const char *[]){ "$HOME", "`ls`", "*", NULL });
	expect_words("a\\", (const char *[]){ "a\\", NULL });
}

static void refuses_what_is_no_command(void **state)
{
	struct base_error error = {};
	char **split = NULL;

	assert_int_equal(cli_words_split("", &split, &error), -EINVAL);
	assert_string_equal(error.text, "the command is empty");
	assert_int_equal(cli_words_split(" \t\n", &split, NULL), -EINVAL);
	error = (struct base_error){};
	assert_int_equal(cli_words_split("a 'b", &split, &error), -EINVAL);
	assert_string_equal(error.text, "a quote is not closed");
	assert_int_equal(cli_words_split("a \"b\\\"", &split, NULL), -EINVAL);
	assert_null(split);
}

static void parses_numbers_within_bounds(void **state)
{
	static const char *const wrong[] = { "",   " ",	  "x",
					     "1x", "-1",  "0",
					     "11", "0x5", "99999999999999999999" };
	uint64_t value = 77;

	assert_int_equal(cli_parse_number(&cli, "--n", "1", 1, 10, &value), 0);
	assert_int_equal(value, 1);
	assert_int_equal(cli_parse_number(&cli, "--n", "10", 1, 10, &value), 0);
	assert_int_equal(value, 10);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(cli_parse_number(&cli, "--n", wrong[i], 1, 10, &value), -EINVAL);
	}
	assert_int_equal(value, 10);
}

static void parses_times(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} right[] = { { "0", 0 },	{ "10", 10000 },  { "500ms", 500 },
		      { "10s", 10000 }, { "5m", 300000 }, { "2h", 7200000 } };
	static const char *const wrong[] = { "",
					     "s",
					     "1d",
					     "1.5s",
					     "-1s",
					     "1 s",
					     "10S",
					     "99999999999999999999h",
					     "9999999999999h" };
	uint64_t ms = 0;

	for (size_t i = 0; i < ARRAY_SIZE(right); i++) {
		assert_int_equal(cli_parse_duration(&cli, "--t", right[i].text, &ms), 0);
		assert_int_equal(ms, right[i].ms);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(cli_parse_duration(&cli, "--t", wrong[i], &ms), -EINVAL);
	}
}

static void takes_common_options(void **state)
{
	static const struct option options[] = { CLI_COMMON_OPTIONS };
	char *argv[] = { (char *)"x",  (char *)"--json",  (char *)"--socket",
			 (char *)"/s", (char *)"operand", NULL };
	char *wrong[] = { (char *)"x", (char *)"--nonsense", NULL };
	char *without[] = { (char *)"x", (char *)"--socket", NULL };
	struct cli local = cli;
	int status = 77;

	cli_option_reset();
	assert_int_equal(cli_option_next(&local, 5, argv, ":", options, "", &status), -1);
	assert_true(local.json);
	assert_string_equal(local.socket_path, "/s");
	assert_string_equal(argv[optind], "operand");
	cli_option_reset();
	assert_int_equal(cli_option_next(&local, 2, wrong, ":", options, "", &status), '?');
	assert_int_equal(status, CLI_EXIT_USAGE);
	cli_option_reset();
	status = 77;
	assert_int_equal(cli_option_next(&local, 2, without, ":", options, "", &status), '?');
	assert_int_equal(status, CLI_EXIT_USAGE);
}

static void finds_places_in_the_environment(void **state)
{
	unsetenv("WARMBOX_STORE");
	assert_string_equal(cli_store_path(), CLI_STORE_DEFAULT);
	setenv("WARMBOX_STORE", "", 1);
	assert_string_equal(cli_store_path(), CLI_STORE_DEFAULT);
	setenv("WARMBOX_STORE", "/elsewhere", 1);
	assert_string_equal(cli_store_path(), "/elsewhere");
	unsetenv("WARMBOX_SOCKET");
	assert_string_equal(cli_socket_path(), CLI_SOCKET_DEFAULT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(splits_like_a_shell),
		cmocka_unit_test(refuses_what_is_no_command),
		cmocka_unit_test(parses_numbers_within_bounds),
		cmocka_unit_test(parses_times),
		cmocka_unit_test(takes_common_options),
		cmocka_unit_test(finds_places_in_the_environment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
