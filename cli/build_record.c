/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Restores a guest that was just frozen, and has recorded which of its pages a sandbox needs from
 * the restore to the end of its first command.
 *
 *    CREATE ─ LOAD ─ ATTACH ─ RESUME ─ identity ─ PAUSE ─ RESUME ─ first command ─ resident
 *
 * That is what the manager and a client do with a sandbox; only that the identity is sent as a
 * request of the client library, and so arrives when the guest runs already. Pages come in one by
 * one, as the recorder sees them wanted; the guest is killed at the end. It doubles as a test that
 * the template can be restored at all, which is why any failure is one of the build.
 *
 * Two things may go wrong in a guest that is fine: a root image without /bin/true, when no other
 * command was asked for; and a resident process that does not end when its input does, or not well.
 * What was touched until then is recorded.
 */

#include "cli/build_record.h"

#include "base/fd.h"
#include "cli/build_guest.h"
#include "guest/identity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A resident process that has seen the end of its input gets so long to end. */
#define RESIDENT_MS 10000

struct run {
	const struct cli_record_params *params;
	struct uffd_recorder *recorder;
	struct cli_guest guest;
	unsigned number;	   /* from 1 */
	struct base_message clock; /* the reply to LOAD: what time it is in the guest */
	struct base_error *error;
};

/* --- identity --- */

static int send_identity(struct run *run)
{
	struct guest_identity_clock clock = { run->clock.arg[0], run->clock.arg[1],
					      run->clock.arg[2] };
	uint8_t params[GUEST_IDENTITY_REQUEST_MAX];
	struct guest_identity identity;
	struct warmbox_error failure;
	size_t size;
	int r = guest_identity_generate(&identity);

	if (r < 0) {
		return base_error_set_errno(run->error, r, "cannot make an identity");
	}
	size = guest_identity_encode_params(&identity, 1, &clock, false, params);
	r = warmbox_agent_call(run->guest.agent, "identity", params, size,
			       (int)run->params->build->timeout_ms, NULL, &failure);
	return r < 0 ? cli_guest_failed(&run->guest, r, &failure, "identity", run->error) : 0;
}

/* --- a run --- */

static int restore(struct run *run)
{
	_cleanup_fd_ int image = -1, userfault = -1, state = -1;
	uint64_t address = 0;
	int r = uffd_recorder_image(run->recorder, &image, run->error);

	r = r
		    ?: cli_guest_create(&run->guest, VMM_CREATE_LAZY, image, run->params->root_fd,
					&userfault, &address, run->error);
	r = r
		    ?: uffd_recorder_start(run->recorder, TAKE_FD(userfault), address,
					   run->guest.vm.pidfd, run->error);
	if (r < 0) {
		return r;
	}
	r = base_fd_reopen_readonly(run->params->state_fd, &state);
	if (r < 0) {
		return base_error_set_errno(run->error, r, "cannot reopen the state");
	}
	return cli_vm_call(&run->guest.vm, VMM_OP_LOAD, NULL, NULL, &state, 1, CLI_GUEST_VMM_MS,
			   &run->clock, run->error);
}

static int connect_agent(struct run *run)
{
	struct warmbox_error failure;
	int stream;
	int r = cli_vm_attach(&run->guest.vm, GUEST_AGENT_PORT, &stream, run->error);

	if (r < 0) {
		return r;
	}
	r = warmbox_agent_new(stream, &run->guest.agent, &failure);
	return r < 0 ? base_error_set(run->error, r, "%s", failure.text) : 0;
}

static int first_command(struct run *run)
{
	char *const nothing[] = { (char *)"/bin/true", NULL };
	char *const *argv = run->params->build->record_exec ?: nothing;
	char doing[CLI_BUILD_LINE_MAX];
	int r;

	snprintf(doing, sizeof(doing), "command '%s'", argv[0]);
	r = cli_guest_exec(&run->guest, argv, doing, run->error);
	return r == -ENOENT && argv == nothing ? 0 : r;
}

/* Input that ends before it began is the least that one can ask of any process. */
static int call_resident(struct run *run)
{
	struct warmbox_agent *agent = run->guest.agent;
	const struct warmbox_stdio stdio = { .stdin_fd = -1 };
	struct warmbox_error failure;
	struct warmbox_exit exit;
	uint32_t id;
	int r;

	if (!run->params->build->resident) {
		return 0;
	}
	r = warmbox_agent_resident(agent, &id, &failure);
	r = r ?: warmbox_agent_stdin(agent, id, NULL, 0, &failure);
	r = r ?: warmbox_agent_run(agent, id, RESIDENT_MS, &stdio, &exit, &failure);
	if (r == 0 || failure.code == WARMBOX_TIMEOUT) {
		return 0;
	}
	return cli_guest_failed(&run->guest, r, &failure, "resident process", run->error);
}

static void show(struct run *run, const char *what)
{
	char detail[CLI_BUILD_LINE_MAX];

	snprintf(detail, sizeof(detail), "restore %u of %u, %s", run->number,
		 run->params->build->n_records, what);
	cli_monitor_detail(run->params->monitor, detail);
}

static int run_steps(struct run *run)
{
	int r;

	show(run, "identity");
	r = restore(run);
	r = r ?: connect_agent(run);
	r = r ?: cli_guest_tell(&run->guest, VMM_OP_RESUME, run->error);
	r = r ?: send_identity(run);
	/* As it is parked, and claimed. */
	r = r ?: cli_guest_tell(&run->guest, VMM_OP_PAUSE, run->error);
	r = r ?: cli_guest_tell(&run->guest, VMM_OP_RESUME, run->error);
	if (r < 0) {
		return r;
	}
	show(run, "first command");
	r = first_command(run);
	return r ?: call_resident(run);
}

static int run_once(const struct cli_record_params *params, struct uffd_recorder *recorder,
		    unsigned number, struct base_error *error)
{
	struct base_error reason = {}, unanswered = {};
	struct run run = {
		.params = params,
		.recorder = recorder,
		.guest = {
			.monitor = params->monitor,
			.interrupted = params->interrupted,
			.params = params->build,
			.vm = CLI_VM_NONE,
		},
		.number = number,
		.error = &reason,
	};
	int r = run_steps(&run), stopped;

	cli_guest_stop(&run.guest);
	stopped = uffd_recorder_stop(recorder, &unanswered);
	if (stopped < 0) {
		/* Then the guest was killed, and what that led to is not the reason. */
		return base_error_set(error, stopped, "%s", unanswered.text);
	}
	return r < 0 ? base_error_set(error, r, "%s", reason.text) : 0;
}

int cli_record(const struct cli_record_params *params, struct uffd_recorder *recorder,
	       struct base_error *error)
{
	for (unsigned number = 1; number <= params->build->n_records; number++) {
		int r;

		if (*params->interrupted) {
			return base_error_set(error, -EINTR, "interrupted");
		}
		r = run_once(params, recorder, number, error);
		if (r < 0) {
			return base_error_prefix(error, r, "the frozen guest, restored");
		}
	}
	return 0;
}
