/* SPDX-License-Identifier: Apache-2.0 */

/* The whole agent as a process: what clients may rely on, and what hostile ones may not get. */

#include "guest/agent.h"
#include "guest/agent/connection.h"
#include "tests/unit/guest/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define SH(text)  ARGV("sh", "-c", text)

static struct agent_instance agent;
static struct client client;

static int set_up(void **state)
{
	struct outcome outcome;

	agent_instance_start(&agent, NULL);
	client_init(&client, &agent);
	/* Then it has accepted it, and closed what tried before. */
	client_request(&client, 1, "ping", NULL);
	client_wait(&client, 1, &outcome);
	return 0;
}

static int tear_down(void **state)
{
	client_deinit(&client);
	agent_instance_stop(&agent);
	return 0;
}

static void run(const char *const *argv, struct outcome *ret_outcome)
{
	client_request(&client, 7, "exec", "argv", 'a', argv, NULL);
	client_wait(&client, 7, ret_outcome);
}

/* Of an agent that has tidied up after the last answer. After the first exec, the pipes of the next
 * are among them. */
static unsigned fds_at_rest(void)
{
	struct outcome outcome;

	client_request(&client, 6, "ping", NULL);
	client_wait(&client, 6, &outcome);
	return agent_instance_fds(&agent);
}

static void assert_error(const char *code)
{
	struct outcome outcome;

	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, code);
	assert_true(strlen(outcome.message) > 0);
}

/* Until the condition holds; the test's own time limit ends a wait in vain. */
#define WAIT_UNTIL(condition)     \
	while (!(condition)) {    \
		poll(NULL, 0, 5); \
	}

static void exec_answers_after_the_output(void **state)
{
	struct outcome outcome;

	run(SH("echo out; echo err >&2; exit 3"), &outcome);
	assert_string_equal(outcome.error, "");
	assert_int_equal(outcome.code, 3);
	assert_int_equal(outcome.signal, -1);
	assert_string_equal(outcome.out, "out\n");
	assert_string_equal(outcome.err, "err\n");
	run(SH("kill -9 $$"), &outcome);
	assert_int_equal(outcome.code, -1);
	assert_int_equal(outcome.signal, SIGKILL);
}

static void exec_starts_programs_clean(void **state)
{
	struct outcome outcome;

	/* No descriptor but the standard ones (and ls's own), no signal blocked, ignored or
	 * handled. */
	run(SH("ls /proc/self/fd; sed -n 's/^Sig[BIC]..:.//p' /proc/self/status"), &outcome);
	assert_string_equal(outcome.out, "0\n1\n2\n3\n0000000000000000\n0000000000000000\n"
					 "0000000000000000\n");
	/* Its own session; standard input is empty. */
	run(SH("test $(cut -d' ' -f6 /proc/$$/stat) = $$ && cat && readlink /proc/self/fd/0"),
	    &outcome);
	assert_string_equal(outcome.out, "/dev/null\n");
}

static void exec_takes_environment_and_directory(void **state)
{
	struct outcome outcome;

	client_request(&client, 7, "exec", "argv", 'a', SH("pwd; env | sort"), "cwd", 's', "/usr",
		       "env", 'm', "A", "b=c", NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.out,
			    "/usr\nA=b=c\nHOME=/root\nPATH=/usr/local/sbin:"
			    "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/usr\n");
	client_request(&client, 7, "exec", "argv", 'a', ARGV("env"), "env", 'm', "PATH", "/usr/bin",
		       NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.out, "HOME=/root\nPATH=/usr/bin\n");
}

static void exec_says_what_cannot_be_run(void **state)
{
	struct outcome outcome;

	run(ARGV("/nowhere/nothing"), &outcome);
	assert_string_equal(outcome.error, "not_found");
	assert_non_null(strstr(outcome.message, "/nowhere/nothing"));
	assert_non_null(strstr(outcome.message, "No such file"));
	run(ARGV("no-such-program"), &outcome);
	assert_string_equal(outcome.error, "not_found");
	run(ARGV(""), &outcome);
	assert_string_equal(outcome.error, "not_found");
	run(ARGV("/etc/passwd"), &outcome);
	assert_string_equal(outcome.error, "failed");
	client_request(&client, 7, "exec", "argv", 'a', ARGV("true"), "cwd", 's', "/nowhere", NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, "not_found");
	assert_non_null(strstr(outcome.message, "directory"));
	/* And the agent is none the worse. */
	run(ARGV("true"), &outcome);
	assert_int_equal(outcome.code, 0);
}

static void parameters_are_checked(void **state)
{
	const char *many[GUEST_ARGV_MAX + 2];
	struct outcome outcome;

	for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
		many[i] = "true";
	}
	many[GUEST_ARGV_MAX + 1] = NULL;
	client_request(&client, 7, "exec", "argv", 'a', many, NULL);
	assert_error("invalid_argument");
	many[GUEST_ARGV_MAX] = NULL;
	run(many, &outcome);
	assert_int_equal(outcome.code, 0);
	client_request(&client, 7, "exec", "argv", 'a', many + GUEST_ARGV_MAX, NULL);
	assert_error("invalid_argument");
	client_request(&client, 7, "exec", NULL);
	assert_error("invalid_argument");
	client_request(&client, 7, "exec", "argv", 's', "true", NULL);
	assert_error("invalid_argument");
	client_request(&client, 7, "exec", "argv", 'a', ARGV("true"), "timeout", 'i', INT64_C(5),
		       NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, "invalid_argument");
	assert_non_null(strstr(outcome.message, "'timeout'"));
	client_request(&client, 7, "exec", "argv", 'a', ARGV("true"), "cwd", 's', "/", "cwd", 's',
		       "/", NULL);
	assert_error("invalid_argument");
	client_request(&client, 7, "exec", "argv", 'a', ARGV("true"), "env", 'm', "A=B", "c", NULL);
	assert_error("invalid_argument");
	client_request(&client, 7, "exec", "argv", 'a', ARGV("true"), "cwd", 's', "", NULL);
	assert_error("invalid_argument");
	/* argv: ["a\0b"] */
	client_send(&client,
		    "\x94\x00\x07\xa4"
		    "exec\x91\x81\xa4"
		    "argv\x91\xa3"
		    "a\0b",
		    20);
	assert_error("invalid_argument");
	client_request(&client, 7, "ping", "x", 'i', INT64_C(1), NULL);
	assert_error("invalid_argument");
	client_request(&client, 7, "pong", NULL);
	assert_error("unknown_method");
	/* params that are not one map */
	client_send(&client,
		    "\x94\x00\x07\xa4"
		    "ping\x90",
		    9);
	assert_error("invalid_request");
	client_send(&client,
		    "\x94\x00\x07\xa4"
		    "ping\x91\x01",
		    10);
	assert_error("invalid_request");
}

static void a_request_id_is_used_once_at_a_time(void **state)
{
	struct outcome outcome;

	client_request(&client, 9, "exec", "argv", 'a', ARGV("sleep", "100"), NULL);
	client_request(&client, 9, "ping", NULL);
	client_wait(&client, 9, &outcome);
	assert_string_equal(outcome.error, "invalid_request");
	client_request(&client, 7, "kill", "id", 'i', INT64_C(9), "signal", 'i', (int64_t)SIGTERM,
		       NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, "");
	client_wait(&client, 9, &outcome);
	assert_int_equal(outcome.signal, SIGTERM);
}

static void kill_reaches_the_group_or_the_session(void **state)
{
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a', SH("sleep 100 & wait"), NULL);
	client_request(&client, 7, "kill", "id", 'i', INT64_C(1), "signal", 'i', (int64_t)SIGINT,
		       NULL);
	client_wait(&client, 1, &outcome);
	assert_true(outcome.signal == SIGINT || outcome.code == 128 + SIGINT);
	/* setsid would leave the session; another group in it does not. */
	client_request(&client, 1, "exec", "argv", 'a',
		       ARGV("bash", "-c", "set -m; sleep 3331 & echo $!; wait"), NULL);
	poll(NULL, 0, 200);
	client_request(&client, 7, "kill", "id", 'i', INT64_C(1), "signal", 'i', (int64_t)SIGKILL,
		       NULL);
	client_wait(&client, 1, &outcome);
	assert_int_equal(outcome.signal, SIGKILL);
	WAIT_UNTIL(kill(atoi(outcome.out), 0) < 0);

	client_request(&client, 7, "kill", "id", 'i', INT64_C(1), "signal", 'i', INT64_C(9), NULL);
	assert_error("not_found");
	client_request(&client, 7, "kill", "id", 'i', INT64_C(1), "signal", 'i', INT64_C(0), NULL);
	assert_error("invalid_argument");
	client_request(&client, 7, "kill", "id", 'i', INT64_C(1), "signal", 'i', INT64_C(65), NULL);
	assert_error("invalid_argument");
}

static void stdin_is_passed_on_and_closed(void **state)
{
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a', ARGV("cat"), "stdin", 'b', 1, NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', "hello ",
		       (size_t)6, NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', "world", (size_t)5,
		       NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', "", (size_t)0,
		       NULL);
	client_wait(&client, 1, &outcome);
	assert_int_equal(outcome.code, 0);
	assert_string_equal(outcome.out, "hello world");
	/* For one that is over, or never was: dropped. */
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', "x", (size_t)1,
		       NULL);
	run(ARGV("true"), &outcome);
	assert_int_equal(outcome.code, 0);
}

static void stdin_that_is_not_taken_waits(void **state)
{
	_cleanup_free_ char *data = calloc(1, 900 * 1024);
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a', SH("read line; wc -c"), "stdin", 'b', 1,
		       NULL);
	client_request(&client, 2, "exec", "argv", 'a', SH("sleep 0.3; echo late"), NULL);
	/* More than a pipe holds; then the rest of the connection waits behind it. */
	data[0] = '\n';
	for (int i = 0; i < 10; i++) {
		client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', data,
			       (size_t)900 * 1024, NULL);
	}
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', "", (size_t)0,
		       NULL);
	client_wait(&client, 1, &outcome);
	assert_int_equal(atoi(outcome.out), 10 * 900 * 1024 - 1);
	/* One that ends without reading does not hold up what comes behind. */
	client_request(&client, 1, "exec", "argv", 'a', SH("sleep 0.2"), "stdin", 'b', 1, NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', data,
		       (size_t)900 * 1024, NULL);
	client_request(&client, 3, "ping", NULL);
	client_wait(&client, 3, &outcome);
	assert_string_equal(outcome.error, "");
	/* Nor one that closes its input and goes on. */
	client_request(&client, 4, "exec", "argv", 'a', SH("exec <&-; sleep 100"), "stdin", 'b', 1,
		       NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(4), "data", 'd', data,
		       (size_t)900 * 1024, NULL);
	client_request(&client, 5, "ping", NULL);
	client_wait(&client, 5, &outcome);
	assert_string_equal(outcome.error, "");
}

static void a_slow_reader_slows_the_program(void **state)
{
	const size_t total = 64 * 1024 * 1024;
	long before = agent_instance_status(&agent, "VmRSS:"), after;
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a',
		       SH("head -c 67108864 /dev/zero; echo done >&2"), NULL);
	/* All of the buffers between are full long before this is over. */
	poll(NULL, 0, 500);
	after = agent_instance_status(&agent, "VmRSS:");
	assert_true(after - before < 1024);
	/* The others are served meanwhile. */
	{
		struct client other;

		client_init(&other, &agent);
		client_request(&other, 1, "ping", NULL);
		client_wait(&other, 1, &outcome);
		client_deinit(&other);
	}
	client_wait(&client, 1, &outcome);
	assert_int_equal(outcome.out_size, total);
	assert_string_equal(outcome.err, "done\n");
	assert_int_equal(outcome.code, 0);
	assert_true(agent_instance_status(&agent, "VmRSS:") - before < 1024);
}

static void responses_nobody_reads_stop_the_requests(void **state)
{
	long before = agent_instance_status(&agent, "VmRSS:");
	struct outcome outcome;
	size_t sent = 0;

	assert_int_equal(fcntl(client.fd, F_SETFL, O_NONBLOCK), 0);
	/* Until the agent takes no more. */
	for (int refused = 0; refused < 50;) {
		ssize_t n = send(client.fd, "\x94\x00\x07\xa4ping\x91\x80", 10, MSG_NOSIGNAL);

		if (n == 10) {
			sent++;
			refused = 0;
		} else {
			assert_true(n < 0 && errno == EAGAIN);
			refused++;
			poll(NULL, 0, 10);
		}
	}
	assert_true(agent_instance_status(&agent, "VmRSS:") - before < 1024);
	assert_int_equal(fcntl(client.fd, F_SETFL, 0), 0);
	for (size_t i = 0; i < sent; i++) {
		client_wait(&client, 7, &outcome);
		assert_string_equal(outcome.error, "");
	}
}

static void many_run_at_once(void **state)
{
	struct outcome outcome;
	unsigned fds;

	run(ARGV("true"), &outcome);
	fds = fds_at_rest();
	for (int i = 0; i < AGENT_PROCESSES_MAX; i++) {
		client_request(&client, 100 + i, "exec", "argv", 'a', SH("read x; echo $x; exit 5"),
			       "stdin", 'b', 1, NULL);
	}
	client_request(&client, 7, "exec", "argv", 'a', ARGV("true"), NULL);
	assert_error("exhausted");
	for (int i = 0; i < AGENT_PROCESSES_MAX; i++) {
		char line[16];
		int n = snprintf(line, sizeof(line), "%d\n", i);

		client_request(&client, -1, "stdin", "id", 'i', (int64_t)(100 + i), "data", 'd',
			       line, (size_t)n, NULL);
		client_wait(&client, (uint32_t)(100 + i), &outcome);
		assert_int_equal(outcome.code, 5);
		assert_string_equal(outcome.out, line);
	}
	assert_int_equal(fds_at_rest(), fds);
}

static void two_writers_both_get_through(void **state)
{
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a', ARGV("yes"), NULL);
	client_request(&client, 2, "exec", "argv", 'a', SH("head -c 1000000 /dev/zero"), NULL);
	client_wait(&client, 2, &outcome);
	assert_int_equal(outcome.out_size, 1000000);
	client_request(&client, 7, "kill", "id", 'i', INT64_C(1), "signal", 'i', INT64_C(9), NULL);
	client_wait(&client, 1, &outcome);
	assert_int_equal(outcome.signal, 9);
}

static void closing_kills_what_runs(void **state)
{
	unsigned fds = agent_instance_fds(&agent);
	struct client other;
	struct outcome outcome;
	const msgpack_object *message;
	pid_t shell, child;

	client_init(&other, &agent);
	client_request(&other, 1, "exec", "argv", 'a',
		       ARGV("bash", "-c", "set -m; sleep 3332 & echo $$ $!; cat /dev/zero >&2"),
		       NULL);
	assert_true(client_receive(&other, &message));
	assert_int_equal(
		sscanf(message->via.array.ptr[2].via.array.ptr[0].via.map.ptr[1].val.via.bin.ptr,
		       "%d %d", &shell, &child),
		2);
	assert_int_equal(kill(shell, 0), 0);
	assert_int_equal(kill(child, 0), 0);
	client_deinit(&other);
	/* Also gone as zombies: reaped, the child as an orphan. */
	WAIT_UNTIL(kill(shell, 0) < 0 && kill(child, 0) < 0);
	WAIT_UNTIL(agent_instance_fds(&agent) == fds);
	run(ARGV("true"), &outcome);
	assert_int_equal(outcome.code, 0);
}

static void what_is_left_behind_goes_on_unheard(void **state)
{
	struct outcome outcome;
	pid_t child;

	run(SH("(sleep 3333; echo never) & echo $!"), &outcome);
	assert_int_equal(outcome.code, 0);
	child = atoi(outcome.out);
	assert_int_equal(kill(child, 0), 0);
	/* It is ours: an orphan's parent is the agent, which reaps it. */
	kill(-getpgid(child), SIGKILL);
	WAIT_UNTIL(kill(child, 0) < 0);
	/* An orphan that never stops writing does not hold up the answer. */
	run(SH("yes & echo $! >&2"), &outcome);
	assert_int_equal(outcome.code, 0);
	WAIT_UNTIL(kill(atoi(outcome.err), 0) < 0);
}

static void the_resident_process_waits_for_its_claimant(void **state)
{
	struct client other;
	struct outcome outcome;

	client_request(&client, 7, "resident", NULL);
	assert_error("not_found");
	client_init(&other, &agent);
	client_request(&other, 1, "exec", "argv", 'a',
		       SH("echo warm; echo x >&3; exec 3>&-; read line; echo got $line; exit 4"),
		       "resident", 'b', 1, NULL);
	client_wait(&other, 1, &outcome);
	assert_string_equal(outcome.error, "");
	assert_true(outcome.pid > 0);
	assert_int_equal(outcome.out_size, 0);
	client_request(&other, 2, "exec", "argv", 'a', ARGV("true"), "resident", 'b', 1, NULL);
	client_wait(&other, 2, &outcome);
	assert_string_equal(outcome.error, "already_exists");
	client_request(&other, 3, "quiesce", NULL);
	client_wait(&other, 3, &outcome);
	assert_string_equal(outcome.error, "");
	/* It closes all others. */
	client_expect_close(&client);
	client_deinit(&client);
	client_deinit(&other);

	client_init(&client, &agent);
	client_init(&other, &agent);
	client_request(&client, 5, "resident", NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(5), "data", 'd', "code\n",
		       (size_t)5, NULL);
	client_wait(&client, 5, &outcome);
	assert_string_equal(outcome.out, "warm\ngot code\n");
	assert_int_equal(outcome.code, 4);
	client_request(&client, 7, "resident", NULL);
	assert_error("not_found");
	client_deinit(&other);
}

static void the_resident_process_has_one_claimant(void **state)
{
	struct client other;
	struct outcome outcome;
	pid_t pid;

	/* Closing the descriptor says ready as well. */
	client_request(&client, 1, "exec", "argv", 'a', SH("exec 3>&-; read line"), "resident", 'b',
		       1, NULL);
	client_wait(&client, 1, &outcome);
	pid = (pid_t)outcome.pid;
	assert_true(pid > 0);
	client_init(&other, &agent);
	client_request(&other, 1, "resident", NULL);
	client_request(&other, 2, "ping", NULL);
	client_wait(&other, 2, &outcome);
	client_request(&client, 7, "resident", NULL);
	assert_error("already_exists");
	/* It is the claimant's, and ends with it. */
	client_deinit(&other);
	WAIT_UNTIL(kill(pid, 0) < 0);
	client_request(&client, 7, "resident", NULL);
	assert_error("not_found");
}

static void a_resident_process_that_is_over_still_answers(void **state)
{
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a', SH("echo x >&3; echo last; exit 9"),
		       "resident", 'b', 1, NULL);
	client_wait(&client, 1, &outcome);
	assert_true(outcome.pid > 0);
	WAIT_UNTIL(kill((pid_t)outcome.pid, 0) < 0);
	client_request(&client, 2, "resident", NULL);
	client_wait(&client, 2, &outcome);
	assert_int_equal(outcome.code, 9);
	assert_string_equal(outcome.out, "last\n");
	/* Before it was ready is too early. */
	client_request(&client, 3, "exec", "argv", 'a', SH("exit 1"), "resident", 'b', 1, NULL);
	client_wait(&client, 3, &outcome);
	assert_string_equal(outcome.error, "failed");
	client_request(&client, 7, "resident", NULL);
	assert_error("not_found");
}

static void a_resident_process_can_say_its_status(void **state)
{
	struct outcome outcome;
	pid_t pid;

	/* Words before it is ready, and others that are not a status, mean nothing. */
	client_request(
		&client, 1, "exec", "argv", 'a',
		SH("echo exit 1 >&3; read line; echo out; for i in 'exit' 'exit 256' 'exit x'; "
		   "do echo $i >&3; sleep 0.1; done; echo exit 6 >&3; exec sleep 0.5"),
		"resident", 'b', 1, NULL);
	client_wait(&client, 1, &outcome);
	pid = (pid_t)outcome.pid;
	client_request(&client, 2, "resident", NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(2), "data", 'd', "\n", (size_t)1,
		       NULL);
	client_wait(&client, 2, &outcome);
	assert_int_equal(outcome.code, 6);
	assert_string_equal(outcome.out, "out\n");
	assert_int_equal(kill(pid, 0), 0);
	client_request(&client, 7, "resident", NULL);
	assert_error("not_found");
	WAIT_UNTIL(kill(pid, 0) < 0);
}

static void the_resident_interpreter_runs_a_program(void **state)
{
	static const char program[] = "import sys\n"
				      "print('hi', __name__)\n"
				      "print('err', file=sys.stderr)\n"
				      "class A: pass\n"
				      "1 / 0 # here\n";
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a', ARGV("/usr/bin/python3", RESIDENT_PATH),
		       "resident", 'b', 1, NULL);
	client_wait(&client, 1, &outcome);
	assert_string_equal(outcome.error, "");
	client_request(&client, 2, "resident", NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(2), "data", 'd', program,
		       sizeof(program) - 1, NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(2), "data", 'd', "", (size_t)0,
		       NULL);
	client_wait(&client, 2, &outcome);
	assert_int_equal(outcome.code, 1);
	assert_string_equal(outcome.out, "hi __main__\n");
	assert_non_null(strstr(outcome.err, "err\nTraceback"));
	assert_non_null(
		strstr(outcome.err, "\"<string>\", line 5, in <module>\n    1 / 0 # here\n"));
	assert_null(strstr(outcome.err, "resident.py"));
}

static void quiesce_wants_nothing_running(void **state)
{
	struct outcome outcome;

	client_request(&client, 1, "exec", "argv", 'a', ARGV("sleep", "100"), NULL);
	client_request(&client, 7, "quiesce", NULL);
	assert_error("failed");
	client_request(&client, 7, "kill", "id", 'i', INT64_C(1), "signal", 'i', INT64_C(9), NULL);
	client_wait(&client, 1, &outcome);
	client_request(&client, 7, "quiesce", NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, "");
}

static void request_identity(struct client *to, const char *machine_id, int64_t tsc_khz)
{
	const char seed[GUEST_SEED_BYTES] = { [0] = 1, [GUEST_SEED_BYTES - 1] = 2 };

	client_request(to, 0, "identity", "seed", 'd', seed, sizeof(seed), "machine_id", 's',
		       machine_id, "boot_id", 's', "01234567-89ab-cdef-0123-456789abcdef",
		       "hostname", 's', "box-1.example", "generation", 'i', INT64_C(42),
		       "realtime_ns", 'i', INT64_C(1700000000000000000), "tsc", 'i',
		       INT64_C(1000000000), "tsc_khz", 'i', tsc_khz, NULL);
}

static void request_touch(bool touch)
{
	const char seed[GUEST_SEED_BYTES] = { 0 };

	client_request(&client, 0, "identity", "seed", 'd', seed, sizeof(seed), "machine_id", 's',
		       "0123456789abcdef0123456789abcdef", "boot_id", 's',
		       "01234567-89ab-cdef-0123-456789abcdef", "hostname", 's', "box", "generation",
		       'i', INT64_C(1), "realtime_ns", 'i', INT64_C(1), "tsc", 'i', INT64_C(1),
		       "tsc_khz", 'i', INT64_C(2000000), "touch", 'b', (int)touch, NULL);
}

static size_t read_file(const char *name, char *data, size_t size)
{
	char path[128];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", agent.directory, name);
	file = fopen(path, "r");
	assert_non_null(file);
	n = fread(data, 1, size - 1, file);
	data[n] = '\0';
	fclose(file);
	return n;
}

static void identity_is_acknowledged_with_five_bytes(void **state)
{
	char ack[GUEST_IDENTITY_ACK_BYTES + 1], text[512];
	const msgpack_object *message;

	request_identity(&client, "0123456789abcdef0123456789abcdef", 2000000);
	assert_int_equal(recv(client.fd, ack, sizeof(ack), 0), GUEST_IDENTITY_ACK_BYTES);
	assert_memory_equal(ack, GUEST_IDENTITY_ACK, GUEST_IDENTITY_ACK_BYTES);
	read_file("identity.log", text, sizeof(text));
	assert_string_equal(text, "entropy 64 0102\nreseed\nrealtime 1700000001.000000000\n"
				  "hostname box-1.example\n");
	read_file("machine-id", text, sizeof(text));
	assert_string_equal(text, "0123456789abcdef0123456789abcdef\n");
	read_file("boot-id", text, sizeof(text));
	assert_string_equal(text, "01234567-89ab-cdef-0123-456789abcdef\n");
	client_request(&client, 1, "ping", NULL);
	assert_true(client_receive(&client, &message));
	assert_int_equal(message->via.array.ptr[3].via.map.ptr[1].val.via.u64, 42);
}

static void a_bad_identity_changes_nothing(void **state)
{
	struct outcome outcome;
	char text[512];

	request_identity(&client, "0123456789abcdef0123456789abcdeX", 2000000);
	client_wait(&client, 0, &outcome);
	assert_string_equal(outcome.error, "invalid_argument");
	assert_non_null(strstr(outcome.message, "machine_id"));
	request_identity(&client, "0123456789abcdef0123456789abcde", 2000000);
	client_wait(&client, 0, &outcome);
	assert_string_equal(outcome.error, "invalid_argument");
	request_identity(&client, "0123456789abcdef0123456789abcdef", 0);
	client_wait(&client, 0, &outcome);
	assert_string_equal(outcome.error, "invalid_argument");
	client_request(&client, 0, "identity", NULL);
	client_wait(&client, 0, &outcome);
	assert_string_equal(outcome.error, "invalid_argument");
	assert_int_equal(read_file("identity.log", text, sizeof(text)), 0);
}

static void an_identity_with_touch_runs_a_program(void **state)
{
	char ack[GUEST_IDENTITY_ACK_BYTES + 1];
	struct outcome outcome;
	unsigned n_fds;
	long pid;

	run(SH("echo $$"), &outcome);
	n_fds = fds_at_rest();
	pid = strtol(outcome.out, NULL, 10);
	for (int i = 0; i < 3; i++) {
		/* Nothing but the acknowledgement comes, whatever the program wrote. */
		request_touch(true);
		assert_int_equal(recv(client.fd, ack, sizeof(ack), 0), GUEST_IDENTITY_ACK_BYTES);
		assert_memory_equal(ack, GUEST_IDENTITY_ACK, GUEST_IDENTITY_ACK_BYTES);
	}
	/* By then it has ended, and left nothing but what was there before. */
	assert_int_equal(agent_instance_fds(&agent), n_fds);
	run(SH("ps -o stat= --ppid $PPID | grep -c Z; echo $$"), &outcome);
	assert_int_equal(strncmp(outcome.out, "0\n", 2), 0);
	/* Three programs and this one have been started since, at least. */
	assert_true(strtol(outcome.out + 2, NULL, 10) >= pid + 4);
}

static void touch_is_a_choice(void **state)
{
	char ack[GUEST_IDENTITY_ACK_BYTES];
	struct outcome outcome;

	request_touch(false);
	assert_int_equal(recv(client.fd, ack, sizeof(ack), MSG_WAITALL), sizeof(ack));
	client_request(&client, 0, "identity", "touch", 's', "yes", NULL);
	client_wait(&client, 0, &outcome);
	assert_string_equal(outcome.error, "invalid_argument");
	assert_non_null(strstr(outcome.message, "touch"));
}

static void a_touch_that_fails_is_no_acknowledgement(void **state)
{
	struct outcome outcome;

	request_touch(true);
	client_request(&client, 7, "kill", "id", 'i', INT64_C(0), "signal", 'i', INT64_C(9), NULL);
	client_wait(&client, 0, &outcome);
	/* Usually it is killed first; a program of one system call may be faster. */
	if (outcome.error[0]) {
		assert_string_equal(outcome.error, "failed");
		assert_non_null(strstr(outcome.message, "0x9"));
	}
}

/* What ends while the end of another is looked at has had no event for its output yet. */
static void no_output_is_lost_when_many_end_at_once(void **state)
{
	enum {
		AT_ONCE = 32,
		ROUNDS = 8,
	};

	for (int round = 0; round < ROUNDS; round++) {
		unsigned n_answers = 0, n_outputs = 0;

		for (int i = 0; i < AT_ONCE; i++) {
			client_request(&client, 100 + i, "exec", "argv", 'a', ARGV("echo", "x"),
				       NULL);
		}
		while (n_answers < AT_ONCE) {
			const msgpack_object *message;

			assert_true(client_receive(&client, &message));
			if (message->via.array.ptr[0].via.u64 == 1) {
				n_answers++;
			} else {
				n_outputs++;
			}
		}
		assert_int_equal(n_outputs, AT_ONCE);
	}
}

static void the_reseed_fault_is_never_acknowledged(void **state)
{
	struct pollfd wait = { .events = POLLIN };
	struct agent_instance faulty;
	struct client other;

	agent_instance_start(&faulty, "reseed");
	client_init(&other, &faulty);
	request_identity(&other, "0123456789abcdef0123456789abcdef", 2000000);
	wait.fd = other.fd;
	assert_int_equal(poll(&wait, 1, 300), 0);
	client_deinit(&other);
	agent_instance_stop(&faulty);
}

static void malformed_bytes_end_their_connection_only(void **state)
{
	static const struct {
		const char *data;
		size_t size;
	} cases[] = {
		{ "\xc1", 1 }, /* not msgpack */
		{ "\x00", 1 }, /* not an array */
		{ "\x90", 1 }, /* an empty one */
		{ "\x94\x03\x01\xa4"
		  "ping\x91\x80",
		  10 },			       /* no such type */
		{ "\x94\x01\x01\xc0\xc0", 5 }, /* a response to nothing */
		{ "\x94\x00\xff\xa4"
		  "ping\x91\x80",
		  10 }, /* a negative id */
		{ "\x94\x00\xcf\0\0\0\1\0\0\0\0\xa4"
		  "ping\x91\x80",
		  18 },				   /* an id of 33 bits */
		{ "\x94\x00\x01\x01\x91\x80", 6 }, /* a method that is no string */
		{ "\x94\x00\x01\xa4"
		  "ping\x80",
		  9 }, /* params that are no array */
		{ "\x93\x02\xa4"
		  "nope\x91\x80",
		  9 }, /* no such notification */
		{ "\x93\x02\xa5"
		  "stdin\x91\x80",
		  10 }, /* nothing in it */
		{ "\x93\x00\x01\xa4"
		  "ping",
		  8 },			       /* a request without params */
		{ "\xdd\xff\xff\xff\xff", 5 }, /* too many values */
		{ "\xc6\x00\x10\x00\x00", 5 }, /* too large */
		{ "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91", 17 },
	};
	struct outcome outcome;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct client other;

		client_init(&other, &agent);
		client_send(&other, cases[i].data, cases[i].size);
		client_expect_close(&other);
		client_deinit(&other);
	}
	run(ARGV("true"), &outcome);
	assert_int_equal(outcome.code, 0);
}

static void messages_at_the_limit_pass(void **state)
{
	const size_t payload = GUEST_MESSAGE_MAX_BYTES - 24;
	_cleanup_free_ char *data = calloc(1, payload);
	struct outcome outcome;

	/* [2, "stdin", [{"id": 1, "data": bin32}]]: 24 bytes and the data. */
	client_request(&client, 1, "exec", "argv", 'a', ARGV("wc", "-c"), "stdin", 'b', 1, NULL);
	client_send(&client,
		    "\x93\x02\xa5stdin\x91\x82\xa2id\x01\xa4"
		    "data\xc6\x00\x0f\xff\xe8",
		    24);
	client_send(&client, data, payload);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(1), "data", 'd', "", (size_t)0,
		       NULL);
	client_wait(&client, 1, &outcome);
	assert_int_equal(atoi(outcome.out), payload);
	client_send(&client,
		    "\x93\x02\xa5stdin\x91\x82\xa2id\x01\xa4"
		    "data\xc6\x00\x0f\xff\xe9",
		    24);
	client_expect_close(&client);
}

static void random_bytes_do_no_harm(void **state)
{
	static const char start[] = "\x94\x00\x07\xa4"
				    "exec\x91\x82\xa4"
				    "argv\x91\xa4true\xa5stdin\xc3";
	unsigned fds = agent_instance_fds(&agent);
	struct outcome outcome;
	uint32_t random = 12345;

	for (int i = 0; i < 1000; i++) {
		char data[256];
		size_t size = sizeof(data);
		int fd = agent_instance_connect(&agent);

		assert_true(fd >= 0);
		for (size_t j = 0; j < sizeof(data); j++) {
			random = random * 1103515245 + 12345;
			data[j] = (char)(random >> 16);
		}
		/* Half of them: a good request with one byte changed. It may run `true` or fail to;
		 * no other byte makes it name a program that exists. */
		if (i % 2) {
			size_t at = (unsigned char)data[0] % (sizeof(start) - 1);

			size = sizeof(start) - 1;
			memcpy(data + 64, start, size);
			data[64 + at] = data[1];
			memmove(data, data + 64, size);
		}
		send(fd, data, size, MSG_NOSIGNAL);
		close(fd);
	}
	run(ARGV("true"), &outcome);
	assert_int_equal(outcome.code, 0);
	WAIT_UNTIL(agent_instance_fds(&agent) == fds);
}

static void connections_are_limited(void **state)
{
	int fds[AGENT_CONNECTIONS_MAX + 8];
	struct outcome outcome;
	char byte;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = agent_instance_connect(&agent);
		assert_true(fds[i] >= 0);
	}
	/* The last is surely above. */
	assert_true(recv(fds[ARRAY_SIZE(fds) - 1], &byte, 1, 0) <= 0);
	run(ARGV("true"), &outcome);
	assert_int_equal(outcome.code, 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		close(fds[i]);
	}
}

/* Output that goes on and on is cut at the byte, whatever stream it is on, and its writer killed.
 */
static void output_is_limited(void **state)
{
	static const struct {
		const char *script;
		int64_t max;
		bool exceeds;
	} cases[] = {
		{ "exec yes", 100000, true },
		{ "exec yes >&2", 5, true },
		{ "yes & exec yes >&2", 70000, true },
		{ "printf x", 0, true },
		{ "printf 12345; printf 67890 >&2", 9, true },
		{ "printf 12345; printf 67890 >&2", 10, false },
		{ "true", 0, false },
		{ "head -c 200000 /dev/zero", 200000, false },
		{ "head -c 200001 /dev/zero", 200000, true },
	};
	unsigned fds;

	run(ARGV("true"), &(struct outcome){});
	fds = fds_at_rest();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct outcome outcome;

		client_request(&client, 7, "exec", "argv", 'a', SH(cases[i].script),
			       "max_output_bytes", 'i', cases[i].max, NULL);
		client_wait(&client, 7, &outcome);
		assert_string_equal(outcome.error, cases[i].exceeds ? "exhausted" : "");
		if (cases[i].exceeds) {
			assert_non_null(strstr(outcome.message, "max_output_bytes"));
			assert_int_equal(outcome.out_size + outcome.err_size, cases[i].max);
		} else {
			assert_int_equal(outcome.code, 0);
		}
	}
	WAIT_UNTIL(fds_at_rest() == fds);
}

/* A program that lives on after it was cut would still be counted; so would its request. */
static void a_limited_program_is_gone(void **state)
{
	struct outcome outcome;

	client_request(&client, 7, "exec", "argv", 'a',
		       SH("trap '' TERM PIPE HUP; while :; do echo $$; done"), "max_output_bytes",
		       'i', INT64_C(1000), NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, "exhausted");
	errno = 0;
	assert_int_equal(kill((pid_t)strtol(outcome.out, NULL, 10), 0), -1);
	assert_int_equal(errno, ESRCH);
	client_request(&client, 7, "kill", "id", 'i', INT64_C(7), "signal", 'i', INT64_C(9), NULL);
	assert_error("not_found");
}

static void the_claimants_limit_counts(void **state)
{
	struct outcome outcome;

	client_request(&client, 7, "exec", "argv", 'a', SH("echo >&3; cat"), "resident", 'b', true,
		       NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, "");
	client_request(&client, 7, "resident", "max_output_bytes", 'i', INT64_C(4), NULL);
	client_request(&client, -1, "stdin", "id", 'i', INT64_C(7), "data", 'd', "12345", (size_t)5,
		       NULL);
	client_wait(&client, 7, &outcome);
	assert_string_equal(outcome.error, "exhausted");
	assert_string_equal(outcome.out, "1234");
}

static void processes_are_limited(void **state)
{
	struct outcome outcome;

	for (unsigned i = 0; i < AGENT_PROCESSES_MAX; i++) {
		client_request(&client, 100 + i, "exec", "argv", 'a', ARGV("sleep", "1000"), NULL);
	}
	run(ARGV("true"), &outcome);
	assert_string_equal(outcome.error, "exhausted");
	client_request(&client, 8, "kill", "id", 'i', INT64_C(100), "signal", 'i', INT64_C(9),
		       NULL);
	client_wait(&client, 100, &outcome);
	assert_int_equal(outcome.signal, 9);
	run(ARGV("true"), &outcome);
	assert_int_equal(outcome.code, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(exec_answers_after_the_output),
		TEST(exec_starts_programs_clean),
		TEST(exec_takes_environment_and_directory),
		TEST(exec_says_what_cannot_be_run),
		TEST(parameters_are_checked),
		TEST(a_request_id_is_used_once_at_a_time),
		TEST(kill_reaches_the_group_or_the_session),
		TEST(stdin_is_passed_on_and_closed),
		TEST(stdin_that_is_not_taken_waits),
		TEST(a_slow_reader_slows_the_program),
		TEST(responses_nobody_reads_stop_the_requests),
		TEST(many_run_at_once),
		TEST(two_writers_both_get_through),
		TEST(closing_kills_what_runs),
		TEST(what_is_left_behind_goes_on_unheard),
		TEST(the_resident_process_waits_for_its_claimant),
		TEST(the_resident_process_has_one_claimant),
		TEST(a_resident_process_that_is_over_still_answers),
		TEST(a_resident_process_can_say_its_status),
		TEST(the_resident_interpreter_runs_a_program),
		TEST(quiesce_wants_nothing_running),
		TEST(identity_is_acknowledged_with_five_bytes),
		TEST(a_bad_identity_changes_nothing),
		TEST(an_identity_with_touch_runs_a_program),
		TEST(touch_is_a_choice),
		TEST(a_touch_that_fails_is_no_acknowledgement),
		TEST(no_output_is_lost_when_many_end_at_once),
		TEST(the_reseed_fault_is_never_acknowledged),
		TEST(malformed_bytes_end_their_connection_only),
		TEST(messages_at_the_limit_pass),
		TEST(random_bytes_do_no_harm),
		TEST(connections_are_limited),
		TEST(processes_are_limited),
		TEST(output_is_limited),
		TEST(a_limited_program_is_gone),
		TEST(the_claimants_limit_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
