/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The agent between hostile clients and hostile programs. An input is a list of operations:
 * requests of every method with any parameters, any bytes in any pieces, clients that do not read
 * or vanish; and programs that write, read, close and end as they like.
 *
 * All of the agent is real but what starts and ends programs (guest/agent/spawn.h), which is here:
 * a program is its ends of the pipes. What would touch the machine that this runs on (kill, sync,
 * clock, host name) does nothing, and nobody waits.
 */

#include "base/fd.h"
#include "guest/agent/connection.h"
#include "guest/agent/process.h"
#include "guest/agent/spawn.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS	     3
#define PROGRAMS_MAX 16
#define FIRST_PID    1000000 /* none of this machine's is meant */
#define TURNS_MAX    4096

static const char *const methods[] = { "exec",	   "ping",    "resident", "kill",
				       "identity", "quiesce", "nothing" };

struct program {
	pid_t pid; /* 0: none */
	bool ended;
	int status;
	int fds[AGENT_SPAWN_FDS]; /* its ends; -1: none */
};

static struct {
	struct agent_server server;
	struct agent_source tick; /* always readable: the loop never waits */
	int stop;
	int listener;
	struct sockaddr_un address;
	socklen_t address_size;
	int clients[CLIENTS]; /* -1: none */
	uint32_t id;

	int signals; /* the agent's, borrowed */
	struct program programs[PROGRAMS_MAX];
	unsigned n_programs;
	uint8_t policy; /* how the next start ends */
} world;

/* --- what the agent finds in place of the kernel --- */

int kill(pid_t pid, int number)
{
	errno = number % 2 ? ESRCH : EPERM;
	return number % 3 == 0 ? 0 : -1;
}

void sync(void)
{
}

int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	const struct timespec none = { 0 };

	return ppoll(fds, n, &none, NULL);
}

static int ignore_entropy(void *userdata, const uint8_t *seed, size_t size)
{
	return world.policy == 0xff ? -EPERM : 0;
}

static int ignore_reseed(void *userdata)
{
	return 0;
}

static int ignore_realtime(void *userdata, const struct timespec *now)
{
	FUZZ_CHECK(now->tv_nsec >= 0 && now->tv_nsec < (long)NSEC_PER_SEC);
	return 0;
}

static int ignore_hostname(void *userdata, const char *name)
{
	FUZZ_CHECK(strlen(name) <= AGENT_HOSTNAME_MAX);
	return 0;
}

static uint64_t fixed_tsc(void *userdata)
{
	return UINT64_C(3000000000);
}

static const struct agent_identity_ops identity_ops = {
	.add_entropy = ignore_entropy,
	.reseed = ignore_reseed,
	.set_realtime = ignore_realtime,
	.set_hostname = ignore_hostname,
	.read_tsc = fixed_tsc,
};

/* --- programs, in place of guest/agent/spawn.c --- */

static void program_close(struct program *program)
{
	for (unsigned i = 0; i < AGENT_SPAWN_FDS; i++) {
		program->fds[i] = base_fd_close(program->fds[i]);
	}
}

static void program_end(struct program *program, int status)
{
	const uint64_t one = 1;

	if (program->pid > 0 && !program->ended) {
		program->ended = true;
		program->status = status;
		program_close(program);
		FUZZ_CHECK(write(world.signals, &one, sizeof(one)) == sizeof(one));
	}
}

static struct program *program_find(pid_t pid)
{
	for (unsigned i = 0; i < PROGRAMS_MAX; i++) {
		if (world.programs[i].pid == pid) {
			return &world.programs[i];
		}
	}
	return NULL;
}

int agent_spawn_init(int *ret_signal_fd)
{
	signal(SIGPIPE, SIG_IGN);
	world.signals = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	*ret_signal_fd = world.signals;
	return 0;
}

int agent_spawn(const struct agent_spawn_params *params, pid_t *ret_pid, const char **ret_step)
{
	struct program *program = program_find(0);

	/* What execve() would read. */
	FUZZ_CHECK(params->argv[0] && params->path && params->cwd);
	for (char *const *word = params->argv; *word; word++) {
		FUZZ_CHECK(strlen(*word) < GUEST_MESSAGE_MAX_BYTES);
	}
	for (char *const *variable = params->envp; *variable; variable++) {
		FUZZ_CHECK(strchr(*variable, '='));
	}
	*ret_step = "execute the program";
	if (!program || world.policy % 8 == 7) {
		return program ? -ENOENT : -EAGAIN;
	}
	*program = (struct program){ .pid = FIRST_PID + (pid_t)world.n_programs++ };
	for (unsigned i = 0; i < AGENT_SPAWN_FDS; i++) {
		int fd = params->fds[i];

		program->fds[i] = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
		if (program->fds[i] >= 0) {
			fcntl(program->fds[i], F_SETFL, O_NONBLOCK);
		}
	}
	*ret_pid = program->pid;
	return 0;
}

pid_t agent_spawn_rearm(int signal_fd)
{
	uint64_t count;

	return read(signal_fd, &count, sizeof(count)) > 0 && count == 1
		       ? FIRST_PID + (pid_t)world.n_programs - 1
		       : 0;
}

pid_t agent_spawn_next(int *ret_status)
{
	for (unsigned i = 0; i < PROGRAMS_MAX; i++) {
		struct program *program = &world.programs[i];

		if (program->pid > 0 && program->ended) {
			pid_t pid = program->pid;

			*ret_status = program->status;
			program->pid = 0;
			return pid;
		}
	}
	return 0;
}

void agent_spawn_wait(pid_t pid, int *ret_status)
{
	struct program *program = program_find(pid);

	FUZZ_CHECK(program && program->ended); /* or it would wait for ever */
	*ret_status = program->status;
	program->pid = 0;
}

void agent_spawn_kill_session(pid_t session)
{
	struct program *program = program_find(session);

	FUZZ_CHECK(session >= FIRST_PID);
	if (program) {
		program_end(program, SIGKILL);
	}
}

void agent_spawn_close(int *fds, size_t n_fds)
{
	for (size_t i = 0; i < n_fds; i++) {
		base_fd_close(fds[i]);
	}
}

static void program_act(struct fuzz_input *input)
{
	static uint8_t much[65536];
	uint8_t what = fuzz_u8(input);
	struct program *program = &world.programs[(what >> 3) % PROGRAMS_MAX];
	const uint8_t *bytes;
	size_t size;

	switch (what % 8) {
	case 0:
	case 1:
		bytes = fuzz_bytes(input, 64, &size);
		if (what & 0x80) {
			bytes = much;
			size = sizeof(much);
		}
		(void)!write(program->fds[1 + what % 8], bytes, size);
		break;
	case 2:
		(void)!read(program->fds[0], much, what & 0x80 ? sizeof(much) : 64);
		memset(much, 0, sizeof(much));
		break;
	case 3:
		size = fuzz_u8(input) % AGENT_SPAWN_FDS;
		program->fds[size] = base_fd_close(program->fds[size]);
		break;
	case 4:
		bytes = fuzz_bytes(input, 64, &size);
		(void)!write(program->fds[3], bytes, size);
		break;
	case 5:
		(void)!write(program->fds[3], "exit 3\n", 7);
		break;
	case 6:
		world.policy = fuzz_u8(input);
		break;
	default:
		program_end(program, fuzz_u8(input) << 8);
		break;
	}
}

/* --- the loop --- */

static void on_tick(struct agent_source *source, uint32_t events)
{
	world.stop = 1;
}

static void settle(void)
{
	unsigned turns = 0;

	do {
		world.stop = 0;
		FUZZ_CHECK(turns++ < TURNS_MAX);
		FUZZ_CHECK(agent_server_run(&world.server, &world.stop) == 0);
	} while (world.server.busy || world.server.loop.n_events > 1); /* more than the tick */
}

static void init_once(void)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX }; /* the kernel picks an abstract name */

	if (world.tick.on_events) {
		return;
	}
	world.tick = (struct agent_source){ .fd = eventfd(1, EFD_CLOEXEC), .on_events = on_tick };
	world.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	world.address_size = sizeof(world.address);
	FUZZ_CHECK(bind(world.listener, (struct sockaddr *)&any, sizeof(sa_family_t)) == 0 &&
		   getsockname(world.listener, (struct sockaddr *)&world.address,
			       &world.address_size) == 0 &&
		   listen(world.listener, CLIENTS) == 0);
}

static void begin(void)
{
	init_once();
	FUZZ_CHECK(agent_server_init(&world.server, dup(world.listener)) == 0);
	FUZZ_CHECK(agent_loop_add(&world.server.loop, &world.tick, EPOLLIN) == 0);
	world.server.identity = (struct agent_identity){ .ops = &identity_ops };
	memset(world.clients, 0xff, sizeof(world.clients));
	memset(world.programs, 0, sizeof(world.programs));
	for (unsigned i = 0; i < PROGRAMS_MAX; i++) {
		memset(world.programs[i].fds, 0xff, sizeof(world.programs[i].fds));
	}
	world.n_programs = 0;
	world.id = 0;
	world.policy = 0;
}

static void end(void)
{
	int fd;

	for (unsigned i = 0; i < CLIENTS; i++) {
		base_fd_close(world.clients[i]);
	}
	settle();
	/* Whatever the clients started has been killed, but for the resident process. */
	FUZZ_CHECK(world.server.n_connections == 0 && world.server.n_processes <= 1);
	agent_server_deinit(&world.server);
	for (unsigned i = 0; i < PROGRAMS_MAX; i++) {
		program_close(&world.programs[i]);
	}
	while ((fd = accept(world.listener, NULL, NULL)) >= 0) {
		close(fd);
	}
}

/* --- clients --- */

static void client_send(unsigned client, const void *data, size_t size)
{
	int *fd = &world.clients[client];

	if (*fd < 0) {
		*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (connect(*fd, (struct sockaddr *)&world.address, world.address_size) < 0) {
			*fd = base_fd_close(*fd);
		}
	}
	(void)!send(*fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A request with a method that exists, and the next bytes of the input as its parameters. */
static void client_request(struct fuzz_input *input, unsigned client)
{
	uint8_t method = fuzz_u8(input);
	const char *name = methods[method % ARRAY_SIZE(methods)];
	uint8_t head[32] = { 0x94, 0, 0xcd };
	size_t size = 5, params_size;
	const uint8_t *params;

	base_store_u16(head + 3, (uint16_t)__builtin_bswap16(
					 (uint16_t)(method & 0x80 ? world.id : ++world.id)));
	head[size++] = (uint8_t)(0xa0 | strlen(name));
	memcpy(head + size, name, strlen(name));
	size += strlen(name);
	head[size++] = 0x91;
	params = fuzz_bytes(input, UINT8_MAX, &params_size);
	client_send(client, head, size);
	client_send(client, params, params_size);
}

static void client_stdin(struct fuzz_input *input, unsigned client)
{
	/* [2, "stdin", [{"id": id, "data": bin}]] */
	static uint8_t message[65536 + 32] = "\x93\x02\xa5stdin\x91\x82\xa2id\xcd??\xa4"
					     "data\xc5??";
	uint16_t id = fuzz_u8(input);
	uint16_t size = (uint16_t)(fuzz_u8(input) * 257u);

	base_store_u16(message + 14, __builtin_bswap16(id));
	base_store_u16(message + 22, __builtin_bswap16(size));
	client_send(client, message, 24u + size);
}

static void client_read(unsigned client, bool all)
{
	static uint8_t bytes[65536];

	while (recv(world.clients[client], bytes, all ? sizeof(bytes) : 64, MSG_DONTWAIT) > 0 &&
	       all) {
	}
}

static void run_op(struct fuzz_input *input)
{
	uint8_t op = fuzz_u8(input);
	unsigned client = (op >> 5) % CLIENTS;
	const uint8_t *bytes;
	size_t size;

	switch (op % 10) {
	case 0:
	case 1:
	case 2:
		client_request(input, client);
		break;
	case 3:
		bytes = fuzz_bytes(input, UINT8_MAX, &size);
		client_send(client, bytes, size);
		break;
	case 4:
		client_stdin(input, client);
		break;
	case 5:
		client_read(client, op & 0x80);
		break;
	case 6:
		world.clients[client] = base_fd_close(world.clients[client]);
		break;
	default:
		program_act(input);
		break;
	}
	/* Otherwise the next operation is seen together with this one. */
	if (op < 0xe0) {
		settle();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };

	begin();
	while (input.left > 0) {
		run_op(&input);
	}
	end();
	return 0;
}
