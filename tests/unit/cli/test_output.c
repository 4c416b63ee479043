/* SPDX-License-Identifier: Apache-2.0 */

/* cli/output.c and the JSON of cli/remote.c: what people and programs read. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cli/remote.h"

static void formats_bytes(void **state)
{
	char text[CLI_FORMAT_MAX];

	assert_string_equal(cli_format_bytes(text, 0), "0 B");
	assert_string_equal(cli_format_bytes(text, 1023), "1023 B");
	assert_string_equal(cli_format_bytes(text, 1024), "1.0 KiB");
	assert_string_equal(cli_format_bytes(text, MIB(1) - 1), "1.0 MiB");
	assert_string_equal(cli_format_bytes(text, MIB(128)), "128 MiB");
	assert_string_equal(cli_format_bytes(text, GIB(24) + MIB(512)), "24.5 GiB");
	assert_non_null(strstr(cli_format_bytes(text, UINT64_MAX), " TiB"));
}

static void formats_times(void **state)
{
	char text[CLI_FORMAT_MAX];

	assert_string_equal(cli_format_duration(text, 0), "0 us");
	assert_string_equal(cli_format_duration(text, 60 * NSEC_PER_USEC), "60 us");
	assert_string_equal(cli_format_duration(text, 1500 * NSEC_PER_USEC), "1.5 ms");
	assert_string_equal(cli_format_duration(text, 250 * NSEC_PER_MSEC), "250 ms");
	assert_string_equal(cli_format_duration(text, 20 * NSEC_PER_SEC), "20.0 s");
	assert_string_equal(cli_format_duration(text, 600 * NSEC_PER_SEC), "10 min");
	assert_string_equal(cli_format_duration(text, 7200 * NSEC_PER_SEC), "2 h");
	assert_string_equal(cli_format_duration(text, 3 * 86400 * NSEC_PER_SEC), "3 days");
	assert_string_equal(cli_format_age(text, 0), "-");
	assert_string_equal(cli_format_age(text, base_clock_realtime_ns() + NSEC_PER_SEC * 10),
			    "now");
	assert_string_equal(cli_format_age(text, base_clock_realtime_ns() - NSEC_PER_SEC * 600),
			    "10 min ago");
}

static void aligns_tables(void **state)
{
	_cleanup_(cli_table_freep) struct cli_table *table = NULL;
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_int_equal(cli_table_new(3, &table), 0);
	for (size_t row = 0; row < 20; row++) {
		cli_table_cell(table, "%s", row == 7 ? "longest" : row == 8 ? "5 \xc2\xb5s" : "a");
		cli_table_cell(table, "%zu", row);
		cli_table_cell(table, "end");
	}
	assert_int_equal(cli_table_print(table, out), 0);
	fclose(out);
	assert_true(strncmp(text, "a        0   end\n", 17) == 0);
	assert_non_null(strstr(text, "\nlongest  7   end\n"));
	assert_non_null(strstr(text, "\n5 \xc2\xb5s     8   end\n"));
	assert_non_null(strstr(text, "\na        19  end\n"));
}

static void says_msgpack_as_json(void **state)
{
	/* {"a": [1, -2, true, nil, 1.5], "b": "x", "c": bin ff, 5: 6, "d": 2^64-1} */
	static const char packed[] = "\x85\xa1"
				     "a\x95\x01\xfe\xc3\xc0\xcb\x3f\xf8\0\0\0\0\0\0\xa1"
				     "b\xa1x\xa1"
				     "c\xc4\x01\xff\x05\x06\xa1"
				     "d\xcf\xff\xff\xff\xff\xff\xff\xff\xff";
	msgpack_unpacked unpacked;
	_cleanup_free_ char *text = NULL;
	json_t *value;

	msgpack_unpacked_init(&unpacked);
	assert_int_equal(msgpack_unpack_next(&unpacked, packed, sizeof(packed) - 1, NULL),
			 MSGPACK_UNPACK_SUCCESS);
	value = cli_json_from_msgpack(&unpacked.data);
	text = json_dumps(value, JSON_COMPACT);
	assert_string_equal(text, "{\"a\":[1,-2,true,null,1.5],\"b\":\"x\",\"c\":null,"
				  "\"d\":1.8446744073709552e19}");
	assert_int_equal(cli_map_number(&unpacked.data, "d") >> 63, 1);
	assert_int_equal(cli_map_number(&unpacked.data, "b"), 0);
	assert_null(cli_map_text(&unpacked.data, "a"));
	json_decref(value);
	msgpack_unpacked_destroy(&unpacked);
}

static void says_a_lease_as_json(void **state)
{
	struct warmbox_lease lease = {
		.id = "0123",
		.template_name = "python",
		.socket = "/s",
		.pid = 7,
		.active = true,
		.timings = { .wait_ns = 3, .claim_ns = 5, .load_ns = 9 },
	};
	json_t *value = cli_json_from_lease(&lease), *timings;

	assert_non_null(value);
	assert_string_equal(json_string_value(json_object_get(value, "lease")), "0123");
	assert_string_equal(json_string_value(json_object_get(value, "state")), "active");
	assert_true(json_is_null(json_object_get(value, "cause")));
	timings = json_object_get(value, "timings");
	assert_int_equal(json_integer_value(json_object_get(timings, "claim_ns")), 5);
	assert_true(json_is_null(json_object_get(timings, "first_entry_ns")));
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(timings, "restore"), "load_ns")),
		9);
	json_decref(value);
}

static void takes_labels_up_to_the_limit(void **state)
{
	const struct cli cli = { .command = "test" };
	char texts[CLI_LABELS_MAX + 1][8];
	struct cli_acquire acquire = {};
	char none[] = "k", no_key[] = "=v", empty[] = "k=";

	assert_int_equal(cli_acquire_label(&cli, &acquire, none), -EINVAL);
	assert_int_equal(cli_acquire_label(&cli, &acquire, no_key), -EINVAL);
	for (int i = 0; i < CLI_LABELS_MAX - 1; i++) {
		snprintf(texts[i], sizeof(texts[i]), "k%d=v=%d", i, i);
		assert_int_equal(cli_acquire_label(&cli, &acquire, texts[i]), 0);
	}
	assert_int_equal(cli_acquire_label(&cli, &acquire, empty), 0);
	assert_string_equal(acquire.labels[3].key, "k3");
	assert_string_equal(acquire.labels[3].value, "v=3");
	assert_string_equal(acquire.labels[CLI_LABELS_MAX - 1].value, "");
	snprintf(texts[CLI_LABELS_MAX], sizeof(texts[0]), "one=2");
	assert_int_equal(cli_acquire_label(&cli, &acquire, texts[CLI_LABELS_MAX]), -E2BIG);
	assert_int_equal(acquire.params.n_labels, CLI_LABELS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(formats_bytes),
		cmocka_unit_test(formats_times),
		cmocka_unit_test(aligns_tables),
		cmocka_unit_test(says_msgpack_as_json),
		cmocka_unit_test(says_a_lease_as_json),
		cmocka_unit_test(takes_labels_up_to_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
