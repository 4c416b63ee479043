/* SPDX-License-Identifier: Apache-2.0 */

/* See fixture.h. Every wait is bounded; what does not come fails the test. */

#include "tests/unit/rpc/fixture.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_ROUNDS 5000 /* of a millisecond */

struct fixture *fixture_new(void)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	return fixture;
}

void fixture_open(struct fixture *fixture)
{
	struct rpc_server_config config = { .group = RPC_GROUP_UNCHANGED,
					    .acquire_timeout_ms = 10000,
					    .message_timeout_ms = fixture->message_timeout_ms };
	struct base_error error = { 0 };

	assert_int_equal(uv_loop_init(&fixture->loop), 0);
	strcpy(fixture->directory, "/tmp/rpc-test-XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	snprintf(fixture->socket, sizeof(fixture->socket), "%s/socket", fixture->directory);
	config.socket_path = fixture->socket;
	fixture->pool = fake_pool_new(fixture->sections, fixture->n_sections);
	assert_int_equal(rpc_server_new(&fixture->loop, &config, &fixture->server, &error), 0);
	assert_int_equal(rpc_server_start(fixture->server, fixture->pool, NULL, &error), 0);
}

int fixture_setup(void **state)
{
	struct fixture *fixture = fixture_new();

	fixture_open(fixture);
	*state = fixture;
	return 0;
}

static void handle_stopped(void *userdata)
{
	*(bool *)userdata = true;
}

void fixture_stop(struct fixture *fixture)
{
	rpc_server_stop(fixture->server, handle_stopped, &fixture->stopped);
	for (int i = 0; i < WAIT_ROUNDS && !fixture->stopped; i++) {
		uv_run(&fixture->loop, UV_RUN_NOWAIT);
		usleep(fixture->stopped ? 0 : 1000);
	}
	assert_true(fixture->stopped);
}

int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;

	if (!fixture->stopped) {
		fixture_stop(fixture);
	}
	rpc_server_free(fixture->server);
	/* Nothing of the server is left on the loop, and nothing in the directory. */
	assert_int_equal(uv_run(&fixture->loop, UV_RUN_NOWAIT), 0);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	assert_int_equal(rmdir(fixture->directory), 0);
	fake_pool_free(fixture->pool);
	free(fixture);
	return 0;
}

void fixture_run(struct fixture *fixture)
{
	for (int i = 0; i < 20; i++) {
		uv_run(&fixture->loop, UV_RUN_NOWAIT);
	}
}

void client_open(struct client *client, struct fixture *fixture)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	*client = (struct client){ .fixture = fixture, .received_fd = -1 };
	assert_true(msgpack_zone_init(&client->zone, MSGPACK_ZONE_CHUNK_SIZE));
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(client->fd >= 0);
	strcpy(address.sun_path, fixture->socket);
	assert_int_equal(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
	fixture_run(fixture);
}

void client_vanish(struct client *client)
{
	client->fd = base_fd_close(client->fd);
	fixture_run(client->fixture);
}

void client_close(struct client *client)
{
	client->received_fd = base_fd_close(client->received_fd);
	client_vanish(client);
	rpc_decoder_deinit(&client->decoder);
	msgpack_zone_destroy(&client->zone);
}

void client_send(struct client *client, const void *data, size_t size)
{
	const char *bytes = data;

	while (size > 0) {
		ssize_t n = send(client->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN) {
			return; /* the server has closed: reading tells */
		}
		bytes += MAX(n, 0);
		size -= (size_t)MAX(n, 0);
		fixture_run(client->fixture);
	}
}

void client_request(struct client *client, uint32_t id, const char *method, const void *params,
		    size_t params_size)
{
	struct rpc_encoder encoder;

	rpc_encoder_init(&encoder);
	rpc_encode_request(&encoder, id, method);
	rpc_encode_raw(&encoder, params, params_size);
	client_send(client, encoder.buffer.data, encoder.buffer.size);
	rpc_encoder_deinit(&encoder);
}

int client_receive(struct client *client)
{
	for (int i = 0; i < WAIT_ROUNDS; i++) {
		size_t room, n_fds = 0;
		uint8_t *space;
		ssize_t n;
		int fd = -1;
		int r = rpc_decoder_next(&client->decoder, &client->zone, &client->message);

		assert_true(r >= 0);
		if (r > 0) {
			return 1;
		}
		fixture_run(client->fixture);
		space = rpc_decoder_space(&client->decoder, &room);
		assert_non_null(space);
		n = base_fd_receive(client->fd, space, room, &fd, 1, &n_fds, MSG_DONTWAIT);
		if (n == 0 || n == -ECONNRESET) {
			return 0;
		}
		if (n < 0) {
			assert_int_equal(n, -EAGAIN);
			usleep(1000);
			continue;
		}
		if (n_fds > 0) {
			base_fd_close(client->received_fd);
			client->received_fd = fd;
		}
		rpc_decoder_commit(&client->decoder, (size_t)n);
	}
	fail_msg("nothing came");
	return 0;
}

const char *client_response(struct client *client, uint32_t id)
{
	static char code[64];
	const msgpack_object *value;

	assert_int_equal(client_receive(client), 1);
	assert_int_equal(client->message.type, RPC_RESPONSE);
	assert_int_equal(client->message.id, id);
	if (client->message.error.type == MSGPACK_OBJECT_NIL) {
		return NULL;
	}
	value = rpc_map_get(&client->message.error.via.map, "code");
	assert_non_null(value);
	snprintf(code, sizeof(code), "%.*s", (int)value->via.str.size, value->via.str.ptr);
	return code;
}

const char *client_error_text(struct client *client)
{
	static char text[512];
	const msgpack_object *value = rpc_map_get(&client->message.error.via.map, "message");

	assert_non_null(value);
	snprintf(text, sizeof(text), "%.*s", (int)value->via.str.size, value->via.str.ptr);
	return text;
}

const msgpack_object *client_result(struct client *client, const char *key)
{
	const msgpack_object *value;

	assert_int_equal(client->message.result.type, MSGPACK_OBJECT_MAP);
	value = rpc_map_get(&client->message.result.via.map, key);
	assert_non_null(value);
	return value;
}

void fixture_assert_serves(struct fixture *fixture, size_t active)
{
	struct client client;

	client_open(&client, fixture);
	CLIENT_REQUEST(&client, 1, "health", EMPTY);
	assert_null(client_response(&client, 1));
	client_close(&client);
	assert_int_equal(fake_pool_active(fixture->pool), active);
	assert_int_equal(fixture->pool->n_waiters, 0);
}
