/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox template list|inspect|verify|remove`: work on the store itself, without the daemon.
 *
 * A template that cannot be opened is listed with the reason: a damaged one must be seen.
 */

#include "cli/cli.h"
#include "cli/template.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define STORE_HELP "  --store DIR  the store (WARMBOX_STORE, or " CLI_STORE_DEFAULT ")\n"
#define JSON_HELP  "  --json       the result as JSON\n"

static const char template_help[] =
	"Usage: warmbox template build NAME --root IMAGE [options]\n"
	"       warmbox template list [--store DIR]\n"
	"       warmbox template inspect NAME [--store DIR]\n"
	"       warmbox template verify NAME [--store DIR]\n"
	"       warmbox template remove NAME [--store DIR]\n"
	"\n"
	"  build    boot a guest, warm it up, freeze it; see warmbox template build --help\n"
	"  list     what there is\n"
	"  inspect  everything that is known of one\n"
	"  verify   read every byte of one and check it\n"
	"  remove   take one away; sandboxes that were made from it go on\n"
	"\n" STORE_HELP JSON_HELP;

enum { OPTION_STORE = CLI_OPTION_FIRST_OWN };

static const struct option options[] = {
	{ "store", required_argument, NULL, OPTION_STORE },
	CLI_COMMON_OPTIONS,
};

static const char *hint_for(int r)
{
	switch (r) {
	case -ENOENT:
		return "See: warmbox template list; and to make one: warmbox template build --help";
	case -EACCES:
	case -EPERM:
		return "The store belongs to somebody else: be root, or name another with --store "
		       "DIR.";
	case -EBADMSG:
		return "The snapshot is damaged or was tampered with: remove it and build it "
		       "again.";
	default:
		return NULL;
	}
}

static int failed(const struct cli *cli, int r, const struct base_error *error)
{
	cli_print_error(cli, r == -ENOENT ? "not_found" : "failed",
			error->text[0] ? error->text : strerror(-r), hint_for(r));
	return CLI_EXIT_FAILED;
}

json_t *cli_template_json(const struct snapshot_manifest *manifest)
{
	json_t *disks = json_array();
	char fingerprint[17];

	snprintf(fingerprint, sizeof(fingerprint), "%016" PRIx64, manifest->host_fingerprint);

	for (uint32_t i = 0; i < manifest->n_disks; i++) {
		const struct snapshot_disk *disk = &manifest->disks[i];

		json_array_append_new(disks, json_pack("{s:s,s:I,s:b}", "digest", disk->digest,
						       "size_bytes", (json_int_t)disk->size_bytes,
						       "read_only", disk->read_only));
	}
	return json_pack(
		"{s:s,s:s,s:I,s:I,s:i,s:b,s:s,s:s,s:s,s:s,s:s,s:o,s:I,s:I,s:I,s:I,s:I,s:I}", "name",
		manifest->template_name, "id", manifest->id, "created_ns",
		(json_int_t)manifest->created_realtime_ns, "memory_bytes",
		(json_int_t)manifest->memory_bytes, "vcpus", (int)manifest->n_vcpus, "resident",
		manifest->has_resident, "host_kind",
		vmm_host_kind_name((enum vmm_host_kind)manifest->host_kind), "host_fingerprint",
		fingerprint, "parent", manifest->parent, "kernel_digest", manifest->kernel_digest,
		"cmdline", manifest->cmdline, "disks", disks, "state_bytes",
		(json_int_t)manifest->state_bytes, "memory_file_bytes",
		(json_int_t)manifest->memory_file_bytes, "stored_chunks",
		(json_int_t)manifest->stored_chunks, "zero_chunks",
		(json_int_t)manifest->zero_chunks, "working_set_pages",
		(json_int_t)manifest->ws_pages, "working_set_bytes",
		(json_int_t)(manifest->ws_pages * SNAPSHOT_PAGE_BYTES));
}

/* One template as a row of the table, or as an element of the JSON array. */
static int list_one(struct snapshot_store *store, const char *name, struct cli_table *table,
		    json_t *array)
{
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	char age[CLI_FORMAT_MAX], memory[CLI_FORMAT_MAX], stored[CLI_FORMAT_MAX];
	const struct snapshot_manifest *manifest;
	struct base_error error = {};

	if (snapshot_open(store, name, &snapshot, &error) < 0) {
		cli_table_cell(table, "%s", name);
		for (int i = 0; i < 5; i++) {
			cli_table_cell(table, "-");
		}
		cli_table_cell(table, "unusable: %s", error.text);
		return json_array_append_new(
			array, json_pack("{s:s,s:s}", "name", name, "error", error.text));
	}
	manifest = snapshot_manifest(snapshot);
	cli_table_cell(table, "%s", name);
	cli_table_cell(table, "%.12s", manifest->id);
	cli_table_cell(table, "%s", cli_format_bytes(memory, manifest->memory_bytes));
	cli_table_cell(table, "%s", cli_format_bytes(stored, manifest->memory_file_bytes));
	cli_table_cell(table, "%u", manifest->n_vcpus);
	cli_table_cell(table, "%s", manifest->has_resident ? "yes" : "no");
	cli_table_cell(table, "%s", cli_format_age(age, manifest->created_realtime_ns));
	return json_array_append_new(array, cli_template_json(manifest));
}

static int list(struct cli *cli, struct snapshot_store *store)
{
	static const char *const header[] = { "NAME",  "SNAPSHOT", "MEMORY", "STORED",
					      "VCPUS", "RESIDENT", "CREATED" };
	_cleanup_(cli_table_freep) struct cli_table *table = NULL;
	struct base_error error = {};
	char **names = NULL;
	size_t n = 0;
	json_t *array;
	int r;

	r = snapshot_store_list(store, &names, &n, &error);
	r = r ?: cli_table_new(ARRAY_SIZE(header), &table);
	if (r < 0) {
		return failed(cli, r, &error);
	}
	array = json_array();
	for (size_t i = 0; i < ARRAY_SIZE(header); i++) {
		cli_table_cell(table, "%s", header[i]);
	}
	for (size_t i = 0; i < n; i++) {
		list_one(store, names[i], table, array);
		free(names[i]);
	}
	free(names);
	if (cli->json) {
		cli_print_json(json_pack("{s:o}", "templates", array));
		return 0;
	}
	json_decref(array);
	if (n == 0) {
		fprintf(stderr, "No templates yet. To make one: warmbox template build --help\n");
		return 0;
	}
	return cli_table_print(table, stdout) < 0 ? CLI_EXIT_FAILED : 0;
}

static int inspect(struct cli *cli, struct snapshot_store *store, const char *name)
{
	_cleanup_(snapshot_freep) struct snapshot *snapshot = NULL;
	struct base_error error = {};
	const char *key;
	json_t *object, *value;
	int r;

	r = snapshot_open(store, name, &snapshot, &error);
	if (r < 0) {
		return failed(cli, r, &error);
	}
	object = cli_template_json(snapshot_manifest(snapshot));
	if (cli->json) {
		cli_print_json(object);
		return 0;
	}
	json_object_foreach(object, key, value)
	{
		_cleanup_free_ char *text = NULL;

		text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
		printf("%-18s %s\n", key, text ? text : json_string_value(value));
	}
	json_decref(object);
	return 0;
}

static int verify(struct cli *cli, struct snapshot_store *store, const char *name)
{
	struct base_error error = {};
	int r;

	r = snapshot_verify(store, name, &error);
	if (r < 0) {
		return failed(cli, r, &error);
	}
	if (cli->json) {
		cli_print_json(json_pack("{s:s,s:b}", "name", name, "intact", 1));
	} else {
		printf("Template %s is intact.\n", name);
	}
	return 0;
}

static int remove_template(struct cli *cli, struct snapshot_store *store, const char *name)
{
	struct base_error error = {};
	int r;

	r = snapshot_store_remove(store, name, &error);
	if (r < 0) {
		return failed(cli, r, &error);
	}
	if (cli->json) {
		cli_print_json(json_pack("{s:s}", "removed", name));
	} else {
		printf("Template %s is removed.\n", name);
	}
	return 0;
}

static const struct verb {
	const char *name;
	const char *command;
	int (*fn)(struct cli *cli, struct snapshot_store *store, const char *name);
} verbs[] = {
	{ "inspect", "template inspect", inspect },
	{ "verify", "template verify", verify },
	{ "remove", "template remove", remove_template },
};

static int run_verb(struct cli *cli, const struct verb *verb, int argc, char **argv)
{
	_cleanup_(snapshot_store_freep) struct snapshot_store *store = NULL;
	const char *store_path = cli_store_path();
	struct base_error error = {};
	int option, status, r;

	while ((option = cli_option_next(cli, argc, argv, ":", options, template_help, &status)) !=
	       -1) {
		if (option == '?') {
			return status;
		}
		store_path = optarg;
	}
	if (argc - optind != (verb ? 1 : 0)) {
		return cli_usage_error(cli, verb ? "which template? One NAME is needed"
						 : "takes no operand");
	}
	r = snapshot_store_open(store_path, false, &store, &error);
	if (r == -ENOENT && !verb) {
		error = (struct base_error){};
		if (cli->json) {
			cli_print_json(json_pack("{s:[]}", "templates"));
		} else {
			fprintf(stderr,
				"No templates yet: there is no store at %s. To make one: warmbox "
				"template build --help\n",
				store_path);
		}
		return 0;
	}
	if (r < 0) {
		return failed(cli, r, &error);
	}
	return verb ? verb->fn(cli, store, argv[optind]) : list(cli, store);
}

int cli_template_main(struct cli *cli, int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "--help";

	cli_option_reset();
	if (strcmp(name, "build") == 0) {
		cli->command = "template build";
		return cli_build_main(cli, argc - 1, argv + 1);
	}
	if (strcmp(name, "list") == 0) {
		cli->command = "template list";
		return run_verb(cli, NULL, argc - 1, argv + 1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		if (strcmp(name, verbs[i].name) == 0) {
			cli->command = verbs[i].command;
			return run_verb(cli, &verbs[i], argc - 1, argv + 1);
		}
	}
	if (strcmp(name, "--help") == 0) {
		printf("%s", template_help);
		return argc > 1 ? 0 : CLI_EXIT_USAGE;
	}
	return cli_usage_error(cli, "there is no 'template %s'", name);
}
