/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox bench`: runs the bench programs one after the other, prints a table of each, and writes
 * the report. A program that fails is in the report as failed, and makes the exit status 1; a
 * target that is not met does not: that is a finding. A Ctrl-C ends the program under way; what was
 * measured before is still reported. Main thread.
 */

#include "cli/bench.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define JOBS_MAX      64
#define TEMPLATES_MAX 8
#define COMMAND_BYTES 2048

const struct cli_bench_kind cli_bench_kinds[] = {
	{ "claim", "How long does a client wait for a parked sandbox?",
	  CLI_BENCH_DAEMON | CLI_BENCH_COUNT | CLI_BENCH_PIN | CLI_BENCH_DEFAULT },
	{ "restore", "How long does a restore take, to the first entry into the guest?",
	  CLI_BENCH_DEFAULT },
	{ "exec", "How long from asking for a sandbox to code that has run in it?",
	  CLI_BENCH_DAEMON | CLI_BENCH_LINUX | CLI_BENCH_COUNT | CLI_BENCH_EVAL },
	{ "abuse", "Does a sandbox that takes all it can slow the others?",
	  CLI_BENCH_DAEMON | CLI_BENCH_LINUX | CLI_BENCH_COUNT },
	{ "burst", "What if many ask at once, and more than are parked?",
	  CLI_BENCH_DAEMON | CLI_BENCH_COUNT | CLI_BENCH_DEFAULT },
	{ "refill", "How many sandboxes a second are restored, made unique and parked?",
	  CLI_BENCH_DAEMON | CLI_BENCH_COUNT | CLI_BENCH_PIN | CLI_BENCH_DEFAULT },
	{ "image", "How long does it take to load a cold memory image?", CLI_BENCH_DEFAULT },
	{ "cold", "What does the working set gain when the memory image is not loaded?",
	  CLI_BENCH_STORE | CLI_BENCH_COUNT | CLI_BENCH_EVAL | CLI_BENCH_DEFAULT },
	{ "density", "What does a parked sandbox cost in memory?",
	  CLI_BENCH_DAEMON | CLI_BENCH_COUNT | CLI_BENCH_ECHO | CLI_BENCH_PIN | CLI_BENCH_DEFAULT },
	{ "soak", "Does anything fail or grow under a load that lasts?",
	  CLI_BENCH_DAEMON | CLI_BENCH_SECONDS | CLI_BENCH_DEFAULT },
	{ "peers", "How do other ways of starting a sandbox do on this host?",
	  CLI_BENCH_DAEMON | CLI_BENCH_COUNT },
};
const size_t cli_bench_n_kinds = ARRAY_SIZE(cli_bench_kinds);

static const char bench_help[] =
	"Usage: warmbox bench [NAME[@TEMPLATE]...] [options]\n"
	"\n"
	"Measures, one program for each question, and reports. Without --socket each program gets "
	"a\n"
	"warmboxd of its own, in a temporary directory, which is gone afterwards. Without "
	"@TEMPLATE\n"
	"a tiny guest is used that is no Linux, so that the figure is the host's work.\n"
	"\n"
	"  claim     how long a client waits for a parked sandbox, beside a bare echo server\n"
	"  restore   how long a restore takes, to the first entry into the guest\n"
	"  exec      from asking for a sandbox to code that has run in it; needs @TEMPLATE\n"
	"  abuse     one sandbox takes all it can, beside 20 that work; needs @TEMPLATE\n"
	"  burst     many ask at once, and more than are parked\n"
	"  refill    how many sandboxes a second are made, on one core and on two\n"
	"  image     how long it takes to load a cold memory image\n"
	"  cold      first exec from an image that is not loaded, with and without the working "
	"set\n"
	"  density   what a parked sandbox costs in memory\n"
	"  soak      does anything fail or grow under a load that lasts\n"
	"  peers     the same questions to others on this host (only when named)\n"
	"\n"
	"Without a NAME: all but abuse, exec and peers; with --template also abuse, exec, "
	"cold\nand density of that one.\n"
	"\n"
	"  --template NAME  a Linux template of the store; may be given several times\n"
	"  --store DIR      where templates are (WARMBOX_STORE, " CLI_STORE_DEFAULT ")\n"
	"  --socket PATH    measure the daemon that runs there; with --template\n"
	"  --quick          a short run to try things out; the figures are not for quoting\n"
	"  --count N        claims, sandboxes or runs, instead of each program's own number\n"
	"  --seconds N      how long soak lasts (60)\n"
	"  --load PERCENT   of the capacity, for soak (80)\n"
	"  --eval CODE      exec, cold: also give CODE to the template's resident process\n"
	"  --json FILE      write everything that was measured, with all histograms\n"
	"  --csv FILE       write all figures, one a line\n"
	"  --html FILE      write a page to read, one file with curves\n"
	"\n"
	"A full run takes about ten minutes and wants the machine for itself. Exit status 1 when "
	"a\n"
	"program failed; targets that are not met are reported, and no failure.\n";

enum {
	OPTION_TEMPLATE = CLI_OPTION_FIRST_OWN,
	OPTION_STORE,
	OPTION_QUICK,
	OPTION_COUNT,
	OPTION_SECONDS,
	OPTION_LOAD,
	OPTION_EVAL,
	OPTION_JSON,
	OPTION_CSV,
	OPTION_HTML,
	OPTION_SOCKET,
};

static const struct option bench_options[] = {
	{ "template", required_argument, NULL, OPTION_TEMPLATE },
	{ "store", required_argument, NULL, OPTION_STORE },
	{ "quick", no_argument, NULL, OPTION_QUICK },
	{ "count", required_argument, NULL, OPTION_COUNT },
	{ "seconds", required_argument, NULL, OPTION_SECONDS },
	{ "load", required_argument, NULL, OPTION_LOAD },
	{ "eval", required_argument, NULL, OPTION_EVAL },
	{ "json", required_argument, NULL, OPTION_JSON },
	{ "csv", required_argument, NULL, OPTION_CSV },
	{ "html", required_argument, NULL, OPTION_HTML },
	{ "socket", required_argument, NULL, OPTION_SOCKET },
	{ "help", no_argument, NULL, CLI_OPTION_HELP },
	{},
};

struct bench {
	struct cli *cli;
	struct cli_bench_options options;
	const char *templates[TEMPLATES_MAX];
	size_t n_templates;
	struct cli_bench_job jobs[JOBS_MAX];
	size_t n_jobs;
	const char *json_path, *csv_path, *html_path;
	char command[COMMAND_BYTES];
};

/* --- the command line --- */

static int take_option(struct bench *bench, int option)
{
	uint64_t unused;

	switch (option) {
	case OPTION_TEMPLATE:
		if (bench->n_templates == TEMPLATES_MAX) {
			cli_usage_error(bench->cli, "--template may be given at most %d times",
					TEMPLATES_MAX);
			return -E2BIG;
		}
		bench->templates[bench->n_templates++] = optarg;
		return 0;
	case OPTION_STORE:
		bench->options.store = optarg;
		return 0;
	case OPTION_QUICK:
		bench->options.quick = true;
		return 0;
	case OPTION_COUNT:
		bench->options.count = optarg;
		return cli_parse_number(bench->cli, "--count", optarg, 1, 10000000, &unused);
	case OPTION_SECONDS:
		bench->options.seconds = optarg;
		return cli_parse_number(bench->cli, "--seconds", optarg, 1, 1000000, &unused);
	case OPTION_LOAD:
		bench->options.load = optarg;
		return cli_parse_number(bench->cli, "--load", optarg, 1, 1000, &unused);
	case OPTION_EVAL:
		bench->options.code = optarg;
		return 0;
	case OPTION_JSON:
		bench->json_path = optarg;
		return 0;
	case OPTION_CSV:
		bench->csv_path = optarg;
		return 0;
	case OPTION_HTML:
		bench->html_path = optarg;
		return 0;
	default:
		bench->options.socket = optarg;
		return 0;
	}
}

static int add_job(struct bench *bench, const struct cli_bench_kind *kind,
		   const char *template_name)
{
	if (bench->n_jobs == JOBS_MAX) {
		cli_usage_error(bench->cli, "at most %d measurements at once", JOBS_MAX);
		return -E2BIG;
	}
	bench->jobs[bench->n_jobs++] = (struct cli_bench_job){ kind, template_name };
	return 0;
}

/* "exec@python"; the operand is cut in two. */
static int add_named(struct bench *bench, char *operand)
{
	char *at = strchr(operand, '@');
	const char *template_name = at ? at + 1 : NULL;

	if (at) {
		*at = '\0';
	}
	for (size_t i = 0; i < cli_bench_n_kinds; i++) {
		const struct cli_bench_kind *kind = &cli_bench_kinds[i];
		bool only = (kind->flags & CLI_BENCH_LINUX) || bench->options.socket;

		if (strcmp(operand, kind->name) != 0) {
			continue;
		}
		if (template_name && !(kind->flags & (CLI_BENCH_DAEMON | CLI_BENCH_STORE))) {
			cli_usage_error(bench->cli, "%s does not take a template", kind->name);
			return -EINVAL;
		}
		if (!template_name && (kind->flags & CLI_BENCH_DAEMON) && only) {
			template_name = bench->n_templates ? bench->templates[0] : NULL;
			if (!template_name) {
				cli_usage_error(bench->cli, "%s needs a template: %s@TEMPLATE",
						kind->name, kind->name);
				return -EINVAL;
			}
		}
		return add_job(bench, kind, template_name);
	}
	cli_usage_error(bench->cli, "there is no measurement '%s'", operand);
	return -ENOENT;
}

/* What runs when nothing is named. */
static int add_default(struct bench *bench)
{
	int r = 0;

	if (bench->options.socket && bench->n_templates == 0) {
		cli_usage_error(bench->cli, "--socket needs --template: what shall be measured?");
		return -EINVAL;
	}
	for (size_t i = 0; r == 0 && i < cli_bench_n_kinds; i++) {
		const struct cli_bench_kind *kind = &cli_bench_kinds[i];
		bool daemon = kind->flags & CLI_BENCH_DAEMON;
		bool each = (kind->flags & (CLI_BENCH_LINUX | CLI_BENCH_ECHO)) ||
			    ((kind->flags & CLI_BENCH_STORE) && !bench->options.socket) ||
			    (bench->options.socket && daemon && (kind->flags & CLI_BENCH_DEFAULT));

		if ((kind->flags & CLI_BENCH_DEFAULT) && !(daemon && bench->options.socket)) {
			r = add_job(bench, kind, NULL);
		}
		for (size_t j = 0; r == 0 && each && j < bench->n_templates; j++) {
			r = add_job(bench, kind, bench->templates[j]);
		}
	}
	return r;
}

static void keep_command(struct bench *bench, int argc, char **argv)
{
	size_t n = (size_t)snprintf(bench->command, sizeof(bench->command), "warmbox");

	for (int i = 0; i < argc && n < sizeof(bench->command); i++) {
		bool plain = argv[i][strcspn(argv[i], " '\"$\\;&|<>()*?")] == '\0';

		n += (size_t)snprintf(bench->command + n, sizeof(bench->command) - n,
				      plain ? " %s" : " '%s'", argv[i]);
	}
}

static int parse(struct bench *bench, int argc, char **argv, int *ret_status)
{
	int option, r = 0;

	keep_command(bench, argc, argv);
	while ((option = cli_option_next(bench->cli, argc, argv, ":", bench_options, bench_help,
					 ret_status)) != -1) {
		if (option == '?') {
			return -EINVAL;
		}
		*ret_status = CLI_EXIT_USAGE;
		r = take_option(bench, option);
		if (r < 0) {
			return r;
		}
	}
	*ret_status = CLI_EXIT_USAGE;
	for (int i = optind; r == 0 && i < argc; i++) {
		r = add_named(bench, argv[i]);
	}
	return r < 0 || bench->n_jobs > 0 ? r : add_default(bench);
}

/* --- the report --- */

static int write_file(const struct bench *bench, const char *path, json_t *document,
		      void (*write)(json_t *document, FILE *out))
{
	FILE *file;
	int r = 0;

	if (!path) {
		return 0;
	}
	file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
	if (file) {
		write(document, file);
		r = ferror(file) || (file == stdout ? fflush(file) : fclose(file)) ? -EIO : 0;
	} else {
		r = -errno;
	}
	if (r < 0) {
		char text[512];

		snprintf(text, sizeof(text), "cannot write %s: %s", path, strerrordesc_np(-r));
		cli_print_error(bench->cli, "local", text, NULL);
	}
	return r;
}

static void write_json(json_t *document, FILE *out)
{
	json_dumpf(document, out, JSON_COMPACT);
	putc('\n', out);
}

static int write_all(struct bench *bench, json_t *document)
{
	int json = write_file(bench,
			      bench->json_path
				      ?: bench->cli->json ? "-"
							  : NULL,
			      document, write_json);
	int csv = write_file(bench, bench->csv_path, document, cli_bench_write_csv);
	int html = write_file(bench, bench->html_path, document, cli_bench_write_html);

	return json ?: csv ?: html;
}

static bool is_on_stdout(const char *path)
{
	return path && strcmp(path, "-") == 0;
}

static json_t *new_document(const struct bench *bench)
{
	json_t *document = json_object();
	char started[32];
	time_t now = time(NULL);
	struct tm tm;

	strftime(started, sizeof(started), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	json_object_set_new(document, "warmbox", json_string(CLI_VERSION));
	json_object_set_new(document, "command", json_string(bench->command));
	json_object_set_new(document, "started", json_string(started));
	json_object_set_new(document, "host", cli_bench_host());
	json_object_set_new(document, "warnings",
			    cli_bench_warnings(json_object_get(document, "host")));
	json_object_set_new(document, "results", json_array());
	if (bench->options.quick) {
		json_array_append_new(json_object_get(document, "warnings"),
				      json_string("A quick run (--quick): too few values for "
						  "quoting."));
	}
	return document;
}

int cli_bench_main(struct cli *cli, int argc, char **argv)
{
	struct bench bench = { .cli = cli, .options = { .store = cli_store_path() } };
	uint64_t start = base_clock_monotonic_ns();
	volatile sig_atomic_t *caught;
	size_t n_failed = 0;
	json_t *document;
	FILE *table;
	int status = 0;

	if (parse(&bench, argc, argv, &status) < 0) {
		return status;
	}
	table = cli->json || is_on_stdout(bench.json_path) || is_on_stdout(bench.csv_path) ||
				is_on_stdout(bench.html_path)
			? stderr
			: stdout;
	caught = cli_signals_catch();
	document = new_document(&bench);
	for (size_t i = 0; i < bench.n_jobs && !*caught; i++) {
		json_t *result = cli_bench_run(&bench.options, &bench.jobs[i], caught);

		n_failed += strcmp(cli_bench_text(result, "status"), "failed") == 0;
		cli_bench_print_result(result, table);
		fflush(table);
		json_array_append_new(json_object_get(document, "results"), result);
	}
	json_object_set_new(document, "seconds",
			    json_real((double)(base_clock_monotonic_ns() - start) / 1e9));
	cli_bench_print_summary(document, table);
	if (write_all(&bench, document) < 0 || n_failed > 0) {
		status = CLI_EXIT_FAILED;
	} else {
		status = *caught ? CLI_EXIT_SIGNAL + *caught : 0;
	}
	json_decref(document);
	return status;
}
