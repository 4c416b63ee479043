/* SPDX-License-Identifier: Apache-2.0 */

/* Random bytes, also more than one system call gives, and their digits. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"

#include <string.h>

static void test_all_of_it_is_random(void **state)
{
	static uint8_t bytes[1 << 20];
	unsigned seen[256] = { 0 };

	bytes[sizeof(bytes) - 1] = 0;
	assert_int_equal(base_random(bytes, sizeof(bytes)), 0);
	/* 4,096 of each are expected, with a standard deviation of 64. */
	for (size_t i = 0; i < sizeof(bytes); i++) {
		seen[bytes[i]]++;
	}
	for (unsigned i = 0; i < 256; i++) {
		assert_in_range(seen[i], 3400, 4800);
	}
}

static void test_never_the_same(void **state)
{
	uint8_t first[16], second[16];

	assert_int_equal(base_random(first, sizeof(first)), 0);
	assert_int_equal(base_random(second, sizeof(second)), 0);
	assert_memory_not_equal(first, second, sizeof(first));
}

static void test_digits(void **state)
{
	char digits[9] = "????????";

	base_hex((const uint8_t *)"\x00\x9a\xff", 3, digits);
	assert_string_equal(digits, "009aff");
	assert_int_equal(digits[7], '?');
	base_hex(NULL, 0, digits);
	assert_string_equal(digits, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_of_it_is_random),
		cmocka_unit_test(test_never_the_same),
		cmocka_unit_test(test_digits),
	};

	return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
