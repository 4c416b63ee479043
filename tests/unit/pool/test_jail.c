/* SPDX-License-Identifier: Apache-2.0 */

/* The jail without processes: user ids, and what the spawner is told. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/message.h"
#include "base/util.h"
#include "pool/jail.h"
#include "pool/spawner.h"

#include <errno.h>

#define FIRST 70000u
#define N     5u

static void each_is_given_once_and_in_turn(void **state)
{
	struct pool_jail_uids uids;
	uint32_t uid, given[N], last;
	unsigned seen = 0;

	assert_int_equal(pool_jail_uids_init(&uids, FIRST, FIRST + N - 1), 0);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(pool_jail_uids_take(&uids, &given[i]), 0);
		assert_in_range(given[i], FIRST, FIRST + N - 1);
		seen |= 1u << (given[i] - FIRST);
	}
	assert_int_equal(seen, (1u << N) - 1);
	assert_int_equal(pool_jail_uids_take(&uids, &uid), -EAGAIN);

	/* What comes back is the only one there is; and not the next one while there are others. */
	pool_jail_uids_give(&uids, given[2]);
	assert_int_equal(pool_jail_uids_take(&uids, &uid), 0);
	assert_int_equal(uid, given[2]);
	pool_jail_uids_give(&uids, given[0]);
	pool_jail_uids_give(&uids, given[1]);
	assert_int_equal(pool_jail_uids_take(&uids, &last), 0);
	pool_jail_uids_give(&uids, last);
	assert_int_equal(pool_jail_uids_take(&uids, &uid), 0);
	assert_int_not_equal(uid, last);
	pool_jail_uids_deinit(&uids);
}

static void one_of_an_earlier_manager_is_kept(void **state)
{
	struct pool_jail_uids uids;
	uint32_t uid;

	assert_int_equal(pool_jail_uids_init(&uids, FIRST, FIRST + 1), 0);
	assert_int_equal(pool_jail_uids_claim(&uids, FIRST), 0);
	assert_int_equal(pool_jail_uids_claim(&uids, FIRST), -EEXIST);
	assert_int_equal(pool_jail_uids_claim(&uids, FIRST - 1), -ERANGE);
	assert_int_equal(pool_jail_uids_claim(&uids, FIRST + 2), -ERANGE);
	assert_int_equal(pool_jail_uids_take(&uids, &uid), 0);
	assert_int_equal(uid, FIRST + 1);
	assert_int_equal(pool_jail_uids_take(&uids, &uid), -EAGAIN);
	pool_jail_uids_give(&uids, FIRST);
	assert_int_equal(pool_jail_uids_take(&uids, &uid), 0);
	assert_int_equal(uid, FIRST);
	pool_jail_uids_deinit(&uids);
}

static void what_the_spawner_is_told(void **state)
{
	struct pool_jail_config config = { .level = POOL_JAIL_FULL };
	struct base_message start = { 0 };

	pool_jail_fill_start(&config, FIRST, &start);
	assert_string_equal(pool_jail_place(&config), "empty");
	assert_int_equal(start.arg[1], FIRST);
	assert_int_equal(start.arg[2], FIRST);
	assert_int_equal(start.arg[3],
			 SPAWNER_JAIL_NAMESPACES | SPAWNER_JAIL_NETWORK | SPAWNER_JAIL_IDENTITY);

	start = (struct base_message){ 0 };
	config = (struct pool_jail_config){ .level = POOL_JAIL_ROOTLESS,
					    .network = POOL_JAIL_NETWORK_SHARED };
	pool_jail_fill_start(&config, FIRST, &start);
	assert_string_equal(pool_jail_place(&config), "user");
	assert_int_equal(start.arg[1], 0);
	assert_int_equal(start.arg[3], SPAWNER_JAIL_NAMESPACES);

	start = (struct base_message){ 0 };
	config.level = POOL_JAIL_NONE;
	pool_jail_fill_start(&config, FIRST, &start);
	assert_string_equal(pool_jail_place(&config), "host");
	assert_int_equal(start.arg[3], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_is_given_once_and_in_turn),
		cmocka_unit_test(one_of_an_earlier_manager_is_kept),
		cmocka_unit_test(what_the_spawner_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
