/* SPDX-License-Identifier: Apache-2.0 */

/* Everything here waits at most WAIT_SECONDS for the agent; then the test fails. */

#include "tests/unit/guest/client.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_SECONDS 30

void agent_instance_start(struct agent_instance *instance, const char *argument)
{
	strcpy(instance->directory, "/tmp/warmbox-agent-XXXXXX");
	assert_non_null(mkdtemp(instance->directory));
	instance->pid = fork();
	assert_true(instance->pid >= 0);
	if (instance->pid == 0) {
		/* Like PID 1, it gets the orphans. */
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* What this process was itself left with is not the agent's. */
		close_range(3, ~0u, 0);
		execl(AGENT_HOST_PATH, AGENT_HOST_PATH, instance->directory, argument, NULL);
		_exit(127);
	}
	for (int i = 0; i < WAIT_SECONDS * 100; i++) {
		int fd = agent_instance_connect(instance);

		if (fd >= 0) {
			close(fd);
			return;
		}
		poll(NULL, 0, 10);
	}
	fail_msg("the agent does not listen");
}

static void remove_file(const struct agent_instance *instance, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", instance->directory, name);
	unlink(path);
}

void agent_instance_stop(struct agent_instance *instance)
{
	int status;

	kill(instance->pid, SIGTERM);
	assert_int_equal(waitpid(instance->pid, &status, 0), instance->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	remove_file(instance, "socket");
	remove_file(instance, "machine-id");
	remove_file(instance, "boot-id");
	remove_file(instance, "identity.log");
	assert_int_equal(rmdir(instance->directory), 0);
}

int agent_instance_connect(const struct agent_instance *instance)
{
	const struct timeval timeout = { .tv_sec = WAIT_SECONDS };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", instance->directory);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

long agent_instance_status(const struct agent_instance *instance, const char *key)
{
	char path[64], line[256];
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)instance->pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, strlen(key)) == 0) {
			value = strtol(line + strlen(key), NULL, 10);
		}
	}
	fclose(file);
	assert_true(value >= 0);
	return value;
}

unsigned agent_instance_fds(const struct agent_instance *instance)
{
	unsigned n = 0;
	char path[64];
	DIR *directory;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)instance->pid);
	directory = opendir(path);
	assert_non_null(directory);
	while (readdir(directory)) {
		n++;
	}
	closedir(directory);
	return n;
}

void client_init(struct client *client, const struct agent_instance *instance)
{
	client->fd = agent_instance_connect(instance);
	assert_true(client->fd >= 0);
	assert_true(msgpack_unpacker_init(&client->unpacker, 128 * 1024));
	msgpack_unpacked_init(&client->unpacked);
}

void client_deinit(struct client *client)
{
	msgpack_unpacked_destroy(&client->unpacked);
	msgpack_unpacker_destroy(&client->unpacker);
	if (client->fd >= 0) {
		close(client->fd);
	}
}

void client_send(struct client *client, const void *data, size_t size)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = send(client->fd, p, size, MSG_NOSIGNAL);

		assert_true(n > 0);
		p += n;
		size -= (size_t)n;
	}
}

static void pack_text(msgpack_packer *packer, const char *text)
{
	msgpack_pack_str_with_body(packer, text, strlen(text));
}

static void pack_value(msgpack_packer *packer, int letter, va_list *args)
{
	const char *const *strings;
	const char *data;
	uint32_t n = 0;

	switch (letter) {
	case 's':
		pack_text(packer, va_arg(*args, const char *));
		break;
	case 'i':
		msgpack_pack_int64(packer, va_arg(*args, int64_t));
		break;
	case 'b':
		if (va_arg(*args, int)) {
			msgpack_pack_true(packer);
		} else {
			msgpack_pack_false(packer);
		}
		break;
	case 'a':
		strings = va_arg(*args, const char *const *);
		while (strings[n]) {
			n++;
		}
		msgpack_pack_array(packer, n);
		for (uint32_t i = 0; i < n; i++) {
			pack_text(packer, strings[i]);
		}
		break;
	case 'd':
		data = va_arg(*args, const char *);
		msgpack_pack_bin_with_body(packer, data, va_arg(*args, size_t));
		break;
	case 'm':
		msgpack_pack_map(packer, 1);
		pack_text(packer, va_arg(*args, const char *));
		pack_text(packer, va_arg(*args, const char *));
		break;
	default:
		fail_msg("unknown kind of value");
	}
}

void client_request(struct client *client, int64_t id, const char *method, ...)
{
	msgpack_sbuffer fields, message;
	msgpack_packer packer;
	const char *name;
	unsigned n = 0;
	va_list args;

	msgpack_sbuffer_init(&fields);
	msgpack_packer_init(&packer, &fields, msgpack_sbuffer_write);
	va_start(args, method);
	while ((name = va_arg(args, const char *))) {
		int letter = va_arg(args, int);

		pack_text(&packer, name);
		pack_value(&packer, letter, &args);
		n++;
	}
	va_end(args);

	msgpack_sbuffer_init(&message);
	msgpack_packer_init(&packer, &message, msgpack_sbuffer_write);
	msgpack_pack_array(&packer, id < 0 ? 3 : 4);
	msgpack_pack_int(&packer, id < 0 ? 2 : 0);
	if (id >= 0) {
		msgpack_pack_uint32(&packer, (uint32_t)id);
	}
	pack_text(&packer, method);
	msgpack_pack_array(&packer, 1);
	msgpack_pack_map(&packer, n);
	msgpack_sbuffer_write(&message, fields.data ? fields.data : "", fields.size);
	client_send(client, message.data, message.size);
	msgpack_sbuffer_destroy(&message);
	msgpack_sbuffer_destroy(&fields);
}

bool client_receive(struct client *client, const msgpack_object **ret_message)
{
	for (;;) {
		msgpack_unpack_return r =
			msgpack_unpacker_next(&client->unpacker, &client->unpacked);
		ssize_t n;

		if (r == MSGPACK_UNPACK_SUCCESS) {
			*ret_message = &client->unpacked.data;
			return true;
		}
		assert_int_equal(r, MSGPACK_UNPACK_CONTINUE);
		assert_true(msgpack_unpacker_reserve_buffer(&client->unpacker, 64 * 1024));
		n = recv(client->fd, msgpack_unpacker_buffer(&client->unpacker), 64 * 1024, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			fail_msg("the agent does not answer");
		}
		if (n <= 0) {
			return false;
		}
		msgpack_unpacker_buffer_consumed(&client->unpacker, (size_t)n);
	}
}

static const msgpack_object *find(const msgpack_object *map, const char *name)
{
	for (uint32_t i = 0; map->type == MSGPACK_OBJECT_MAP && i < map->via.map.size; i++) {
		const msgpack_object_str *key = &map->via.map.ptr[i].key.via.str;

		if (key->size == strlen(name) && memcmp(key->ptr, name, key->size) == 0) {
			return &map->via.map.ptr[i].val;
		}
	}
	return NULL;
}

static int64_t find_integer(const msgpack_object *map, const char *name)
{
	const msgpack_object *value = find(map, name);

	return value ? value->via.i64 : -1;
}

static void copy_text(char *out, size_t size, const msgpack_object *value)
{
	size_t n = MIN((size_t)value->via.str.size, size - 1);

	memcpy(out, value->via.str.ptr, n);
	out[n] = '\0';
}

static void collect(char *out, size_t room, size_t *size, const msgpack_object *data)
{
	if (*size < room - 1) {
		size_t n = MIN((size_t)data->via.bin.size, room - 1 - *size);

		memcpy(out + *size, data->via.bin.ptr, n);
		out[*size + n] = '\0';
	}
	*size += data->via.bin.size;
}

void client_wait(struct client *client, uint32_t id, struct outcome *ret_outcome)
{
	const msgpack_object *message, *item, *params;

	*ret_outcome = (struct outcome){ .code = -1, .signal = -1, .pid = -1 };
	for (;;) {
		assert_true(client_receive(client, &message));
		item = message->via.array.ptr;
		if (item[0].via.u64 == 1 && item[1].via.u64 == id) {
			break;
		}
		if (item[0].via.u64 != 2) {
			continue;
		}
		params = &item[2].via.array.ptr[0];
		if (find_integer(params, "id") != id) {
			continue;
		}
		assert_true(find(params, "data")->via.bin.size > 0);
		assert_true(find(params, "data")->via.bin.size <= 32 * 1024);
		if (memcmp(item[1].via.str.ptr, "stdout", 6) == 0) {
			collect(ret_outcome->out, sizeof(ret_outcome->out), &ret_outcome->out_size,
				find(params, "data"));
		} else {
			collect(ret_outcome->err, sizeof(ret_outcome->err), &ret_outcome->err_size,
				find(params, "data"));
		}
	}
	if (item[2].type == MSGPACK_OBJECT_MAP) {
		copy_text(ret_outcome->error, sizeof(ret_outcome->error), find(&item[2], "code"));
		copy_text(ret_outcome->message, sizeof(ret_outcome->message),
			  find(&item[2], "message"));
		assert_int_equal(item[3].type, MSGPACK_OBJECT_NIL);
	} else {
		assert_int_equal(item[2].type, MSGPACK_OBJECT_NIL);
		ret_outcome->code = find_integer(&item[3], "code");
		ret_outcome->signal = find_integer(&item[3], "signal");
		ret_outcome->pid = find_integer(&item[3], "pid");
	}
}

void client_expect_close(struct client *client)
{
	char data[4096];
	ssize_t n;

	do {
		n = recv(client->fd, data, sizeof(data), 0);
	} while (n > 0);
	assert_true(n == 0 || errno == ECONNRESET);
}
