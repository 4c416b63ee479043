/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A guest of a build, and what is done with every one of them: made, told, asked, stopped.
 *
 * Failures come back with what was being done and why it failed. An interruption makes the monitor
 * kill the VMM, which ends whatever this thread waits for.
 */

#include "cli/build_guest.h"

#include "base/fd.h"

#include <errno.h>
#include <poll.h>

int cli_guest_create(struct cli_guest *guest, uint64_t flags, int memory_fd, int root_fd,
		     int *ret_userfault_fd, uint64_t *ret_address, struct base_error *error)
{
	const struct cli_vm_config config = {
		.memory_bytes = guest->params->memory_bytes,
		.n_vcpus = guest->params->n_vcpus,
		.cid = CLI_BUILD_GUEST_CID,
		.flags = flags,
		.memory_fd = memory_fd,
		.console_fd = cli_monitor_console_fd(guest->monitor),
		.root_fd = root_fd,
	};
	int r = cli_vm_start(&guest->vm, guest->params->vmm_path, config.console_fd, error);

	if (r < 0) {
		return r;
	}
	cli_monitor_guard(guest->monitor, guest->vm.pidfd);
	return cli_vm_create(&guest->vm, &config, CLI_GUEST_VMM_MS, ret_userfault_fd, ret_address,
			     error);
}

void cli_guest_stop(struct cli_guest *guest)
{
	warmbox_agent_free(TAKE_PTR(guest->agent));
	cli_monitor_guard(guest->monitor, -1);
	cli_vm_stop(&guest->vm);
}

int cli_guest_tell(struct cli_guest *guest, enum vmm_op op, struct base_error *error)
{
	return cli_vm_call(&guest->vm, op, NULL, NULL, NULL, 0, CLI_GUEST_VMM_MS, NULL, error);
}

int cli_guest_interrupted(const struct cli_guest *guest, struct base_error *error)
{
	return *guest->interrupted ? base_error_set(error, -EINTR, "interrupted") : 0;
}

int cli_guest_failed(struct cli_guest *guest, int r, const struct warmbox_error *failure,
		     const char *doing, struct base_error *error)
{
	if (failure->code == WARMBOX_DISCONNECTED) {
		struct pollfd last_words = { .fd = guest->vm.control, .events = POLLIN };

		poll(&last_words, 1, 500);
		if (cli_vm_check(&guest->vm, error) < 0) {
			return base_error_prefix(error, -ECONNRESET, "%s", doing);
		}
	}
	if (failure->code == WARMBOX_TIMEOUT) {
		return base_error_set(error, -ETIMEDOUT, "%s: not done after %u s", doing,
				      (unsigned)(guest->params->timeout_ms / 1000));
	}
	return base_error_set(error, r, "%s: %s", doing, failure->text);
}

static int keep_output(void *userdata, const void *data, size_t size)
{
	cli_monitor_output(userdata, data, size);
	return 0;
}

int cli_guest_exec(struct cli_guest *guest, char *const *argv, const char *doing,
		   struct base_error *error)
{
	const struct warmbox_exec_params params = { .argv = argv };
	const struct warmbox_stdio stdio = {
		.userdata = guest->monitor,
		.on_stdout = keep_output,
		.on_stderr = keep_output,
		.stdin_fd = -1,
	};
	struct warmbox_error failure;
	struct warmbox_exit exit;
	uint32_t id;
	int r;

	r = warmbox_agent_exec(guest->agent, &params, &id, &failure);
	r = r
		    ?: warmbox_agent_run(guest->agent, id, (int)guest->params->timeout_ms, &stdio,
					 &exit, &failure);
	if (r < 0) {
		return cli_guest_failed(guest, r, &failure, doing, error);
	}
	if (exit.signaled) {
		return base_error_set(error, -EIO, "%s was killed by signal %d", doing,
				      exit.signal);
	}
	if (exit.code != 0) {
		return base_error_set(error, -EIO, "%s ended with exit status %d", doing,
				      exit.code);
	}
	return 0;
}
