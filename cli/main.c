/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox: the command line. Finds the subcommand and lets it do the rest.
 */

#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
	"Usage: warmbox [--json] [--socket PATH] COMMAND ...\n"
	"\n"
	"Runs code in microVMs that have booted already; each is used once.\n"
	"\n"
	"Templates:\n"
	"  template build     boot, warm up and freeze a guest\n"
	"  template list      what there is; also: inspect, verify, remove\n"
	"\n"
	"Running (needs the daemon, warmboxd):\n"
	"  run TEMPLATE -- COMMAND...   run a command in a fresh sandbox\n"
	"  eval TEMPLATE CODE           run code in the sandbox's waiting interpreter\n"
	"  acquire TEMPLATE             take a sandbox and keep it\n"
	"  exec LEASE -- COMMAND...     run a command in a sandbox that was acquired\n"
	"  release LEASE                give it back; it is destroyed\n"
	"  renew LEASE --ttl TIME       let it last so much longer\n"
	"  ps                           sandboxes that are in use\n"
	"\n"
	"Looking after it:\n"
	"  pool [TEMPLATE]    how many sandboxes are ready; change it with --set N\n"
	"  stats, health      of the daemon\n"
	"  bench              how fast, how dense, how steady; writes a report\n"
	"  doctor             is this machine fit, and if not, what to do\n"
	"  version, help\n"
	"\n"
	"warmbox COMMAND --help says more. Everything takes --json.\n";

static int help_main(struct cli *cli, int argc, char **argv)
{
	printf("%s", help);
	return 0;
}

static int version_main(struct cli *cli, int argc, char **argv)
{
	if (cli->json || (argc > 1 && strcmp(argv[1], "--json") == 0)) {
		cli_print_json(json_pack("{s:s}", "version", CLI_VERSION));
	} else {
		printf("warmbox %s\n", CLI_VERSION);
	}
	return 0;
}

static const struct {
	const char *name;
	int (*fn)(struct cli *cli, int argc, char **argv);
} commands[] = {
	{ "acquire", cli_acquire_main }, { "bench", cli_bench_main },
	{ "doctor", cli_doctor_main },	 { "eval", cli_eval_main },
	{ "exec", cli_exec_main },	 { "health", cli_health_main },
	{ "help", help_main },		 { "pool", cli_pool_main },
	{ "ps", cli_ps_main },		 { "release", cli_release_main },
	{ "renew", cli_renew_main },	 { "run", cli_run_main },
	{ "stats", cli_stats_main },	 { "template", cli_template_main },
	{ "version", version_main },
};

static int find_and_run(struct cli *cli, int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[0], commands[i].name) == 0) {
			cli->command = commands[i].name;
			cli_option_reset();
			return commands[i].fn(cli, argc, argv);
		}
	}
	fprintf(stderr, "warmbox: there is no command '%s'\n  See: warmbox help\n", argv[0]);
	return CLI_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "version", no_argument, NULL, 'V' },
		CLI_COMMON_OPTIONS,
	};
	struct cli cli = { .command = "help", .socket_path = cli_socket_path() };
	int option, status;

	/* A broken pipe is an error like any other: what was begun is also ended. */
	signal(SIGPIPE, SIG_IGN);
	while ((option = cli_option_next(&cli, argc, argv, "+:", options, help, &status)) != -1) {
		if (option == '?') {
			return status;
		}
		return version_main(&cli, 0, NULL);
	}
	if (optind == argc) {
		fprintf(stderr, "%s", help);
		return CLI_EXIT_USAGE;
	}
	status = find_and_run(&cli, argc - optind, argv + optind);
	if (fflush(stdout) == EOF || ferror(stdout)) {
		fprintf(stderr, "warmbox %s: cannot write the output\n", cli.command);
		return status ? status : CLI_EXIT_FAILED;
	}
	return status;
}
