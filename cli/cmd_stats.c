/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox stats`: the daemon's counters and latencies, or what sandboxes cost in memory.
 *
 * Counters are printed as they come, one line each. Memory is tables: a template's figures are
 * means per sandbox, so that they can be multiplied.
 */

#include "cli/remote.h"

#include <inttypes.h>
#include <string.h>

#define LEASE_ID_LENGTH 32

static const char help[] =
	"Usage: warmbox stats [--memory] [--sandboxes] [TEMPLATE | LEASE]\n"
	"\n"
	"Shows the daemon's counters and latencies, or what its sandboxes cost in memory: those\n"
	"of a TEMPLATE, of a LEASE, or all.\n"
	"\n"
	"  --memory       what sandboxes cost; a TEMPLATE or LEASE implies it\n"
	"  --sandboxes    one line for each sandbox, too; implies --memory\n"
	"  --socket PATH  of the daemon\n"
	"  --json         the result as JSON, in bytes\n";

enum { OPTION_MEMORY = CLI_OPTION_FIRST_OWN, OPTION_SANDBOXES };

struct request {
	bool memory, sandboxes;
	const char *name; /* NULL: all */
};

/* Nested maps as lines "outer.inner  value". Times are shown as such. */
static void print_flat(const char *prefix, json_t *value)
{
	const char *key;
	json_t *inner;
	size_t index;

	if (json_is_object(value)) {
		json_object_foreach(value, key, inner)
		{
			_cleanup_free_ char *name = NULL;

			if (asprintf(&name, "%s%s%s", prefix, *prefix ? "." : "", key) >= 0) {
				print_flat(name, inner);
			}
		}
	} else if (json_is_array(value)) {
		json_array_foreach(value, index, inner)
		{
			_cleanup_free_ char *name = NULL;

			if (asprintf(&name, "%s.%zu", prefix, index) >= 0) {
				print_flat(name, inner);
			}
		}
	} else {
		size_t length = strlen(prefix);
		char text[CLI_FORMAT_MAX];
		_cleanup_free_ char *other = NULL;

		if (json_is_integer(value) && length > 3 &&
		    strcmp(prefix + length - 3, "_ns") == 0) {
			printf("%-40s %s\n", prefix,
			       cli_format_duration(text, (uint64_t)json_integer_value(value)));
			return;
		}
		other = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
		printf("%-40s %s\n", prefix, other ? other : json_string_value(value));
	}
}

static void pack_text(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str(packer, strlen(text));
	msgpack_pack_str_body(packer, text, strlen(text));
}

static bool is_lease(const char *name)
{
	return strlen(name) == LEASE_ID_LENGTH &&
	       strspn(name, "0123456789abcdef") == LEASE_ID_LENGTH;
}

static int call_stats(struct warmbox_connection *connection, const struct request *request,
		      struct warmbox_value **ret_value, struct warmbox_error *error)
{
	msgpack_sbuffer buffer;
	msgpack_packer packer;
	int r;

	msgpack_sbuffer_init(&buffer);
	msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
	msgpack_pack_map(&packer, request->memory + request->sandboxes + (request->name != NULL));
	if (request->memory) {
		pack_text(&packer, "memory");
		msgpack_pack_true(&packer);
	}
	if (request->sandboxes) {
		pack_text(&packer, "sandboxes");
		msgpack_pack_true(&packer);
	}
	if (request->name) {
		pack_text(&packer, is_lease(request->name) ? "lease" : "template");
		pack_text(&packer, request->name);
	}
	r = warmbox_call(connection, "stats", buffer.data, buffer.size, ret_value, error);
	msgpack_sbuffer_destroy(&buffer);
	return r;
}

/* --- memory --- */

static void add_bytes(struct cli_table *table, uint64_t bytes)
{
	char text[CLI_FORMAT_MAX];

	cli_table_cell(table, "%s", cli_format_bytes(text, bytes));
}

/* GUEST, VMM, KERNEL, OWN, IMAGE MAPPED, PSS */
static void add_memory(struct cli_table *table, const msgpack_object *memory)
{
	add_bytes(table, cli_map_number(memory, "guest_private"));
	add_bytes(table, cli_map_number(memory, "vmm_heap") + cli_map_number(memory, "vmm_data") +
				 cli_map_number(memory, "vmm_other"));
	add_bytes(table,
		  cli_map_number(memory, "page_tables") + cli_map_number(memory, "kernel_stacks"));
	add_bytes(table, cli_map_number(memory, "own"));
	add_bytes(table, cli_map_number(memory, "image_shared"));
	add_bytes(table, cli_map_number(memory, "pss"));
}

/* The entry of a snapshot in the answer's pools; NULL when it is leased only. */
static const msgpack_object *find_pool(const msgpack_object *pools, const char *snapshot)
{
	for (uint32_t i = 0;
	     snapshot && pools && pools->type == MSGPACK_OBJECT_ARRAY && i < pools->via.array.size;
	     i++) {
		const msgpack_object *pool = &pools->via.array.ptr[i];
		_cleanup_free_ char *its = cli_map_text(pool, "snapshot");

		if (its && strcmp(its, snapshot) == 0) {
			return pool;
		}
	}
	return NULL;
}

/* FILLED, FAULTS: how far the image has been loaded, and for how many pages a guest had to wait. */
static void add_image(struct cli_table *table, const msgpack_object *pool)
{
	const msgpack_object *complete = pool ? warmbox_map_get(pool, "image_complete") : NULL;

	if (!complete) {
		cli_table_cell(table, "-");
		cli_table_cell(table, "-");
		return;
	}
	if (complete->type == MSGPACK_OBJECT_BOOLEAN && complete->via.boolean) {
		cli_table_cell(table, "complete");
	} else {
		add_bytes(table, cli_map_number(pool, "image_filled_bytes"));
	}
	cli_table_cell(table, "%" PRIu64, cli_map_number(pool, "faults_total"));
}

static void add_template(struct cli_table *table, const msgpack_object *template,
			 const msgpack_object *pools)
{
	_cleanup_free_ char *name = cli_map_text(template, "template");
	_cleanup_free_ char *snapshot = cli_map_text(template, "snapshot");

	cli_table_cell(table, "%s", name ? name : "?");
	cli_table_cell(table, "%" PRIu64, cli_map_number(template, "parked"));
	cli_table_cell(table, "%" PRIu64, cli_map_number(template, "leased"));
	cli_table_cell(table, "%" PRIu64, cli_map_number(template, "measured"));
	add_bytes(table, cli_map_number(template, "image_resident"));
	add_image(table, find_pool(pools, snapshot));
	add_memory(table, warmbox_map_get(template, "mean"));
}

static void add_sandbox(struct cli_table *table, const msgpack_object *sandbox,
			const msgpack_object *pools)
{
	_cleanup_free_ char *name = cli_map_text(sandbox, "template");
	_cleanup_free_ char *lease = cli_map_text(sandbox, "lease");

	cli_table_cell(table, "%s", name ? name : "?");
	cli_table_cell(table, "%s", lease ? lease : "(parked)");
	cli_table_cell(table, "%" PRIu64, cli_map_number(sandbox, "pid"));
	add_memory(table, warmbox_map_get(sandbox, "memory"));
}

static int print_table(const char *const *header, size_t n_columns, const msgpack_object *rows,
		       void (*add)(struct cli_table *table, const msgpack_object *row,
				   const msgpack_object *pools),
		       const msgpack_object *pools)
{
	_cleanup_(cli_table_freep) struct cli_table *table = NULL;

	if (cli_table_new(n_columns, &table) < 0) {
		return CLI_EXIT_FAILED;
	}
	for (size_t i = 0; i < n_columns; i++) {
		cli_table_cell(table, "%s", header[i]);
	}
	for (uint32_t i = 0; rows && rows->type == MSGPACK_OBJECT_ARRAY && i < rows->via.array.size;
	     i++) {
		add(table, &rows->via.array.ptr[i], pools);
	}
	return cli_table_print(table, stdout) < 0 ? CLI_EXIT_FAILED : 0;
}

static void print_host(const msgpack_object *host)
{
	static const struct {
		const char *name, *key;
	} lines[] = {
		{ "available", "available" },
		{ "slab", "slab" },
		{ "page tables", "page_tables" },
		{ "shadow and second-level page tables", "secondary_page_tables" },
		{ "kernel stacks", "kernel_stacks" },
		{ "vmalloc (KVM's memory slots)", "vmalloc" },
		{ "in no counter (KVM's reserves)", "unaccounted" },
	};
	char text[CLI_FORMAT_MAX];

	printf("\nThe host, of %s:\n", cli_format_bytes(text, cli_map_number(host, "total")));
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		printf("  %-36s %s\n", lines[i].name,
		       cli_format_bytes(text, cli_map_number(host, lines[i].key)));
	}
}

static int print_memory(const msgpack_object *stats, const struct request *request)
{
	static const char *const template_header[] = {
		"TEMPLATE", "READY", "LEASED", "MEASURED", "IMAGE",	   "FILLED", "FAULTS",
		"GUEST",    "VMM",   "KERNEL", "OWN",	   "IMAGE MAPPED", "PSS"
	};
	static const char *const sandbox_header[] = { "TEMPLATE", "LEASE",	  "PID",
						      "GUEST",	  "VMM",	  "KERNEL",
						      "OWN",	  "IMAGE MAPPED", "PSS" };
	const msgpack_object *memory = warmbox_map_get(stats, "memory");
	const msgpack_object *pools = warmbox_map_get(stats, "pools");
	int status = 0;

	if (!request->name || !is_lease(request->name)) {
		status = print_table(template_header, ARRAY_SIZE(template_header),
				     warmbox_map_get(memory, "templates"), add_template, pools);
	}
	if (status == 0 && request->sandboxes) {
		printf("%s", request->name && is_lease(request->name) ? "" : "\n");
		status = print_table(sandbox_header, ARRAY_SIZE(sandbox_header),
				     warmbox_map_get(memory, "sandboxes"), add_sandbox, pools);
	}
	print_host(warmbox_map_get(memory, "host"));
	return status;
}

/* --- the command --- */

static int parse(struct cli *cli, int argc, char **argv, struct request *ret_request,
		 int *ret_status)
{
	static const struct option options[] = {
		{ "memory", no_argument, NULL, OPTION_MEMORY },
		{ "sandboxes", no_argument, NULL, OPTION_SANDBOXES },
		CLI_COMMON_OPTIONS,
	};
	struct request request = { 0 };
	int option;

	while ((option = cli_option_next(cli, argc, argv, ":", options, help, ret_status)) != -1) {
		if (option == '?') {
			return 1;
		}
		request.memory = true;
		request.sandboxes |= option == OPTION_SANDBOXES;
	}
	if (argc - optind > 1) {
		*ret_status = cli_usage_error(cli, "one TEMPLATE or LEASE at most");
		return 1;
	}
	if (optind < argc) {
		request.name = argv[optind];
		request.memory = true;
		/* One lease is one sandbox: there is nothing else to show. */
		request.sandboxes |= is_lease(request.name);
	}
	*ret_request = request;
	return 0;
}

int cli_stats_main(struct cli *cli, int argc, char **argv)
{
	_cleanup_connection_ struct warmbox_connection *connection = NULL;
	_cleanup_value_ struct warmbox_value *value = NULL;
	struct warmbox_error error = {};
	struct request request;
	int status;

	if (parse(cli, argc, argv, &request, &status) > 0) {
		return status;
	}
	if (cli_remote_connect(cli, &connection) < 0) {
		return CLI_EXIT_FAILED;
	}
	if (call_stats(connection, &request, &value, &error) < 0) {
		return cli_remote_failed(cli, connection,
					 request.name && !is_lease(request.name) ? request.name
										 : NULL,
					 &error, CLI_EXIT_FAILED);
	}

	const msgpack_object *stats = warmbox_value_object(value);

	if (cli->json) {
		cli_print_json(cli_json_from_msgpack(stats));
		return 0;
	}
	if (request.memory) {
		return print_memory(stats, &request);
	}

	json_t *json = cli_json_from_msgpack(stats);

	print_flat("", json);
	json_decref(json);
	return 0;
}
