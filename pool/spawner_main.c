/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox-spawner: starts VMMs for the manager; pool/spawner.h says why and how.
 *
 * Happy path: it goes to the place that VMMs are started from (pool/spawner_place.c), then each
 * request becomes a process (pool/spawner_child.c).
 *
 * Failure: a request that cannot be carried out is answered with -errno. When it cannot set itself
 * up it ends with status 1, and the manager starts it again.
 *
 * Shut-down: when the socket closes. One thread.
 */

#include "base/fd.h"
#include "pool/spawner_internal.h"

#include <stdio.h>
#include <string.h>

static const char *const places[] = {
	[SPAWNER_PLACE_HOST] = "host",
	[SPAWNER_PLACE_EMPTY] = "empty",
	[SPAWNER_PLACE_USER] = "user",
};

/* arg0: the pid of a child that is to be reaped, or 0. */
static int refuse(const struct spawner *spawner, const struct base_message *request, int r,
		  pid_t pid)
{
	static struct base_message refusal;

	refusal.op = request->op;
	refusal.sequence = request->sequence;
	refusal.result = r;
	refusal.arg[0] = (uint64_t)pid;
	base_message_set_text(&refusal, "");
	return base_message_send(spawner->manager, &refusal, NULL, 0);
}

static void serve(const struct spawner *spawner)
{
	static struct base_message request;
	int fds[BASE_MESSAGE_FDS_MAX];
	size_t n_fds = 0;
	int r = 0;

	while (r == 0 && base_message_receive(spawner->manager, &request, fds, &n_fds) > 0) {
		pid_t pid;

		r = spawner_child_start(spawner, &request, fds, n_fds, &pid);
		for (size_t i = 0; i < n_fds; i++) {
			base_fd_close(fds[i]);
		}
		n_fds = 0;
		if (r < 0) {
			r = refuse(spawner, &request, r, pid);
		}
	}
}

int main(int argc, char **argv)
{
	struct base_error error = {};
	struct spawner spawner = {};

	if (argc != 3) {
		fprintf(stderr, "warmbox-spawner is started by warmboxd\n");
		return EXIT_FAILURE;
	}
	while (spawner.place < ARRAY_SIZE(places) && strcmp(places[spawner.place], argv[2]) != 0) {
		spawner.place++;
	}
	if (spawner.place == ARRAY_SIZE(places)) {
		fprintf(stderr, "warmbox-spawner: %s: no such place\n", argv[2]);
		return EXIT_FAILURE;
	}
	if (spawner_place_enter(&spawner, argv[1], &error) < 0) {
		fprintf(stderr, "warmbox-spawner: %s\n", error.text);
		return EXIT_FAILURE;
	}
	serve(&spawner);
	return EXIT_SUCCESS;
}
