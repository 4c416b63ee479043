/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Clients that want more than their share: of the loop's turns, of memory, of time. Fairness is
 * counted in turns of the loop, not in time.
 */

#include "rpc/server.h"
#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FLOODERS 20
#define REQUESTS 200 /* of each; they fit into a socket */

#define MESSAGE_TIMEOUT_MS 100

static int setup_impatient(void **state)
{
	struct fixture *fixture = fixture_new();

	fixture->message_timeout_ms = MESSAGE_TIMEOUT_MS;
	fixture_open(fixture);
	*state = fixture;
	return 0;
}

/* The client that connected last becomes one of another tenant. */
static void make_tenant(struct fixture *fixture, const char *name)
{
	struct rpc_connection *connection = fixture->server->connections;

	assert_int_equal(connection->buffered_bytes, 0);
	connection->tenant->n_connections--;
	pool_tenant_unref(connection->tenant);
	connection->tenant = pool_tenants_named(&fixture->pool->tenants, name);
	connection->tenant->n_connections++;
}

/* Puts n requests into the socket; the server does not run meanwhile. */
static void fill(struct client *client, const char *method, uint32_t n)
{
	struct rpc_encoder encoder;

	rpc_encoder_init(&encoder);
	for (uint32_t id = 0; id < n; id++) {
		rpc_encode_request(&encoder, id, method);
		rpc_encode_raw(&encoder, EMPTY, 1);
	}
	assert_int_equal(write(client->fd, encoder.buffer.data, encoder.buffer.size),
			 encoder.buffer.size);
	rpc_encoder_deinit(&encoder);
}

static void read_all(struct client *client, uint32_t n)
{
	for (uint32_t id = 0; id < n; id++) {
		assert_null(client_response(client, id));
	}
}

static uint64_t handled(struct fixture *fixture)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < RPC_METHODS; i++) {
		n += fixture->server->counters.requests[i];
	}
	return n;
}

/* --- turns --- */

/* However many ask for however much, another tenant's request is answered two turns after it came
 * at the latest, and each turn is short. */
static void a_flood_delays_others_by_two_turns(void **state)
{
	struct fixture *fixture = *state;
	struct client flood[FLOODERS], other;
	uint64_t before;
	char byte;

	client_open(&other, fixture);
	make_tenant(fixture, "other");
	for (unsigned i = 0; i < FLOODERS; i++) {
		client_open(&flood[i], fixture);
	}
	for (unsigned i = 0; i < FLOODERS; i++) {
		fill(&flood[i], "health", REQUESTS);
	}
	/* It asks in the middle of it, several times. */
	for (unsigned round = 0; round < 10; round++) {
		fill(&other, "health", 1);
		before = handled(fixture);
		for (unsigned turn = 0; turn < 2; turn++) {
			uv_run(&fixture->loop, UV_RUN_NOWAIT);
		}
		assert_int_equal(recv(other.fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK), 1);
		assert_in_range(handled(fixture) - before, 2, 2 * RPC_TURN_COST_MAX + 1);
		assert_null(client_response(&other, 0));
	}
	/* All of the flood is served in the end, and so are all of its connections. */
	for (unsigned i = 0; i < FLOODERS; i++) {
		read_all(&flood[i], REQUESTS);
		client_close(&flood[i]);
	}
	client_close(&other);
}

/* Inside one tenant, a connection with much to ask leaves turns to the others. */
static void connections_of_a_tenant_take_turns(void **state)
{
	struct fixture *fixture = *state;
	struct client greedy, modest;
	unsigned turns = 0;
	char byte;

	client_open(&modest, fixture);
	client_open(&greedy, fixture);
	fill(&greedy, "health", 2000);
	uv_run(&fixture->loop, UV_RUN_NOWAIT);
	fill(&modest, "health", 1);
	while (recv(modest.fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 1) {
		uv_run(&fixture->loop, UV_RUN_NOWAIT);
		assert_true(++turns <= 4);
	}
	read_all(&greedy, 2000);
	client_close(&modest);
	client_close(&greedy);
}

/* What takes longer costs more of a turn. */
static void long_requests_cost_more(void **state)
{
	struct fixture *fixture = *state;
	struct client client;
	uint64_t before;

	client_open(&client, fixture);
	fill(&client, "list", 20);
	before = handled(fixture);
	uv_run(&fixture->loop, UV_RUN_NOWAIT);
	assert_in_range(handled(fixture) - before, 1, RPC_TURN_COST_MAX / 4);
	read_all(&client, 20);
	client_close(&client);
}

/* What a client that has gone asked for before still counts, although its tenant had no turn left
 * when it went. */
static void what_is_left_behind_is_done(void **state)
{
	static const char release[] = "\x94\x00\x03\xa7release\x91\x81\xa5lease\xd9\x20"
				      "00000000000000000000000000000001";
	struct fixture *fixture = *state;
	struct client gone, greedy;

	fixture->pool->parked = 2;
	client_open(&gone, fixture);
	client_open(&greedy, fixture);
	CLIENT_REQUEST(&gone, 1, "acquire", ACQUIRE_PYTHON);
	assert_null(client_response(&gone, 1));
	CLIENT_REQUEST(&gone, 2, "acquire", ACQUIRE_PYTHON);
	fixture_run(fixture);
	fill(&greedy, "health", REQUESTS);
	uv_run(&fixture->loop, UV_RUN_NOWAIT);
	assert_int_equal(write(gone.fd, release, sizeof(release) - 1), sizeof(release) - 1);
	/* With an answer unread, so that closing resets. */
	gone.fd = base_fd_close(gone.fd);
	read_all(&greedy, REQUESTS);
	client_close(&greedy);
	client_close(&gone);
	assert_int_equal(fixture->pool->leases[0].cause, POOL_CAUSE_RELEASED);
	assert_int_equal(fixture->pool->leases[1].cause, POOL_CAUSE_CLIENT_GONE);
	assert_int_equal(fixture->server->n_connections, 0);
}

static int connect_only(struct fixture *fixture)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(address.sun_path, fixture->socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void clients_are_accepted_a_few_at_a_time(void **state)
{
	struct fixture *fixture = *state;
	int fds[3 * RPC_ACCEPTS_MAX];
	unsigned before;

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = connect_only(fixture);
	}
	do {
		before = fixture->server->n_connections;
		uv_run(&fixture->loop, UV_RUN_NOWAIT);
		assert_in_range(fixture->server->n_connections - before, 1, RPC_ACCEPTS_MAX);
	} while (fixture->server->n_connections < ARRAY_SIZE(fds));
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		base_fd_close(fds[i]);
	}
	fixture_run(fixture);
}

/* --- time --- */

static void sleep_in_loop(struct fixture *fixture, unsigned ms)
{
	for (unsigned i = 0; i < ms; i++) {
		fixture_run(fixture);
		usleep(1000);
	}
}

/* A message that is begun must end; a byte now and then is of no use. */
static void a_message_has_to_end(void **state)
{
	struct fixture *fixture = *state;
	static const char bytes[] = "\x94\x00\x01\xa6health\x91\x81\xa1x\xda\xff\xff";
	struct client slow, idle;

	client_open(&idle, fixture);
	client_open(&slow, fixture);
	client_send(&slow, bytes, sizeof(bytes) - 1);
	for (unsigned i = 0; i < 20 && fixture->server->n_connections == 2; i++) {
		sleep_in_loop(fixture, MESSAGE_TIMEOUT_MS / 10);
		client_send(&slow, "x", 1);
	}
	assert_string_equal(client_response(&slow, 0), "deadline_exceeded");
	assert_int_equal(client_receive(&slow), 0);
	client_close(&slow);
	/* One that is between messages may stay as long as it likes, and costs no timer. */
	assert_int_equal(fixture->server->n_begun, 0);
	sleep_in_loop(fixture, MESSAGE_TIMEOUT_MS);
	assert_false(uv_is_active((uv_handle_t *)&fixture->server->timer));
	CLIENT_REQUEST(&idle, 1, "health", EMPTY);
	assert_null(client_response(&idle, 1));
	client_close(&idle);
}

/* The bound is for one message: a client that always has one under way is no matter. */
static void the_bound_is_for_each_message(void **state)
{
	struct fixture *fixture = *state;
	static const char request[] = "\x94\x00\x01\xa6health\x91\x80";
	struct client client;

	client_open(&client, fixture);
	client_send(&client, request, 5);
	for (unsigned i = 0; i < 6; i++) {
		sleep_in_loop(fixture, MESSAGE_TIMEOUT_MS / 2);
		client_send(&client, request + 5, sizeof(request) - 1 - 5);
		client_send(&client, request, 5);
		assert_null(client_response(&client, 1));
		assert_int_equal(fixture->server->n_begun, 1);
	}
	client_close(&client);
	assert_int_equal(fixture->server->n_begun, 0);
}

/* While the server does not read, it is not the client who is slow. */
static void a_paused_client_is_not_slow(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	for (uint32_t id = 0; id < RPC_OPEN_REQUESTS_MAX; id++) {
		CLIENT_REQUEST(&client, id, "acquire", ACQUIRE_PYTHON);
	}
	client_send(&client, "\x94\x00", 2);
	sleep_in_loop(fixture, 2 * MESSAGE_TIMEOUT_MS);
	fake_pool_answer(fixture->pool, POOL_OK);
	assert_null(client_response(&client, 0));
	client_close(&client);
}

/* --- memory --- */

/* Sends the beginning of a message that is as large as may be. */
static void begin_large(struct client *client, size_t size)
{
	static const char head[] = "\x94\x00\x01\xa6health\x91\x81\xa1x\xdb\x00\x0f\xff\x00";
	_cleanup_free_ char *zeros = calloc(1, size);

	assert_non_null(zeros);
	client_send(client, head, sizeof(head) - 1);
	client_send(client, zeros, size);
}

static bool is_told(struct client *client)
{
	return recv(client->fd, &(char){ 0 }, 1, MSG_DONTWAIT | MSG_PEEK) == 1;
}

static void a_tenant_holds_no_more_than_its_memory(void **state)
{
	/* A buffer has room for a whole message then. */
	enum { MOST = RPC_TENANT_BUFFER_BYTES / RPC_MESSAGE_MAX_BYTES };
	struct fixture *fixture = *state;
	struct client clients[MOST], other, one_more;

	client_open(&other, fixture);
	make_tenant(fixture, "other");
	for (unsigned i = 0; i < MOST; i++) {
		client_open(&clients[i], fixture);
		begin_large(&clients[i], RPC_MESSAGE_MAX_BYTES - 8000);
		assert_false(is_told(&clients[i]));
	}
	client_open(&one_more, fixture);
	begin_large(&one_more, 1);
	assert_string_equal(client_response(&one_more, 0), "exhausted");
	assert_int_equal(client_receive(&one_more), 0);
	client_close(&one_more);
	assert_int_equal(fixture->server->buffered_bytes, RPC_TENANT_BUFFER_BYTES);
	/* Another tenant has its own. */
	begin_large(&other, MIB(1) / 2);
	assert_false(is_told(&other));
	client_close(&other);
	for (unsigned i = 0; i < MOST; i++) {
		client_close(&clients[i]);
	}
	assert_int_equal(fixture->server->buffered_bytes, 0);
}

static void all_together_hold_no_more_than_theirs(void **state)
{
	struct fixture *fixture = *state;
	struct client client;

	client_open(&client, fixture);
	/* As if others held so much. */
	fixture->server->buffered_bytes += RPC_BUFFER_BYTES - MIB(1);
	begin_large(&client, MIB(1) / 4);
	assert_false(is_told(&client));
	fixture->server->buffered_bytes += MIB(1);
	client_send(&client, "x", 1);
	assert_string_equal(client_response(&client, 0), "exhausted");
	client_close(&client);
	fixture->server->buffered_bytes -= RPC_BUFFER_BYTES;
	assert_int_equal(fixture->server->buffered_bytes, 0);
}

/* --- descriptors --- */

/* A client's descriptors are refused when they are sent, or closed when they arrive. */
static void descriptors_of_clients_are_closed(void **state)
{
	static const char request[] = "\x94\x00\x01\xa6health\x91\x80";
	struct fixture *fixture = *state;
	struct client client;
	int ends[2];
	ssize_t n;

	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	client_open(&client, fixture);
	n = base_fd_send(client.fd, request, sizeof(request) - 1, &ends[1], 1, 0);
	if (n == -EPERM) {
		client_send(&client, request, sizeof(request) - 1);
	} else {
		assert_int_equal(n, sizeof(request) - 1);
	}
	close(ends[1]);
	assert_null(client_response(&client, 1));
	/* Nobody has the other end any more. */
	assert_int_equal(read(ends[0], &(char){ 0 }, 1), 0);
	close(ends[0]);
	client_close(&client);
}

int main(void)
{
#define TEST(name)	cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
#define IMPATIENT(name) cmocka_unit_test_setup_teardown(name, setup_impatient, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_flood_delays_others_by_two_turns),
		TEST(connections_of_a_tenant_take_turns),
		TEST(long_requests_cost_more),
		TEST(what_is_left_behind_is_done),
		TEST(clients_are_accepted_a_few_at_a_time),
		IMPATIENT(a_message_has_to_end),
		IMPATIENT(the_bound_is_for_each_message),
		IMPATIENT(a_paused_client_is_not_slow),
		TEST(a_tenant_holds_no_more_than_its_memory),
		TEST(all_together_hold_no_more_than_theirs),
		TEST(descriptors_of_clients_are_closed),
	};

	return cmocka_run_group_tests_name("rpc-flood", tests, NULL, NULL);
}
