/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Connections that misbehave: bytes that are no messages, clients that vanish, do not read, are too
 * many, or want too much at once. No lease may leak, and the next client is served.
 */

#include "rpc/server.h"
#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define RANDOM_STREAMS 1000

/* The server is alive and holds nothing that a test did not leave on purpose. */
static void assert_serves(struct fixture *fixture, size_t active)
{
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "health", EMPTY);
	assert_null(client_response(&client, 1));
	client_close(&client);
	assert_int_equal(fake_pool_active(fixture->pool), active);
	assert_int_equal(fixture->pool->n_waiters, 0);
}

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
	assert_serves(fixture, 1);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
}

/* --- vanishing --- */

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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 1);
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
	assert_serves(fixture, 1);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 1);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
}

/* --- limits --- */

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
	assert_serves(fixture, REQUESTS);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, RPC_UNREAD_LEASES_MAX + 1);
}

/* Asks for much and reads nothing: its connection ends, with its leases; others are served
 * meanwhile. */
static void test_slow_reader(void **state)
{
	struct fixture *fixture = *state;
	struct client slow;
	uint32_t id;

	client_open(&slow, fixture);
	fixture->pool->parked = 500;
	for (id = 0; id < 500; id++) {
		CLIENT_REQUEST(&slow, id, "acquire", ACQUIRE_PYTHON_BIND);
		assert_null(client_response(&slow, id));
	}
	for (id = 0; id < 1000 && fake_pool_active(fixture->pool) > 0; id++) {
		CLIENT_REQUEST(&slow, id, "list", EMPTY);
	}
	/* About 300 KiB each. */
	assert_in_range(id, 8, 40);
	assert_serves(fixture, 0);
	client_close(&slow);
}

/* A reader that is slow but reads gets everything. */
static void test_queued_output(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	fixture->pool->parked = 501;
	for (uint32_t id = 0; id < 500; id++) {
		CLIENT_REQUEST(&client, id, "acquire", ACQUIRE_PYTHON_BIND);
		assert_null(client_response(&client, id));
	}
	for (uint32_t id = 0; id < 8; id++) {
		CLIENT_REQUEST(&client, id, "list", EMPTY);
	}
	/* The descriptor waits with its answer in the queue. */
	CLIENT_REQUEST(&client, 8, "acquire", ACQUIRE_PYTHON_FD);
	for (uint32_t id = 0; id < 8; id++) {
		assert_null(client_response(&client, id));
		assert_int_equal(client_result(&client, "leases")->via.array.size, 500);
	}
	assert_null(client_response(&client, 8));
	assert_true(client.received_fd >= 0);
	client_close(&client);
	assert_serves(fixture, 1);
}

/* Leases in the queue of a client that vanishes. */
static void test_vanish_with_queued_output(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	fixture->pool->parked = 501;
	for (uint32_t id = 0; id < 500; id++) {
		CLIENT_REQUEST(&client, id, "acquire", ACQUIRE_PYTHON_BIND);
		assert_null(client_response(&client, id));
	}
	for (uint32_t id = 0; id < 8; id++) {
		CLIENT_REQUEST(&client, id, "list", EMPTY);
	}
	CLIENT_REQUEST(&client, 8, "acquire", ACQUIRE_PYTHON_FD);
	assert_int_equal(fake_pool_active(fixture->pool), 501);
	client_close(&client);
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
	assert_serves(fixture, 0);
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
		TEST(test_open_requests_are_bounded),
		TEST(test_vanish_while_paused),
		TEST(test_unread_leases_are_bounded),
		TEST(test_slow_reader),
		TEST(test_queued_output),
		TEST(test_vanish_with_queued_output),
		TEST(test_connections_are_bounded),
		TEST(test_no_descriptors),
		TEST(test_second_daemon),
		TEST(test_stale_socket),
		TEST(test_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
