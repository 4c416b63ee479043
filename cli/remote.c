/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Talking to the daemon, as far as subcommands share it.
 *
 * Failures are printed where they are found, with a hint that fits the code; the caller only
 * returns the status it is given. Main thread only.
 */

#include "cli/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int cli_remote_connect(const struct cli *cli, struct warmbox_connection **ret_connection)
{
	struct warmbox_error error;
	int r;

	r = warmbox_connect(cli->socket_path, ret_connection, &error);
	if (r < 0) {
		cli_print_error(cli, warmbox_code_name(error.code), error.text,
				r == -ENOENT || r == -ECONNREFUSED
					? "To start it: warmboxd (warmboxd --help says how). "
					  "Another socket: --socket PATH, or WARMBOX_SOCKET."
					: NULL);
	}
	return r;
}

/* "Templates here: a, b. …" into hint. */
static void name_templates(struct warmbox_connection *connection, char *hint, size_t size)
{
	_cleanup_value_ struct warmbox_value *value = NULL;
	const msgpack_object *templates = NULL;
	size_t used;

	int r = warmbox_call(connection, "template.list", NULL, 0, &value, NULL);

	if (r == -EACCES) {
		snprintf(hint, size, "Which there are is for the administrator to say.");
		return;
	}
	if (r == 0) {
		templates = warmbox_map_get(warmbox_value_object(value), "templates");
	}
	if (!templates || templates->type != MSGPACK_OBJECT_ARRAY ||
	    templates->via.array.size == 0) {
		snprintf(hint, size,
			 "There are no templates yet. To make one: warmbox template "
			 "build --help");
		return;
	}
	used = (size_t)snprintf(hint, size, "There are:");
	for (uint32_t i = 0; i < templates->via.array.size && used < size; i++) {
		_cleanup_free_ char *name = cli_map_text(&templates->via.array.ptr[i], "name");

		used += (size_t)snprintf(hint + used, size - used, "%s %s", i ? "," : "",
					 name ? name : "?");
	}
	if (used < size) {
		snprintf(hint + used, size - used, ". To make one: warmbox template build --help");
	}
}

static const char *hint_for(enum warmbox_code code)
{
	switch (code) {
	case WARMBOX_DEADLINE_EXCEEDED:
		return "No sandbox was ready in time: wait longer (--wait TIME), or keep more "
		       "ready "
		       "(warmbox pool TEMPLATE --set N).";
	case WARMBOX_PERMISSION_DENIED:
		return "What a user may is in the [tenant] sections of the daemon's configuration.";
	case WARMBOX_QUOTA_EXCEEDED:
	case WARMBOX_EXHAUSTED:
		return "Try again later, or release what is not needed any more (warmbox ps).";
	case WARMBOX_DISCONNECTED:
		return "Did the daemon or the sandbox end? warmbox health, warmbox ps --all.";
	default:
		return NULL;
	}
}

int cli_remote_failed(const struct cli *cli, struct warmbox_connection *connection,
		      const char *template_name, const struct warmbox_error *error, int status)
{
	char hint[1024];

	if (error->code == WARMBOX_NOT_FOUND && template_name && connection) {
		name_templates(connection, hint, sizeof(hint));
		cli_print_error(cli, warmbox_code_name(error->code), error->text, hint);
	} else {
		cli_print_error(cli, warmbox_code_name(error->code), error->text,
				hint_for(error->code));
	}
	return status;
}

static json_t *map_to_json(const msgpack_object_map *map)
{
	json_t *object = json_object();

	for (uint32_t i = 0; i < map->size; i++) {
		const msgpack_object *key = &map->ptr[i].key;
		_cleanup_free_ char *name = NULL;

		if (key->type == MSGPACK_OBJECT_STR) {
			name = strndup(key->via.str.ptr, key->via.str.size);
		}
		if (name) {
			json_object_set_new(object, name, cli_json_from_msgpack(&map->ptr[i].val));
		}
	}
	return object;
}

json_t *cli_json_from_msgpack(const msgpack_object *object)
{
	json_t *value;

	switch (object->type) {
	case MSGPACK_OBJECT_BOOLEAN:
		return json_boolean(object->via.boolean);
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		return object->via.u64 <= INT64_MAX ? json_integer((json_int_t)object->via.u64)
						    : json_real((double)object->via.u64);
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		return json_integer(object->via.i64);
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		return json_real(object->via.f64);
	case MSGPACK_OBJECT_STR:
		value = json_stringn(object->via.str.ptr, object->via.str.size);
		return value ? value : json_null();
	case MSGPACK_OBJECT_BIN:
		value = json_stringn(object->via.bin.ptr, object->via.bin.size);
		return value ? value : json_null();
	case MSGPACK_OBJECT_ARRAY:
		value = json_array();
		for (uint32_t i = 0; i < object->via.array.size; i++) {
			json_array_append_new(value,
					      cli_json_from_msgpack(&object->via.array.ptr[i]));
		}
		return value;
	case MSGPACK_OBJECT_MAP:
		return map_to_json(&object->via.map);
	default:
		return json_null();
	}
}

static json_t *nanoseconds(uint64_t ns)
{
	return ns ? json_integer((json_int_t)ns) : json_null();
}

json_t *cli_json_from_lease(const struct warmbox_lease *lease)
{
	const struct warmbox_timings *timings = &lease->timings;

	return json_pack(
		"{s:s,s:s*,s:s,s:s,s:s,s:s?,s:i,s:I,s:I,s:o,s:s?,s:{s:I,s:I,s:o,s:{s:o,s:o,s:o,s:o,"
		"s:o}}}",
		"lease", lease->id, "token", lease->token[0] ? lease->token : NULL, "template",
		lease->template_name, "snapshot", lease->snapshot, "state",
		lease->active ? "active" : "ended", "socket",
		lease->socket[0] ? lease->socket : NULL, "pid", (int)lease->pid, "acquired_ns",
		(json_int_t)lease->acquired_realtime_ns, "ttl_ms", (json_int_t)lease->ttl_ms,
		"expires_ns", nanoseconds(lease->expires_realtime_ns), "cause",
		lease->cause[0] ? lease->cause : NULL, "timings", "wait_ns",
		(json_int_t)timings->wait_ns, "claim_ns", (json_int_t)timings->claim_ns,
		"first_entry_ns", nanoseconds(timings->first_entry_ns), "restore", "spawn_ns",
		nanoseconds(timings->spawn_ns), "create_ns", nanoseconds(timings->create_ns),
		"load_ns", nanoseconds(timings->load_ns), "identity_ns",
		nanoseconds(timings->identity_ns), "park_ns", nanoseconds(timings->park_ns));
}

uint64_t cli_map_number(const msgpack_object *map, const char *key)
{
	const msgpack_object *value = warmbox_map_get(map, key);

	return value && value->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? value->via.u64 : 0;
}

char *cli_map_text(const msgpack_object *map, const char *key)
{
	const msgpack_object *value = warmbox_map_get(map, key);

	return value && value->type == MSGPACK_OBJECT_STR
		       ? strndup(value->via.str.ptr, value->via.str.size)
		       : NULL;
}

int cli_acquire_label(const struct cli *cli, struct cli_acquire *acquire, char *text)
{
	char *equals = strchr(text, '=');

	if (!equals || equals == text) {
		cli_usage_error(cli, "--label must be KEY=VALUE, not '%s'", text);
		return -EINVAL;
	}
	if (acquire->params.n_labels == CLI_LABELS_MAX) {
		cli_usage_error(cli, "--label may be given at most %d times", CLI_LABELS_MAX);
		return -E2BIG;
	}
	*equals = '\0';
	acquire->labels[acquire->params.n_labels++] =
		(struct warmbox_label){ .key = text, .value = equals + 1 };
	return 0;
}

const char *cli_lease_token(const char *text, char ret_id[WARMBOX_ID_LENGTH + 1])
{
	size_t size = strcspn(text, ":");

	snprintf(ret_id, WARMBOX_ID_LENGTH + 1, "%.*s", (int)MIN(size, (size_t)WARMBOX_ID_LENGTH),
		 text);
	return text[size] == ':' ? text + size + 1 : NULL;
}

int cli_acquire_wait(const struct cli *cli, struct cli_acquire *acquire, const char *text)
{
	acquire->params.has_timeout = true;
	return cli_parse_duration(cli, "--wait", text, &acquire->params.timeout_ms);
}
