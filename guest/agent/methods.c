/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Dispatch by name, and the methods that are small. Each handler answers, or leaves a process
 * behind that will. One thread; nothing here waits, but for quiesce.
 */

#include "guest/agent/methods.h"

#include "guest/agent/exec.h"
#include "guest/agent/process.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Checks the parameters; on failure the request is answered. */
static bool get_fields(struct agent_connection *connection, const struct agent_rpc_message *message,
		       struct agent_rpc_field *fields, size_t n_fields)
{
	char text[AGENT_TEXT_MAX];

	if (agent_rpc_fields(message->params, fields, n_fields, text) < 0) {
		agent_connection_respond_error(connection, message->id, "invalid_argument", "%s",
					       text);
		return false;
	}
	return true;
}

static void serve_ping(struct agent_connection *connection, const struct agent_rpc_message *message)
{
	msgpack_packer packer;

	if (!get_fields(connection, message, NULL, 0)) {
		return;
	}
	agent_connection_begin_response(connection, message->id, &packer);
	msgpack_pack_map(&packer, 2);
	agent_connection_pack_string(&packer, "version");
	agent_connection_pack_string(&packer, WARMBOX_VERSION);
	agent_connection_pack_string(&packer, "generation");
	msgpack_pack_uint64(&packer, connection->server->generation);
}

static void serve_resident(struct agent_connection *connection,
			   const struct agent_rpc_message *message)
{
	struct agent_process *resident = connection->server->resident;
	struct agent_rpc_field fields[] = {
		{ "max_output_bytes", MSGPACK_OBJECT_POSITIVE_INTEGER },
	};

	if (!get_fields(connection, message, fields, ARRAY_SIZE(fields))) {
		return;
	}
	if (!resident) {
		agent_connection_respond_error(connection, message->id, "not_found",
					       "there is no resident process");
	} else if (resident->state != AGENT_PROCESS_WAITING) {
		agent_connection_respond_error(connection, message->id, "already_exists",
					       "the resident process is taken");
	} else {
		if (fields[0].value) {
			agent_process_limit_output(resident, fields[0].value->via.u64);
		}
		agent_process_attach(resident, connection, message->id);
	}
}

static void serve_kill(struct agent_connection *connection, const struct agent_rpc_message *message)
{
	struct agent_rpc_field fields[] = {
		{ "id", MSGPACK_OBJECT_POSITIVE_INTEGER, true },
		{ "signal", MSGPACK_OBJECT_POSITIVE_INTEGER, true },
	};
	struct agent_process *process = NULL;
	int r;

	if (!get_fields(connection, message, fields, ARRAY_SIZE(fields))) {
		return;
	}
	if (fields[1].value->via.u64 < 1 || fields[1].value->via.u64 >= NSIG) {
		agent_connection_respond_error(connection, message->id, "invalid_argument",
					       "parameter 'signal' must be 1 to %d", NSIG - 1);
		return;
	}
	if (fields[0].value->via.u64 <= UINT32_MAX) {
		process = agent_process_find(connection, (uint32_t)fields[0].value->via.u64);
	}
	r = process ? agent_process_signal(process, (int)fields[1].value->via.u64) : -ESRCH;
	if (r == -ESRCH) {
		agent_connection_respond_error(connection, message->id, "not_found",
					       "no process runs under that request id");
	} else if (r < 0) {
		agent_connection_respond_error(connection, message->id, "failed",
					       "cannot send the signal: %s", strerror(-r));
	} else {
		agent_connection_respond_empty(connection, message->id);
	}
}

/* Copies text of exactly (or, with at_most, up to) size characters of the given kinds. */
static bool copy_name(char *out, const msgpack_object *value, size_t size, bool at_most,
		      const char *other_characters)
{
	size_t length = value->via.str.size;

	if (length == 0 || length > size || (!at_most && length != size)) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)value->via.str.ptr[i];

		if (!(at_most ? isalnum(c) : isxdigit(c)) && (!c || !strchr(other_characters, c))) {
			return false;
		}
	}
	memcpy(out, value->via.str.ptr, length);
	out[length] = '\0';
	return true;
}

enum {
	SEED,
	MACHINE_ID,
	BOOT_ID,
	HOSTNAME,
	GENERATION,
	REALTIME,
	TSC,
	TSC_KHZ,
	TOUCH,
	IDENTITY_FIELDS,
};

/* NULL, or the name of the parameter that is out of range. */
static const char *read_identity(const struct agent_rpc_field fields[IDENTITY_FIELDS],
				 struct agent_identity_params *params)
{
	if (fields[SEED].value->via.bin.size != GUEST_SEED_BYTES) {
		return "seed";
	}
	memcpy(params->seed, fields[SEED].value->via.bin.ptr, GUEST_SEED_BYTES);
	if (!copy_name(params->machine_id, fields[MACHINE_ID].value, AGENT_MACHINE_ID_CHARS, false,
		       "")) {
		return "machine_id";
	}
	if (!copy_name(params->boot_id, fields[BOOT_ID].value, AGENT_BOOT_ID_CHARS, false, "-")) {
		return "boot_id";
	}
	if (!copy_name(params->hostname, fields[HOSTNAME].value, AGENT_HOSTNAME_MAX, true, "-.")) {
		return "hostname";
	}
	params->generation = fields[GENERATION].value->via.u64;
	params->realtime_ns = fields[REALTIME].value->via.u64;
	params->tsc = fields[TSC].value->via.u64;
	params->tsc_khz = fields[TSC_KHZ].value->via.u64;
	if (params->tsc_khz < AGENT_TSC_KHZ_MIN || params->tsc_khz > AGENT_TSC_KHZ_MAX) {
		return "tsc_khz";
	}
	return NULL;
}

static void serve_identity(struct agent_connection *connection,
			   const struct agent_rpc_message *message)
{
	struct agent_rpc_field fields[IDENTITY_FIELDS] = {
		[SEED] = { "seed", MSGPACK_OBJECT_BIN, true },
		[MACHINE_ID] = { "machine_id", MSGPACK_OBJECT_STR, true },
		[BOOT_ID] = { "boot_id", MSGPACK_OBJECT_STR, true },
		[HOSTNAME] = { "hostname", MSGPACK_OBJECT_STR, true },
		[GENERATION] = { "generation", MSGPACK_OBJECT_POSITIVE_INTEGER, true },
		[REALTIME] = { "realtime_ns", MSGPACK_OBJECT_POSITIVE_INTEGER, true },
		[TSC] = { "tsc", MSGPACK_OBJECT_POSITIVE_INTEGER, true },
		[TSC_KHZ] = { "tsc_khz", MSGPACK_OBJECT_POSITIVE_INTEGER, true },
		[TOUCH] = { "touch", MSGPACK_OBJECT_BOOLEAN },
	};
	struct agent_server *server = connection->server;
	struct agent_identity_params params;
	msgpack_packer packer;
	const char *what;
	bool touch;
	int r;

	if (server->never_identify || !get_fields(connection, message, fields, IDENTITY_FIELDS)) {
		return;
	}
	what = read_identity(fields, &params);
	if (what) {
		agent_connection_respond_error(connection, message->id, "invalid_argument",
					       "parameter '%s' is out of range", what);
		return;
	}
	r = agent_identity_apply(&server->identity, &params, &what);
	explicit_bzero(params.seed, sizeof(params.seed));
	touch = fields[TOUCH].value && fields[TOUCH].value->via.boolean;
	if (r == 0 && touch) {
		r = agent_exec_touch(connection, message->id, &what);
	}
	if (r < 0) {
		agent_connection_respond_error(connection, message->id, "failed", "cannot %s: %s",
					       what, strerror(-r));
		return;
	}
	server->generation = params.generation;
	if (touch) {
		return; /* the program's end answers */
	}
	agent_connection_begin_response(connection, message->id, &packer);
	msgpack_pack_true(&packer);
}

/*
 * What is in memory after this is in the snapshot. Dirty pages are written back. The page cache of
 * the root image stays: it makes the snapshot larger, and saves every clone the reading of what its
 * first programs need, which on hosts with an interpreted kernel is what they would wait for most.
 * The memory of closed connections stays too, so that the next ones do not fault, and the first
 * exec of a clone finds its pipes made: four calls that cost as much as starting a small program.
 */
static void serve_quiesce(struct agent_connection *connection,
			  const struct agent_rpc_message *message)
{
	struct agent_server *server = connection->server;
	unsigned resident;

	if (!get_fields(connection, message, NULL, 0)) {
		return;
	}
	agent_process_reap_ending(server);
	resident = server->resident && server->resident->state == AGENT_PROCESS_WAITING ? 1 : 0;
	if (server->n_processes > resident) {
		agent_connection_respond_error(connection, message->id, "failed",
					       "%u processes still run",
					       server->n_processes - resident);
		return;
	}
	BASE_LIST_FOR_EACH(link, &server->connections)
	{
		struct agent_connection *other = CONTAINER_OF(link, struct agent_connection, link);

		if (other != connection) {
			other->broken = true;
			other->dirty = true;
			server->busy = true;
		}
	}
	sync();
	/* Its only failure is a lack of memory, which the next exec will tell of. */
	agent_process_prepare_next(server);
	agent_connection_respond_empty(connection, message->id);
}

static const struct {
	const char *name;
	void (*serve)(struct agent_connection *, const struct agent_rpc_message *);
} methods[] = {
	{ "exec", agent_exec_serve },	{ "ping", serve_ping },
	{ "resident", serve_resident }, { "kill", serve_kill },
	{ "identity", serve_identity }, { "quiesce", serve_quiesce },
};

/* stdin, the only notification. For a process that has ended meanwhile it is dropped. */
static int serve_notification(struct agent_connection *connection,
			      const struct agent_rpc_message *message)
{
	struct agent_rpc_field fields[] = {
		{ "id", MSGPACK_OBJECT_POSITIVE_INTEGER, true },
		{ "data", MSGPACK_OBJECT_BIN, true },
	};
	struct agent_process *process = NULL;
	char text[AGENT_TEXT_MAX];
	const uint8_t *data;
	size_t size, taken;

	/* There is no answer that could tell of a mistake. */
	if (!agent_rpc_string_is(&message->method, "stdin") || !message->params ||
	    agent_rpc_fields(message->params, fields, ARRAY_SIZE(fields), text) < 0) {
		return -EBADMSG;
	}
	if (fields[0].value->via.u64 <= UINT32_MAX) {
		process = agent_process_find(connection, (uint32_t)fields[0].value->via.u64);
	}
	if (!process || process->state != AGENT_PROCESS_RUNNING) {
		return 0;
	}
	data = (const uint8_t *)fields[1].value->via.bin.ptr;
	size = fields[1].value->via.bin.size;
	if (size == 0) {
		agent_process_close_stdin(process);
		return 0;
	}
	taken = agent_process_write(process, data, size);
	if (taken < size) {
		connection->blocked = process;
		connection->blocked_data = data + taken;
		connection->blocked_size = size - taken;
	}
	return 0;
}

int agent_methods_serve(struct agent_connection *connection,
			const struct agent_rpc_message *message)
{
	if (message->type == AGENT_RPC_NOTIFICATION) {
		return serve_notification(connection, message);
	}
	if (!message->params || agent_process_find(connection, message->id)) {
		agent_connection_respond_error(
			connection, message->id, "invalid_request",
			message->params ? "a request with this id is open on this connection"
					: "params must be an array of one map");
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (agent_rpc_string_is(&message->method, methods[i].name)) {
			methods[i].serve(connection, message);
			return 0;
		}
	}
	agent_connection_respond_error(connection, message->id, "unknown_method",
				       "there is no method '%.*s'",
				       (int)MIN(message->method.size, 64u), message->method.ptr);
	return 0;
}
