/* SPDX-License-Identifier: Apache-2.0 */

/* Error texts: return values, order of prefixes, texts that do not fit, no buffer at all. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

#include <errno.h>
#include <string.h>

static void test_set(void **state)
{
	struct base_error error = { 0 };

	assert_int_equal(base_error_set(&error, -EBADMSG, "file %d: %s", 3, "odd"), -EBADMSG);
	assert_string_equal(error.text, "file 3: odd");
	assert_int_equal(base_error_set_errno(&error, -ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_string_equal(error.text, "cannot open x: No such file or directory");
}

static void test_prefix(void **state)
{
	struct base_error error = { 0 };

	assert_int_equal(base_error_prefix(&error, -EPERM, "opening %s", "y"), -EPERM);
	assert_string_equal(error.text, "opening y: Operation not permitted");
	assert_int_equal(base_error_prefix(&error, -EPERM, "template %s", "z"), -EPERM);
	assert_string_equal(error.text, "template z: opening y: Operation not permitted");
}

static void test_without_buffer(void **state)
{
	assert_int_equal(base_error_set(NULL, -EIO, "%s", "x"), -EIO);
	assert_int_equal(base_error_set_errno(NULL, -EIO, "%s", "x"), -EIO);
	assert_int_equal(base_error_prefix(NULL, -EIO, "%s", "x"), -EIO);
}

static void test_too_long(void **state)
{
	char text[2 * BASE_ERROR_TEXT_MAX];
	struct base_error error = { 0 };

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	base_error_set(&error, -EIO, "%s", text);
	assert_int_equal(strlen(error.text), BASE_ERROR_TEXT_MAX - 1);
	base_error_set_errno(&error, -EIO, "%s", text);
	assert_int_equal(strlen(error.text), BASE_ERROR_TEXT_MAX - 1);
	base_error_prefix(&error, -EIO, "context");
	assert_int_equal(strlen(error.text), BASE_ERROR_TEXT_MAX - 1);
	assert_int_equal(strncmp(error.text, "context: xxx", 12), 0);
	base_error_prefix(&error, -EIO, "%s", text);
	assert_int_equal(strlen(error.text), BASE_ERROR_TEXT_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_without_buffer),
		cmocka_unit_test(test_too_long),
	};

	return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
