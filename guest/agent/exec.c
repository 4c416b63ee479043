/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Checks an exec request and makes argv and envp from it, in one allocation that lives until the
 * program is started. One thread.
 */

#include "guest/agent/exec.h"

#include "guest/agent/process.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STRING(x)  STRING_(x)
#define STRING_(x) #x

static const char *const default_environment[] = {
	"PATH=" AGENT_DEFAULT_PATH,
	"HOME=" AGENT_DEFAULT_HOME,
};
static const char ready_variable[] = "WARMBOX_READY_FD=" STRING(AGENT_READY_FD);

/* argv, envp and the strings they point to. */
struct image {
	char **argv;
	char **envp;
	const char *path;
	char *cwd;
	char *next; /* free room for strings */
	void *memory;
};

static void image_deinit(struct image *image)
{
	free(image->memory);
}

static char *put(struct image *image, const msgpack_object *text)
{
	char *start = image->next;

	memcpy(start, text->via.str.ptr, text->via.str.size);
	start[text->via.str.size] = '\0';
	image->next += text->via.str.size + 1;
	return start;
}

static bool is_variable_name(const msgpack_object *key)
{
	return agent_rpc_is_text(key) && key->via.str.size > 0 &&
	       !memchr(key->via.str.ptr, '=', key->via.str.size);
}

/* 0 with the bytes that all strings need, or -EINVAL with text. */
static int measure(const msgpack_object_array *argv, const msgpack_object_map *env,
		   const msgpack_object *cwd, size_t *ret_bytes, char text[AGENT_TEXT_MAX])
{
	size_t bytes = 0;

	if (argv->size < 1 || argv->size > GUEST_ARGV_MAX) {
		snprintf(text, AGENT_TEXT_MAX, "parameter 'argv' must have 1 to %d strings",
			 GUEST_ARGV_MAX);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < argv->size; i++) {
		if (!agent_rpc_is_text(&argv->ptr[i])) {
			snprintf(text, AGENT_TEXT_MAX,
				 "parameter 'argv': element %u is not a string without NUL", i);
			return -EINVAL;
		}
		bytes += argv->ptr[i].via.str.size + 1;
	}
	for (uint32_t i = 0; i < env->size; i++) {
		if (!is_variable_name(&env->ptr[i].key) || !agent_rpc_is_text(&env->ptr[i].val)) {
			snprintf(text, AGENT_TEXT_MAX,
				 "parameter 'env': pair %u is not a name without '=' and a string, "
				 "both without NUL",
				 i);
			return -EINVAL;
		}
		bytes += env->ptr[i].key.via.str.size + 1 + env->ptr[i].val.via.str.size + 1;
	}
	if (cwd) {
		if (!agent_rpc_is_text(cwd) || cwd->via.str.size == 0) {
			snprintf(text, AGENT_TEXT_MAX, "parameter 'cwd' is not a directory's name");
			return -EINVAL;
		}
		bytes += cwd->via.str.size + 1;
	}
	*ret_bytes = bytes;
	return 0;
}

static bool is_overridden(const msgpack_object_map *env, const char *variable)
{
	size_t length = strcspn(variable, "=");

	for (uint32_t i = 0; i < env->size; i++) {
		const msgpack_object_str *key = &env->ptr[i].key.via.str;

		if (key->size == length && memcmp(key->ptr, variable, length) == 0) {
			return true;
		}
	}
	return false;
}

static void fill_environment(struct image *image, const msgpack_object_map *env, bool resident)
{
	size_t n = 0;

	image->path = AGENT_DEFAULT_PATH;
	for (size_t i = 0; i < ARRAY_SIZE(default_environment); i++) {
		if (!is_overridden(env, default_environment[i])) {
			image->envp[n++] = (char *)default_environment[i];
		}
	}
	if (resident && !is_overridden(env, ready_variable)) {
		image->envp[n++] = (char *)ready_variable;
	}
	for (uint32_t i = 0; i < env->size; i++) {
		char *pair = put(image, &env->ptr[i].key);
		char *value;

		image->next[-1] = '=';
		value = put(image, &env->ptr[i].val);
		image->envp[n++] = pair;
		if (agent_rpc_string_is(&env->ptr[i].key.via.str, "PATH")) {
			image->path = value;
		}
	}
}

static int image_init(struct image *image, const msgpack_object_array *argv,
		      const msgpack_object_map *env, const msgpack_object *cwd, bool resident,
		      char text[AGENT_TEXT_MAX])
{
	size_t pointers, bytes;
	int r = measure(argv, env, cwd, &bytes, text);

	if (r < 0) {
		return r;
	}
	/* Two terminators, the defaults, the ready variable. */
	pointers = argv->size + env->size + 2 + ARRAY_SIZE(default_environment) + 1;
	image->memory = calloc(1, pointers * sizeof(char *) + bytes);
	if (!image->memory) {
		return -ENOMEM;
	}
	image->argv = image->memory;
	image->envp = image->argv + argv->size + 1;
	image->next = (char *)(image->argv + pointers);
	for (uint32_t i = 0; i < argv->size; i++) {
		image->argv[i] = put(image, &argv->ptr[i]);
	}
	fill_environment(image, env, resident);
	image->cwd = cwd ? put(image, cwd) : NULL;
	return 0;
}

static void respond_not_started(struct agent_connection *connection, uint32_t id, int r,
				const char *step, const struct image *image)
{
	const char *code = "failed";

	switch (-r) {
	case ENOENT:
	case ENOTDIR:
		code = "not_found";
		break;
	case EAGAIN:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		code = "exhausted";
		break;
	}
	agent_connection_respond_error(connection, id, code, "cannot %s ('%.100s' in '%.60s'): %s",
				       step, image->argv[0], image->cwd ? image->cwd : "/",
				       strerror(-r));
}

void agent_exec_serve(struct agent_connection *connection, const struct agent_rpc_message *message)
{
	struct agent_rpc_field fields[] = {
		{ "argv", MSGPACK_OBJECT_ARRAY, true },
		{ "env", MSGPACK_OBJECT_MAP },
		{ "cwd", MSGPACK_OBJECT_STR },
		{ "stdin", MSGPACK_OBJECT_BOOLEAN },
		{ "resident", MSGPACK_OBJECT_BOOLEAN },
		{ "max_output_bytes", MSGPACK_OBJECT_POSITIVE_INTEGER },
	};
	const msgpack_object_map no_env = { 0 };
	_cleanup_(image_deinit) struct image image = { 0 };
	struct agent_process_params params = { .id = message->id };
	char text[AGENT_TEXT_MAX];
	const char *step;
	int r = agent_rpc_fields(message->params, fields, ARRAY_SIZE(fields), text);

	if (r == 0) {
		params.output_max_bytes = fields[5].value ? fields[5].value->via.u64 : UINT64_MAX;
		params.resident = fields[4].value && fields[4].value->via.boolean;
		/* The resident process is given its input by whoever attaches. */
		params.with_stdin =
			params.resident || (fields[3].value && fields[3].value->via.boolean);
		r = image_init(&image, &fields[0].value->via.array,
			       fields[1].value ? &fields[1].value->via.map : &no_env,
			       fields[2].value, params.resident, text);
	}
	if (r < 0) {
		agent_connection_respond_error(connection, message->id,
					       r == -ENOMEM ? "exhausted" : "invalid_argument",
					       "%s", r == -ENOMEM ? "out of memory" : text);
		return;
	}
	if (params.resident && connection->server->resident) {
		agent_connection_respond_error(connection, message->id, "already_exists",
					       "there is a resident process already");
		return;
	}
	if (connection->server->n_processes >= AGENT_PROCESSES_MAX) {
		agent_connection_respond_error(connection, message->id, "exhausted",
					       "%d processes run already", AGENT_PROCESSES_MAX);
		return;
	}
	params.argv = image.argv;
	params.envp = image.envp;
	params.path = image.path;
	params.cwd = image.cwd ? image.cwd : "/";
	r = agent_process_start(connection, &params, &step);
	if (r < 0) {
		respond_not_started(connection, message->id, r, step, &image);
	}
}

int agent_exec_touch(struct agent_connection *connection, uint32_t id, const char **ret_step)
{
	static const char program[] = "/proc/self/exe";
	char *const argv[] = { (char *)program, (char *)GUEST_TOUCH_ARGUMENT, NULL };
	char *const envp[] = { (char *)default_environment[0], (char *)default_environment[1],
			       NULL };
	const struct agent_process_params params = {
		.id = id,
		.argv = argv,
		.envp = envp,
		.path = AGENT_DEFAULT_PATH,
		.cwd = "/",
		.touch = true,
		.output_max_bytes = UINT64_MAX,
	};

	return agent_process_start(connection, &params, ret_step);
}

int agent_exec_touch_main(void)
{
	return write(STDOUT_FILENO, "\n", 1) == 1 ? 0 : 1;
}
