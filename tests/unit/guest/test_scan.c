/* SPDX-License-Identifier: Apache-2.0 */

/* Where messages end, and which are refused. */

#include "base/util.h"
#include "guest/agent/scan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static int scan_all(const void *data, size_t size, size_t *ret_length)
{
	struct agent_scan scan = { 0 };
	int r = agent_scan_step(&scan, data, size);

	*ret_length = scan.position;
	return r;
}

static void assert_length(const char *data, size_t size, size_t length)
{
	size_t found;

	assert_int_equal(scan_all(data, size, &found), 1);
	assert_int_equal(found, length);
}

static void every_form_has_its_length(void **state)
{
	static const struct {
		const char *data;
		size_t length;
	} forms[] = {
		{ "\x00", 1 },
		{ "\x7f", 1 },
		{ "\xe0", 1 },
		{ "\xff", 1 },
		{ "\x80", 1 },
		{ "\x90", 1 },
		{ "\xa0", 1 },
		{ "\xa3"
		  "abc",
		  4 },
		{ "\xc0", 1 },
		{ "\xc2", 1 },
		{ "\xc3", 1 },
		{ "\xc4\x02"
		  "ab",
		  4 },
		{ "\xc5\x00\x01"
		  "a",
		  4 },
		{ "\xc6\x00\x00\x00\x01"
		  "a",
		  6 },
		{ "\xc7\x01\x05"
		  "a",
		  4 },
		{ "\xc8\x00\x01\x05"
		  "a",
		  5 },
		{ "\xc9\x00\x00\x00\x01\x05"
		  "a",
		  7 },
		{ "\xca"
		  "1234",
		  5 },
		{ "\xcb"
		  "12345678",
		  9 },
		{ "\xcc"
		  "1",
		  2 },
		{ "\xcd"
		  "12",
		  3 },
		{ "\xce"
		  "1234",
		  5 },
		{ "\xcf"
		  "12345678",
		  9 },
		{ "\xd0"
		  "1",
		  2 },
		{ "\xd1"
		  "12",
		  3 },
		{ "\xd2"
		  "1234",
		  5 },
		{ "\xd3"
		  "12345678",
		  9 },
		{ "\xd4"
		  "t1",
		  3 },
		{ "\xd5"
		  "t12",
		  4 },
		{ "\xd6"
		  "t1234",
		  6 },
		{ "\xd7"
		  "t12345678",
		  10 },
		{ "\xd8"
		  "t1234567812345678",
		  18 },
		{ "\xd9\x01"
		  "a",
		  3 },
		{ "\xda\x00\x01"
		  "a",
		  4 },
		{ "\xdb\x00\x00\x00\x01"
		  "a",
		  6 },
		{ "\xdc\x00\x02\x01\x02", 5 },
		{ "\xdd\x00\x00\x00\x01\x01", 6 },
		{ "\xde\x00\x01\x01\x02", 5 },
		{ "\xdf\x00\x00\x00\x01\x01\x02", 7 },
		{ "\x81\x01\x92\x01\x02", 5 },
	};
	char data[32];

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		memcpy(data, forms[i].data, forms[i].length);
		/* Something follows, and is left alone. */
		data[forms[i].length] = '\xc1';
		assert_length(data, forms[i].length + 1, forms[i].length);
		for (size_t size = 0; size < forms[i].length; size++) {
			size_t found;

			assert_int_equal(scan_all(data, size, &found), 0);
		}
	}
}

static void it_goes_on_where_it_stopped(void **state)
{
	static const char message[] =
		"\x94\x00\xcd\x01\x00\xa4ping\x91\x81\xa1k\xdc\x00\x02\xc0\xc0";
	struct agent_scan scan = { 0 };

	for (size_t size = 0; size < sizeof(message) - 1; size++) {
		assert_int_equal(agent_scan_step(&scan, (const uint8_t *)message, size), 0);
	}
	assert_int_equal(agent_scan_step(&scan, (const uint8_t *)message, sizeof(message)), 1);
	assert_int_equal(scan.position, sizeof(message) - 1);
}

static void the_reserved_byte_is_refused(void **state)
{
	size_t found;

	assert_int_equal(scan_all("\xc1", 1, &found), -EBADMSG);
	assert_int_equal(scan_all("\x92\x01\xc1", 3, &found), -EBADMSG);
}

static void nesting_is_limited(void **state)
{
	uint8_t data[GUEST_NESTING_MAX + 2];
	size_t found;

	memset(data, 0x91, sizeof(data));
	data[GUEST_NESTING_MAX] = 0xc0;
	assert_length((const char *)data, sizeof(data), GUEST_NESTING_MAX + 1);
	data[GUEST_NESTING_MAX] = 0x91;
	assert_int_equal(scan_all(data, sizeof(data), &found), -EMSGSIZE);
}

static void size_is_limited(void **state)
{
	const size_t payload = GUEST_MESSAGE_MAX_BYTES - 5;
	uint8_t header[5] = { 0xc6, (uint8_t)(payload >> 24), (uint8_t)(payload >> 16),
			      (uint8_t)(payload >> 8), (uint8_t)payload };
	_cleanup_free_ uint8_t *data = calloc(1, GUEST_MESSAGE_MAX_BYTES);
	size_t found;

	memcpy(data, header, sizeof(header));
	assert_length((const char *)data, GUEST_MESSAGE_MAX_BYTES, GUEST_MESSAGE_MAX_BYTES);
	data[4]++;
	/* Known from the header; nobody waits for the rest. */
	assert_int_equal(scan_all(data, 5, &found), -EMSGSIZE);

	/* An array whose header is the last thing that fits. */
	memset(data, 0, GUEST_MESSAGE_MAX_BYTES);
	memcpy(data, "\x92\xc6", 2);
	header[1] = (uint8_t)((payload - 2) >> 24);
	header[2] = (uint8_t)((payload - 2) >> 16);
	header[3] = (uint8_t)((payload - 2) >> 8);
	header[4] = (uint8_t)(payload - 2);
	memcpy(data + 2, header + 1, 4);
	data[GUEST_MESSAGE_MAX_BYTES - 1] = 0xdd;
	assert_int_equal(scan_all(data, GUEST_MESSAGE_MAX_BYTES, &found), -EMSGSIZE);
}

static void the_number_of_values_is_limited(void **state)
{
	const unsigned n = AGENT_VALUES_MAX - 1;
	_cleanup_free_ uint8_t *data = calloc(1, 3 + AGENT_VALUES_MAX);
	size_t found;

	memcpy(data, (uint8_t[]){ 0xdc, (uint8_t)(n >> 8), (uint8_t)n }, 3);
	assert_length((const char *)data, 3 + n, 3 + n);
	memcpy(data, (uint8_t[]){ 0xdc, (uint8_t)((n + 1) >> 8), (uint8_t)(n + 1) }, 3);
	assert_int_equal(scan_all(data, 3, &found), -EMSGSIZE);
	assert_int_equal(scan_all("\xdd\xff\xff\xff\xff", 5, &found), -EMSGSIZE);
	assert_int_equal(scan_all("\xdf\xff\xff\xff\xff", 5, &found), -EMSGSIZE);
	/* In several containers, each of which alone would do. */
	memset(data, 0, 3 + AGENT_VALUES_MAX);
	memcpy(data, "\x92\xdc\x40\x00", 4);
	memcpy(data + 4 + 0x4000, "\xdc\x40\x00", 3);
	assert_int_equal(scan_all(data, 4 + 0x4000 + 3, &found), -EMSGSIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_form_has_its_length),
		cmocka_unit_test(it_goes_on_where_it_stopped),
		cmocka_unit_test(the_reserved_byte_is_refused),
		cmocka_unit_test(nesting_is_limited),
		cmocka_unit_test(size_is_limited),
		cmocka_unit_test(the_number_of_values_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
