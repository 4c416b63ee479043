/* SPDX-License-Identifier: Apache-2.0 */

/* Clients that go away: at each step of an acquire, with answers unread, with requests open. No
 * lease may leak, none that was read may end, and the next client is served. */

#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void test_vanish_while_waiting(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	CLIENT_REQUEST(&client, 2, "acquire", ACQUIRE_PYTHON_FD);
	assert_int_equal(fixture->pool->n_waiters, 2);
	client_close(&client);
	assert_int_equal(fixture->pool->n_cancelled, 2);
	fixture_assert_serves(fixture, 0);
}

/* The answer is granted after the client has gone, but before the server has noticed. */
static void test_vanish_before_answer(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON_FD);
	client.fd = base_fd_close(client.fd);
	fake_pool_answer(fixture->pool, POOL_OK);
	assert_int_equal(fake_pool_active(fixture->pool), 1);
	client_close(&client);
	assert_int_equal(fixture->pool->leases[0].cause, POOL_CAUSE_CLIENT_GONE);
	fixture_assert_serves(fixture, 0);
}

/* The request is sent and the client gone before the server runs at all. */
static void test_vanish_after_request(void **state)
{
	static const char bytes[] = "\x94\x00\x01\xa7"
				    "acquire\x91" ACQUIRE_PYTHON;
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	assert_int_equal(write(client.fd, bytes, sizeof(bytes) - 1), sizeof(bytes) - 1);
	client_close(&client);
	assert_int_equal(fixture->pool->n_leases, 1);
	fixture_assert_serves(fixture, 0);
}

static void test_vanish_without_reading(void **state)
{
	struct fixture *fixture = *state;
	struct client client;
	char byte;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON_FD);
	assert_int_equal(fake_pool_active(fixture->pool), 1);
	client_close(&client);
	assert_int_equal(fixture->pool->leases[0].cause, POOL_CAUSE_CLIENT_GONE);
	/* The descriptor that was on its way is gone too. */
	assert_int_equal(read(fixture->pool->leases[0].stream, &byte, 1), 0);
	fixture_assert_serves(fixture, 0);
}

static void test_vanish_after_part_of_answer(void **state)
{
	struct fixture *fixture = *state;
	struct client client;
	char bytes[10];

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_int_equal(read(client.fd, bytes, sizeof(bytes)), sizeof(bytes));
	client_close(&client);
	fixture_assert_serves(fixture, 0);
}

static void test_vanish_after_reading(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&client, 1));
	client_close(&client);
	fixture_assert_serves(fixture, 1);
}

/* What was read is kept, what was not is released, although both came on one connection. */
static void test_vanish_pipelined(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 3;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&client, 1));
	CLIENT_REQUEST(&client, 2, "acquire", ACQUIRE_PYTHON);
	CLIENT_REQUEST(&client, 3, "acquire", ACQUIRE_PYTHON);
	client_close(&client);
	assert_int_equal(fixture->pool->n_released, 2);
	assert_true(fixture->pool->leases[0].active);
	fixture_assert_serves(fixture, 1);
}

/* A request that is already in the socket when the client resets still counts, and does not make
 * the unread answer a read one. */
static void test_vanish_with_request_in_socket(void **state)
{
	static const char bytes[] = "\x94\x00\x02\xa7release\x91\x81\xa5lease\xd9\x20"
				    "00000000000000000000000000000001";
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 2;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&client, 1));
	CLIENT_REQUEST(&client, 2, "acquire", ACQUIRE_PYTHON);
	assert_int_equal(write(client.fd, bytes, sizeof(bytes) - 1), sizeof(bytes) - 1);
	client_close(&client);
	assert_int_equal(fixture->pool->leases[0].cause, POOL_CAUSE_RELEASED);
	assert_int_equal(fixture->pool->leases[1].cause, POOL_CAUSE_CLIENT_GONE);
	fixture_assert_serves(fixture, 0);
}

static void test_bound_leases(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	fixture->pool->parked = 101;
	for (uint32_t id = 0; id < 100; id++) {
		char lease[POOL_LEASE_ID_LENGTH + 1];
		char params[] = "\x81\xa5lease\xd9\x20"
				"00000000000000000000000000000000";

		CLIENT_REQUEST(&client, id, "acquire", ACQUIRE_PYTHON_BIND);
		assert_null(client_response(&client, id));
		if (id % 2 == 0) {
			continue;
		}
		snprintf(lease, sizeof(lease), "%032x", id + 1);
		memcpy(params + sizeof(params) - sizeof(lease), lease, sizeof(lease));
		client_request(&client, id, "release", params, sizeof(params) - 1);
		assert_null(client_response(&client, id));
	}
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&client, 1));
	assert_int_equal(fake_pool_active(fixture->pool), 51);
	client_close(&client);
	assert_int_equal(fixture->pool->leases[0].cause, POOL_CAUSE_CLIENT_GONE);
	assert_int_equal(fixture->pool->leases[1].cause, POOL_CAUSE_RELEASED);
	fixture_assert_serves(fixture, 1);
}

static void test_vanish_during_others(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->hold_set = true;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "pool.set", "\x82\xa8template\xa6python\xa6target\x05");
	CLIENT_REQUEST(&client, 2, "template.list", EMPTY);
	CLIENT_REQUEST(&client, 3, "template.inspect", "\x81\xa4name\xa6python");
	client_close(&client);
	assert_int_equal(fixture->pool->n_set_cancelled, 1);
	fixture_assert_serves(fixture, 0);
}

/* The client can be written to no more, but has not closed. */
static void test_write_fails(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	assert_int_equal(shutdown(client.fd, SHUT_RD), 0);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON_FD);
	fixture_run(fixture);
	fixture_assert_serves(fixture, 0);
	client_close(&client);
}

static void test_half_close_is_gone(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
	assert_int_equal(client_receive(&client), 0);
	client_close(&client);
	assert_int_equal(fixture->pool->n_cancelled, 1);
	fixture_assert_serves(fixture, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_vanish_while_waiting),
		TEST(test_vanish_before_answer),
		TEST(test_vanish_after_request),
		TEST(test_vanish_without_reading),
		TEST(test_vanish_after_part_of_answer),
		TEST(test_vanish_after_reading),
		TEST(test_vanish_pipelined),
		TEST(test_vanish_with_request_in_socket),
		TEST(test_bound_leases),
		TEST(test_vanish_during_others),
		TEST(test_write_fails),
		TEST(test_half_close_is_gone),
	};

	return cmocka_run_group_tests_name("rpc-vanish", tests, NULL, NULL);
}
