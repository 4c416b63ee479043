/* SPDX-License-Identifier: Apache-2.0 */

/* The order of what identity does, its failures, and its arithmetic. */

#include "guest/agent/identity.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct kernel {
	char trace[128];
	char fail; /* the operation that fails */
	struct timespec now;
	uint64_t tsc;
	char hostname[AGENT_HOSTNAME_MAX + 1];
};

static int step(struct kernel *kernel, char letter)
{
	size_t length = strlen(kernel->trace);

	kernel->trace[length] = letter;
	return letter == kernel->fail ? -EPERM : 0;
}

static int add_entropy(void *userdata, const uint8_t *seed, size_t size)
{
	assert_int_equal(size, GUEST_SEED_BYTES);
	assert_int_equal(seed[size - 1], 7);
	return step(userdata, 'e');
}

static int reseed(void *userdata)
{
	return step(userdata, 'r');
}

static int set_realtime(void *userdata, const struct timespec *now)
{
	struct kernel *kernel = userdata;

	kernel->now = *now;
	return step(kernel, 'c');
}

static int set_hostname(void *userdata, const char *name)
{
	struct kernel *kernel = userdata;

	strcpy(kernel->hostname, name);
	return step(kernel, 'h');
}

static uint64_t read_tsc(void *userdata)
{
	struct kernel *kernel = userdata;

	step(kernel, 't');
	return kernel->tsc;
}

static const struct agent_identity_ops ops = {
	.add_entropy = add_entropy,
	.reseed = reseed,
	.set_realtime = set_realtime,
	.set_hostname = set_hostname,
	.read_tsc = read_tsc,
};

static const struct agent_identity_params params = {
	.seed[GUEST_SEED_BYTES - 1] = 7,
	.machine_id = "0123456789abcdef0123456789abcdef",
	.boot_id = "01234567-89ab-cdef-0123-456789abcdef",
	.hostname = "box",
	.realtime_ns = 1700000000 * NSEC_PER_SEC,
	.tsc = 1000,
	.tsc_khz = 2500000,
};

static void read_back(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "r");

	assert_non_null(file);
	text[fread(text, 1, size - 1, file)] = '\0';
	fclose(file);
}

static void it_is_applied_in_order(void **state)
{
	struct kernel kernel = { .tsc = 1000 + UINT64_C(2500000000) };
	struct agent_identity identity = { .ops = &ops, .userdata = &kernel };
	char directory[] = "/tmp/warmbox-identity-XXXXXX";
	char machine_id_path[64], boot_id_path[64], text[64];
	const char *what;

	assert_non_null(mkdtemp(directory));
	snprintf(machine_id_path, sizeof(machine_id_path), "%s/machine-id", directory);
	snprintf(boot_id_path, sizeof(boot_id_path), "%s/boot-id", directory);
	assert_int_equal(agent_identity_create_files(&identity, machine_id_path, boot_id_path), 0);
	read_back(machine_id_path, text, sizeof(text));
	assert_string_equal(text, "00000000000000000000000000000000\n");

	assert_int_equal(agent_identity_apply(&identity, &params, &what), 0);
	assert_string_equal(kernel.trace, "ertch");
	assert_int_equal(kernel.now.tv_sec, 1700000001);
	assert_int_equal(kernel.now.tv_nsec, 0);
	assert_string_equal(kernel.hostname, "box");
	read_back(machine_id_path, text, sizeof(text));
	assert_string_equal(text, "0123456789abcdef0123456789abcdef\n");
	read_back(boot_id_path, text, sizeof(text));
	assert_string_equal(text, "01234567-89ab-cdef-0123-456789abcdef\n");

	unlink(machine_id_path);
	unlink(boot_id_path);
	rmdir(directory);
}

static void it_stops_at_a_failure(void **state)
{
	static const struct {
		char fail;
		const char *trace, *what;
	} cases[] = {
		{ 'e', "e", "entropy" },
		{ 'r', "er", "reseed" },
		{ 'c', "ertc", "clock" },
		{ 'h', "ertch", "host name" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kernel kernel = { .fail = cases[i].fail };
		struct agent_identity identity = { .ops = &ops, .userdata = &kernel };
		const char *what;

		assert_int_equal(agent_identity_apply(&identity, &params, &what), -EPERM);
		assert_string_equal(kernel.trace, cases[i].trace);
		assert_non_null(strstr(what, cases[i].what));
	}
}

static void assert_clock(uint64_t realtime_ns, uint64_t tsc, uint64_t tsc_khz, uint64_t now_tsc,
			 uint64_t expected_ns)
{
	const struct agent_identity_params p = { .realtime_ns = realtime_ns,
						 .tsc = tsc,
						 .tsc_khz = tsc_khz };
	struct timespec now;

	assert_int_equal(agent_identity_clock(&p, now_tsc, &now), 0);
	assert_int_equal((uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec, expected_ns);
}

static void the_clock_is_exact(void **state)
{
	struct timespec now;
	const struct agent_identity_params late = { .realtime_ns = UINT64_MAX, .tsc_khz = 1000000 };
	const struct agent_identity_params slow = { .tsc_khz = AGENT_TSC_KHZ_MIN };

	assert_clock(5, 0, 1000000, 0, 5);
	/* A third of a cycle is lost, not a millisecond. */
	assert_clock(0, 0, 3000000, 1, 0);
	assert_clock(0, 0, 3000000, 3, 1);
	assert_clock(0, 0, 2999999, 2999999, NSEC_PER_MSEC);
	assert_clock(0, 0, 2999999, 2999998, 999999);
	/* A year, where the product of cycles and 10^6 has long overflowed. */
	assert_clock(1, 12345, 2450000, 12345 + UINT64_C(31536000) * 2450000000,
		     1 + UINT64_C(31536000) * NSEC_PER_SEC);
	/* Another core's counter, a little behind. */
	assert_clock(77, 1000, 2000000, 990, 77);

	assert_int_equal(agent_identity_clock(&late, 1000, &now), -ERANGE);
	assert_int_equal(agent_identity_clock(&slow, UINT64_MAX, &now), -ERANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_applied_in_order),
		cmocka_unit_test(it_stops_at_a_failure),
		cmocka_unit_test(the_clock_is_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
