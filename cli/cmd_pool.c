/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox pool` and `warmbox health`: the daemon's own affairs.
 */

#include "cli/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TARGET_MAX 10000
#define SHELLS_MAX 1024

static const char pool_help[] =
	"Usage: warmbox pool [TEMPLATE] [--min N] [--max N] [--set N] [--shells N]\n"
	"\n"
	"Shows how many sandboxes are ready for each template, or changes it for one. Between the\n"
	"minimum and the maximum, the target follows demand.\n"
	"\n"
	"  --min N        keep N sandboxes of TEMPLATE ready at least\n"
	"  --max N        keep N ready at most\n"
	"  --set N        keep N ready, whatever demand is: --min N --max N\n"
	"  --shells N     keep N virtual machines made but empty, for the next restores\n"
	"  --socket PATH  of the daemon\n"
	"  --json         the result as JSON\n";

static const char health_help[] =
	"Usage: warmbox health\n"
	"\n"
	"Says whether the daemon is well: exit status 0 if it is, 1 if not or not there.\n"
	"\n"
	"  --socket PATH  of the daemon\n"
	"  --json         the result as JSON\n";

/* What can be set, by the names of pool.set; the options are in the same order. */
enum { OPTION_MIN = CLI_OPTION_FIRST_OWN, OPTION_MAX, OPTION_SET, OPTION_SHELLS };
static const struct setting {
	const char *param;
	const char *option;
	uint64_t max;
} settings[] = {
	{ "min", "--min", TARGET_MAX },
	{ "max", "--max", TARGET_MAX },
	{ "target", "--set", TARGET_MAX },
	{ "shells", "--shells", SHELLS_MAX },
};

/* Values for the settings. */
struct wishes {
	uint64_t values[ARRAY_SIZE(settings)];
	bool given[ARRAY_SIZE(settings)];
	uint32_t n_given;
};

static void pack_text(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str(packer, strlen(text));
	msgpack_pack_str_body(packer, text, strlen(text));
}

/* pool.get, or pool.set when there is something to set. */
static int call_pool(struct warmbox_connection *connection, const char *template_name,
		     const struct wishes *wishes, struct warmbox_value **ret_value,
		     struct warmbox_error *error)
{
	msgpack_sbuffer buffer;
	msgpack_packer packer;
	int r;

	msgpack_sbuffer_init(&buffer);
	msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&packer, (template_name ? 1u : 0u) + wishes->n_given);
	if (template_name) {
		pack_text(&packer, "template");
		pack_text(&packer, template_name);
	}
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		if (wishes->given[i]) {
			pack_text(&packer, settings[i].param);
			msgpack_pack_uint64(&packer, wishes->values[i]);
		}
	}
	r = warmbox_call(connection, wishes->n_given > 0 ? "pool.set" : "pool.get", buffer.data,
			 buffer.size, ret_value, error);
	msgpack_sbuffer_destroy(&buffer);
	return r;
}

/* Arrivals in the unit that makes a number one can read. */
static void add_rate(struct cli_table *table, uint64_t per_hour)
{
	if (per_hour >= 3600) {
		cli_table_cell(table, "%.1f/s", (double)per_hour / 3600);
	} else {
		cli_table_cell(table, "%" PRIu64 "/h", per_hour);
	}
}

static void add_pool(struct cli_table *table, const msgpack_object *pool)
{
	static const char *const numbers[] = { "min",	       "target",      "max",
					       "parked",       "restoring",   "shells",
					       "leased",       "waiting",     "claimed_total",
					       "missed_total", "failed_total" };
	_cleanup_free_ char *name = cli_map_text(pool, "template");
	_cleanup_free_ char *last_error = cli_map_text(pool, "last_error");

	cli_table_cell(table, "%s", name ? name : "?");
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		cli_table_cell(table, "%" PRIu64, cli_map_number(pool, numbers[i]));
	}
	add_rate(table, cli_map_number(pool, "arrivals_per_hour"));
	cli_table_cell(table, "%s", last_error ? last_error : "");
}

/* Why targets are lower than they should be. */
static void print_pressure(const msgpack_object *pool)
{
	_cleanup_free_ char *pressure = cli_map_text(pool, "pressure");

	if (pressure) {
		printf("Memory is short, so fewer are kept: %s\n", pressure);
	}
}

/* object: {pools: […]}, or one pool. */
static int print_pools(const msgpack_object *object)
{
	static const char *const header[] = { "TEMPLATE", "MIN",       "TARGET", "MAX",
					      "READY",	  "RESTORING", "SHELLS", "LEASED",
					      "WAITING",  "CLAIMED",   "MISSED", "FAILED",
					      "RATE",	  "LAST ERROR" };
	_cleanup_(cli_table_freep) struct cli_table *table = NULL;
	const msgpack_object *pools = warmbox_map_get(object, "pools");

	if (cli_table_new(ARRAY_SIZE(header), &table) < 0) {
		return CLI_EXIT_FAILED;
	}
	for (size_t i = 0; i < ARRAY_SIZE(header); i++) {
		cli_table_cell(table, "%s", header[i]);
	}
	if (!pools) {
		add_pool(table, object);
	}
	for (uint32_t i = 0;
	     pools && pools->type == MSGPACK_OBJECT_ARRAY && i < pools->via.array.size; i++) {
		add_pool(table, &pools->via.array.ptr[i]);
	}
	if (cli_table_print(table, stdout) < 0) {
		return CLI_EXIT_FAILED;
	}
	if (!pools) {
		print_pressure(object);
	} else if (pools->type == MSGPACK_OBJECT_ARRAY && pools->via.array.size > 0) {
		/* It is the host's, so the same for all. */
		print_pressure(&pools->via.array.ptr[0]);
	}
	return 0;
}

/* 0: go on; else *ret_status is the command's. */
static int take_options(struct cli *cli, int argc, char **argv, struct wishes *wishes,
			int *ret_status)
{
	static const struct option options[] = {
		{ "min", required_argument, NULL, OPTION_MIN },
		{ "max", required_argument, NULL, OPTION_MAX },
		{ "set", required_argument, NULL, OPTION_SET },
		{ "shells", required_argument, NULL, OPTION_SHELLS },
		CLI_COMMON_OPTIONS,
	};
	int option;

	while ((option = cli_option_next(cli, argc, argv, ":", options, pool_help, ret_status)) !=
	       -1) {
		unsigned i = (unsigned)option - OPTION_MIN;

		if (option == '?') {
			return 1;
		}
		if (cli_parse_number(cli, settings[i].option, optarg, 0, settings[i].max,
				     &wishes->values[i]) < 0) {
			*ret_status = CLI_EXIT_USAGE;
			return 1;
		}
		wishes->n_given += !wishes->given[i];
		wishes->given[i] = true;
	}
	return 0;
}

int cli_pool_main(struct cli *cli, int argc, char **argv)
{
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	_cleanup_value_ struct warmbox_value *value = NULL;
	struct warmbox_error error = {};
	struct wishes wishes = {};
	const char *template_name;
	int status;

	if (take_options(cli, argc, argv, &wishes, &status) > 0) {
		return status;
	}
	template_name = optind < argc ? argv[optind] : NULL;
	if (argc - optind > 1 || (wishes.n_given > 0 && !template_name)) {
		return cli_usage_error(cli, argc - optind > 1
						    ? "one TEMPLATE at most"
						    : "the TEMPLATE is missing that this is about");
	}
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_FAILED;
	}
	if (call_pool(connection, template_name, &wishes, &value, &error) < 0) {
		return cli_remote_failed(cli, connection, template_name, &error, CLI_EXIT_FAILED);
	}
	if (cli->json) {
		cli_print_json(cli_json_from_msgpack(warmbox_value_object(value)));
		return 0;
	}
	return print_pools(warmbox_value_object(value));
}

/* Options and the call of a command without parameters. 0, or >0 with *ret_status. */
static int call_simple(struct cli *cli, int argc, char **argv, const char *help,
		       struct warmbox_value **ret_value, int *ret_status)
{
	static const struct option options[] = { CLI_COMMON_OPTIONS };
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	struct warmbox_error error = {};

	if (cli_option_next(cli, argc, argv, ":", options, help, ret_status) == '?') {
		return 1;
	}
	*ret_status = CLI_EXIT_FAILED;
	if (optind != argc) {
		*ret_status = cli_usage_error(cli, "takes no operand");
		return 1;
	}
	if (cli_remote_connect(cli, &connection) < 0) {
		return 1;
	}
	if (warmbox_call(connection, cli->command, NULL, 0, ret_value, &error) < 0) {
		cli_remote_failed(cli, NULL, NULL, &error, CLI_EXIT_FAILED);
		return 1;
	}
	return 0;
}

int cli_health_main(struct cli *cli, int argc, char **argv)
{
	_cleanup_value_ struct warmbox_value *value = NULL;
	_cleanup_free_ char *health = NULL, *version = NULL, *cgroups = NULL;
	const msgpack_object *object, *reasons;
	char uptime[CLI_FORMAT_MAX];
	int status;

	if (call_simple(cli, argc, argv, health_help, &value, &status) > 0) {
		return status;
	}
	object = warmbox_value_object(value);
	health = cli_map_text(object, "status");
	version = cli_map_text(object, "version");
	status = health && strcmp(health, "ok") == 0 ? 0 : CLI_EXIT_FAILED;
	if (cli->json) {
		cli_print_json(cli_json_from_msgpack(object));
		return status;
	}
	printf("%s: warmboxd %s, up for %s\n", health ? health : "?", version ? version : "?",
	       cli_format_duration(uptime, cli_map_number(object, "uptime_ms") * NSEC_PER_MSEC));
	cgroups = cli_map_text(object, "cgroups");
	if (cgroups) {
		printf("  limits by cgroups: %s\n", cgroups);
	}
	reasons = warmbox_map_get(object, "reasons");
	for (uint32_t i = 0;
	     reasons && reasons->type == MSGPACK_OBJECT_ARRAY && i < reasons->via.array.size; i++) {
		const msgpack_object *reason = &reasons->via.array.ptr[i];

		if (reason->type == MSGPACK_OBJECT_STR) {
			printf("  %.*s\n", (int)reason->via.str.size, reason->via.str.ptr);
		}
	}
	return status;
}
