/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox pool` and `warmbox health`: the daemon's own affairs.
 */

#include "cli/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define TARGET_MAX 10000

static const char pool_help[] =
	"Usage: warmbox pool [TEMPLATE] [--set N]\n"
	"\n"
	"Shows how many sandboxes are ready for each template.\n"
	"\n"
	"  --set N        keep N sandboxes of TEMPLATE ready; 0 keeps none\n"
	"  --socket PATH  of the daemon\n"
	"  --json         the result as JSON\n";

static const char health_help[] =
	"Usage: warmbox health\n"
	"\n"
	"Says whether the daemon is well: exit status 0 if it is, 1 if not or not there.\n"
	"\n"
	"  --socket PATH  of the daemon\n"
	"  --json         the result as JSON\n";

enum { OPTION_SET = CLI_OPTION_FIRST_OWN };

static void pack_text(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str(packer, strlen(text));
	msgpack_pack_str_body(packer, text, strlen(text));
}

/* pool.get, or pool.set when target is given. */
static int call_pool(struct warmbox_connection *connection, const char *template_name,
		     const uint64_t *target, struct warmbox_value **ret_value,
		     struct warmbox_error *error)
{
	msgpack_sbuffer buffer;
	msgpack_packer packer;
	int r;

	msgpack_sbuffer_init(&buffer);
	msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&packer, (template_name ? 1u : 0u) + (target ? 1u : 0u));
	if (template_name) {
		pack_text(&packer, "template");
		pack_text(&packer, template_name);
	}
	if (target) {
		pack_text(&packer, "target");
		msgpack_pack_uint64(&packer, *target);
	}
	r = warmbox_call(connection, target ? "pool.set" : "pool.get", buffer.data, buffer.size,
			 ret_value, error);
	msgpack_sbuffer_destroy(&buffer);
	return r;
}

static void add_pool(struct cli_table *table, const msgpack_object *pool)
{
	static const char *const numbers[] = { "target",  "parked",	    "restoring",   "leased",
					       "waiting", "restored_total", "failed_total" };
	_cleanup_free_ char *name = cli_map_text(pool, "template");
	_cleanup_free_ char *last_error = cli_map_text(pool, "last_error");

	cli_table_cell(table, "%s", name ? name : "?");
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		cli_table_cell(table, "%" PRIu64, cli_map_number(pool, numbers[i]));
	}
	cli_table_cell(table, "%s", last_error ? last_error : "");
}

/* object: {pools: […]}, or one pool. */
static int print_pools(const msgpack_object *object)
{
	static const char *const header[] = { "TEMPLATE",  "TARGET", "READY",
					      "RESTORING", "LEASED", "WAITING",
					      "RESTORED",  "FAILED", "LAST ERROR" };
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
	return cli_table_print(table, stdout) < 0 ? CLI_EXIT_FAILED : 0;
}

int cli_pool_main(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{ "set", required_argument, NULL, OPTION_SET },
		CLI_COMMON_OPTIONS,
	};
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	_cleanup_value_ struct warmbox_value *value = NULL;
	struct warmbox_error error = {};
	const char *template_name;
	bool set = false;
	uint64_t target = 0;
	int option, status;

	while ((option = cli_option_next(cli, argc, argv, ":", options, pool_help, &status)) !=
	       -1) {
		if (option == '?') {
			return status;
		}
		if (cli_parse_number(cli, "--set", optarg, 0, TARGET_MAX, &target) < 0) {
			return CLI_EXIT_USAGE;
		}
		set = true;
	}
	template_name = optind < argc ? argv[optind] : NULL;
	if (argc - optind > 1 || (set && !template_name)) {
		return cli_usage_error(cli, set && !template_name
						    ? "--set needs the TEMPLATE that it is about"
						    : "one TEMPLATE at most");
	}
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_FAILED;
	}
	if (call_pool(connection, template_name, set ? &target : NULL, &value, &error) < 0) {
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
	_cleanup_free_ char *health = NULL, *version = NULL;
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
