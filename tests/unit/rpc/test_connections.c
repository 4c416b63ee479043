/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Bytes that are messages in pieces, or none; and a server that starts and stops. Clients that go
 * away are in test_vanish.c, those that want too much in test_limits.c and test_flood.c.
 */

#include "rpc/server.h"
#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RANDOM_STREAMS 1000

/* --- bytes --- */

static void test_byte_at_a_time(void **state)
{
	static const char bytes[] = "\x94\x00\x01\xa7"
				    "acquire\x91" ACQUIRE_PYTHON;
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 1;
	client_open(&client, fixture);
	for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
		assert_int_equal(fixture->pool->n_leases, 0);
		client_send(&client, bytes + i, 1);
	}
	assert_null(client_response(&client, 1));
	client_close(&client);
	fixture_assert_serves(fixture, 1);
}

static void test_protocol_errors(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *text;
	} cases[] = {
		{ "GET / HTTP/1.1\r\n\r\n", 18, "not msgpack-RPC" },
		{ "\xc1", 1, "not msgpack-RPC" },
		{ "\x94\x01\x01\xc0\xc0", 5, "not msgpack-RPC" },  /* a response */
		{ "\x93\x02\xa1x\x91\x80", 6, "not msgpack-RPC" }, /* a notification */
		{ "\xdd\xff\xff\xff\xff", 5, "larger" },
		{ "\xdb\x00\x10\x00\x00", 5, "larger" },
		{ "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91", 17,
		  "deeper" },
	};
	struct fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct client client;

		client_open(&client, fixture);
		client_send(&client, cases[i].bytes, cases[i].size);
		assert_string_equal(client_response(&client, 0), "invalid_request");
		assert_non_null(strstr(client_error_text(&client), cases[i].text));
		assert_int_equal(client_receive(&client), 0);
		client_close(&client);
	}
	fixture_assert_serves(fixture, 0);
}

/* A request before the nonsense is still answered. */
static void test_request_then_nonsense(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	client_send(&client, "\x94\x00\x01\xa6health\x91\x80\xc1", 13);
	assert_null(client_response(&client, 1));
	assert_string_equal(client_response(&client, 0), "invalid_request");
	assert_int_equal(client_receive(&client), 0);
	client_close(&client);
	fixture_assert_serves(fixture, 0);
}

static void test_largest_message(void **state)
{
	static const char head[] = "\x94\x00\x01\xa6health\x91\x81\xa1x\xdb";
	struct fixture *fixture = *state;
	size_t payload = RPC_MESSAGE_MAX_BYTES - (sizeof(head) - 1) - 4;
	_cleanup_free_ char *zeros = calloc(1, payload);
	uint8_t size[4] = { (uint8_t)(payload >> 24), (uint8_t)(payload >> 16),
			    (uint8_t)(payload >> 8), (uint8_t)payload };
	struct client client;

	assert_non_null(zeros);
	client_open(&client, fixture);
	client_send(&client, head, sizeof(head) - 1);
	client_send(&client, size, sizeof(size));
	client_send(&client, zeros, payload);
	assert_string_equal(client_response(&client, 1), "invalid_argument");
	client_close(&client);

	client_open(&client, fixture);
	size[3]++;
	client_send(&client, head, sizeof(head) - 1);
	client_send(&client, size, sizeof(size));
	assert_string_equal(client_response(&client, 0), "invalid_request");
	assert_int_equal(client_receive(&client), 0);
	client_close(&client);
}

static void test_random_streams(void **state)
{
	struct fixture *fixture = *state;
	uint64_t seed = 7;

	fixture->pool->parked = RANDOM_STREAMS;
	for (unsigned i = 0; i < RANDOM_STREAMS; i++) {
		char bytes[256];
		struct client client;
		size_t size = 1 + i % sizeof(bytes);

		for (size_t n = 0; n < sizeof(bytes); n++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			bytes[n] = (char)(seed >> 56);
		}
		if (i % 2) {
			memcpy(bytes,
			       "\x94\x00\x01\xa7"
			       "acquire\x91\x81",
			       MIN(size, 14u));
		}
		client_open(&client, fixture);
		client_send(&client, bytes, size);
		client_close(&client);
	}
	fixture_assert_serves(fixture, 0);
}

/* Every length of a request but the whole. */
static void test_truncated_requests(void **state)
{
	static const char bytes[] = "\x94\x00\x01\xa7"
				    "acquire\x91" ACQUIRE_PYTHON;
	struct fixture *fixture = *state;

	fixture->pool->parked = 1;
	for (size_t size = 0; size < sizeof(bytes) - 1; size++) {
		struct client client;

		client_open(&client, fixture);
		client_send(&client, bytes, size);
		client_close(&client);
	}
	assert_int_equal(fixture->pool->n_leases, 0);
	fixture_assert_serves(fixture, 0);
}

/* --- starting and stopping --- */

static void test_second_daemon(void **state)
{
	struct fixture *fixture = *state;
	struct rpc_server_config config = { .socket_path = fixture->socket,
					    .group = RPC_GROUP_UNCHANGED };
	struct base_error error = { 0 };
	struct rpc_server *second;
	char pid[32];

	assert_int_equal(rpc_server_new(&fixture->loop, &config, &second, &error), -EADDRINUSE);
	snprintf(pid, sizeof(pid), "process %d", getpid());
	assert_non_null(strstr(error.text, pid));
	assert_non_null(strstr(error.text, fixture->socket));
	fixture_assert_serves(fixture, 0);
}

static void test_stale_socket(void **state)
{
	struct fixture *fixture = *state;
	char path[80];
	struct rpc_listener listener, again;
	struct base_error error = { 0 };
	struct stat st;

	snprintf(path, sizeof(path), "%s/other", fixture->directory);
	assert_int_equal(rpc_listener_open(path, RPC_GROUP_UNCHANGED, &listener, &error), 0);
	/* As after kill -9: the socket is there, the lock is not held. */
	listener.fd = base_fd_close(listener.fd);
	listener.lock_fd = base_fd_close(listener.lock_fd);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(rpc_listener_open(path, getgid(), &again, &error), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0660);
	rpc_listener_close(&again);
	assert_int_equal(access(path, F_OK), -1);
	rpc_listener_close(&listener);

	/* A file is not taken away. */
	base_fd_close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(rpc_listener_open(path, RPC_GROUP_UNCHANGED, &again, &error), -EEXIST);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	snprintf(path, sizeof(path), "%s/no/such/directory", fixture->directory);
	assert_int_equal(rpc_listener_open(path, RPC_GROUP_UNCHANGED, &again, &error), -ENOENT);
	assert_int_equal(
		rpc_listener_open("/tmp/0123456789012345678901234567890123456789012345678"
				  "9012345678901234567890123456789012345678901234567890123",
				  RPC_GROUP_UNCHANGED, &again, &error),
		-ENAMETOOLONG);
}

static void test_stop(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	fixture->pool->parked = 1;
	fixture->pool->hold_set = true;
	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "acquire", ACQUIRE_PYTHON_BIND);
	CLIENT_REQUEST(&client, 2, "acquire", ACQUIRE_PYTHON);
	CLIENT_REQUEST(&client, 3, "pool.set", "\x82\xa8template\xa6python\xa6target\x05");
	CLIENT_REQUEST(&client, 4, "template.list", EMPTY);
	fixture_stop(fixture);
	assert_null(client_response(&client, 1));
	while (client_receive(&client) > 0) {
		assert_int_equal(client.message.id, 4);
	}
	client_close(&client);
	assert_int_equal(access(fixture->socket, F_OK), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_byte_at_a_time),
		TEST(test_protocol_errors),
		TEST(test_request_then_nonsense),
		TEST(test_largest_message),
		TEST(test_random_streams),
		TEST(test_truncated_requests),
		TEST(test_second_daemon),
		TEST(test_stale_socket),
		TEST(test_stop),
	};

	return cmocka_run_group_tests_name("rpc-connections", tests, NULL, NULL);
}
