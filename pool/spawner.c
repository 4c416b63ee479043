/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The manager's side of the spawner.
 *
 * Happy path: a request is sent at once, and its reply brings the process. Beyond so many
 * unanswered ones they wait in a list, so that those that are cancelled meanwhile cost nothing.
 *
 * Failure: a spawner that dies is started again (pool/helper.c). All it answered has been read by
 * then, and what it did not answer it did not do (pool/spawner.h), so that is simply asked for
 * again, with the same sockets.
 *
 * Runs on the loop's thread.
 */

#include "pool/spawner.h"

#include "base/fd.h"
#include "pool/spawning.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void append_sent(struct pool_spawner *spawner, struct pool_spawn *spawn)
{
	base_list_remove(&spawn->link);
	base_list_append(&spawner->sent, &spawn->link);
	spawner->n_sent++;
}

static struct pool_spawn *take_sent(struct pool_spawner *spawner, uint64_t sequence)
{
	BASE_LIST_FOR_EACH(link, &spawner->sent)
	{
		struct pool_spawn *spawn = CONTAINER_OF(link, struct pool_spawn, link);

		if (spawn->sequence == sequence) {
			base_list_remove(&spawn->link);
			spawner->n_sent--;
			return spawn;
		}
	}
	return NULL;
}

static int send_start(struct pool_spawner *spawner, struct pool_spawn *spawn)
{
	struct base_message message = {
		.op = SPAWNER_OP_START,
		.sequence = spawner->sequence + 1,
		.arg = { (uint64_t)spawn->nice },
	};
	int fds[3] = { spawn->control };
	size_t n_fds = 1;
	int r;

	/* What an untrusted program writes has no place in the log. */
	if (getenv("WARMBOX_VMM_STDERR")) {
		fds[n_fds++] = STDERR_FILENO;
	}
	if (spawn->cgroup >= 0) {
		fds[n_fds++] = spawn->cgroup;
		message.arg[3] |= SPAWNER_JAIL_CGROUP;
	}
	pool_jail_fill_start(&spawner->jail, spawn->uid, &message);
	r = pool_helper_send(&spawner->helper, &message, fds, n_fds);
	if (r == 0) {
		spawn->sequence = ++spawner->sequence;
	}
	return r;
}

static void send_waiting(struct pool_spawner *spawner)
{
	while (!base_list_is_empty(&spawner->waiting) && spawner->n_sent < POOL_SPAWNS_SENT_MAX) {
		struct pool_spawn *spawn =
			CONTAINER_OF(spawner->waiting.next, struct pool_spawn, link);
		int r = send_start(spawner, spawn);

		if (r < 0) {
			return; /* writable or started follows and comes here again */
		}
		append_sent(spawner, spawn);
	}
}

static void started(struct pool_helper *helper)
{
	send_waiting(CONTAINER_OF(helper, struct pool_spawner, helper));
}

/* Everything that is still unanswered was not done. */
static void gone(struct pool_helper *helper)
{
	struct pool_spawner *spawner = CONTAINER_OF(helper, struct pool_spawner, helper);

	while (!base_list_is_empty(&spawner->sent)) {
		/* From the last to the first, to the head. */
		struct pool_spawn *spawn =
			CONTAINER_OF(spawner->sent.previous, struct pool_spawn, link);

		base_list_remove(&spawn->link);
		spawner->n_sent--;
		spawn->sequence = 0;
		if (spawn->cancelled) {
			spawn->fn(spawn, -ECANCELED, 0, -1, 0);
		} else {
			base_list_append(spawner->waiting.next, &spawn->link);
		}
	}
}

static void on_reply(struct pool_spawner *spawner, const struct base_message *reply, int pidfd)
{
	struct pool_spawn *spawn = take_sent(spawner, reply->sequence);

	if (!spawn || reply->op != SPAWNER_OP_START || (reply->result == 0) != (pidfd >= 0)) {
		pool_helper_kill(&spawner->helper, "answered something that was not asked");
		base_fd_close(pidfd);
		if (spawn) {
			spawn->fn(spawn, -EBADMSG, 0, -1, 0);
		}
		return;
	}
	if (reply->result < 0 && reply->arg[0] > 0) {
		waitpid((pid_t)reply->arg[0], NULL, 0); /* it has ended */
	}
	spawn->fn(spawn, reply->result, (pid_t)reply->arg[0], pidfd, reply->arg[1]);
	send_waiting(spawner);
}

static void message(struct pool_helper *helper, const struct base_message *message, const int *fds,
		    size_t n_fds)
{
	struct pool_spawner *spawner = CONTAINER_OF(helper, struct pool_spawner, helper);

	for (size_t i = 1; i < n_fds; i++) {
		base_fd_close(fds[i]);
	}
	if (message->op == SPAWNER_EVENT_NOT_EXECUTED && n_fds == 0) {
		spawner->not_executed.text[0] = '\0';
		base_error_set_errno(&spawner->not_executed, message->result, "%s", message->text);
	} else {
		on_reply(spawner, message, n_fds > 0 ? fds[0] : -1);
	}
}

static const struct pool_helper_ops spawner_ops = {
	.started = started,
	.message = message,
	.gone = gone,
	.writable = started,
};

int pool_spawner_init(struct pool_spawner *spawner, uv_loop_t *loop, const char *path,
		      const char *vmm_path, const struct pool_jail_config *jail)
{
	const char *const arguments[] = { vmm_path, pool_jail_place(jail), NULL };

	*spawner = (struct pool_spawner){ .jail = *jail };
	base_list_init(&spawner->waiting);
	base_list_init(&spawner->sent);
	return pool_helper_init(&spawner->helper, &spawner_ops, loop, "spawner", path, arguments);
}

void pool_spawner_deinit(struct pool_spawner *spawner)
{
	pool_helper_deinit(&spawner->helper);
}

void pool_spawn_start(struct pool_spawner *spawner, struct pool_spawn *spawn)
{
	spawn->sequence = 0;
	spawn->cancelled = false;
	base_list_init(&spawn->link);
	base_list_append(&spawner->waiting, &spawn->link);
	send_waiting(spawner);
}

bool pool_spawn_cancel(struct pool_spawner *spawner, struct pool_spawn *spawn)
{
	if (spawn->sequence == 0) {
		base_list_remove(&spawn->link);
		return true;
	}
	spawn->cancelled = true;
	return false;
}
