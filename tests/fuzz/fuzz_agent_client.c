/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a guest may send to the host's client of its agent: answers and output, in any
 * order and any pieces. The client has requests open, three that run a process and one that does
 * not, and takes events until the stream ends; then the same bytes are the answer to a ping.
 */

#include "base/fd.h"
#include "rpc/agent_client.h"
#include "tests/fuzz/fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 4096

/* A stream from which the bytes come, and then its end. What does not fit is cut off. */
static int make_stream(const uint8_t *data, size_t size, int *ret_peer)
{
	int pair[2];

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	while (size > 0) {
		ssize_t n = send(pair[1], data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0) {
			break;
		}
		data += n;
		size -= (size_t)n;
	}
	shutdown(pair[1], SHUT_WR);
	*ret_peer = pair[1];
	return pair[0];
}

static void walk(const msgpack_object *object, unsigned depth)
{
	FUZZ_CHECK(depth <= RPC_NESTING_MAX + 1);
	if (object->type == MSGPACK_OBJECT_ARRAY) {
		for (uint32_t i = 0; i < object->via.array.size; i++) {
			walk(&object->via.array.ptr[i], depth + 1);
		}
	} else if (object->type == MSGPACK_OBJECT_MAP) {
		for (uint32_t i = 0; i < object->via.map.size; i++) {
			walk(&object->via.map.ptr[i].key, depth + 1);
			walk(&object->via.map.ptr[i].val, depth + 1);
		}
	}
}

static void check_event(const struct warmbox_event *event)
{
	volatile uint8_t last;

	switch (event->kind) {
	case WARMBOX_EVENT_STDOUT:
	case WARMBOX_EVENT_STDERR:
		if (event->size > 0) {
			last = ((const uint8_t *)event->data)[event->size - 1];
			(void)last;
		}
		break;
	case WARMBOX_EVENT_ANSWER:
		walk(event->object, 0);
		break;
	case WARMBOX_EVENT_EXITED:
		FUZZ_CHECK(event->exit.code >= 0 && event->exit.code <= 255);
		break;
	case WARMBOX_EVENT_ERROR:
		/* It goes to a terminal. */
		for (const char *c = event->failure.text; *c; c++) {
			FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
		}
		break;
	}
}

static void take_events(const uint8_t *data, size_t size)
{
	char word[] = "true", *const argv[] = { word, NULL };
	const struct warmbox_exec_params params = { .argv = argv };
	struct warmbox_error error = { 0 };
	struct warmbox_agent *agent;
	struct warmbox_event event;
	uint32_t id;
	int peer, r, stream = make_stream(data, size, &peer);

	FUZZ_CHECK(warmbox_agent_new(stream, &agent, &error) == 0);
	for (int i = 0; i < 3; i++) {
		FUZZ_CHECK(warmbox_agent_exec(agent, &params, &id, &error) == 0);
	}
	FUZZ_CHECK(warmbox_agent_kill(agent, 1, 9, &id, &error) == 0);
	for (unsigned i = 0; i < EVENTS_MAX; i++) {
		r = warmbox_agent_next(agent, -1, &event, &error);
		if (r < 0) {
			FUZZ_CHECK(error.text[0] != '\0');
			break;
		}
		if (r > 0) {
			check_event(&event);
		}
	}
	warmbox_agent_free(agent);
	close(peer);
}

static void call(const uint8_t *data, size_t size)
{
	struct warmbox_error error = { 0 };
	struct warmbox_agent *agent;
	uint64_t generation;
	int peer, stream = make_stream(data, size, &peer);

	FUZZ_CHECK(warmbox_agent_new(stream, &agent, &error) == 0);
	(void)warmbox_agent_ping(agent, -1, &generation, &error);
	warmbox_agent_free(agent);
	close(peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	take_events(data, size);
	call(data, size);
	return 0;
}
