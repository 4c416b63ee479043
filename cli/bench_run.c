/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runs one bench program and makes a result of what it printed.
 *
 * The program gets a daemon of its own, fresh, unless one was named: nothing is left over from the
 * program before. Its standard output is one JSON object. Its standard error goes to the terminal,
 * if there is one, and its last line is the reason when it fails. A program that fails in any way
 * still gives a result, which says so. Main thread.
 */

#include "cli/bench.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX_BYTES MIB(64)
#define LINE_BYTES	 512
#define ARGS_MAX	 24
#define STATUS_SKIPPED	 77
#define COMMAND_BYTES	 1024

struct child {
	pid_t pid;
	int out, err;
	struct base_writer output;
	char line[LINE_BYTES]; /* the last of standard error that was not empty */
	char next[LINE_BYTES]; /* the one that is being read */
	size_t next_size;
	bool too_much;
};

static int start(struct child *child, char *const argv[])
{
	int out[2] = { -1, -1 }, err[2] = { -1, -1 };
	pid_t parent = getpid();

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0) {
		return -errno;
	}
	fflush(NULL);
	child->pid = fork();
	if (child->pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent && dup2(out[1], STDOUT_FILENO) >= 0 &&
		    dup2(err[1], STDERR_FILENO) >= 0) {
			execv(argv[0], argv);
			dprintf(STDERR_FILENO, "cannot execute %s: %s\n", argv[0], strerror(errno));
		}
		_exit(127);
	}
	close(out[1]);
	close(err[1]);
	child->out = out[0];
	child->err = err[0];
	return child->pid < 0 ? -errno : 0;
}

static void keep_line(struct child *child, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (data[i] == '\n' || data[i] == '\r') {
			if (child->next_size > 0) {
				memcpy(child->line, child->next, child->next_size);
				child->line[child->next_size] = '\0';
			}
			child->next_size = 0;
		} else if (child->next_size < LINE_BYTES - 1) {
			child->next[child->next_size++] = data[i];
		}
	}
}

/* 0 at the end of the stream. */
static ssize_t take(struct child *child, int fd, bool is_error)
{
	char data[16384];
	ssize_t n = read(fd, data, sizeof(data));

	if (n > 0 && is_error) {
		keep_line(child, data, (size_t)n);
		if (isatty(STDERR_FILENO)) {
			fwrite(data, 1, (size_t)n, stderr);
		}
	} else if (n > 0 && child->output.size + (size_t)n <= OUTPUT_MAX_BYTES) {
		base_writer_bytes(&child->output, data, (size_t)n);
	} else if (n > 0) {
		child->too_much = true;
	}
	return n < 0 && (errno == EINTR || errno == EAGAIN) ? 1 : n;
}

/* Reads both streams to their end and returns the wait status. */
static int wait_child(struct child *child, volatile sig_atomic_t *caught)
{
	struct pollfd polls[2] = {
		{ .fd = child->out, .events = POLLIN },
		{ .fd = child->err, .events = POLLIN },
	};
	int status = 0;

	while (polls[0].fd >= 0 || polls[1].fd >= 0) {
		if (poll(polls, 2, 200) < 0 && errno != EINTR) {
			break;
		}
		if (*caught) {
			kill(child->pid, SIGKILL);
			break;
		}
		for (int i = 0; i < 2; i++) {
			if (polls[i].fd >= 0 && polls[i].revents &&
			    take(child, polls[i].fd, i == 1) <= 0) {
				polls[i].fd = -1;
			}
		}
	}
	close(child->out);
	close(child->err);
	while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
	}
	return status;
}

/* --- what came out --- */

static json_t *failed(const struct cli_bench_job *job, const char *reason)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "bench", job->kind->name, "title",
			 job->kind->question, "status", "failed", "reason", reason);
}

static json_t *make_result(const struct cli_bench_job *job, const struct child *child, int status)
{
	char reason[LINE_BYTES + 64];
	json_t *result = NULL;
	bool done = WIFEXITED(status) &&
		    (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == STATUS_SKIPPED);

	if (WIFSIGNALED(status)) {
		snprintf(reason, sizeof(reason), "killed by signal %d: %s", WTERMSIG(status),
			 child->line);
		return failed(job, reason);
	}
	if (!done) {
		return failed(job, child->line[0] ? child->line : "it failed without a word");
	}
	if (!child->too_much) {
		result = json_loadb((const char *)child->output.data, child->output.size, 0, NULL);
	}
	if (!json_is_object(result)) {
		json_decref(result);
		return failed(job, "it printed something that is not its report");
	}
	if (json_object_get(result, "skipped")) {
		json_object_set(result, "reason", json_object_get(result, "skipped"));
		json_object_del(result, "skipped");
	}
	json_object_set_new(result, "status",
			    json_string(WEXITSTATUS(status) == 0 ? "measured" : "skipped"));
	return result;
}

/* --- the command line of the program --- */

struct arguments {
	char *argv[ARGS_MAX + 1];
	size_t n;
};

static void add(struct arguments *arguments, const char *option, const char *value)
{
	if (arguments->n + 2 <= ARGS_MAX) {
		arguments->argv[arguments->n++] = (char *)option;
		if (value) {
			arguments->argv[arguments->n++] = (char *)value;
		}
	}
}

static void fill_arguments(struct arguments *arguments, const char *program,
			   const struct cli_bench_options *options, const struct cli_bench_job *job,
			   const char *socket)
{
	unsigned flags = job->kind->flags;

	add(arguments, program, NULL);
	if (flags & CLI_BENCH_DAEMON) {
		add(arguments, "--socket", socket);
		add(arguments, "--template", job->template_name ?: CLI_BENCH_TINY);
	}
	if ((flags & CLI_BENCH_STORE) && job->template_name) {
		add(arguments, "--store", options->store);
		add(arguments, "--template", job->template_name);
	}
	if (options->quick) {
		add(arguments, "--quick", NULL);
	}
	if ((flags & CLI_BENCH_PIN) && !options->socket) {
		add(arguments, "--pin", NULL);
	}
	if ((flags & CLI_BENCH_ECHO) && !job->template_name) {
		add(arguments, "--echo", NULL);
	}
	if ((flags & CLI_BENCH_COUNT) && options->count) {
		add(arguments, "--count", options->count);
	}
	if ((flags & CLI_BENCH_SECONDS) && options->seconds) {
		add(arguments, "--seconds", options->seconds);
	}
	if ((flags & CLI_BENCH_SECONDS) && options->load) {
		add(arguments, "--load", options->load);
	}
	if ((flags & CLI_BENCH_EVAL) && options->code) {
		add(arguments, "--eval", options->code);
	}
}

/* What makes just this result again. */
static void add_command(json_t *result, const struct cli_bench_options *options,
			const struct cli_bench_job *job)
{
	const struct {
		const char *option, *value;
		unsigned flag;
	} values[] = {
		{ "--count", options->count, CLI_BENCH_COUNT },
		{ "--seconds", options->seconds, CLI_BENCH_SECONDS },
		{ "--load", options->load, CLI_BENCH_SECONDS },
		{ "--eval", options->code, CLI_BENCH_EVAL },
		{ "--socket", options->socket, CLI_BENCH_DAEMON },
	};
	char text[COMMAND_BYTES];
	size_t n = (size_t)snprintf(text, sizeof(text), "warmbox bench %s%s%s%s", job->kind->name,
				    job->template_name ? "@" : "", job->template_name ?: "",
				    options->quick ? " --quick" : "");

	for (size_t i = 0; i < ARRAY_SIZE(values) && n < sizeof(text); i++) {
		if (values[i].value && (job->kind->flags & values[i].flag)) {
			n += (size_t)snprintf(text + n, sizeof(text) - n, " %s '%s'",
					      values[i].option, values[i].value);
		}
	}
	json_object_set_new(result, "command", json_string(text));
}

static json_t *run_with(const struct cli_bench_options *options, const struct cli_bench_job *job,
			const char *socket, volatile sig_atomic_t *caught)
{
	char name[64];
	_cleanup_free_ char *program = NULL;
	struct arguments arguments = { .n = 0 };
	struct child child = { .pid = -1 };
	json_t *result;
	int r;

	snprintf(name, sizeof(name), "bench-%s", job->kind->name);
	program = cli_bench_program("bench", name, CLI_LIBEXEC_PATH);
	fill_arguments(&arguments, program ?: name, options, job, socket);
	r = start(&child, arguments.argv);
	if (r < 0) {
		return failed(job, strerror(-r));
	}
	result = make_result(job, &child, wait_child(&child, caught));
	base_writer_deinit(&child.output);
	return result;
}

json_t *cli_bench_run(const struct cli_bench_options *options, const struct cli_bench_job *job,
		      volatile sig_atomic_t *caught)
{
	struct cli_bench_daemon daemon = { .pid = 0 };
	uint64_t start_ns = base_clock_monotonic_ns();
	bool needs_own = (job->kind->flags & CLI_BENCH_DAEMON) && !options->socket;
	struct base_error error = { 0 };
	json_t *result;

	if (needs_own && cli_bench_daemon_start(&daemon, job->template_name ? options->store : NULL,
						&error) < 0) {
		result = failed(job, error.text);
	} else {
		result = run_with(options, job, options->socket ?: daemon.socket, caught);
	}
	cli_bench_daemon_stop(&daemon);
	json_object_set_new(result, "template",
			    !(job->kind->flags & (CLI_BENCH_DAEMON | CLI_BENCH_STORE))
				    ? json_null()
				    : json_string(job->template_name ?: "tiny guest"));
	json_object_set_new(result, "seconds",
			    json_real((double)(base_clock_monotonic_ns() - start_ns) / 1e9));
	add_command(result, options, job);
	return result;
}
