/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The floor of a claim: a libuv server that decodes a msgpack-RPC request and answers with what was
 * asked, and does nothing else.
 *
 *    bench-echo LISTENER
 *
 * LISTENER is the number of a listening Unix stream socket. Each connection gets
 * [1, id, nil, {what the request's map held}]. One thread; ends when it is killed, or when reading
 * from standard input ends, so that it does not outlive who started it.
 */

#include "base/util.h"

#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define READ_BYTES KIB(64)

struct connection {
	uv_pipe_t pipe;
	msgpack_unpacker unpacker;
	msgpack_unpacked unpacked;
	msgpack_sbuffer out;
};

static void on_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;

	msgpack_unpacked_destroy(&connection->unpacked);
	msgpack_unpacker_destroy(&connection->unpacker);
	msgpack_sbuffer_destroy(&connection->out);
	free(connection);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct connection *connection = handle->data;

	if (!msgpack_unpacker_reserve_buffer(&connection->unpacker, READ_BYTES)) {
		*buf = uv_buf_init(NULL, 0);
		return;
	}
	*buf = uv_buf_init(msgpack_unpacker_buffer(&connection->unpacker),
			   (unsigned)msgpack_unpacker_buffer_capacity(&connection->unpacker));
}

/* false: it is not a request. */
static bool answer(struct connection *connection, const msgpack_object *request)
{
	const msgpack_object *fields = request->via.array.ptr;
	msgpack_packer packer;
	uv_buf_t buf;

	if (request->type != MSGPACK_OBJECT_ARRAY || request->via.array.size != 4 ||
	    fields[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
	    fields[3].type != MSGPACK_OBJECT_ARRAY || fields[3].via.array.size != 1) {
		return false;
	}
	msgpack_sbuffer_clear(&connection->out);
	msgpack_packer_init(&packer, &connection->out, msgpack_sbuffer_write);
	msgpack_pack_array(&packer, 4);
	msgpack_pack_uint32(&packer, 1);
	msgpack_pack_uint64(&packer, fields[1].via.u64);
	msgpack_pack_nil(&packer);
	msgpack_pack_object(&packer, fields[3].via.array.ptr[0]);
	buf = uv_buf_init(connection->out.data, (unsigned)connection->out.size);
	return uv_try_write((uv_stream_t *)&connection->pipe, &buf, 1) == (int)connection->out.size;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct connection *connection = stream->data;
	msgpack_unpack_return r = MSGPACK_UNPACK_CONTINUE;
	bool good = n >= 0;

	if (n > 0) {
		msgpack_unpacker_buffer_consumed(&connection->unpacker, (size_t)n);
	}
	while (good && (r = msgpack_unpacker_next(&connection->unpacker, &connection->unpacked)) ==
			       MSGPACK_UNPACK_SUCCESS) {
		good = answer(connection, &connection->unpacked.data);
	}
	if (!good || r != MSGPACK_UNPACK_CONTINUE) {
		uv_close((uv_handle_t *)stream, on_closed);
	}
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	if (status < 0 || !connection ||
	    !msgpack_unpacker_init(&connection->unpacker, READ_BYTES)) {
		free(connection);
		return;
	}
	msgpack_unpacked_init(&connection->unpacked);
	msgpack_sbuffer_init(&connection->out);
	uv_pipe_init(listener->loop, &connection->pipe, 0);
	connection->pipe.data = connection;
	if (uv_accept(listener, (uv_stream_t *)&connection->pipe) < 0 ||
	    uv_read_start((uv_stream_t *)&connection->pipe, on_alloc, on_read) < 0) {
		uv_close((uv_handle_t *)&connection->pipe, on_closed);
	}
}

static void on_stdin_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	static char unused[64];

	*buf = uv_buf_init(unused, sizeof(unused));
}

static void on_stdin(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	if (n < 0) {
		exit(EXIT_SUCCESS);
	}
}

int main(int argc, char **argv)
{
	uv_loop_t *loop = uv_default_loop();
	uv_pipe_t listener, input;

	if (argc != 2 || uv_pipe_init(loop, &listener, 0) < 0 ||
	    uv_pipe_open(&listener, atoi(argv[1])) < 0 ||
	    uv_listen((uv_stream_t *)&listener, 16, on_connection) < 0) {
		fprintf(stderr, "usage: bench-echo LISTENER\n");
		return 2;
	}
	if (uv_pipe_init(loop, &input, 0) < 0 || uv_pipe_open(&input, 0) < 0 ||
	    uv_read_start((uv_stream_t *)&input, on_stdin_alloc, on_stdin) < 0) {
		fprintf(stderr, "bench-echo: standard input is not a pipe\n");
		return 1;
	}
	return uv_run(loop, UV_RUN_DEFAULT) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
