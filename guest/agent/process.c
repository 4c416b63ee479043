/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Life of a started program. Happy path: agent_process_start() makes the pipes and starts it;
 * events mark its streams ready; the connection's pump moves output; SIGCHLD tells the end; when
 * the pipes are empty too, the response goes out, and after it the object is freed.
 *
 * The end of output is the end of the process: what it wrote before is in the pipes by then. A
 * program that it left behind in the background goes on, but nobody reads its output any more.
 *
 * A process that says more than its request allows is killed, and the request is answered with an
 * error once it is over; what it said up to the limit has been passed on.
 *
 * A process whose connection goes away is killed with its session at once; the object stays among
 * the orphans until it has been reaped. One thread.
 */

#include "guest/agent/process.h"

#include "guest/agent/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef W_EXITCODE
#define W_EXITCODE(status, signal) ((status) << 8 | (signal))
#endif
#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x00000008
#endif

/* How much of what the background writes is still passed on after the end of a process: the most
 * that a pipe holds (fs.pipe-max-size). */
#define TAIL_MAX_BYTES (1024 * 1024)
/* What a resident process says on its ready pipe, at a time. */
#define STATUS_LINE_MAX 64
/* A resident process that dies closes its ready pipe a moment before it can be reaped. */
#define READY_GRACE_MS 200

static void mark_dirty(struct agent_process *process)
{
	if (process->connection) {
		process->connection->dirty = true;
	}
}

static void on_stream(struct agent_source *source, uint32_t events)
{
	struct agent_stream *stream = CONTAINER_OF(source, struct agent_stream, source);

	stream->ready = true;
	mark_dirty(stream->process);
}

/* may_lack_events: its pipes may hold more than the events so far have told of. */
static void on_exit_status(struct agent_process *process, int status, bool may_lack_events)
{
	process->exited = true;
	if (!process->over) {
		process->over = true;
		process->status = status;
	}
	if (process->state == AGENT_PROCESS_ENDING) {
		agent_process_destroy(process);
		return;
	}
	if (may_lack_events) {
		process->out.ready = true;
		process->err.ready = true;
	}
	mark_dirty(process);
}

static void on_reaped(struct agent_server *server, pid_t pid, int status, bool may_lack_events)
{
	/* Nobody's, when it was left to PID 1. */
	BASE_LIST_FOR_EACH(link, &server->processes)
	{
		struct agent_process *process = CONTAINER_OF(link, struct agent_process, all);

		if (process->pid == pid && !process->exited) {
			on_exit_status(process, status, may_lack_events);
			break;
		}
	}
}

void agent_process_reap(struct agent_server *server)
{
	pid_t told = agent_spawn_rearm(server->signals.fd);
	int status;
	pid_t pid = agent_spawn_next(&status);

	server->reap_more = true;
	if (pid > 0) {
		/* The one that the event is about wrote what it wrote before that event; so what
		 * its pipes have to say is in this batch too, if all was. Another may have ended
		 * since. */
		on_reaped(server, pid, status, pid != told || server->loop.batch_was_full);
	}
}

static bool reap_rest(struct agent_server *server)
{
	bool any = false;
	pid_t pid;
	int status;

	server->reap_more = false;
	while ((pid = agent_spawn_next(&status))) {
		on_reaped(server, pid, status, true);
		any = true;
	}
	return any;
}

static void stream_init(struct agent_process *process, struct agent_stream *stream)
{
	stream->source = (struct agent_source){ .fd = -1, .on_events = on_stream };
	stream->process = process;
}

static int stream_watch(struct agent_stream *stream, uint32_t events)
{
	int r = 0;

	if (!stream->watched) {
		r = agent_loop_add(&stream->process->server->loop, &stream->source,
				   events | EPOLLET);
		stream->watched = r == 0;
	}
	return r;
}

/* ours and theirs: indices of a pipe's ends. */
static int make_pipe(struct agent_stream *stream, int ours, int *ret_theirs)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0) {
		return -errno;
	}
	stream->source.fd = fds[ours];
	*ret_theirs = fds[1 - ours];
	return 0;
}

/* Closes all of a process's descriptors. */
static void close_all(struct agent_process *process)
{
	struct agent_source *sources[] = { &process->in.source, &process->out.source,
					   &process->err.source, &process->ready.source };
	int fds[ARRAY_SIZE(sources) + 2];

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		fds[i] = TAKE_FD(sources[i]->fd);
		agent_loop_forget(&process->server->loop, sources[i]);
	}
	fds[ARRAY_SIZE(sources)] = TAKE_FD(process->out_write_fd);
	fds[ARRAY_SIZE(sources) + 1] = TAKE_FD(process->err_write_fd);
	agent_spawn_close(fds, ARRAY_SIZE(fds));
}

/* Its stdin is not waited for any more. */
static void unblock_connection(struct agent_process *process)
{
	if (process->connection && process->connection->blocked == process) {
		process->connection->blocked = NULL;
		process->connection->dirty = true;
	}
}

static void process_free(struct agent_process *process)
{
	struct agent_server *server = process->server;

	close_all(process);
	base_list_remove(&process->link);
	if (!base_list_is_empty(&process->all)) {
		base_list_remove(&process->all);
		server->n_processes--;
	}
	unblock_connection(process);
	if (server->resident == process) {
		server->resident = NULL;
	}
	free(process);
}

void agent_process_limit_output(struct agent_process *process, uint64_t max_bytes)
{
	process->output_max_bytes = max_bytes;
	process->output_left_bytes = max_bytes;
}

static struct agent_process *process_new(struct agent_server *server)
{
	struct agent_process *process = calloc(1, sizeof(*process));

	if (!process) {
		return NULL;
	}
	process->server = server;
	base_list_init(&process->link);
	base_list_init(&process->all);
	stream_init(process, &process->in);
	stream_init(process, &process->out);
	stream_init(process, &process->err);
	stream_init(process, &process->ready);
	process->out_write_fd = -1;
	process->err_write_fd = -1;
	process->in.ready = true;
	agent_process_limit_output(process, UINT64_MAX);
	return process;
}

/* A process that is not started yet, with what every one needs. */
static int process_prepare(struct agent_server *server, struct agent_process **ret_process,
			   const char **ret_step)
{
	struct agent_process *process = process_new(server);
	int r;

	*ret_step = "allocate memory";
	if (!process) {
		return -ENOMEM;
	}
	*ret_step = "make a pipe";
	r = make_pipe(&process->out, 0, &process->out_write_fd);
	if (r == 0) {
		r = make_pipe(&process->err, 0, &process->err_write_fd);
	}
	if (r == 0) {
		r = stream_watch(&process->out, EPOLLIN);
	}
	if (r == 0) {
		r = stream_watch(&process->err, EPOLLIN);
	}
	if (r < 0) {
		process_free(process);
		return r;
	}
	*ret_process = process;
	return 0;
}

int agent_process_prepare_next(struct agent_server *server)
{
	const char *step;

	return server->prepared ? 0 : process_prepare(server, &server->prepared, &step);
}

bool agent_process_tidy(struct agent_server *server)
{
	bool any = server->reap_more && reap_rest(server);

	if (!base_list_is_empty(&server->retired)) {
		BASE_LIST_FOR_EACH(link, &server->retired)
		{
			process_free(CONTAINER_OF(link, struct agent_process, link));
		}
		/* Its only failure is a lack of memory, which the next exec will tell of. */
		agent_process_prepare_next(server);
	}
	return any;
}

static int take_prepared(struct agent_server *server, struct agent_process **ret_process,
			 const char **ret_step)
{
	if (!server->prepared) {
		return process_prepare(server, ret_process, ret_step);
	}
	*ret_process = TAKE_PTR(server->prepared);
	return 0;
}

/* Makes the other pipes and starts the program; with in_fd and ready_fd for the caller to close. */
static int start_program(struct agent_process *process, const struct agent_process_params *params,
			 int *in_fd, int *ready_fd, const char **ret_step)
{
	struct agent_spawn_params spawn = {
		.argv = params->argv,
		.envp = params->envp,
		.path = params->path,
		.cwd = params->cwd,
	};
	int r = 0;

	*ret_step = "make a pipe";
	if (params->with_stdin) {
		r = make_pipe(&process->in, 1, in_fd);
	}
	if (r == 0 && params->resident) {
		r = make_pipe(&process->ready, 0, ready_fd);
	}
	if (r == 0 && params->resident) {
		r = stream_watch(&process->ready, EPOLLIN);
	}
	if (r < 0) {
		return r;
	}
	spawn.fds[0] = *in_fd;
	spawn.fds[1] = process->out_write_fd;
	spawn.fds[2] = process->err_write_fd;
	spawn.fds[3] = *ready_fd;
	return agent_spawn(&spawn, &process->pid, ret_step);
}

int agent_process_start(struct agent_connection *connection,
			const struct agent_process_params *params, const char **ret_step)
{
	struct agent_server *server = connection->server;
	int theirs[2] = { -1, -1 };
	struct agent_process *process;
	int r = take_prepared(server, &process, ret_step);

	if (r < 0) {
		return r;
	}
	r = start_program(process, params, &theirs[0], &theirs[1], ret_step);
	agent_spawn_close(theirs, ARRAY_SIZE(theirs));
	if (r < 0) {
		process_free(process);
		return r;
	}
	process->id = params->id;
	process->touch = params->touch;
	agent_process_limit_output(process, params->output_max_bytes);
	process->state = params->resident ? AGENT_PROCESS_STARTING : AGENT_PROCESS_RUNNING;
	process->connection = connection;
	base_list_append(&connection->processes, &process->link);
	base_list_append(&server->processes, &process->all);
	server->n_processes++;
	if (params->resident) {
		server->resident = process;
	}
	return 0;
}

struct agent_process *agent_process_find(struct agent_connection *connection, uint32_t id)
{
	BASE_LIST_FOR_EACH(link, &connection->processes)
	{
		struct agent_process *process = CONTAINER_OF(link, struct agent_process, link);

		if (process->id == id) {
			return process;
		}
	}
	return NULL;
}

void agent_process_attach(struct agent_process *process, struct agent_connection *connection,
			  uint32_t id)
{
	assert(process->state == AGENT_PROCESS_WAITING);
	base_list_remove(&process->link);
	base_list_append(&connection->processes, &process->link);
	process->connection = connection;
	process->state = AGENT_PROCESS_RUNNING;
	process->id = id;
	connection->dirty = true;
}

int agent_process_signal(struct agent_process *process, int signal)
{
	if (process->exited) {
		return -ESRCH;
	}
	if (signal == SIGKILL) {
		agent_spawn_kill_session(process->pid);
		return 0;
	}
	return kill(-process->pid, signal) < 0 ? -errno : 0;
}

/*
 * Reads or writes a pipe without waiting, without O_NONBLOCK, which would be one more call each
 * (pipe2 would set it for the program's end too). Pipes know RWF_NOWAIT since Linux 6.4; before,
 * the flag is set after all, once, when the kernel says that it does not.
 */
static ssize_t pipe_io(int fd, void *data, size_t size, bool to_write)
{
	struct iovec iov = { .iov_base = data, .iov_len = size };
	long n;

	do {
		/* Not every C library has these by name. The offset -1 is in two halves. */
		n = syscall(to_write ? SYS_pwritev2 : SYS_preadv2, fd, &iov, 1L, -1L, -1L,
			    RWF_NOWAIT);
		if (n < 0 && errno == EOPNOTSUPP) {
			fcntl(fd, F_SETFL, O_NONBLOCK);
			n = to_write ? write(fd, data, size) : read(fd, data, size);
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

void agent_process_close_stdin(struct agent_process *process)
{
	if (process->in.source.fd >= 0) {
		agent_loop_forget(&process->server->loop, &process->in.source);
		close(TAKE_FD(process->in.source.fd));
	}
}

size_t agent_process_write(struct agent_process *process, const uint8_t *data, size_t size)
{
	size_t taken = 0;

	while (taken < size && process->in.source.fd >= 0 && process->in.ready) {
		ssize_t n =
			pipe_io(process->in.source.fd, (void *)(data + taken), size - taken, true);

		if (n >= 0) {
			taken += (size_t)n;
		} else if (n == -EAGAIN) {
			process->in.ready = false;
			if (stream_watch(&process->in, EPOLLOUT) < 0) {
				agent_process_close_stdin(process);
			}
		} else {
			/* Nobody reads it any more. */
			agent_process_close_stdin(process);
		}
	}
	return process->in.source.fd < 0 ? size : taken;
}

/* Of n bytes of output: how many may be passed on. */
static size_t within_limit(struct agent_process *process, size_t n)
{
	if (n > process->output_left_bytes) {
		process->output_exceeded = true;
		agent_process_signal(process, SIGKILL);
		n = (size_t)process->output_left_bytes;
	}
	if (process->output_max_bytes != UINT64_MAX) {
		process->output_left_bytes -= n;
	}
	return n;
}

/* Moves what there is, up to one notification. 1: more may be there and there was room; 0: empty;
 * -ENOBUFS: no room. */
static int stream_move(struct agent_stream *stream, const char *method)
{
	/* [2, method, [{"id": uint32, "data": bin16}]], so that the data can be read in place. */
	enum {
		METHOD_BYTES = 6,
		HEADER_BYTES = 2 + 1 + METHOD_BYTES + 2 + 3 + 5 + 5 + 3,
	};
	struct agent_process *process = stream->process;
	uint32_t id = process->id;
	uint8_t *out;
	ssize_t n;

	if (!stream->ready || process->output_exceeded) {
		return 0;
	}
	out = agent_connection_reserve(process->connection, HEADER_BYTES + GUEST_OUTPUT_MAX_BYTES);
	if (!out) {
		return -ENOBUFS;
	}
	n = pipe_io(stream->source.fd, out + HEADER_BYTES, GUEST_OUTPUT_MAX_BYTES, false);
	stream->ready = n == GUEST_OUTPUT_MAX_BYTES;
	if (n <= 0) {
		return 0;
	}
	if (process->touch) {
		return stream->ready;
	}
	n = (ssize_t)within_limit(process, (size_t)n);
	if (n == 0) {
		return 0;
	}
	if (process->over) {
		stream->tail_bytes += (size_t)n;
		stream->ready = stream->ready && stream->tail_bytes < TAIL_MAX_BYTES;
	}
	memcpy(out, "\x93\x02\xa6", 3);
	memcpy(out + 3, method, METHOD_BYTES);
	memcpy(out + 9, "\x91\x82\xa2id\xce", 6);
	memcpy(out + 15,
	       (uint8_t[]){ (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8),
			    (uint8_t)id },
	       4);
	memcpy(out + 19,
	       "\xa4"
	       "data\xc5",
	       6);
	memcpy(out + 25, (uint8_t[]){ (uint8_t)(n >> 8), (uint8_t)n }, 2);
	_Static_assert(HEADER_BYTES == 27, "the header as laid out above");
	agent_connection_commit(process->connection, HEADER_BYTES + (size_t)n);
	return stream->ready;
}

static void respond_end(struct agent_process *process)
{
	msgpack_packer packer;

	if (process->output_exceeded) {
		agent_connection_respond_error(process->connection, process->id, "exhausted",
					       "the program wrote more than the %" PRIu64
					       " bytes of max_output_bytes, and was killed",
					       process->output_max_bytes);
		return;
	}
	agent_connection_begin_response(process->connection, process->id, &packer);
	msgpack_pack_map(&packer, 1);
	if (WIFSIGNALED(process->status)) {
		agent_connection_pack_string(&packer, "signal");
		msgpack_pack_int(&packer, WTERMSIG(process->status));
	} else {
		agent_connection_pack_string(&packer, "code");
		msgpack_pack_int(&packer, WEXITSTATUS(process->status));
	}
}

/* The last thing done: whoever stops the VM at this answer finds nothing half done in it. */
static void respond_touch(struct agent_process *process)
{
	struct agent_connection *connection = process->connection;
	struct agent_server *server = process->server;
	uint32_t id = process->id;
	int status = process->status;
	msgpack_packer packer;

	process_free(process);
	agent_process_prepare_next(server);
	if (reap_rest(server)) {
		server->busy = true;
	}
	if (status != 0) {
		agent_connection_respond_error(connection, id, "failed",
					       "cannot run a program (wait status 0x%x)",
					       (unsigned)status);
	} else {
		agent_connection_begin_response(connection, id, &packer);
		msgpack_pack_true(&packer);
	}
}

/* Answered; it counts no more. */
static void retire(struct agent_process *process)
{
	struct agent_server *server = process->server;

	unblock_connection(process);
	base_list_remove(&process->link);
	base_list_append(&server->retired, &process->link);
	base_list_remove(&process->all);
	server->n_processes--;
	if (server->resident == process) {
		server->resident = NULL;
	}
	process->connection = NULL;
	process->state = AGENT_PROCESS_RETIRED;
}

/* Nobody's any more. */
static void detach(struct agent_process *process, enum agent_process_state state)
{
	unblock_connection(process);
	base_list_remove(&process->link);
	base_list_append(&process->server->orphans, &process->link);
	process->connection = NULL;
	process->state = state;
}

/* The ready pipe has something or was closed. */
static bool pump_starting(struct agent_process *process)
{
	struct pollfd signals = { .fd = process->server->signals.fd, .events = POLLIN };
	struct agent_connection *connection = process->connection;
	char said[STATUS_LINE_MAX];
	msgpack_packer packer;
	bool is_ready;

	if (!process->ready.ready || !agent_connection_can_respond(connection)) {
		return process->ready.ready;
	}
	process->ready.ready = false;
	is_ready = pipe_io(process->ready.source.fd, said, sizeof(said), false) > 0;
	/* Closed without a byte: ready, or dead? Waiting here stops the agent, but only while a
	 * template is built. */
	if (!is_ready && !process->exited && poll(&signals, 1, READY_GRACE_MS) > 0) {
		agent_process_reap(process->server);
		reap_rest(process->server);
	}
	if (!is_ready && process->exited) {
		agent_connection_respond_error(connection, process->id, "failed",
					       "the resident process ended before it was ready "
					       "(wait status 0x%x)",
					       (unsigned)process->status);
		process_free(process);
		return false;
	}
	agent_connection_begin_response(connection, process->id, &packer);
	msgpack_pack_map(&packer, 1);
	agent_connection_pack_string(&packer, "pid");
	msgpack_pack_int(&packer, process->pid);
	detach(process, AGENT_PROCESS_WAITING);
	return false;
}

/*
 * A resident process may say "exit <status>" on its ready pipe when all that it has to say is in
 * its pipes. The kernel takes an address space apart before it tells of the end, and where it is
 * interpreted a second of that for an interpreter with its libraries is nothing to wait for.
 */
static void read_status(struct agent_process *process)
{
	char said[STATUS_LINE_MAX + 1], *end;
	unsigned long status;
	ssize_t n;

	process->ready.ready = false;
	n = pipe_io(process->ready.source.fd, said, STATUS_LINE_MAX, false);
	if (n <= 0) {
		return;
	}
	said[n] = '\0';
	if (strncmp(said, "exit ", 5) != 0 || said[5] < '0' || said[5] > '9') {
		return;
	}
	status = strtoul(said + 5, &end, 10);
	if (*end == '\n' && status <= UINT8_MAX) {
		process->over = true;
		process->status = W_EXITCODE((int)status, 0);
	}
}

bool agent_process_pump(struct agent_process *process)
{
	int out, err;

	if (process->state == AGENT_PROCESS_STARTING) {
		return pump_starting(process);
	}
	if (!process->over && process->ready.ready) {
		read_status(process);
	}
	out = stream_move(&process->out, "stdout");
	err = stream_move(&process->err, "stderr");
	if (process->over && out == 0 && err == 0 &&
	    agent_connection_can_respond(process->connection)) {
		if (process->touch) {
			respond_touch(process);
			return false;
		}
		respond_end(process);
		if (process->exited) {
			retire(process);
		} else {
			process->server->resident = NULL;
			detach(process, AGENT_PROCESS_ENDING);
		}
		return false;
	}
	return out != 0 || err != 0 || process->over;
}

void agent_process_abandon(struct agent_process *process)
{
	struct agent_server *server = process->server;

	if (server->resident == process) {
		server->resident = NULL;
	}
	if (process->exited) {
		process_free(process);
		return;
	}
	agent_spawn_kill_session(process->pid);
	detach(process, AGENT_PROCESS_ENDING);
}

void agent_process_reap_ending(struct agent_server *server)
{
	BASE_LIST_FOR_EACH(link, &server->orphans)
	{
		struct agent_process *process = CONTAINER_OF(link, struct agent_process, link);

		if (process->state == AGENT_PROCESS_ENDING) {
			agent_process_destroy(process);
		}
	}
}

void agent_process_destroy(struct agent_process *process)
{
	if (process->pid > 0 && !process->exited) {
		agent_spawn_kill_session(process->pid);
		agent_spawn_wait(process->pid, &process->status);
	}
	process_free(process);
}
