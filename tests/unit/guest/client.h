/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A real agent in a process of its own, and blocking clients of it. Failures fail the test. */

#include "base/util.h"

#include <msgpack.h>
#include <stdbool.h>
#include <sys/types.h>

struct agent_instance {
	char directory[64];
	pid_t pid;
};

/* argument (may be NULL) is the fault to inject. */
void agent_instance_start(struct agent_instance *instance, const char *argument);
/* Asserts that it ended in good order, and left no process of its own. */
void agent_instance_stop(struct agent_instance *instance);
int agent_instance_connect(const struct agent_instance *instance);
/* One line's number from /proc/<pid>/status, e.g. "VmRSS:". */
long agent_instance_status(const struct agent_instance *instance, const char *key);
/* Descriptors it has open. */
unsigned agent_instance_fds(const struct agent_instance *instance);

struct client {
	int fd;
	msgpack_unpacker unpacker;
	msgpack_unpacked unpacked;
};

void client_init(struct client *client, const struct agent_instance *instance);
void client_deinit(struct client *client);
void client_send(struct client *client, const void *data, size_t size);

/* A request or, with id < 0, a notification, from a description of its one map:
 *   "name" s text, i integer, b boolean, a NULL-terminated strings, d data and size, m pair of
 * strings as variable arguments: name, letter, value(s), ..., NULL. */
void client_request(struct client *client, int64_t id, const char *method, ...);

/* The next message; false when the agent has closed. Valid until the next call. */
bool client_receive(struct client *client, const msgpack_object **ret_message);

struct outcome {
	char error[32]; /* "" for success */
	char message[256];
	int64_t code;	/* -1 when there is none */
	int64_t signal; /* -1 when there is none */
	int64_t pid;
	size_t out_size, err_size;
	char out[4096]; /* what came first, NUL-terminated */
	char err[4096];
};

/* Reads until the response to the request; output of the same request is collected. */
void client_wait(struct client *client, uint32_t id, struct outcome *ret_outcome);
/* Asserts that the agent closes the connection, whatever it still says. */
void client_expect_close(struct client *client);
