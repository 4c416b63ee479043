/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Builds a template.
 *
 *    check ─ boot ─ warm ─ resident ─ freeze ─ record ─ store
 *
 * The guest boots in a VMM whose memory is a shared memfd, so that the frozen memory is simply
 * there to be read. The builder talks to the agent over a stream that it attaches to the guest's
 * vsock; the agent is known to be up when it answers a ping. Before the VM is paused the stream is
 * closed and the guest left alone until it uses no more processor time: whatever it would still
 * have to do would be done again in every sandbox. The frozen guest is then restored a few times,
 * to see that it can be and which pages it needs first (build_record.c).
 *
 * Failures come back with a message that says which step and why, and with the guest's last output.
 * Everything made is held by cleanup attributes: the VMM is killed and reaped, the snapshot writer
 * removes its half-made files. An interruption makes the monitor kill the VMM, which ends whatever
 * this thread waits for; each step looks at the flag. Runs on the calling thread.
 */

#include "cli/build.h"

#include "base/clock.h"
#include "base/fd.h"
#include "cli/build_guest.h"
#include "cli/build_inputs.h"
#include "cli/build_monitor.h"
#include "cli/build_record.h"
#include "guest/agent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A guest that does not answer a ping within this is tried again, each time for twice as long. */
#define PING_FIRST_MS 2000
#define PING_LAST_MS  16000
/* The agent refuses connections until it listens; so long between tries. */
#define ATTACH_RETRY_MS 200
/* Idle: less than this share of a processor during a window; and how long to hope for it. */
#define IDLE_WINDOW_MS	 200
#define IDLE_PERCENT	 5
#define IDLE_WINDOWS_MAX 50
/* Linux gives free pages back two seconds after some became free (PAGE_REPORTING_DELAY), and every
 * two seconds while there are more. So long without any, where the guest may also have to wait for
 * a processor: there are none. */
#define REPORT_WINDOW_MS   3500
#define REPORT_WINDOWS_MAX 8

/* "Kernel messages of importance to the console; a panic ends the VM instead of hanging it." */
#define BASE_CMDLINE "console=ttyS0 quiet panic=-1 reboot=k " REPORTING_CMDLINE
/* Free pages are given back from 64 KiB on, the size of a chunk of a snapshot. Left to itself the
 * kernel waits for pieces of 4 MiB and a reserve of 128 MiB of them. */
#define REPORTING_CMDLINE "page_reporting.page_reporting_order=4"

BASE_DEFINE_CLEANUP(struct warmbox_agent *, warmbox_agent_free)
#define _cleanup_agent_ _cleanup_(warmbox_agent_freep)

struct build {
	struct snapshot_store *store;
	const struct cli_build_params *params;
	const volatile sig_atomic_t *interrupted;
	struct cli_monitor *monitor;
	struct cli_build_inputs inputs;
	int memory_fd;
	struct cli_guest guest;
	struct cli_build_result *result;
	struct base_error *error;
};

static int check_interrupted(const struct build *build)
{
	return cli_guest_interrupted(&build->guest, build->error);
}

static int agent_failed(struct build *build, int r, const struct warmbox_error *failure,
			const char *doing)
{
	return cli_guest_failed(&build->guest, r, failure, doing, build->error);
}

static int create_vm(struct build *build)
{
	int r = base_fd_memfd("warmbox-template", build->params->memory_bytes, &build->memory_fd);

	if (r < 0) {
		return base_error_set_errno(build->error, r, "cannot make the guest's memory");
	}
	return cli_guest_create(&build->guest, VMM_CREATE_SHARED, build->memory_fd,
				build->inputs.root_fd, NULL, NULL, build->error);
}

static int boot_vm(struct build *build)
{
	const int fds[] = { build->inputs.kernel_fd, build->inputs.initramfs_fd };
	int r;

	r = cli_vm_call(&build->guest.vm, VMM_OP_BOOT, NULL, build->inputs.cmdline, fds,
			ARRAY_SIZE(fds), CLI_GUEST_VMM_MS, NULL, build->error);
	if (r < 0) {
		return base_error_prefix(build->error, r, "kernel %s", build->params->kernel_path);
	}
	return cli_guest_tell(&build->guest, VMM_OP_RESUME, build->error);
}

/* One try. 0: build->guest.agent answers. -EAGAIN: not yet. */
static int try_agent(struct build *build, int timeout_ms)
{
	_cleanup_agent_ struct warmbox_agent *agent = NULL;
	struct warmbox_error failure;
	int stream, r;

	r = cli_vm_attach(&build->guest.vm, GUEST_AGENT_PORT, &stream, build->error);
	if (r < 0) {
		return r;
	}
	r = warmbox_agent_new(stream, &agent, &failure);
	if (r < 0) {
		return base_error_set(build->error, r, "%s", failure.text);
	}
	r = warmbox_agent_ping(agent, timeout_ms, NULL, &failure);
	if (r < 0 && failure.code != WARMBOX_DISCONNECTED && failure.code != WARMBOX_TIMEOUT) {
		return base_error_set(build->error, r, "the guest's agent: %s", failure.text);
	}
	if (r < 0) {
		return -EAGAIN;
	}
	build->guest.agent = TAKE_PTR(agent);
	return 0;
}

static int wait_for_agent(struct build *build)
{
	uint64_t deadline_ns =
		base_clock_monotonic_ns() + build->params->timeout_ms * NSEC_PER_MSEC;
	int ping_ms = PING_FIRST_MS;

	for (;;) {
		uint64_t started_ns = base_clock_monotonic_ns();
		int r;

		r = check_interrupted(build);
		r = r ?: cli_vm_check(&build->guest.vm, build->error);
		r = r ?: try_agent(build, ping_ms);
		if (r != -EAGAIN) {
			return r;
		}
		if (base_clock_monotonic_ns() > deadline_ns) {
			return base_error_set(build->error, -ETIMEDOUT,
					      "the guest's agent did not answer within %u s",
					      (unsigned)(build->params->timeout_ms / 1000));
		}
		if (base_clock_monotonic_ns() - started_ns > PING_FIRST_MS * NSEC_PER_MSEC / 2) {
			ping_ms = MIN(ping_ms * 2, PING_LAST_MS);
		}
		poll(NULL, 0, ATTACH_RETRY_MS);
	}
}

static int step_boot(struct build *build)
{
	uint64_t started_ns;
	int r;

	cli_monitor_step(build->monitor, CLI_BUILD_BOOT, NULL);
	r = create_vm(build);
	if (r < 0) {
		return r;
	}
	started_ns = base_clock_monotonic_ns();
	r = boot_vm(build);
	r = r ?: wait_for_agent(build);
	build->result->boot_ns = base_clock_monotonic_ns() - started_ns;
	return r;
}

/* The first word is enough to know a command by. */
static int run_warmup(struct build *build, char *const *argv)
{
	char doing[CLI_BUILD_LINE_MAX];

	snprintf(doing, sizeof(doing), "warm-up command '%s'", argv[0]);
	cli_monitor_step(build->monitor, CLI_BUILD_WARM, argv[0]);
	return cli_guest_exec(&build->guest, argv, doing, build->error);
}

static int step_warm(struct build *build)
{
	for (size_t i = 0; i < build->params->n_warmups; i++) {
		int r;

		r = check_interrupted(build);
		r = r ?: run_warmup(build, build->params->warmups[i]);
		if (r < 0) {
			return r;
		}
	}
	return 0;
}

/* Waits for the answer to request id, which says that the resident process is warm. */
static int wait_for_answer(struct build *build, uint32_t id, struct warmbox_error *failure)
{
	uint64_t deadline_ns =
		base_clock_monotonic_ns() + build->params->timeout_ms * NSEC_PER_MSEC;

	for (;;) {
		uint64_t now_ns = base_clock_monotonic_ns();
		struct warmbox_event event;
		int r;

		if (now_ns >= deadline_ns) {
			failure->code = WARMBOX_TIMEOUT;
			return -ETIMEDOUT;
		}
		r = warmbox_agent_next(build->guest.agent,
				       (int)((deadline_ns - now_ns) / NSEC_PER_MSEC) + 1, &event,
				       failure);
		if (r < 0 || *build->interrupted) {
			return r < 0 ? r : -EINTR;
		}
		if (r > 0 && event.id == id && event.kind == WARMBOX_EVENT_ANSWER) {
			return 0;
		}
		if (r > 0 && event.id == id && event.kind == WARMBOX_EVENT_ERROR) {
			*failure = event.failure;
			return -EIO;
		}
	}
}

static int step_resident(struct build *build)
{
	const struct warmbox_exec_params exec = {
		.argv = build->params->resident,
		.make_resident = true,
	};
	struct warmbox_error failure = {};
	uint32_t id;
	int r;

	if (!build->params->resident) {
		return 0;
	}
	cli_monitor_step(build->monitor, CLI_BUILD_RESIDENT, exec.argv[0]);
	r = warmbox_agent_exec(build->guest.agent, &exec, &id, &failure);
	r = r ?: wait_for_answer(build, id, &failure);
	return r < 0 ? agent_failed(build, r, &failure, "resident process") : 0;
}

/* Leaves the guest alone until it does nothing, or IDLE_WINDOWS_MAX windows have passed. */
static int wait_for_idle(struct build *build)
{
	clockid_t clock;

	if (clock_getcpuclockid(build->guest.vm.pid, &clock) != 0) {
		return base_error_set_errno(build->error, -ESRCH, "cannot watch the VMM");
	}
	for (int i = 0; i < IDLE_WINDOWS_MAX; i++) {
		uint64_t used_ns = base_clock_ns(clock);
		int r;

		poll(NULL, 0, IDLE_WINDOW_MS);
		r = check_interrupted(build);
		r = r ?: cli_vm_check(&build->guest.vm, build->error);
		if (r < 0) {
			return r;
		}
		if (base_clock_ns(clock) - used_ns <
		    IDLE_WINDOW_MS * NSEC_PER_MSEC * IDLE_PERCENT / 100) {
			return 0;
		}
	}
	return 0; /* a guest that is never idle can be frozen all the same */
}

/* Leaves the guest alone until it has given back what is free: the snapshot then does not store it,
 * and no sandbox starts with that work ahead. */
static int wait_for_reports(struct build *build)
{
	uint64_t before_bytes = UINT64_MAX;

	for (int i = 0; i < REPORT_WINDOWS_MAX; i++) {
		struct base_message reply;
		int r = cli_vm_call(&build->guest.vm, VMM_OP_COUNTERS, NULL, NULL, NULL, 0,
				    CLI_GUEST_VMM_MS, &reply, build->error);

		if (r < 0 || reply.arg[4] == before_bytes) {
			return r;
		}
		before_bytes = reply.arg[4];
		poll(NULL, 0, REPORT_WINDOW_MS);
		r = check_interrupted(build);
		if (r < 0) {
			return r;
		}
	}
	return 0; /* as with one that is never idle */
}

static int step_freeze(struct build *build, struct snapshot_writer *writer)
{
	int state_fd = snapshot_writer_state_fd(writer);
	struct warmbox_error failure;
	int r;

	cli_monitor_step(build->monitor, CLI_BUILD_FREEZE, NULL);
	cli_monitor_detail(build->monitor, "finishing what is under way");
	r = warmbox_agent_call(build->guest.agent, "quiesce", NULL, 0,
			       (int)build->params->timeout_ms, NULL, &failure);
	if (r < 0) {
		return agent_failed(build, r, &failure, "quiescing the guest");
	}
	warmbox_agent_free(TAKE_PTR(build->guest.agent));
	r = wait_for_idle(build);
	if (r == 0) {
		cli_monitor_detail(build->monitor, "taking back free memory");
		r = wait_for_reports(build);
	}
	if (r < 0) {
		return r;
	}
	cli_monitor_detail(build->monitor, "saving the state");
	r = cli_guest_tell(&build->guest, VMM_OP_PAUSE, build->error);
	r = r
		    ?: cli_vm_call(&build->guest.vm, VMM_OP_SAVE, NULL, NULL, &state_fd, 1,
				   CLI_GUEST_VMM_MS, NULL, build->error);
	if (r < 0) {
		return base_error_prefix(build->error, r, "freezing the guest");
	}
	cli_guest_stop(&build->guest);
	return 0;
}

static int step_record(struct build *build, struct snapshot_writer *writer)
{
	_cleanup_(uffd_recorder_freep) struct uffd_recorder *recorder = NULL;
	const struct cli_record_params params = {
		.build = build->params,
		.monitor = build->monitor,
		.interrupted = build->interrupted,
		.state_fd = snapshot_writer_state_fd(writer),
		.memory_fd = build->memory_fd,
		.root_fd = build->inputs.root_fd,
	};
	const uint32_t *pages;
	size_t n;
	int r;

	if (build->params->n_records == 0) {
		return 0;
	}
	cli_monitor_step(build->monitor, CLI_BUILD_RECORD, NULL);
	r = uffd_recorder_new(build->memory_fd, build->params->memory_bytes, &recorder,
			      build->error);
	r = r ?: cli_record(&params, recorder, build->error);
	if (r < 0) {
		return r;
	}
	pages = uffd_recorder_pages(recorder, &n);
	return snapshot_writer_working_set(writer, pages, n, build->error);
}

static void count_stored(void *userdata, uint64_t done_bytes, uint64_t total_bytes)
{
	cli_monitor_bytes(userdata, done_bytes, total_bytes);
}

static int step_store(struct build *build, struct snapshot_writer *writer)
{
	const struct cli_build_params *params = build->params;
	struct snapshot_manifest *manifest = &build->result->manifest;
	int r;

	*manifest = (struct snapshot_manifest){
		.host_kind = build->inputs.host_kind,
		.host_fingerprint = build->inputs.host_fingerprint,
		.memory_bytes = params->memory_bytes,
		.n_vcpus = params->n_vcpus,
		.guest_cid = CLI_BUILD_GUEST_CID,
		.n_disks = 1,
		.has_resident = params->resident != NULL,
	};
	snprintf(manifest->template_name, sizeof(manifest->template_name), "%s", params->name);
	snprintf(manifest->cmdline, sizeof(manifest->cmdline), "%s", build->inputs.cmdline);
	memcpy(manifest->kernel_digest, build->inputs.kernel_digest,
	       sizeof(manifest->kernel_digest));

	cli_monitor_step(build->monitor, CLI_BUILD_STORE, NULL);
	cli_monitor_detail(build->monitor, "memory");
	r = snapshot_writer_memory(writer, build->memory_fd, params->memory_bytes, 0, count_stored,
				   build->monitor, build->error);
	r = r ?: check_interrupted(build);
	if (r < 0) {
		return r;
	}
	cli_monitor_bytes(build->monitor, 0, 0);
	cli_monitor_detail(build->monitor, "root image");
	r = snapshot_store_add_image(build->store, build->inputs.root_fd, &manifest->disks[0],
				     build->error);
	r = r ?: cli_build_inputs_unchanged(&build->inputs, params, build->error);
	r = r ?: check_interrupted(build);
	if (r < 0) {
		return r;
	}
	cli_monitor_detail(build->monitor, "publishing");
	return snapshot_writer_publish(writer, manifest, build->error);
}

static int step_check(struct build *build)
{
	cli_monitor_step(build->monitor, CLI_BUILD_CHECK, NULL);
	return cli_build_inputs_open(&build->inputs, build->params, BASE_CMDLINE, build->error);
}

static int run_steps(struct build *build)
{
	_cleanup_(snapshot_writer_freep) struct snapshot_writer *writer = NULL;
	int r;

	r = step_check(build);
	r = r ?: check_interrupted(build);
	r = r ?: snapshot_writer_new(build->store, &writer, build->error);
	r = r ?: step_boot(build);
	r = r ?: step_warm(build);
	r = r ?: step_resident(build);
	r = r ?: step_freeze(build, writer);
	r = r ?: step_record(build, writer);
	r = r ?: step_store(build, writer);
	return r;
}

int cli_template_build(struct snapshot_store *store, const struct cli_build_params *params,
		       const volatile sig_atomic_t *interrupted, cli_build_progress_fn progress,
		       void *userdata, struct cli_build_result *ret_result,
		       struct base_error *error)
{
	_cleanup_(cli_monitor_freep) struct cli_monitor *monitor = NULL;
	struct base_error reason = {};
	struct build build = {
		.store = store,
		.params = params,
		.interrupted = interrupted,
		.inputs = CLI_BUILD_INPUTS_NONE,
		.memory_fd = -1,
		.guest = { .interrupted = interrupted, .params = params, .vm = CLI_VM_NONE },
		.result = ret_result,
		.error = &reason,
	};
	int r;

	*ret_result = (struct cli_build_result){};
	r = cli_monitor_new(progress, userdata, interrupted, &monitor);
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot watch the build");
	}
	build.monitor = build.guest.monitor = monitor;
	r = run_steps(&build);
	cli_guest_stop(&build.guest);
	cli_build_inputs_close(&build.inputs);
	base_fd_close(build.memory_fd);
	ret_result->total_ns = cli_monitor_elapsed_ns(monitor);
	if (r == 0) {
		cli_monitor_step(monitor, CLI_BUILD_DONE, NULL);
		return 0;
	}
	if (*interrupted) {
		return base_error_set(error, -EINTR, "interrupted");
	}
	cli_monitor_tail(monitor, ret_result->console);
	return base_error_set(error, r, "%s", reason.text[0] ? reason.text : strerror(-r));
}
