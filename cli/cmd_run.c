/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox run` and `warmbox eval`: a fresh sandbox for one program, `warmbox exec`: a program in a
 * sandbox that was acquired before.
 *
 * run and eval bind the lease to their connection: however this program ends, the sandbox ends with
 * it. The release at the end is only so that the daemon knows why.
 */

#include "cli/program.h"

#include "base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 30000
#define TIMEOUT_MAX_MS	   (24 * 3600 * UINT64_C(1000))

#define STATUS_HELP                                                                         \
	"Exit status: the program's, 128 + n if signal n killed it, 124 after --timeout,\n" \
	"125 if warmbox failed, 126 if the program cannot be executed, 127 if there is none.\n"

static const char run_help[] =
	"Usage: warmbox run TEMPLATE [options] -- COMMAND [ARGUMENT...]\n"
	"\n"
	"Runs a command in a fresh sandbox, passes its output and exit status on, and destroys\n"
	"the sandbox.\n"
	"\n"
	"  -i, --stdin        the command gets this program's standard input (else /dev/null)\n"
	"  -e, --env KEY=VAL  one more environment variable\n"
	"  -w, --cwd DIR      working directory in the sandbox (/)\n"
	"  --timeout TIME     stop the command after this time\n"
	"  --wait TIME        for a sandbox, when none is ready (the daemon's default)\n"
	"  --label KEY=VAL    put a label on the lease, for warmbox ps\n"
	"  --socket PATH      of the daemon\n"
	"  --json             one object with output, exit status and timings, at the end\n"
	"\n" STATUS_HELP;

static const char eval_help[] =
	"Usage: warmbox eval TEMPLATE CODE [options]\n"
	"       warmbox eval TEMPLATE - < FILE\n"
	"\n"
	"Gives code to the interpreter that waits in a fresh sandbox (the template's resident\n"
	"process), passes its output and exit status on, and destroys the sandbox.\n"
	"\n"
	"  --timeout TIME   stop it after this time\n"
	"  --wait TIME      for a sandbox, when none is ready (the daemon's default)\n"
	"  --label KEY=VAL  put a label on the lease, for warmbox ps\n"
	"  --socket PATH    of the daemon\n"
	"  --json           one object with output, exit status and timings, at the end\n"
	"\n" STATUS_HELP;

static const char exec_help[] =
	"Usage: warmbox exec LEASE [options] -- COMMAND [ARGUMENT...]\n"
	"\n"
	"Runs a command in a sandbox that was acquired before (warmbox acquire).\n"
	"\n"
	"  -i, --stdin        the command gets this program's standard input (else /dev/null)\n"
	"  -e, --env KEY=VAL  one more environment variable\n"
	"  -w, --cwd DIR      working directory in the sandbox (/)\n"
	"  --timeout TIME     stop the command after this time\n"
	"  --socket PATH      of the daemon\n"
	"  --json             one object with output and exit status, at the end\n"
	"\n" STATUS_HELP;

enum { OPTION_TIMEOUT = CLI_OPTION_FIRST_OWN, OPTION_WAIT, OPTION_LABEL };

#define PROGRAM_OPTIONS                                                               \
	{ "stdin", no_argument, NULL, 'i' }, { "env", required_argument, NULL, 'e' }, \
	{                                                                             \
		"cwd", required_argument, NULL, 'w'                                   \
	}

#define ACQUIRE_OPTIONS                                        \
	{ "wait", required_argument, NULL, OPTION_WAIT },      \
	{                                                      \
		"label", required_argument, NULL, OPTION_LABEL \
	}

static const struct option run_options[] = {
	PROGRAM_OPTIONS,
	ACQUIRE_OPTIONS,
	{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
	CLI_COMMON_OPTIONS,
};

static const struct option eval_options[] = {
	ACQUIRE_OPTIONS,
	{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
	CLI_COMMON_OPTIONS,
};

static const struct option exec_options[] = {
	PROGRAM_OPTIONS,
	{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
	CLI_COMMON_OPTIONS,
};

static int parse_timeout(const struct cli *cli, uint64_t *ret_ms)
{
	int r = cli_parse_duration(cli, "--timeout", optarg, ret_ms);

	if (r == 0 && (*ret_ms == 0 || *ret_ms > TIMEOUT_MAX_MS)) {
		cli_usage_error(cli, "--timeout must be more than 0 and at most 24h");
		return -ERANGE;
	}
	return r;
}

static int parse_option(const struct cli *cli, int option, struct cli_program_options *program,
			struct cli_acquire *acquire)
{
	switch (option) {
	case 'i':
		program->want_stdin = true;
		return 0;
	case 'e':
		return cli_program_env(cli, program, optarg);
	case 'w':
		program->cwd = optarg;
		return 0;
	case OPTION_TIMEOUT:
		return parse_timeout(cli, &program->timeout_ms);
	case OPTION_WAIT:
		return cli_acquire_wait(cli, acquire, optarg);
	case OPTION_LABEL:
		return cli_acquire_label(cli, acquire, optarg);
	default:
		return 0;
	}
}

/*
 * Options may stand before and after the operand (a template or lease), up to "--" or the next
 * operand. *ret_operand is NULL when there is none; optind is then at what follows.
 */
static int parse(struct cli *cli, int argc, char **argv, const char *short_options,
		 const struct option *options, const char *help,
		 struct cli_program_options *program, struct cli_acquire *acquire,
		 const char **ret_operand, int *ret_status)
{
	*ret_operand = NULL;
	for (;;) {
		int option =
			cli_option_next(cli, argc, argv, short_options, options, help, ret_status);

		if (option == '?') {
			return -EINVAL;
		}
		if (option == -1) {
			bool dashes = optind > 1 && strcmp(argv[optind - 1], "--") == 0;

			if (dashes || *ret_operand || optind == argc) {
				return 0;
			}
			*ret_operand = argv[optind++];
			continue;
		}
		if (parse_option(cli, option, program, acquire) < 0) {
			*ret_status = CLI_EXIT_USAGE;
			return -EINVAL;
		}
	}
}

/* Acquires, runs, releases. */
static int run_in_fresh(struct cli *cli, const char *template_name, struct cli_acquire *acquire,
			struct cli_program *program)
{
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	_cleanup_agent_ struct warmbox_agent *agent = NULL;
	struct warmbox_error error = {};
	struct warmbox_lease lease, latest;
	int r, status, stream = -1;

	cli_signals_exit();
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_WARMBOX;
	}
	acquire->params.template_name = template_name;
	acquire->params.bind = true;
	acquire->params.labels = acquire->labels;
	r = warmbox_acquire(connection, &acquire->params, &lease, &stream, &error);
	if (r < 0) {
		return cli_remote_failed(cli, connection, template_name, &error, CLI_EXIT_WARMBOX);
	}
	r = warmbox_agent_new(stream, &agent, &error);
	if (r < 0) {
		return cli_remote_failed(cli, NULL, NULL, &error, CLI_EXIT_WARMBOX);
	}
	program->connection = connection;
	program->lease_id = lease.id;
	if (cli->json) {
		program->result = json_object();
	}
	status = cli_program_run(cli, agent, program);
	if (program->result) {
		/* Asked for afterwards: now the first entry into the guest is known as well. */
		latest = lease;
		warmbox_get(connection, lease.id, &latest, NULL);
		if (json_object_size(program->result) > 0) {
			json_object_set_new(program->result, "lease", cli_json_from_lease(&latest));
			cli_print_json(program->result);
		} else {
			json_decref(program->result);
		}
	}
	/* The connection's end would do as well; this way the cause is "released". */
	warmbox_release(connection, lease.id, lease.token, NULL);
	return status;
}

int cli_run_main(struct cli *cli, int argc, char **argv)
{
	struct cli_program_options options = {};
	struct cli_acquire acquire = {};
	const char *template_name;
	int status;

	if (parse(cli, argc, argv, "+:ie:w:", run_options, run_help, &options, &acquire,
		  &template_name, &status) < 0) {
		return status;
	}
	if (!template_name) {
		return cli_usage_error(cli, "which TEMPLATE shall the sandbox be made from?");
	}
	if (optind == argc) {
		return cli_usage_error(cli, "which COMMAND shall run? Put it behind --");
	}

	const struct warmbox_exec_params exec = {
		.argv = argv + optind,
		.env = options.n_env ? options.env : NULL,
		.cwd = options.cwd,
		.want_stdin = options.want_stdin,
	};
	struct cli_program program = {
		.exec = &exec,
		.stdin_fd = options.want_stdin ? STDIN_FILENO : -1,
		.timeout_ms = options.timeout_ms,
	};

	return run_in_fresh(cli, template_name, &acquire, &program);
}

/* Code that is an operand is sent like a file, by whoever sends files. */
static int code_to_fd(const char *code, int *ret_fd)
{
	_cleanup_fd_ int fd = memfd_create("warmbox-code", MFD_CLOEXEC);
	int r;

	if (fd < 0) {
		return -errno;
	}
	r = base_fd_pwrite_full(fd, code, strlen(code), 0);
	if (r < 0) {
		return r;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int cli_eval_main(struct cli *cli, int argc, char **argv)
{
	struct cli_program_options options = {};
	struct cli_program program = { .stdin_fd = STDIN_FILENO };
	struct cli_acquire acquire = {};
	_cleanup_fd_ int code_fd = -1;
	int option, status;

	while ((option = cli_option_next(cli, argc, argv, ":", eval_options, eval_help, &status)) !=
	       -1) {
		if (option == '?') {
			return status;
		}
		if (parse_option(cli, option, &options, &acquire) < 0) {
			return CLI_EXIT_USAGE;
		}
	}
	if (argc - optind != 2) {
		return cli_usage_error(cli, "two operands are needed: a TEMPLATE and the CODE (or "
					    "'-' for standard input)");
	}
	program.timeout_ms = options.timeout_ms;
	if (strcmp(argv[optind + 1], "-") != 0) {
		if (code_to_fd(argv[optind + 1], &code_fd) < 0) {
			cli_print_error(cli, "local", "cannot keep the code", NULL);
			return CLI_EXIT_WARMBOX;
		}
		program.stdin_fd = code_fd;
	}
	return run_in_fresh(cli, argv[optind], &acquire, &program);
}

static int connect_lease(struct cli *cli, struct warmbox_connection *connection, const char *id,
			 struct warmbox_agent **ret_agent)
{
	struct warmbox_error error = {};
	struct warmbox_lease lease;
	char text[128];
	int r;

	r = warmbox_get(connection, id, &lease, &error);
	if (r == 0 && !lease.active) {
		snprintf(text, sizeof(text), "the lease %.32s has ended: %s", lease.id,
			 lease.cause);
		cli_print_error(cli, "not_found", text, "To see those that have not: warmbox ps");
		return -ENOENT;
	}
	if (r == 0 && !lease.socket[0]) {
		cli_print_error(cli, "permission_denied",
				"the daemon cannot give this user the sandbox's socket",
				"It must run as root for that, or as this user.");
		return -EACCES;
	}
	r = r ?: warmbox_agent_connect(lease.socket, CONNECT_TIMEOUT_MS, ret_agent, &error);
	if (r < 0) {
		cli_remote_failed(cli, NULL, NULL, &error, r);
	}
	return r;
}

int cli_exec_main(struct cli *cli, int argc, char **argv)
{
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	_cleanup_agent_ struct warmbox_agent *agent = NULL;
	struct cli_program_options options = {};
	struct cli_acquire unused = {};
	const char *operand;
	char lease[WARMBOX_ID_LENGTH + 1];
	int status;

	if (parse(cli, argc, argv, "+:ie:w:", exec_options, exec_help, &options, &unused, &operand,
		  &status) < 0) {
		return status;
	}
	if (!operand) {
		return cli_usage_error(cli, "which LEASE? See: warmbox ps");
	}
	/* The token is not needed: the socket is this user's, or it is not. */
	cli_lease_token(operand, lease);
	if (optind == argc) {
		return cli_usage_error(cli, "which COMMAND shall run? Put it behind --");
	}
	cli_signals_exit();
	if (cli_remote_connect(cli, &connection) < 0 ||
	    connect_lease(cli, connection, lease, &agent) < 0) {
		return CLI_EXIT_WARMBOX;
	}

	const struct warmbox_exec_params exec = {
		.argv = argv + optind,
		.env = options.n_env ? options.env : NULL,
		.cwd = options.cwd,
		.want_stdin = options.want_stdin,
	};
	const struct cli_program program = {
		.exec = &exec,
		.stdin_fd = options.want_stdin ? STDIN_FILENO : -1,
		.timeout_ms = options.timeout_ms,
		.result = cli->json ? json_object() : NULL,
		.connection = connection,
		.lease_id = lease,
	};

	status = cli_program_run(cli, agent, &program);
	if (program.result && json_object_size(program.result) > 0) {
		cli_print_json(program.result);
	} else {
		json_decref(program.result);
	}
	return status;
}
