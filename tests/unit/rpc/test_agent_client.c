/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The client of the agent, against agents of this file: one that behaves, in a thread, and bytes
 * that a hostile guest might send.
 */

#include "rpc/encode.h"
#include "rpc/warmbox.h"

#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define INPUT_BYTES MIB(3)

static void pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

/* --- an agent that behaves --- */

struct fake_agent {
	int fd;
	pthread_t thread;
	uint32_t process; /* the id that runs; 0: none */
	struct rpc_decoder decoder;
	msgpack_zone zone;
	struct rpc_encoder out;
};

static void agent_output(struct fake_agent *agent, const char *method, uint32_t id,
			 const void *data, size_t size)
{
	rpc_encode_notification(&agent->out, method);
	rpc_encode_map(&agent->out, 2);
	rpc_encode_key_uint(&agent->out, "id", id);
	rpc_encode_str(&agent->out, "data");
	rpc_encode_bin(&agent->out, data, size);
}

static void agent_exit(struct fake_agent *agent, const char *how, uint64_t value)
{
	rpc_encode_response(&agent->out, agent->process);
	rpc_encode_map(&agent->out, 1);
	rpc_encode_key_uint(&agent->out, how, value);
	agent->process = 0;
}

/* "cat" echoes its input and ends with it; "both" writes and exits with 3; "die" is killed;
 * "sleep" waits to be; everything else does not exist. */
static void agent_exec(struct fake_agent *agent, const struct rpc_message *message)
{
	const msgpack_object *argv = rpc_map_get(&message->params, "argv");
	const msgpack_object *word = &argv->via.array.ptr[0];

	agent->process = message->id;
	if (rpc_object_is(word, "both")) {
		agent_output(agent, "stdout", message->id, "out", 3);
		agent_output(agent, "stderr", message->id, "err", 3);
		agent_exit(agent, "code", 3);
	} else if (rpc_object_is(word, "die")) {
		agent_exit(agent, "signal", SIGSEGV);
	} else if (!rpc_object_is(word, "cat") && !rpc_object_is(word, "sleep")) {
		rpc_encode_error(&agent->out, message->id, RPC_NOT_FOUND, "no such program");
	}
}

static void agent_handle(struct fake_agent *agent, const struct rpc_message *message)
{
	if (rpc_str_is(&message->method, "ping")) {
		rpc_encode_response(&agent->out, message->id);
		rpc_encode_map(&agent->out, 2);
		rpc_encode_key_str(&agent->out, "version", "1");
		rpc_encode_key_uint(&agent->out, "generation", 5);
	} else if (rpc_str_is(&message->method, "exec") ||
		   rpc_str_is(&message->method, "resident")) {
		agent_exec(agent, message);
	} else if (rpc_str_is(&message->method, "kill")) {
		rpc_encode_response(&agent->out, message->id);
		rpc_encode_map(&agent->out, 0);
		agent_exit(agent, "signal", rpc_map_get(&message->params, "signal")->via.u64);
	} else if (rpc_str_is(&message->method, "stdin")) {
		const msgpack_object *data = rpc_map_get(&message->params, "data");

		if (data->via.bin.size == 0) {
			agent_exit(agent, "code", 0);
		} else {
			agent_output(agent, "stdout", agent->process, data->via.bin.ptr,
				     data->via.bin.size);
		}
	}
}

/* Blocks on writing as a real one does: it reads nothing meanwhile. */
static void *agent_main(void *userdata)
{
	struct fake_agent *agent = userdata;
	struct rpc_message message;

	for (;;) {
		size_t room;
		uint8_t *space;
		ssize_t n;

		while (rpc_decoder_next(&agent->decoder, &agent->zone, &message) > 0) {
			agent_handle(agent, &message);
			if (base_fd_write_full(agent->fd, agent->out.buffer.data,
					       agent->out.buffer.size) < 0) {
				return NULL;
			}
			rpc_encoder_reset(&agent->out);
		}
		space = rpc_decoder_space(&agent->decoder, &room);
		n = read(agent->fd, space, room);
		if (n <= 0) {
			return NULL;
		}
		rpc_decoder_commit(&agent->decoder, (size_t)n);
	}
}

static struct warmbox_agent *agent_start(struct fake_agent *fake)
{
	struct warmbox_agent *agent;
	struct warmbox_error error;
	int fds[2];

	*fake = (struct fake_agent){ 0 };
	pair(fds);
	fake->fd = fds[0];
	assert_true(msgpack_zone_init(&fake->zone, MSGPACK_ZONE_CHUNK_SIZE));
	rpc_encoder_init(&fake->out);
	assert_int_equal(pthread_create(&fake->thread, NULL, agent_main, fake), 0);
	assert_int_equal(warmbox_agent_new(fds[1], &agent, &error), 0);
	return agent;
}

static void agent_stop(struct fake_agent *fake, struct warmbox_agent *agent)
{
	warmbox_agent_free(agent);
	pthread_join(fake->thread, NULL);
	rpc_decoder_deinit(&fake->decoder);
	rpc_encoder_deinit(&fake->out);
	msgpack_zone_destroy(&fake->zone);
	close(fake->fd);
}

/* --- running --- */

struct output {
	size_t out_bytes, err_bytes;
	uint64_t sum;
	int refuse; /* -errno for the next output */
};

static int on_stdout(void *userdata, const void *data, size_t size)
{
	struct output *output = userdata;

	output->out_bytes += size;
	for (size_t i = 0; i < size; i++) {
		output->sum = output->sum * 31 + ((const uint8_t *)data)[i];
	}
	return output->refuse;
}

static int on_stderr(void *userdata, const void *data, size_t size)
{
	((struct output *)userdata)->err_bytes += size;
	return 0;
}

static int run(struct warmbox_agent *agent, const char *word, struct warmbox_stdio *stdio,
	       struct warmbox_exit *ret_exit, struct warmbox_error *error)
{
	char *argv[] = { (char *)word, NULL };
	char *env[] = { (char *)"A=1", (char *)"EMPTY=", (char *)"BARE", NULL };
	const struct warmbox_exec_params params = {
		.argv = argv, .env = env, .cwd = "/tmp", .want_stdin = stdio->stdin_fd >= 0
	};
	uint32_t id;

	assert_int_equal(warmbox_agent_exec(agent, &params, &id, error), 0);
	return warmbox_agent_run(agent, id, 10000, stdio, ret_exit, error);
}

static void test_run(void **state)
{
	struct output output = { 0 };
	struct warmbox_stdio stdio = {
		.userdata = &output, .on_stdout = on_stdout, .on_stderr = on_stderr, .stdin_fd = -1
	};
	struct fake_agent fake;
	struct warmbox_agent *agent = agent_start(&fake);
	struct warmbox_error error;
	struct warmbox_exit exit;
	uint64_t generation = 0;
	uint32_t id;

	assert_int_equal(warmbox_agent_ping(agent, 1000, &generation, &error), 0);
	assert_int_equal(generation, 5);
	assert_int_equal(run(agent, "both", &stdio, &exit, &error), 0);
	assert_false(exit.signaled);
	assert_int_equal(exit.code, 3);
	assert_int_equal(output.out_bytes, 3);
	assert_int_equal(output.err_bytes, 3);
	assert_int_equal(run(agent, "die", &stdio, &exit, &error), 0);
	assert_true(exit.signaled);
	assert_int_equal(exit.signal, SIGSEGV);
	assert_int_equal(run(agent, "other", &stdio, &exit, &error), -ENOENT);
	assert_int_equal(error.code, WARMBOX_NOT_FOUND);
	assert_string_equal(error.text, "no such program");
	output.refuse = -ENOSPC;
	assert_int_equal(run(agent, "both", &stdio, &exit, &error), -ENOSPC);
	assert_int_equal(error.code, WARMBOX_LOCAL);
	agent_stop(&fake, agent);

	/* Only one blocking call at a time, and only alone. */
	agent = agent_start(&fake);
	assert_int_equal(warmbox_agent_exec(agent,
					    &(struct warmbox_exec_params){
						    .argv = (char *[]){ (char *)"sleep", NULL } },
					    &id, &error),
			 0);
	assert_int_equal(warmbox_agent_ping(agent, 1000, NULL, &error), -EBUSY);
	assert_int_equal(warmbox_agent_exec(
				 agent, &(struct warmbox_exec_params){ .argv = (char *[]){ NULL } },
				 &id, &error),
			 -EINVAL);
	/* The time passes: the stream is closed. */
	stdio.stdin_fd = -1;
	assert_int_equal(warmbox_agent_run(agent, id, 20, &stdio, &exit, &error), -ETIMEDOUT);
	assert_int_equal(error.code, WARMBOX_TIMEOUT);
	assert_int_equal(warmbox_agent_ping(agent, 1000, NULL, &error), -EBUSY);
	agent_stop(&fake, agent);
}

static void *write_input(void *userdata)
{
	int fd = *(int *)userdata;
	_cleanup_free_ uint8_t *data = malloc(INPUT_BYTES);

	for (size_t i = 0; i < INPUT_BYTES; i++) {
		data[i] = (uint8_t)(i * 7);
	}
	assert_int_equal(base_fd_write_full(fd, data, INPUT_BYTES), 0);
	close(fd);
	return NULL;
}

/* More goes both ways at once than the sockets hold: neither side may wait for the other. */
static void test_stdin(void **state)
{
	struct output output = { 0 }, expected = { 0 };
	struct warmbox_stdio stdio = { .userdata = &output, .on_stdout = on_stdout };
	struct fake_agent fake;
	struct warmbox_agent *agent = agent_start(&fake);
	struct warmbox_error error;
	struct warmbox_exit exit;
	pthread_t writer;
	int fds[2];

	pair(fds);
	stdio.stdin_fd = fds[0];
	pthread_create(&writer, NULL, write_input, &fds[1]);
	assert_int_equal(run(agent, "cat", &stdio, &exit, &error), 0);
	pthread_join(writer, NULL);
	assert_int_equal(exit.code, 0);
	assert_int_equal(output.out_bytes, INPUT_BYTES);
	for (size_t i = 0; i < INPUT_BYTES; i++) {
		uint8_t byte = (uint8_t)(i * 7);

		on_stdout(&expected, &byte, 1);
	}
	assert_true(output.sum == expected.sum);
	close(fds[0]);
	agent_stop(&fake, agent);
}

/* The queue is bounded for those who feed it by hand. */
static void test_stdin_queue(void **state)
{
	_cleanup_free_ char *data = calloc(1, WARMBOX_STDIN_QUEUE_MAX + 1);
	struct warmbox_agent *agent;
	struct warmbox_error error;
	int fds[2];

	pair(fds);
	assert_int_equal(warmbox_agent_new(fds[1], &agent, &error), 0);
	assert_int_equal(warmbox_agent_events(agent), POLLIN);
	assert_int_equal(warmbox_agent_stdin(agent, 1, data, WARMBOX_STDIN_QUEUE_MAX, &error), 0);
	assert_int_equal(warmbox_agent_events(agent), POLLIN | POLLOUT);
	assert_int_equal(warmbox_agent_stdin(agent, 1, data, 1, &error), 1);
	assert_int_equal(warmbox_agent_stdin(agent, 1, data, WARMBOX_STDIN_QUEUE_MAX + 1, &error),
			 -EMSGSIZE);
	warmbox_agent_free(agent);
	close(fds[0]);
}

/* --- signals --- */

static void handle_alarm(int number)
{
}

static int on_interrupt(void *userdata, struct warmbox_agent *agent, uint32_t id)
{
	return warmbox_agent_kill(agent, id, SIGTERM, NULL, NULL);
}

/* The alarm is blocked but for the wait, so it cannot be missed. */
static void test_interrupt(void **state)
{
	struct sigaction action = { .sa_handler = handle_alarm };
	sigset_t block, before;
	struct warmbox_stdio stdio = { .stdin_fd = -1,
				       .on_interrupt = on_interrupt,
				       .wait_mask = &before };
	struct fake_agent fake;
	struct warmbox_agent *agent;
	struct warmbox_error error;
	struct warmbox_exit exit;

	sigemptyset(&block);
	sigaddset(&block, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &block, &before);
	agent = agent_start(&fake);
	sigaction(SIGALRM, &action, NULL);
	raise(SIGALRM);
	assert_int_equal(run(agent, "sleep", &stdio, &exit, &error), 0);
	assert_true(exit.signaled);
	assert_int_equal(exit.signal, SIGTERM);
	agent_stop(&fake, agent);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* --- a guest that lies --- */

static void test_hostile(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
	} cases[] = {
#define CASE(bytes) { bytes, sizeof(bytes) - 1 }
		CASE("\xc1"),
		CASE("\xdd\xff\xff\xff\xff"),
		CASE("\x94\x00\x01\xa4ping\x91\x80"), /* a request */
		CASE("\x94\x01\x02\xc0\x81\xa4"
		     "code\x00"),	      /* another id */
		CASE("\x94\x01\x00\xc0\xc3"), /* id 0 */
		CASE("\x94\x01\x01\xc0\x80"), /* no status */
		CASE("\x94\x01\x01\xc0\x81\xa4"
		     "code\xff"), /* -1 */
		CASE("\x94\x01\x01\xc0\x81\xa4"
		     "code\xcd\x01\x00"), /* 256 */
		CASE("\x94\x01\x01\xc0\x82\xa4"
		     "code\x00\xa6signal\x01"), /* both */
		CASE("\x93\x02\xa6stdout\x91\x82\xa2id\x02\xa4"
		     "data\xc4\x01x"), /* another id */
		CASE("\x93\x02\xa6stdout\x91\x82\xa2id\x01\xa4"
		     "data\xa1x"),			      /* not bin */
		CASE("\x93\x02\xa6stdout\x91\x81\xa2id\x01"), /* no data */
		CASE("\x93\x02\xa5stdin\x91\x82\xa2id\x01\xa4"
		     "data\xc4\x01x"),
#undef CASE
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct warmbox_stdio stdio = { .stdin_fd = -1 };
		struct warmbox_agent *agent;
		struct warmbox_error error;
		struct warmbox_exit exit;
		int fds[2];

		pair(fds);
		assert_int_equal(warmbox_agent_new(fds[1], &agent, &error), 0);
		assert_int_equal(write(fds[0], cases[i].bytes, cases[i].size), cases[i].size);
		assert_true(run(agent, "sleep", &stdio, &exit, &error) < 0);
		assert_int_equal(error.code, WARMBOX_PROTOCOL);
		/* And it is over. */
		assert_int_equal(warmbox_agent_fd(agent), -1);
		warmbox_agent_free(agent);
		close(fds[0]);
	}
}

static void test_random(void **state)
{
	uint64_t seed = 3;

	for (unsigned i = 0; i < 300; i++) {
		struct warmbox_stdio stdio = { .stdin_fd = -1 };
		struct warmbox_agent *agent;
		struct warmbox_error error;
		struct warmbox_exit exit;
		uint8_t bytes[256];
		int fds[2];

		for (size_t n = 0; n < sizeof(bytes); n++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			bytes[n] = (uint8_t)(seed >> 56);
		}
		pair(fds);
		assert_int_equal(warmbox_agent_new(fds[1], &agent, &error), 0);
		assert_int_equal(write(fds[0], bytes, sizeof(bytes)), sizeof(bytes));
		shutdown(fds[0], SHUT_WR);
		assert_true(run(agent, "sleep", &stdio, &exit, &error) < 0);
		assert_true(error.code == WARMBOX_PROTOCOL || error.code == WARMBOX_DISCONNECTED);
		warmbox_agent_free(agent);
		close(fds[0]);
	}
}

/* --- the lease's socket --- */

struct greeter {
	int listener;
	const char *answer;
};

static void *greet(void *userdata)
{
	struct greeter *greeter = userdata;
	int fd = accept(greeter->listener, NULL, NULL);
	char line[64];
	ssize_t n = read(fd, line, sizeof(line));

	if (n == 13 && memcmp(line, "CONNECT 1024\n", 13) == 0 && greeter->answer) {
		base_fd_write_full(fd, greeter->answer, strlen(greeter->answer));
	}
	if (greeter->answer) {
		/* Until the client hangs up. */
		while (read(fd, line, sizeof(line)) > 0) {
		}
	}
	close(fd);
	return NULL;
}

static int connect_with(const char *answer, struct warmbox_agent **ret_agent,
			struct warmbox_error *error, struct greeter *greeter, pthread_t *thread)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/rpc-agent-%d", getpid());
	unlink(address.sun_path);
	greeter->answer = answer;
	greeter->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(greeter->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(greeter->listener, 1), 0);
	assert_int_equal(pthread_create(thread, NULL, greet, greeter), 0);

	int r = warmbox_agent_connect(address.sun_path, 200, ret_agent, error);

	unlink(address.sun_path);
	return r;
}

static void test_connect(void **state)
{
	static const struct {
		const char *answer;
		int result;
		enum warmbox_code code;
	} cases[] = {
		{ "OK 1073741824\n", 0, WARMBOX_OK },
		{ NULL, -ECONNRESET, WARMBOX_CANNOT_CONNECT },
		{ "NO\n", -EBADMSG, WARMBOX_CANNOT_CONNECT },
		{ "OK 1", -ETIMEDOUT, WARMBOX_TIMEOUT },
		{ "OK 11111111111111111111111111111111111111111111111111", -EBADMSG,
		  WARMBOX_CANNOT_CONNECT },
	};
	struct warmbox_agent *agent;
	struct warmbox_error error;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct greeter greeter;
		pthread_t thread;

		agent = NULL;
		assert_int_equal(connect_with(cases[i].answer, &agent, &error, &greeter, &thread),
				 cases[i].result);
		if (cases[i].result < 0) {
			assert_int_equal(error.code, cases[i].code);
		}
		warmbox_agent_free(agent);
		pthread_join(thread, NULL);
		close(greeter.listener);
	}
	assert_int_equal(warmbox_agent_connect("/no/such/socket", 100, &agent, &error), -ENOENT);
	assert_int_equal(error.code, WARMBOX_CANNOT_CONNECT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_run),	    cmocka_unit_test(test_stdin),
		cmocka_unit_test(test_stdin_queue), cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_hostile),	    cmocka_unit_test(test_random),
		cmocka_unit_test(test_connect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
