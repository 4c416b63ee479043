/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox acquire`, `renew`, `release` and `ps`: leases that outlive this program.
 */

#include "cli/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char acquire_help[] =
	"Usage: warmbox acquire TEMPLATE [options]\n"
	"\n"
	"Takes a sandbox and prints its lease, with the token that warmbox release and renew ask\n"
	"for. It is yours until warmbox release.\n"
	"\n"
	"  --ttl TIME       end it by itself after this time\n"
	"  --wait TIME      for a sandbox, when none is ready (the daemon's default)\n"
	"  --label KEY=VAL  put a label on the lease, for warmbox ps\n"
	"  --socket PATH    of the daemon\n"
	"  --json           everything about the lease\n";

static const char renew_help[] = "Usage: warmbox renew LEASE --ttl TIME\n"
				 "\n"
				 "Lets a lease end after this time from now; 0: not by itself.\n"
				 "\n"
				 "  --ttl TIME     required\n"
				 "  --socket PATH  of the daemon\n"
				 "  --json         everything about the lease\n";

static const char release_help[] = "Usage: warmbox release LEASE...\n"
				   "\n"
				   "Ends leases; their sandboxes are destroyed.\n"
				   "\n"
				   "  --socket PATH  of the daemon\n"
				   "  --json         the result as JSON\n";

static const char ps_help[] =
	"Usage: warmbox ps [-a]\n"
	"\n"
	"Lists the sandboxes in use.\n"
	"\n"
	"  -a, --all      also leases that ended not long ago, with the cause\n"
	"  --socket PATH  of the daemon\n"
	"  --json         the result as JSON\n";

enum { OPTION_TTL = CLI_OPTION_FIRST_OWN, OPTION_WAIT, OPTION_LABEL };

static int parse_acquire(struct cli *cli, int argc, char **argv, struct cli_acquire *acquire,
			 int *ret_status)
{
	static const struct option options[] = {
		{ "ttl", required_argument, NULL, OPTION_TTL },
		{ "wait", required_argument, NULL, OPTION_WAIT },
		{ "label", required_argument, NULL, OPTION_LABEL },
		CLI_COMMON_OPTIONS,
	};
	int option, r = 0;

	while (r == 0 && (option = cli_option_next(cli, argc, argv, ":", options, acquire_help,
						   ret_status)) != -1) {
		switch (option) {
		case '?':
			return -EINVAL;
		case OPTION_TTL:
			r = cli_parse_duration(cli, "--ttl", optarg, &acquire->params.ttl_ms);
			break;
		case OPTION_WAIT:
			r = cli_acquire_wait(cli, acquire, optarg);
			break;
		case OPTION_LABEL:
			r = cli_acquire_label(cli, acquire, optarg);
			break;
		}
	}
	*ret_status = CLI_EXIT_USAGE;
	if (r == 0 && argc - optind != 1) {
		cli_usage_error(cli, "one TEMPLATE is needed");
		return -EINVAL;
	}
	return r;
}

int cli_acquire_main(struct cli *cli, int argc, char **argv)
{
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	struct cli_acquire acquire = {};
	struct warmbox_error error = {};
	struct warmbox_lease lease;
	int r, status;

	if (parse_acquire(cli, argc, argv, &acquire, &status) < 0) {
		return status;
	}
	cli_signals_exit();
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_FAILED;
	}
	acquire.params.template_name = argv[optind];
	acquire.params.labels = acquire.labels;
	r = warmbox_acquire(connection, &acquire.params, &lease, NULL, &error);
	if (r < 0) {
		return cli_remote_failed(cli, connection, argv[optind], &error, CLI_EXIT_FAILED);
	}
	if (cli->json) {
		cli_print_json(cli_json_from_lease(&lease));
	} else {
		printf("%s:%s\n", lease.id, lease.token);
	}
	return 0;
}

int cli_release_main(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = { CLI_COMMON_OPTIONS };
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	int status = 0;
	json_t *released;

	if (cli_option_next(cli, argc, argv, ":", options, release_help, &status) == '?') {
		return status;
	}
	if (optind == argc) {
		return cli_usage_error(cli, "which LEASE? See: warmbox ps");
	}
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_FAILED;
	}
	released = json_array();
	for (int i = optind; i < argc && status == 0; i++) {
		struct warmbox_error error = {};
		char id[WARMBOX_ID_LENGTH + 1];
		const char *token = cli_lease_token(argv[i], id);

		if (warmbox_release(connection, id, token, &error) < 0) {
			status = cli_remote_failed(cli, NULL, NULL, &error, CLI_EXIT_FAILED);
		} else {
			json_array_append_new(released, json_string(id));
		}
	}
	if (cli->json && status == 0) {
		cli_print_json(json_pack("{s:o}", "released", released));
	} else {
		json_decref(released);
	}
	return status;
}

int cli_renew_main(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{ "ttl", required_argument, NULL, OPTION_TTL },
		CLI_COMMON_OPTIONS,
	};
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	struct warmbox_error error = {};
	struct warmbox_lease lease;
	char id[WARMBOX_ID_LENGTH + 1];
	uint64_t ttl_ms = UINT64_MAX;
	const char *token;
	int option, status;

	while ((option = cli_option_next(cli, argc, argv, ":", options, renew_help, &status)) !=
	       -1) {
		if (option == '?') {
			return status;
		}
		if (cli_parse_duration(cli, "--ttl", optarg, &ttl_ms) < 0) {
			return CLI_EXIT_USAGE;
		}
	}
	if (argc - optind != 1 || ttl_ms == UINT64_MAX) {
		return cli_usage_error(cli, "one LEASE and --ttl are needed");
	}
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_FAILED;
	}
	token = cli_lease_token(argv[optind], id);
	if (warmbox_renew(connection, id, token, ttl_ms, &lease, &error) < 0) {
		return cli_remote_failed(cli, NULL, NULL, &error, CLI_EXIT_FAILED);
	}
	if (cli->json) {
		cli_print_json(cli_json_from_lease(&lease));
	}
	return 0;
}

/* "key=value,…", owned by the caller; NULL without memory. */
static char *labels_text(const msgpack_object *labels)
{
	char *text = strdup("");

	for (uint32_t i = 0;
	     text && labels && labels->type == MSGPACK_OBJECT_MAP && i < labels->via.map.size;
	     i++) {
		const msgpack_object *key = &labels->via.map.ptr[i].key;
		const msgpack_object *value = &labels->via.map.ptr[i].val;
		char *longer = NULL;

		if (key->type != MSGPACK_OBJECT_STR || value->type != MSGPACK_OBJECT_STR) {
			continue;
		}
		if (asprintf(&longer, "%s%s%.*s=%.*s", text, i ? "," : "", (int)key->via.str.size,
			     key->via.str.ptr, (int)value->via.str.size, value->via.str.ptr) < 0) {
			longer = NULL;
		}
		free(text);
		text = longer;
	}
	return text;
}

static int print_lease(struct cli_table *table, const msgpack_object *object,
		       struct warmbox_error *error)
{
	_cleanup_free_ char *labels = NULL;
	char age[CLI_FORMAT_MAX], ttl[CLI_FORMAT_MAX];
	struct warmbox_lease lease;
	int r;

	r = warmbox_lease_parse(object, &lease, error);
	if (r < 0) {
		return r;
	}
	labels = labels_text(warmbox_map_get(object, "labels"));
	cli_table_cell(table, "%s", lease.id);
	cli_table_cell(table, "%s", lease.template_name);
	cli_table_cell(table, "%s", lease.active ? "active" : lease.cause);
	cli_table_cell(table, "%" PRIu32, lease.pid);
	cli_table_cell(table, "%s",
		       lease.ttl_ms ? cli_format_duration(ttl, lease.ttl_ms * NSEC_PER_MSEC) : "-");
	cli_table_cell(table, "%s", cli_format_age(age, lease.acquired_realtime_ns));
	cli_table_cell(table, "%s", labels ? labels : "");
	return 0;
}

static int print_leases(struct cli *cli, const msgpack_object *leases)
{
	static const char *const header[] = { "LEASE", "TEMPLATE", "STATE", "PID",
					      "TTL",   "ACQUIRED", "LABELS" };
	_cleanup_(cli_table_freep) struct cli_table *table = NULL;
	struct warmbox_error error = {};

	if (!leases || leases->type != MSGPACK_OBJECT_ARRAY) {
		cli_print_error(cli, "protocol", "the daemon's answer makes no sense", NULL);
		return CLI_EXIT_FAILED;
	}
	if (cli_table_new(ARRAY_SIZE(header), &table) < 0) {
		return CLI_EXIT_FAILED;
	}
	for (size_t i = 0; i < ARRAY_SIZE(header); i++) {
		cli_table_cell(table, "%s", header[i]);
	}
	for (uint32_t i = 0; i < leases->via.array.size; i++) {
		if (print_lease(table, &leases->via.array.ptr[i], &error) < 0) {
			return cli_remote_failed(cli, NULL, NULL, &error, CLI_EXIT_FAILED);
		}
	}
	return cli_table_print(table, stdout) < 0 ? CLI_EXIT_FAILED : 0;
}

int cli_ps_main(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{ "all", no_argument, NULL, 'a' },
		CLI_COMMON_OPTIONS,
	};
	/* {"state": "all"} and the empty map */
	static const char all_params[] = "\x81\xa5state\xa3"
					 "all";
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	_cleanup_value_ struct warmbox_value *value = NULL;
	struct warmbox_error error = {};
	bool all = false;
	int option, r, status;

	while ((option = cli_option_next(cli, argc, argv, ":a", options, ps_help, &status)) != -1) {
		if (option == '?') {
			return status;
		}
		all = true;
	}
	if (optind != argc) {
		return cli_usage_error(cli, "takes no operand");
	}
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_FAILED;
	}
	r = warmbox_call(connection, "list", all ? all_params : NULL,
			 all ? sizeof(all_params) - 1 : 0, &value, &error);
	if (r < 0) {
		return cli_remote_failed(cli, NULL, NULL, &error, CLI_EXIT_FAILED);
	}
	if (cli->json) {
		cli_print_json(cli_json_from_msgpack(warmbox_value_object(value)));
		return 0;
	}
	return print_leases(cli, warmbox_map_get(warmbox_value_object(value), "leases"));
}
