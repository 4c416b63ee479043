/* SPDX-License-Identifier: Apache-2.0 */

/* The command line of bench programs. */

#include "bench/options.h"

#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ARGS_MAX 8

static int parse(unsigned accepted, struct bench_options *options, const char *const args[])
{
	char *argv[ARGS_MAX + 2] = { (char *)"bench-x" };
	int argc = 1;

	for (; args[argc - 1]; argc++) {
		argv[argc] = (char *)args[argc - 1];
	}
	optind = 0;
	return bench_options_parse(argc, argv, "x", accepted, options);
}
#define PARSE(accepted, options, ...) \
	parse(accepted, options, (const char *const[]){ __VA_ARGS__, NULL })

static void test_defaults(void **state)
{
	struct bench_options options;

	assert_int_equal(PARSE(0, &options, "--quick"), 0);
	assert_true(options.quick);
	assert_int_equal(options.count, 0);
	assert_int_equal(options.load, 80);
}

static void test_all(void **state)
{
	struct bench_options options;

	assert_int_equal(PARSE(BENCH_OPTION_DAEMON | BENCH_OPTION_COUNT, &options, "--socket", "/s",
			       "--template", "t", "--count", "7"),
			 0);
	assert_string_equal(options.socket, "/s");
	assert_string_equal(options.template_name, "t");
	assert_int_equal(options.count, 7);
	assert_int_equal(PARSE(BENCH_OPTION_SECONDS | BENCH_OPTION_LOAD | BENCH_OPTION_PIN |
				       BENCH_OPTION_ECHO | BENCH_OPTION_EVAL,
			       &options, "--seconds", "600", "--load", "50", "--pin", "--echo",
			       "--eval=1"),
			 0);
	assert_int_equal(options.seconds, 600);
	assert_int_equal(options.load, 50);
	assert_true(options.pin);
	assert_true(options.echo);
	assert_string_equal(options.code, "1");
	assert_int_equal(PARSE(BENCH_OPTION_STORE, &options, "--quick"), 0);
	assert_null(options.store);
	assert_int_equal(PARSE(BENCH_OPTION_STORE, &options, "--store", "/s", "--template", "t"),
			 0);
	assert_string_equal(options.store, "/s");
	assert_string_equal(options.template_name, "t");
}

static void test_refused(void **state)
{
	struct bench_options options;

	assert_int_equal(PARSE(0, &options, "--count", "7"), -EINVAL);
	assert_int_equal(PARSE(0, &options, "operand"), -EINVAL);
	assert_int_equal(PARSE(BENCH_OPTION_DAEMON, &options, "--socket", "/s"), -EINVAL);
	assert_int_equal(PARSE(BENCH_OPTION_STORE, &options, "--store", "/s"), -EINVAL);
	assert_int_equal(PARSE(BENCH_OPTION_STORE, &options, "--template", "t"), -EINVAL);
	assert_int_equal(PARSE(BENCH_OPTION_COUNT, &options, "--count", "0"), -EINVAL);
	assert_int_equal(PARSE(BENCH_OPTION_COUNT, &options, "--count", "-1"), -EINVAL);
	assert_int_equal(PARSE(BENCH_OPTION_COUNT, &options, "--count", "10000000"), 0);
	assert_int_equal(PARSE(BENCH_OPTION_COUNT, &options, "--count", "10000001"), -EINVAL);
	assert_int_equal(PARSE(BENCH_OPTION_LOAD, &options, "--load", "many"), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_all),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
