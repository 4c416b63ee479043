/* SPDX-License-Identifier: Apache-2.0 */

/* Limits of a connection and of the server, at the limit and one past it: open requests, leases and
 * answers that are not read, connections, descriptors. */

#include "rpc/server.h"
#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LEASES 500 /* a list of them is about 300 KiB */

/* Leases that end with the connection. */
static void acquire_many(struct client *client)
{
	client->fixture->pool->parked = LEASES;
	for (uint32_t id = 0; id < LEASES; id++) {
		CLIENT_REQUEST(client, id, "acquire", ACQUIRE_PYTHON_BIND);
		assert_null(client_response(client, id));
	}
}

/* Many open requests: no more than the limit reach the pool, and all are answered in the end. */
static void test_open_requests_are_bounded(void **state)
{
	enum { REQUESTS = 3 * RPC_OPEN_REQUESTS_MAX };
	struct fixture *fixture = *state;
	bool answered[REQUESTS] = { false };
	struct rpc_encoder encoder;
	struct client client;

	rpc_encoder_init(&encoder);
	for (uint32_t id = 0; id < REQUESTS; id++) {
		rpc_encode_request(&encoder, id, "acquire");
		rpc_encode_raw(&encoder, ACQUIRE_PYTHON, sizeof(ACQUIRE_PYTHON) - 1);
	}
	client_open(&client, fixture);
	client_send(&client, encoder.buffer.data, encoder.buffer.size);
	rpc_encoder_deinit(&encoder);
	for (unsigned i = 0; i < REQUESTS; i++) {
		fixture_run(fixture);
		assert_int_equal(fixture->pool->n_waiters,
				 MIN(RPC_OPEN_REQUESTS_MAX, (unsigned)REQUESTS - i));
		fake_pool_answer(fixture->pool, POOL_OK);
		assert_int_equal(client_receive(&client), 1);
		assert_int_equal(client.message.error.type, MSGPACK_OBJECT_NIL);
		assert_true(client.message.id < REQUESTS && !answered[client.message.id]);
		answered[client.message.id] = true;
	}
	client_close(&client);
	fixture_assert_serves(fixture, REQUESTS);
}

static void test_vanish_while_paused(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	for (uint32_t id = 0; id < 2 * RPC_OPEN_REQUESTS_MAX; id++) {
		CLIENT_REQUEST(&client, id, "acquire", ACQUIRE_PYTHON);
	}
	assert_int_equal(fixture->pool->n_waiters, RPC_OPEN_REQUESTS_MAX);
	client_close(&client);
	assert_int_equal(fixture->pool->n_cancelled, RPC_OPEN_REQUESTS_MAX);
	fixture_assert_serves(fixture, 0);
}

static void test_unread_leases_are_bounded(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = RPC_UNREAD_LEASES_MAX + 10;
	client_open(&client, fixture);
	for (uint32_t id = 0; id <= RPC_UNREAD_LEASES_MAX; id++) {
		CLIENT_REQUEST(&client, id, "acquire", ACQUIRE_PYTHON);
	}
	assert_int_equal(fixture->pool->n_leases, RPC_UNREAD_LEASES_MAX);
	for (uint32_t id = 0; id < RPC_UNREAD_LEASES_MAX; id++) {
		assert_null(client_response(&client, id));
	}
	assert_string_equal(client_response(&client, RPC_UNREAD_LEASES_MAX), "exhausted");
	/* They were read now. */
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&client, 1));
	client_close(&client);
	fixture_assert_serves(fixture, RPC_UNREAD_LEASES_MAX + 1);
}

/* Asks for much and reads nothing: its connection ends, with its leases; others are served
 * meanwhile. */
static void test_slow_reader(void **state)
{
	struct fixture *fixture = *state;
	struct client slow;
	uint32_t id;

	client_open(&slow, fixture);
	acquire_many(&slow);
	for (id = 0; id < 1000 && fake_pool_active(fixture->pool) > 0; id++) {
		CLIENT_REQUEST(&slow, id, "list", EMPTY);
	}
	assert_in_range(id, 8, 40);
	fixture_assert_serves(fixture, 0);
	client_close(&slow);
}

/* A reader that is slow but reads gets everything. */
static void test_queued_output(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	acquire_many(&client);
	fixture->pool->parked = 1;
	for (uint32_t id = 0; id < 8; id++) {
		CLIENT_REQUEST(&client, id, "list", EMPTY);
	}
	/* The descriptor waits with its answer in the queue. */
	CLIENT_REQUEST(&client, 8, "acquire", ACQUIRE_PYTHON_FD);
	for (uint32_t id = 0; id < 8; id++) {
		assert_null(client_response(&client, id));
		assert_int_equal(client_result(&client, "leases")->via.array.size, LEASES);
	}
	assert_null(client_response(&client, 8));
	assert_true(client.received_fd >= 0);
	client_close(&client);
	fixture_assert_serves(fixture, 1);
}

/* Leases in the queue of a client that vanishes. */
static void test_vanish_with_queued_output(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	acquire_many(&client);
	fixture->pool->parked = 1;
	for (uint32_t id = 0; id < 8; id++) {
		CLIENT_REQUEST(&client, id, "list", EMPTY);
	}
	CLIENT_REQUEST(&client, 8, "acquire", ACQUIRE_PYTHON_FD);
	assert_int_equal(fake_pool_active(fixture->pool), 501);
	client_close(&client);
	fixture_assert_serves(fixture, 0);
}

static void test_connections_are_bounded(void **state)
{
	struct fixture *fixture = *state;
	struct client *clients = calloc(RPC_CONNECTIONS_MAX + 1, sizeof(*clients));
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < 2 * RPC_CONNECTIONS_MAX + 100) {
		free(clients);
		skip();
	}
	for (unsigned i = 0; i <= RPC_CONNECTIONS_MAX; i++) {
		client_open(&clients[i], fixture);
	}
	assert_string_equal(client_response(&clients[RPC_CONNECTIONS_MAX], 0), "exhausted");
	assert_int_equal(client_receive(&clients[RPC_CONNECTIONS_MAX]), 0);
	for (unsigned i = 0; i <= RPC_CONNECTIONS_MAX; i++) {
		client_close(&clients[i]);
	}
	free(clients);
	fixture_assert_serves(fixture, 0);
}

/* With no descriptor left, the client is told, and the server does not spin. */
static void test_no_descriptors(void **state)
{
	struct fixture *fixture = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct rlimit before, limit;
	struct client client = { .fixture = fixture, .received_fd = -1 };

	assert_true(msgpack_zone_init(&client.zone, MSGPACK_ZONE_CHUNK_SIZE));
	client.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(client.fd >= 0);
	getrlimit(RLIMIT_NOFILE, &before);
	limit = before;
	limit.rlim_cur = (rlim_t)client.fd + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	strcpy(address.sun_path, fixture->socket);
	assert_int_equal(connect(client.fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_string_equal(client_response(&client, 0), "exhausted");
	assert_int_equal(client_receive(&client), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	client_close(&client);
	fixture_assert_serves(fixture, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_open_requests_are_bounded),
		TEST(test_vanish_while_paused),
		TEST(test_unread_leases_are_bounded),
		TEST(test_slow_reader),
		TEST(test_queued_output),
		TEST(test_vanish_with_queued_output),
		TEST(test_connections_are_bounded),
		TEST(test_no_descriptors),
	};

	return cmocka_run_group_tests_name("rpc-limits", tests, NULL, NULL);
}
