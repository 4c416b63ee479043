/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The blocking client: one pager process, one socket.
 *
 * Events that arrive while a reply is awaited are kept, and handed out when they are asked for.
 * Failure leaves a client that can only be freed; freeing closes the socket, with which the pager
 * ends, and reaps it.
 */

#include "uffd/client.h"

#include "base/clock.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define TIMEOUT_MS 30000

struct uffd_client {
	pid_t pid; /* 0: none */
	int socket;
	uint64_t sequence;
	size_t n_events;
	struct base_message *events; /* UFFD_CLIENT_EVENTS_MAX, owned */
	bool overrun;
};

static int spawn(struct uffd_client *client, const char *program, int socket)
{
	char *const argv[] = { (char *)program, NULL };
	char *const environment[] = { NULL };
	posix_spawn_file_actions_t actions;
	int r = -posix_spawn_file_actions_init(&actions);

	if (r < 0) {
		return r;
	}
	r = -posix_spawn_file_actions_adddup2(&actions, socket, PAGER_CONTROL_FD);
	if (r == 0) {
		r = -posix_spawn(&client->pid, program, &actions, NULL, argv, environment);
	}
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

int uffd_client_start(const char *program, struct uffd_client **ret_client,
		      struct base_error *error)
{
	_cleanup_(uffd_client_freep) struct uffd_client *client = calloc(1, sizeof(*client));
	int sockets[2];
	int r;

	if (!client) {
		return base_error_set_errno(error, -ENOMEM, "pager");
	}
	client->socket = -1;
	client->events = calloc(UFFD_CLIENT_EVENTS_MAX, sizeof(*client->events));
	if (!client->events) {
		return base_error_set_errno(error, -ENOMEM, "pager");
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
		r = -errno;
		return base_error_set_errno(error, r, "pager: socket");
	}
	client->socket = sockets[0];
	r = spawn(client, program, sockets[1]);
	base_fd_close(sockets[1]);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot start %s", program);
	}
	*ret_client = TAKE_PTR(client);
	return 0;
}

void uffd_client_free(struct uffd_client *client)
{
	if (!client) {
		return;
	}
	base_fd_close(client->socket);
	if (client->pid > 0) {
		while (waitpid(client->pid, NULL, 0) < 0 && errno == EINTR) {
		}
	}
	free(client->events);
	free(client);
}

pid_t uffd_client_pid(const struct uffd_client *client)
{
	return client->pid;
}

int uffd_client_socket(const struct uffd_client *client)
{
	return client->socket;
}

static void on_event(void *userdata, const struct base_message *event)
{
	struct uffd_client *client = userdata;

	if (client->n_events == UFFD_CLIENT_EVENTS_MAX) {
		client->overrun = true;
		return;
	}
	client->events[client->n_events++] = *event;
}

int uffd_client_call(struct uffd_client *client, const struct base_message *request, const int *fds,
		     size_t n_fds, struct base_message *ret_reply, struct base_error *error)
{
	struct base_message message = *request;

	message.sequence = ++client->sequence;
	return base_message_call(client->socket, "pager", &message, fds, n_fds, TIMEOUT_MS,
				 on_event, client, ret_reply, NULL, error);
}

int uffd_client_image(struct uffd_client *client, uint64_t id, const struct snapshot *snapshot,
		      int memfd, uint64_t background_bytes_per_s, uint64_t flags,
		      struct base_error *error)
{
	const struct snapshot_manifest *manifest = snapshot_manifest(snapshot);
	int fds[] = { memfd, snapshot_memory_fd(snapshot_memory(snapshot)) };
	struct base_message request = {
		.op = PAGER_OP_IMAGE,
		.arg = { id, manifest->memory_bytes, background_bytes_per_s, flags },
	};

	base_message_set_text(&request, manifest->chunk_table_digest);
	return uffd_client_call(client, &request, fds, ARRAY_SIZE(fds), NULL, error);
}

/* Takes the first kept event of the image that ends the wait. */
static bool take_event(struct uffd_client *client, uint64_t id, enum pager_op op,
		       struct base_message *ret_event)
{
	for (size_t i = 0; i < client->n_events; i++) {
		const struct base_message *event = &client->events[i];

		if (event->arg[0] == id && (event->op == op || event->op == PAGER_EVENT_FAILED)) {
			*ret_event = *event;
			client->n_events--;
			memmove(&client->events[i], &client->events[i + 1],
				(client->n_events - i) * sizeof(*event));
			return true;
		}
	}
	return false;
}

static int receive_event(struct uffd_client *client, uint64_t deadline_ns)
{
	uint64_t now_ns = base_clock_monotonic_ns();
	struct pollfd item = { .fd = client->socket, .events = POLLIN };
	struct base_message message;
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds;
	int r;

	if (now_ns >= deadline_ns) {
		return -ETIMEDOUT;
	}
	r = poll(&item, 1, (int)((deadline_ns - now_ns) / NSEC_PER_MSEC) + 1);
	if (r <= 0) {
		return r == 0 ? -ETIMEDOUT : errno == EINTR ? 0 : -errno;
	}
	r = base_message_receive(client->socket, &message, fds, &n_fds);
	if (r <= 0) {
		return r == 0 ? -ECONNRESET : r;
	}
	if (message.sequence != 0 || n_fds > 0) {
		return -EBADMSG;
	}
	on_event(client, &message);
	return client->overrun ? -ENOBUFS : 0;
}

int uffd_client_wait(struct uffd_client *client, uint64_t id, enum pager_op op,
		     struct base_message *ret_event, struct base_error *error)
{
	uint64_t deadline_ns = base_clock_monotonic_ns() + TIMEOUT_MS * NSEC_PER_MSEC;
	struct base_message event;

	while (!take_event(client, id, op, &event)) {
		int r = receive_event(client, deadline_ns);

		if (r < 0) {
			return base_error_set_errno(error, r, "waiting for the pager");
		}
	}
	if (event.op != op) {
		return base_error_set(error, event.result, "%s", event.text);
	}
	if (ret_event) {
		*ret_event = event;
	}
	return 0;
}

int uffd_client_fill(struct uffd_client *client, uint64_t id, const struct snapshot *snapshot,
		     int *ret_fd, struct base_message *ret_event, struct base_error *error)
{
	struct base_message gone = { .op = PAGER_OP_IMAGE_GONE, .arg = { id } };
	_cleanup_fd_ int memfd = -1;
	int r = base_fd_memfd("warmbox-image", snapshot_manifest(snapshot)->memory_bytes, &memfd);

	if (r < 0) {
		return base_error_set_errno(error, r, "cannot make the image memfd");
	}
	r = uffd_client_image(client, id, snapshot, memfd, 0, 0, error);
	if (r == 0) {
		r = uffd_client_wait(client, id, PAGER_EVENT_COMPLETE, ret_event, error);
		/* Whatever it says, the image is of no more use to this pager. */
		(void)uffd_client_call(client, &gone, NULL, 0, NULL, NULL);
	}
	if (r < 0) {
		return base_error_prefix(error, r, "snapshot %s", snapshot_manifest(snapshot)->id);
	}
	*ret_fd = TAKE_FD(memfd);
	return 0;
}
