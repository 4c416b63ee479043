/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Requests in, replies and events out (uffd/control.h).
 *
 * The socket does not block. While a message waits for room in it no request is taken, so a manager
 * that does not read is not read either, and what is kept stays small: the replies to what is under
 * way. A request that cannot be honoured is answered with the reason; its descriptors are closed. A
 * packet that is no request ends the pager. A closed socket means that the manager is gone: what it
 * asked for last is not answered. Main thread.
 */

#include "uffd/pager.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* Requests in a row; then faults have their turn. */
#define REQUESTS_A_ROUND 64

/* A message that waits for room in the socket. */
struct waiting {
	struct base_link link;
	struct base_message message; /* only its header and text_length bytes of text are there */
};

void uffd_control_init(struct uffd_control *control, int socket)
{
	*control = (struct uffd_control){ .socket = socket };
	base_list_init(&control->queue);
}

static void waiting_free(struct waiting *waiting)
{
	base_list_remove(&waiting->link);
	free(waiting);
}

void uffd_control_deinit(struct uffd_control *control)
{
	BASE_LIST_FOR_EACH(link, &control->queue)
	{
		waiting_free(CONTAINER_OF(link, struct waiting, link));
	}
}

void uffd_control_arm(struct uffd_pager *pager)
{
	struct uffd_control *control = &pager->control;

	if (!control->armed && !control->orphaned) {
		control->armed = true;
		uffd_ring_poll(&pager->ring, control->socket,
			       base_list_is_empty(&control->queue) ? POLLIN : POLLOUT,
			       UFFD_TAG_CONTROL, NULL);
	}
}

/* --- out --- */

static void close_with(struct uffd_control *control, int r, const char *what)
{
	if (r == -EPIPE || r == -ECONNRESET) {
		control->orphaned = true;
		return;
	}
	if (!control->closed) {
		log_error("control socket: %s: %s", what, strerror(-r));
	}
	control->closed = true;
}

static void keep(struct uffd_control *control, const struct base_message *message)
{
	size_t size = BASE_MESSAGE_HEADER_BYTES + message->text_length;
	struct waiting *waiting = malloc(offsetof(struct waiting, message) + size);

	if (!waiting) {
		/* An answer that never comes is worse than a pager that is started again. */
		close_with(control, -ENOMEM, "cannot answer");
		return;
	}
	memcpy(&waiting->message, message, size);
	base_list_append(&control->queue, &waiting->link);
}

void uffd_control_send(struct uffd_pager *pager, const struct base_message *message)
{
	struct uffd_control *control = &pager->control;

	if (control->orphaned) {
		return;
	}

	int r = base_list_is_empty(&control->queue)
			? base_message_send(control->socket, message, NULL, 0)
			: -EAGAIN;

	if (r == -EAGAIN) {
		keep(control, message);
	} else if (r < 0) {
		close_with(control, r, "cannot answer");
	}
}

void uffd_control_reply(struct uffd_pager *pager, enum pager_op op, uint64_t sequence, int result,
			const char *text)
{
	struct base_message reply = { .op = op, .sequence = sequence, .result = result };

	if (result < 0) {
		base_message_set_text(&reply, text ? text : strerror(-result));
	}
	uffd_control_send(pager, &reply);
}

static void send_waiting(struct uffd_control *control)
{
	BASE_LIST_FOR_EACH(link, &control->queue)
	{
		struct waiting *waiting = CONTAINER_OF(link, struct waiting, link);
		int r = base_message_send(control->socket, &waiting->message, NULL, 0);

		if (r == -EAGAIN) {
			return;
		}
		waiting_free(waiting);
		if (r < 0) {
			close_with(control, r, "cannot answer");
		}
	}
}

/* --- in --- */

/* A request as its handler sees it. */
struct request {
	const struct base_message *message;
	int *fds; /* a handler that takes one leaves -1 */
	size_t n_fds;
	uint64_t arg[BASE_MESSAGE_ARGS]; /* of the reply */
	struct base_error error;
};

/* What handlers return when the reply is sent later. */
#define LATER 1

static int expect_fds(struct request *request, size_t n)
{
	if (request->n_fds != n) {
		return base_error_set(&request->error, -EINVAL, "%zu descriptors instead of %zu",
				      request->n_fds, n);
	}
	return 0;
}

/* NULL with the reason in the request. */
static struct uffd_image *find_image(struct uffd_pager *pager, struct request *request)
{
	struct uffd_image *image = uffd_image_find(pager, request->message->arg[0]);

	if (!image) {
		base_error_set(&request->error, -ENOENT, "there is no such image");
	}
	return image;
}

static int on_image(struct uffd_pager *pager, struct request *request)
{
	int r = expect_fds(request, 2);

	if (r < 0) {
		return r;
	}
	r = uffd_image_new(pager, request->message, TAKE_FD(request->fds[0]),
			   TAKE_FD(request->fds[1]), &request->error);
	return r < 0 ? r : LATER;
}

static int on_vm(struct uffd_pager *pager, struct request *request)
{
	const struct base_message *message = request->message;
	struct uffd_image *image = find_image(pager, request);
	int r = image ? expect_fds(request, 1) : -ENOENT;

	if (r < 0) {
		return r;
	}
	r = uffd_vm_new(image, message->arg[1], message->arg[2], TAKE_FD(request->fds[0]),
			&request->error);
	request->arg[0] = r > 0;
	return MIN(r, 0);
}

static int on_vm_gone(struct uffd_pager *pager, struct request *request)
{
	struct uffd_image *image = uffd_image_find(pager, request->message->arg[0]);
	struct uffd_vm *vm = image ? uffd_vm_find(image, request->message->arg[1]) : NULL;

	if (vm) {
		uffd_vm_drop(vm);
	}
	return 0;
}

static int on_image_gone(struct uffd_pager *pager, struct request *request)
{
	struct uffd_image *image = find_image(pager, request);

	if (!image) {
		return -ENOENT;
	}
	uffd_image_gone(image, request->message->sequence);
	return LATER;
}

static int on_counters(struct uffd_pager *pager, struct request *request)
{
	struct uffd_image *image = find_image(pager, request);

	if (!image) {
		return -ENOENT;
	}
	uffd_image_count(image, request->arg);
	return 0;
}

static int dispatch(struct uffd_pager *pager, struct request *request)
{
	if (request->message->sequence == 0) {
		return base_error_set(&request->error, -EINVAL, "a request without a sequence");
	}
	switch (request->message->op) {
	case PAGER_OP_IMAGE:
		return on_image(pager, request);
	case PAGER_OP_VM:
		return on_vm(pager, request);
	case PAGER_OP_VM_GONE:
		return on_vm_gone(pager, request);
	case PAGER_OP_IMAGE_GONE:
		return on_image_gone(pager, request);
	case PAGER_OP_COUNTERS:
		return on_counters(pager, request);
	default:
		return base_error_set(&request->error, -EOPNOTSUPP, "there is no such operation");
	}
}

static void handle(struct uffd_pager *pager, const struct base_message *message, int *fds,
		   size_t n_fds)
{
	struct request request = { .message = message, .fds = fds, .n_fds = n_fds };
	int r = dispatch(pager, &request);

	for (size_t i = 0; i < n_fds; i++) {
		base_fd_close(fds[i]);
	}
	if (r < 0) {
		uffd_control_reply(pager, message->op, message->sequence, r, request.error.text);
	} else if (r != LATER) {
		struct base_message reply = { .op = message->op, .sequence = message->sequence };

		memcpy(reply.arg, request.arg, sizeof(reply.arg));
		uffd_control_send(pager, &reply);
	}
}

void uffd_control_ready(struct uffd_pager *pager)
{
	struct uffd_control *control = &pager->control;

	control->armed = false;
	send_waiting(control);
	for (unsigned i = 0; i < REQUESTS_A_ROUND && !control->closed && !control->orphaned; i++) {
		struct base_message message;
		int fds[BASE_MESSAGE_FDS_MAX];
		size_t n_fds = 0;

		if (!base_list_is_empty(&control->queue)) {
			return;
		}

		int r = base_message_receive(control->socket, &message, fds, &n_fds);

		if (r == -EAGAIN) {
			return;
		}
		if (r <= 0) {
			close_with(control, r < 0 ? r : -EPIPE, "cannot take a request");
			return;
		}
		handle(pager, &message, fds, n_fds);
	}
}
