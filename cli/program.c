/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runs one program in a sandbox.
 *
 * The client library moves the bytes; here they are written out, or kept for --json. When nobody
 * reads our output any more the program is given up and the status is that of SIGPIPE. A signal
 * ends the wait inside the library, which then asks interrupt() what to do; outside of waits they
 * are blocked, and stay so afterwards: what is left to do is short. Main thread only.
 */

#include "cli/program.h"

#include "base/bytes.h"
#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* The daemon hears of a VMM's end at about the same time as we do. */
#define CAUSE_TRIES    5
#define CAUSE_RETRY_MS 50

struct run {
	const struct cli *cli;
	volatile sig_atomic_t *caught;
	int first_signal;	     /* 0: none yet */
	struct base_writer out, err; /* with --json */
	bool truncated;
};

static int give_output(struct run *run, int fd, struct base_writer *kept, const void *data,
		       size_t size)
{
	if (!run->cli->json) {
		return base_fd_write_full(fd, data, size);
	}
	if (kept->size + size > CLI_CAPTURE_MAX) {
		size = CLI_CAPTURE_MAX - kept->size;
		run->truncated = true;
	}
	base_writer_bytes(kept, data, size);
	return base_writer_result(kept);
}

static int give_stdout(void *userdata, const void *data, size_t size)
{
	struct run *run = userdata;

	return give_output(run, STDOUT_FILENO, &run->out, data, size);
}

static int give_stderr(void *userdata, const void *data, size_t size)
{
	struct run *run = userdata;

	return give_output(run, STDERR_FILENO, &run->err, data, size);
}

static int interrupt(void *userdata, struct warmbox_agent *agent, uint32_t id)
{
	struct run *run = userdata;
	int signal = *run->caught;

	*run->caught = 0;
	if (signal == 0) {
		return 0; /* some other signal, such as SIGCONT */
	}
	if (run->first_signal) {
		return -EINTR;
	}
	run->first_signal = signal;
	return warmbox_agent_kill(agent, id, signal, NULL, NULL);
}

/* Text where it is text; base64 is left to tools: bytes that are not UTF-8 become U+FFFD. */
static json_t *output_json(const struct base_writer *kept)
{
	json_t *text = json_stringn((const char *)kept->data, kept->size);
	_cleanup_writer_ struct base_writer clean = {};
	size_t i = 0;

	if (text || kept->size == 0) {
		return text ? text : json_string("");
	}
	while (i < kept->size) {
		size_t left = kept->size - i, length = 1;
		json_t *one = NULL;

		for (length = 1; length <= MIN(left, (size_t)4); length++) {
			one = json_stringn((const char *)kept->data + i, length);
			if (one) {
				break;
			}
		}
		if (one) {
			base_writer_bytes(&clean, kept->data + i, length);
			json_decref(one);
			i += length;
		} else {
			base_writer_bytes(&clean, "\xef\xbf\xbd", 3);
			i++;
		}
	}
	return json_stringn((const char *)clean.data, clean.size);
}

static void add_result(const struct run *run, const struct cli_program *program, int status,
		       const struct warmbox_exit *exit)
{
	json_t *result = program->result;

	json_object_set_new(result, "exit_status", json_integer(status));
	json_object_set_new(result, "signal",
			    exit->signaled ? json_integer(exit->signal) : json_null());
	json_object_set_new(result, "stdout", output_json(&run->out));
	json_object_set_new(result, "stderr", output_json(&run->err));
	json_object_set_new(result, "truncated", json_boolean(run->truncated));
}

/* Why the lease ended, once the daemon knows; false when it goes on. */
static bool find_cause(const struct cli_program *program, struct warmbox_lease *ret_lease)
{
	for (int i = 0; program->connection && i < CAUSE_TRIES; i++) {
		if (warmbox_get(program->connection, program->lease_id, ret_lease, NULL) < 0) {
			return false;
		}
		if (!ret_lease->active) {
			return true;
		}
		poll(NULL, 0, CAUSE_RETRY_MS);
	}
	return false;
}

static int failed(const struct run *run, const struct cli_program *program, int r,
		  const struct warmbox_error *error)
{
	struct warmbox_lease lease;
	char text[128];

	if (r == -EINTR) {
		fprintf(stderr, "warmbox %s: interrupted\n", run->cli->command);
		return CLI_EXIT_SIGNAL + run->first_signal;
	}
	if (r == -EPIPE && error->code == WARMBOX_LOCAL) {
		return CLI_EXIT_SIGNAL + SIGPIPE;
	}
	if (error->code == WARMBOX_TIMEOUT) {
		char limit[CLI_FORMAT_MAX];

		snprintf(text, sizeof(text), "the program was stopped after %s (--timeout)",
			 cli_format_duration(limit, program->timeout_ms * NSEC_PER_MSEC));
		cli_print_error(run->cli, "timeout", text, NULL);
		return CLI_EXIT_TIMEOUT;
	}
	if (error->code == WARMBOX_DISCONNECTED && find_cause(program, &lease)) {
		snprintf(text, sizeof(text), "the sandbox ended under the program: %s",
			 lease.cause);
		cli_print_error(run->cli, lease.cause, text, NULL);
		return CLI_EXIT_WARMBOX;
	}
	if (!program->exec && error->code == WARMBOX_NOT_FOUND) {
		cli_print_error(
			run->cli, "not_found",
			"the template has no resident process to evaluate code",
			"Build it with --resident, or use: warmbox run TEMPLATE -- COMMAND");
		return CLI_EXIT_WARMBOX;
	}
	return cli_remote_failed(
		run->cli, NULL, NULL, error,
		program->exec && error->code == WARMBOX_NOT_FOUND ? CLI_EXIT_NOT_FOUND
		: program->exec && error->code == WARMBOX_FAILED  ? CLI_EXIT_NOT_EXECUTABLE
								  : CLI_EXIT_WARMBOX);
}

int cli_program_run(const struct cli *cli, struct warmbox_agent *agent,
		    const struct cli_program *program)
{
	struct run run = { .cli = cli, .caught = cli_signals_catch() };
	sigset_t unblocked;
	const struct warmbox_stdio stdio = {
		.userdata = &run,
		.on_stdout = give_stdout,
		.on_stderr = give_stderr,
		.stdin_fd = program->stdin_fd,
		.on_interrupt = interrupt,
		.wait_mask = &unblocked,
	};
	struct warmbox_error error = {};
	struct warmbox_exit exit = {};
	uint32_t id;
	int r, status;

	/* They come only while the library waits, and are then not missed. */
	cli_signals_block(&unblocked);
	r = program->exec ? warmbox_agent_exec(agent, program->exec, &id, &error)
			  : warmbox_agent_resident(agent, &id, &error);
	if (r == 0) {
		r = warmbox_agent_run(agent, id,
				      program->timeout_ms ? (int)program->timeout_ms : -1, &stdio,
				      &exit, &error);
	}
	if (r < 0) {
		status = failed(&run, program, r, &error);
	} else {
		status = exit.signaled ? CLI_EXIT_SIGNAL + exit.signal : exit.code;
		if (program->result) {
			add_result(&run, program, status, &exit);
		}
	}
	base_writer_deinit(&run.out);
	base_writer_deinit(&run.err);
	return status;
}

int cli_program_env(const struct cli *cli, struct cli_program_options *options, char *text)
{
	const char *equals = strchr(text, '=');

	if (!equals || equals == text) {
		cli_usage_error(cli, "--env must be KEY=VALUE, not '%s'", text);
		return -EINVAL;
	}
	if (options->n_env == CLI_ENVIRONMENT_MAX) {
		cli_usage_error(cli, "--env may be given at most %d times", CLI_ENVIRONMENT_MAX);
		return -E2BIG;
	}
	options->env[options->n_env++] = text;
	return 0;
}
