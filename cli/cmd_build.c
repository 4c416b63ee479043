/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox template build`: reads the options, runs the build, says how it went.
 *
 * Needs no daemon. Ctrl-C ends the build cleanly with status 130.
 */

#include "cli/build.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/template.h"
#include "vmm/control.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define DEFAULT_MEMORY_MIB 128
#define DEFAULT_RECORDS	   3
#define DEFAULT_TIMEOUT_MS 300000
#define TIMEOUT_MAX_MS	   (24 * 3600 * UINT64_C(1000))

static const char help[] =
	"Usage: warmbox template build NAME --root IMAGE [options]\n"
	"\n"
	"Boots a guest, warms it up, freezes it and stores it as the template NAME. Sandboxes\n"
	"are copies of that frozen guest. Needs KVM and write access to the store, no daemon.\n"
	"\n"
	"  --root IMAGE        root file system: an EROFS or ext4 image (mounted read-only)\n"
	"  --kernel FILE       vmlinux or bzImage (WARMBOX_KERNEL, or the installed one)\n"
	"  --initramfs FILE    with the agent as /init (WARMBOX_INITRAMFS, or the installed one)\n"
	"  --memory MIB        guest memory (128)\n"
	"  --vcpus N           virtual processors (1)\n"
	"  --cmdline WORDS     more kernel parameters\n"
	"  --warm COMMAND      run in the guest before it is frozen; may be given many times\n"
	"  --resident COMMAND  start this and leave it waiting on its standard input; `eval`\n"
	"                      talks to it\n"
	"  --record N          restore it N times and record which pages it needs first (3);\n"
	"                      0: a template without a working set\n"
	"  --record-exec COMMAND  what it runs then (/bin/true, if there is one)\n"
	"  --timeout TIME      for the boot and for each command (5m)\n"
	"  --store DIR         where templates are kept (WARMBOX_STORE, or " CLI_STORE_DEFAULT ")\n"
	"  --json              the result as JSON\n"
	"\n"
	"A COMMAND is split into words as a shell does (quotes, backslashes), but nothing is\n"
	"expanded. For a shell in the guest: --warm \"sh -c '...'\".\n";

enum {
	OPTION_ROOT = CLI_OPTION_FIRST_OWN,
	OPTION_KERNEL,
	OPTION_INITRAMFS,
	OPTION_MEMORY,
	OPTION_VCPUS,
	OPTION_CMDLINE,
	OPTION_WARM,
	OPTION_RESIDENT,
	OPTION_RECORD,
	OPTION_RECORD_EXEC,
	OPTION_TIMEOUT,
	OPTION_STORE
};

static const struct option options[] = {
	{ "root", required_argument, NULL, OPTION_ROOT },
	{ "kernel", required_argument, NULL, OPTION_KERNEL },
	{ "initramfs", required_argument, NULL, OPTION_INITRAMFS },
	{ "memory", required_argument, NULL, OPTION_MEMORY },
	{ "vcpus", required_argument, NULL, OPTION_VCPUS },
	{ "cmdline", required_argument, NULL, OPTION_CMDLINE },
	{ "warm", required_argument, NULL, OPTION_WARM },
	{ "resident", required_argument, NULL, OPTION_RESIDENT },
	{ "record", required_argument, NULL, OPTION_RECORD },
	{ "record-exec", required_argument, NULL, OPTION_RECORD_EXEC },
	{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
	{ "store", required_argument, NULL, OPTION_STORE },
	CLI_COMMON_OPTIONS,
};

/* The options as given; the params point into it. */
struct request {
	struct cli_build_params params;
	const char *store_path;
	char **warmups[CLI_BUILD_WARMUPS_MAX];
	char **resident;
	char **record_exec;
};

static void request_deinit(struct request *request)
{
	for (size_t i = 0; i < request->params.n_warmups; i++) {
		free(request->warmups[i]);
	}
	free(request->resident);
	free(request->record_exec);
}

static int parse_command(const struct cli *cli, const char *option, char ***ret_words)
{
	struct base_error error;
	size_t n = 0;
	int r;

	r = cli_words_split(optarg, ret_words, &error);
	if (r < 0) {
		cli_usage_error(cli, "%s '%s': %s", option, optarg, error.text);
		return r;
	}
	while ((*ret_words)[n]) {
		n++;
	}
	if (n > SNAPSHOT_ARGV_MAX) {
		free(*ret_words);
		*ret_words = NULL;
		cli_usage_error(cli, "%s has more than %d words", option, SNAPSHOT_ARGV_MAX);
		return -E2BIG;
	}
	return 0;
}

static int parse_warm(const struct cli *cli, struct request *request)
{
	struct cli_build_params *params = &request->params;
	int r;

	if (params->n_warmups == CLI_BUILD_WARMUPS_MAX) {
		cli_usage_error(cli, "--warm may be given at most %d times", CLI_BUILD_WARMUPS_MAX);
		return -E2BIG;
	}
	r = parse_command(cli, "--warm", &request->warmups[params->n_warmups]);
	params->n_warmups += r == 0;
	return r;
}

static int parse_resident(const struct cli *cli, struct request *request)
{
	if (request->resident) {
		cli_usage_error(cli, "a template has at most one --resident");
		return -EINVAL;
	}
	return parse_command(cli, "--resident", &request->resident);
}

static int parse_record_exec(const struct cli *cli, struct request *request)
{
	if (request->record_exec) {
		cli_usage_error(cli, "--record-exec may be given once");
		return -EINVAL;
	}
	return parse_command(cli, "--record-exec", &request->record_exec);
}

static int parse_option(const struct cli *cli, int option, struct request *request)
{
	struct cli_build_params *params = &request->params;
	uint64_t number = 0;
	int r = 0;

	switch (option) {
	case OPTION_ROOT:
		params->root_image_path = optarg;
		break;
	case OPTION_KERNEL:
		params->kernel_path = optarg;
		break;
	case OPTION_INITRAMFS:
		params->initramfs_path = optarg;
		break;
	case OPTION_MEMORY:
		r = cli_parse_number(cli, "--memory", optarg, CLI_BUILD_MEMORY_MIN_BYTES >> 20,
				     VMM_MEMORY_MAX_BYTES >> 20, &number);
		params->memory_bytes = MIB(number);
		break;
	case OPTION_VCPUS:
		r = cli_parse_number(cli, "--vcpus", optarg, 1, VMM_VCPUS_MAX, &number);
		params->n_vcpus = (unsigned)number;
		break;
	case OPTION_CMDLINE:
		params->cmdline = optarg;
		break;
	case OPTION_WARM:
		r = parse_warm(cli, request);
		break;
	case OPTION_RESIDENT:
		r = parse_resident(cli, request);
		break;
	case OPTION_RECORD:
		r = cli_parse_number(cli, "--record", optarg, 0, CLI_BUILD_RECORDS_MAX, &number);
		params->n_records = (unsigned)number;
		break;
	case OPTION_RECORD_EXEC:
		r = parse_record_exec(cli, request);
		break;
	case OPTION_TIMEOUT:
		r = cli_parse_duration(cli, "--timeout", optarg, &params->timeout_ms);
		if (r == 0 && (params->timeout_ms == 0 || params->timeout_ms > TIMEOUT_MAX_MS)) {
			cli_usage_error(cli, "--timeout must be more than 0 and at most 24h");
			r = -ERANGE;
		}
		break;
	case OPTION_STORE:
		request->store_path = optarg;
		break;
	}
	return r;
}

/* 0: go on. >0: everything is said, *ret_status is the exit status. */
static int parse(struct cli *cli, int argc, char **argv, struct request *request, int *ret_status)
{
	int option;

	*ret_status = CLI_EXIT_USAGE;
	/* Options may stand before and after the name. */
	while ((option = cli_option_next(cli, argc, argv, ":", options, help, ret_status)) != -1) {
		if (option == '?') {
			return 1;
		}
		if (parse_option(cli, option, request) < 0) {
			return 1;
		}
	}
	if (optind + 1 != argc) {
		cli_usage_error(cli, optind == argc ? "which NAME shall the template have?"
						    : "one NAME, and no more operands");
		return 1;
	}
	request->params.name = argv[optind];
	request->params.resident = request->resident;
	request->params.record_exec = request->record_exec;
	request->params.warmups = (char *const *const *)request->warmups;
	if (!request->params.root_image_path) {
		cli_usage_error(cli, "--root IMAGE is missing: the root file system of the guest");
		return 1;
	}
	return 0;
}

static const char *hint_for(int r, const struct request *request)
{
	switch (r) {
	case -ENOSPC:
	case -EDQUOT:
		return "Free some space, or build into another place with --store DIR.";
	case -EACCES:
	case -EPERM:
		return "Be root, or use files and a store (--store DIR) of your own.";
	case -ENOENT:
		return request->params.kernel_path && request->params.initramfs_path
			       ? "See --kernel, --initramfs and --root."
			       : NULL;
	case -ENOTSUP:
		return "warmbox doctor says what to do; or build without a working set: --record "
		       "0.";
	case -ETIMEDOUT:
		return "A slow host may need more time: --timeout TIME.";
	default:
		return NULL;
	}
}

static void print_console(const char *console)
{
	if (!console[0]) {
		return;
	}
	fprintf(stderr, "  The guest's last output:\n");
	while (*console) {
		size_t size = strcspn(console, "\n");

		fprintf(stderr, "  | %.*s\n", (int)size, console);
		console += size + (console[size] == '\n');
	}
}

static int failed(const struct cli *cli, const struct request *request, int r,
		  const struct cli_build_result *result, const struct base_error *error)
{
	if (r == -EINTR) {
		cli_print_error(cli, "interrupted", "interrupted; nothing was published", NULL);
		return CLI_EXIT_INTERRUPTED;
	}
	cli_print_error(cli, "failed", error->text, hint_for(r, request));
	print_console(result->console);
	return CLI_EXIT_FAILED;
}

static void succeeded(const struct cli *cli, const struct cli_build_result *result)
{
	const struct snapshot_manifest *manifest = &result->manifest;
	char boot[CLI_FORMAT_MAX], total[CLI_FORMAT_MAX], memory[CLI_FORMAT_MAX],
		stored[CLI_FORMAT_MAX], first[CLI_FORMAT_MAX];

	if (cli->json) {
		json_t *value = cli_template_json(manifest);

		json_object_set_new(value, "boot_ns", json_integer((json_int_t)result->boot_ns));
		json_object_set_new(value, "build_ns", json_integer((json_int_t)result->total_ns));
		cli_print_json(value);
		return;
	}
	printf("Template %s is ready: snapshot %s, %s of memory stored as %s,\n",
	       manifest->template_name, manifest->id,
	       cli_format_bytes(memory, manifest->memory_bytes),
	       cli_format_bytes(stored, manifest->memory_file_bytes));
	if (manifest->ws_pages > 0) {
		printf("a working set of %" PRIu64 " pages (%s),\n", manifest->ws_pages,
		       cli_format_bytes(first, manifest->ws_pages * SNAPSHOT_PAGE_BYTES));
	} else {
		printf("no working set,\n");
	}
	printf("booted in %s, built in %s.\n", cli_format_duration(boot, result->boot_ns),
	       cli_format_duration(total, result->total_ns));
}

int cli_build_main(struct cli *cli, int argc, char **argv)
{
	_cleanup_(request_deinit) struct request request = {
		.params = {
			.kernel_path = cli_kernel_path(),
			.initramfs_path = cli_initramfs_path(),
			.memory_bytes = MIB(DEFAULT_MEMORY_MIB),
			.n_vcpus = 1,
			.n_records = DEFAULT_RECORDS,
			.vmm_path = cli_vmm_path(),
			.timeout_ms = DEFAULT_TIMEOUT_MS,
		},
		.store_path = cli_store_path(),
	};
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = NULL;
	struct cli_build_result result = {};
	struct cli_progress progress;
	struct base_error error = {};
	const volatile sig_atomic_t *interrupted;
	int r, status;

	if (parse(cli, argc, argv, &request, &status) > 0) {
		return status;
	}
	interrupted = cli_signals_catch();
	r = snapshot_store_open(request.store_path, true, &store, &error);
	if (r < 0) {
		return failed(cli, &request, r, &result, &error);
	}
	cli_progress_init(&progress);
	fprintf(stderr, "Building template %s\n", request.params.name);
	r = cli_template_build(store, &request.params, interrupted, cli_progress_show, &progress,
			       &result, &error);
	cli_progress_finish(&progress, r == 0 ? "" : r == -EINTR ? "interrupted" : "failed");
	if (r < 0) {
		return failed(cli, &request, r, &result, &error);
	}
	succeeded(cli, &result);
	return 0;
}
