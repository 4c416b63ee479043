/* SPDX-License-Identifier: Apache-2.0 */

/* The control protocol over a socket pair: round trips, malformed packets, the blocking call. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/message.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int pair[2];

static int setup(void **state)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int teardown(void **state)
{
	base_fd_close(pair[0]);
	base_fd_close(pair[1]);
	return 0;
}

static void test_round_trip(void **state)
{
	struct base_message sent = { .op = 2, .sequence = 9, .arg = { 1, 2, 3, 4, 5, 6 } };
	struct base_message received;
	int fds[BASE_MESSAGE_FDS_MAX], give[2] = { pair[0], pair[1] };
	size_t n_fds = 0;

	sent.text_length = BASE_MESSAGE_TEXT_MAX;
	memset(sent.text, 'a', BASE_MESSAGE_TEXT_MAX);
	assert_int_equal(base_message_send(pair[0], &sent, give, 2), 0);
	assert_int_equal(base_message_receive(pair[1], &received, fds, &n_fds), 1);
	assert_int_equal(n_fds, 2);
	assert_int_equal(received.op, 2);
	assert_int_equal(received.sequence, 9);
	assert_int_equal(received.arg[5], 6);
	assert_int_equal(strlen(received.text), BASE_MESSAGE_TEXT_MAX);
	close(fds[0]);
	close(fds[1]);
	/* One byte past the limit is not sent. */
	sent.text_length = BASE_MESSAGE_TEXT_MAX + 1;
	assert_int_equal(base_message_send(pair[0], &sent, NULL, 0), -EINVAL);
	sent.text_length = 0;
	assert_int_equal(base_message_send(pair[0], &sent, give, BASE_MESSAGE_FDS_MAX + 1),
			 -EINVAL);
}

static void test_malformed(void **state)
{
	struct base_message message = { .op = 5, .sequence = 1 };
	const size_t head = offsetof(struct base_message, text);
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;

	for (int kind = 0; kind < 4; kind++) {
		size_t size = head;

		message.text_length = kind == 1 ? 3 : 0;
		message.reserved = kind == 2;
		size = kind == 0 ? head - 1 : kind == 3 ? head + 1 : head;
		assert_true(send(pair[0], &message, size, 0) == (ssize_t)size);
		assert_int_equal(base_message_receive(pair[1], &message, fds, &n_fds), -EBADMSG);
		message = (struct base_message){ .op = 5, .sequence = 1 };
	}
	/* A NUL inside the text. */
	message.text_length = 2;
	assert_int_equal(base_message_send(pair[0], &message, NULL, 0), 0);
	assert_int_equal(base_message_receive(pair[1], &message, fds, &n_fds), -EBADMSG);
	close(pair[0]);
	pair[0] = -1;
	assert_int_equal(base_message_receive(pair[1], &message, fds, &n_fds), 0);
}

/* Answers one request with an event before the reply. */
static void *answer(void *argument)
{
	int32_t *result = argument;
	struct base_message request, event = { .op = 0x101, .arg = { 77 } };
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;

	if (base_message_receive(pair[1], &request, fds, &n_fds) == 1) {
		struct base_message reply = { .op = request.op,
					      .sequence = request.sequence,
					      .result = *result,
					      .arg = { 5 } };

		if (*result < 0) {
			reply.text_length = 7;
			memcpy(reply.text, "no luck", 7);
		}
		base_message_send(pair[1], &event, NULL, 0);
		base_message_send(pair[1], &reply, NULL, 0);
	}
	return NULL;
}

static void on_event(void *userdata, const struct base_message *event)
{
	*(uint64_t *)userdata += event->arg[0];
}

static int call(int32_t result, uint64_t *events, struct base_message *reply,
		struct base_error *error)
{
	struct base_message request = { .op = 6, .sequence = 3 };
	pthread_t thread;
	int r;

	assert_int_equal(pthread_create(&thread, NULL, answer, &result), 0);
	r = base_message_call(pair[0], "VMM", &request, NULL, 0, 5000, on_event, events, reply,
			      NULL, error);
	pthread_join(thread, NULL);
	return r;
}

static void test_call(void **state)
{
	struct base_message reply, request = { .op = 6, .sequence = 4 };
	struct base_error error = {};
	uint64_t events = 0;

	assert_int_equal(call(0, &events, &reply, &error), 0);
	assert_int_equal(events, 77);
	assert_int_equal(reply.arg[0], 5);
	assert_int_equal(call(-EXDEV, &events, &reply, &error), -EXDEV);
	assert_string_equal(error.text, "no luck");
	/* A positive result is no result. */
	assert_int_equal(call(1, &events, &reply, &error), -EBADMSG);
	assert_int_equal(base_message_call(pair[0], "VMM", &request, NULL, 0, 20, NULL, NULL, NULL,
					   NULL, NULL),
			 -ETIMEDOUT);
	pair[1] = base_fd_close(pair[1]);
	assert_int_equal(base_message_call(pair[0], "VMM", &request, NULL, 0, 20, NULL, NULL, NULL,
					   NULL, NULL),
			 -ECONNRESET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_call, setup, teardown),
	};

	return cmocka_run_group_tests_name("vmm-control", tests, NULL, NULL);
}
