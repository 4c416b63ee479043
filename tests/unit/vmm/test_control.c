/* SPDX-License-Identifier: Apache-2.0 */

/* The control protocol over a socket pair: round trips, malformed packets, the blocking call. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fd.h"
#include "vmm/control.h"

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
	struct vmm_message sent = { .op = VMM_OP_BOOT, .sequence = 9, .arg = { 1, 2, 3, 4, 5, 6 } };
	struct vmm_message received;
	int fds[VMM_FDS_MAX], give[2] = { pair[0], pair[1] };
	size_t n_fds = 0;

	sent.text_length = VMM_TEXT_MAX;
	memset(sent.text, 'a', VMM_TEXT_MAX);
	assert_int_equal(vmm_control_send(pair[0], &sent, give, 2), 0);
	assert_int_equal(vmm_control_receive(pair[1], &received, fds, &n_fds), 1);
	assert_int_equal(n_fds, 2);
	assert_int_equal(received.op, VMM_OP_BOOT);
	assert_int_equal(received.sequence, 9);
	assert_int_equal(received.arg[5], 6);
	assert_int_equal(strlen(received.text), VMM_TEXT_MAX);
	close(fds[0]);
	close(fds[1]);
	/* One byte past the limit is not sent. */
	sent.text_length = VMM_TEXT_MAX + 1;
	assert_int_equal(vmm_control_send(pair[0], &sent, NULL, 0), -EINVAL);
	sent.text_length = 0;
	assert_int_equal(vmm_control_send(pair[0], &sent, give, VMM_FDS_MAX + 1), -EINVAL);
}

static void test_malformed(void **state)
{
	struct vmm_message message = { .op = VMM_OP_RESUME, .sequence = 1 };
	const size_t head = offsetof(struct vmm_message, text);
	int fds[VMM_FDS_MAX];
	size_t n_fds = 0;

	for (int kind = 0; kind < 4; kind++) {
		size_t size = head;

		message.text_length = kind == 1 ? 3 : 0;
		message.reserved = kind == 2;
		size = kind == 0 ? head - 1 : kind == 3 ? head + 1 : head;
		assert_true(send(pair[0], &message, size, 0) == (ssize_t)size);
		assert_int_equal(vmm_control_receive(pair[1], &message, fds, &n_fds), -EBADMSG);
		message = (struct vmm_message){ .op = VMM_OP_RESUME, .sequence = 1 };
	}
	/* A NUL inside the text. */
	message.text_length = 2;
	assert_int_equal(vmm_control_send(pair[0], &message, NULL, 0), 0);
	assert_int_equal(vmm_control_receive(pair[1], &message, fds, &n_fds), -EBADMSG);
	close(pair[0]);
	pair[0] = -1;
	assert_int_equal(vmm_control_receive(pair[1], &message, fds, &n_fds), 0);
}

/* Answers one request with an event before the reply. */
static void *answer(void *argument)
{
	int32_t *result = argument;
	struct vmm_message request, event = { .op = VMM_EVENT_ENTERED, .arg = { 77 } };
	int fds[VMM_FDS_MAX];
	size_t n_fds = 0;

	if (vmm_control_receive(pair[1], &request, fds, &n_fds) == 1) {
		struct vmm_message reply = { .op = request.op,
					     .sequence = request.sequence,
					     .result = *result,
					     .arg = { 5 } };

		if (*result < 0) {
			reply.text_length = 7;
			memcpy(reply.text, "no luck", 7);
		}
		vmm_control_send(pair[1], &event, NULL, 0);
		vmm_control_send(pair[1], &reply, NULL, 0);
	}
	return NULL;
}

static void on_event(void *userdata, const struct vmm_message *event)
{
	*(uint64_t *)userdata += event->arg[0];
}

static int call(int32_t result, uint64_t *events, struct vmm_message *reply,
		struct base_error *error)
{
	struct vmm_message request = { .op = VMM_OP_PAUSE, .sequence = 3 };
	pthread_t thread;
	int r;

	assert_int_equal(pthread_create(&thread, NULL, answer, &result), 0);
	r = vmm_control_call(pair[0], &request, NULL, 0, 5000, on_event, events, reply, error);
	pthread_join(thread, NULL);
	return r;
}

static void test_call(void **state)
{
	struct vmm_message reply, request = { .op = VMM_OP_PAUSE, .sequence = 4 };
	struct base_error error = {};
	uint64_t events = 0;

	assert_int_equal(call(0, &events, &reply, &error), 0);
	assert_int_equal(events, 77);
	assert_int_equal(reply.arg[0], 5);
	assert_int_equal(call(-EXDEV, &events, &reply, &error), -EXDEV);
	assert_string_equal(error.text, "no luck");
	/* A positive result is no result. */
	assert_int_equal(call(1, &events, &reply, &error), -EBADMSG);
	assert_int_equal(vmm_control_call(pair[0], &request, NULL, 0, 20, NULL, NULL, NULL, NULL),
			 -ETIMEDOUT);
	pair[1] = base_fd_close(pair[1]);
	assert_int_equal(vmm_control_call(pair[0], &request, NULL, 0, 20, NULL, NULL, NULL, NULL),
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
