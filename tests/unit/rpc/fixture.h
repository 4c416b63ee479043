/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A server on a real socket, with the fake pool, and clients that speak bytes. One thread: the loop
 * runs whenever a client waits, so a test decides what happens first.
 */

#include "rpc/encode.h"
#include "rpc/rpc.h"
#include "tests/unit/rpc/fake_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

struct fixture {
	const struct pool_tenant_config
		*sections; /* of its pool's tenants; set before fixture_open() */
	size_t n_sections;
	uint64_t message_timeout_ms;
	uv_loop_t loop;
	char directory[32];
	char socket[64];
	struct pool *pool;
	struct rpc_server *server;
	bool stopped;
};

/* cmocka's set-up and tear-down: *state is the fixture. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* The same in two steps, for those that want it different. */
struct fixture *fixture_new(void);
void fixture_open(struct fixture *fixture);
void fixture_stop(struct fixture *fixture);

/* Runs the loop until nothing more happens at once. */
void fixture_run(struct fixture *fixture);

/* The server is alive and holds nothing that a test did not leave on purpose: so many leases are
 * active, and nobody waits. */
void fixture_assert_serves(struct fixture *fixture, size_t active);

struct client {
	struct fixture *fixture;
	int fd;
	int received_fd;
	struct rpc_decoder decoder;
	msgpack_zone zone;
	struct rpc_message message; /* what client_receive() got */
};

void client_open(struct client *client, struct fixture *fixture);
void client_close(struct client *client);
/* Closes the socket only; what was received stays. */
void client_vanish(struct client *client);

void client_send(struct client *client, const void *data, size_t size);
/* One request; params is packed. */
void client_request(struct client *client, uint32_t id, const char *method, const void *params,
		    size_t params_size);
#define CLIENT_REQUEST(client, id, method, literal) \
	client_request(client, id, method, literal, sizeof(literal) - 1)

/* Runs the loop until a message is there: 1. 0: the server closed the connection. */
int client_receive(struct client *client);
/* Receives the response to id; NULL: success, otherwise the error's code. */
const char *client_response(struct client *client, uint32_t id);
/* The text of that error. */
const char *client_error_text(struct client *client);
/* A value of the result, which must be a map. */
const msgpack_object *client_result(struct client *client, const char *key);

#define ACQUIRE_PYTHON "\x81\xa8template\xa6python"
#define ACQUIRE_PYTHON_BIND              \
	"\x82\xa8template\xa6python\xa4" \
	"bind\xc3"
#define ACQUIRE_PYTHON_FD "\x82\xa8template\xa6python\xa7pass_fd\xc3"
#define EMPTY		  "\x80"
