/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox-agent-host: the agent without the guest around it, for tests. Serves a Unix socket
 * instead of vsock, boots nothing, and records what `identity` would do to the kernel instead of
 * doing it.
 *
 *   warmbox-agent-host DIRECTORY [reseed]
 *
 * DIRECTORY gets `socket`, `machine-id`, `boot-id` and `identity.log`. `reseed` is the fault
 * injection of that name. Ends on SIGTERM.
 */

#include "guest/agent/exec.h"
#include "guest/agent/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static volatile int stop;

static void on_signal(int signal)
{
	stop = 1;
}

static int log_add_entropy(void *userdata, const uint8_t *seed, size_t size)
{
	dprintf(*(int *)userdata, "entropy %zu %02x%02x\n", size, seed[0], seed[size - 1]);
	return 0;
}

static int log_reseed(void *userdata)
{
	dprintf(*(int *)userdata, "reseed\n");
	return 0;
}

static int log_set_realtime(void *userdata, const struct timespec *now)
{
	dprintf(*(int *)userdata, "realtime %lld.%09ld\n", (long long)now->tv_sec, now->tv_nsec);
	return 0;
}

static int log_set_hostname(void *userdata, const char *name)
{
	dprintf(*(int *)userdata, "hostname %s\n", name);
	return 0;
}

static uint64_t log_read_tsc(void *userdata)
{
	/* A fixed counter makes the time in the log a known one. */
	return 3000000000;
}

static const struct agent_identity_ops log_ops = {
	.add_entropy = log_add_entropy,
	.reseed = log_reseed,
	.set_realtime = log_set_realtime,
	.set_hostname = log_set_hostname,
	.read_tsc = log_read_tsc,
};

static int listen_unix(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "socket" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 64) < 0) {
		return -1;
	}
	return fd;
}

int main(int argc, char **argv)
{
	static struct agent_server server;
	static int log_fd;
	const struct sigaction action = { .sa_handler = on_signal };
	int listener_fd, null_fd, r;

	if (argc == 2 && strcmp(argv[1], GUEST_TOUCH_ARGUMENT) == 0) {
		return agent_exec_touch_main();
	}
	if (argc < 2 || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: %s DIRECTORY [reseed]\n", argv[0]);
		return 2;
	}
	/* As the kernel starts PID 1, whatever this was started from ignores (nohup does). */
	for (int number = 1; number < NSIG; number++) {
		signal(number, SIG_DFL);
	}
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	log_fd = open("identity.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	listener_fd = listen_unix();
	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || log_fd < 0 || listener_fd < 0 ||
	    sigaction(SIGTERM, &action, NULL) < 0) {
		perror(argv[1]);
		return 1;
	}
	if (agent_server_init(&server, listener_fd) < 0) {
		return 1;
	}
	server.identity = (struct agent_identity){ .ops = &log_ops, .userdata = &log_fd };
	server.never_identify = argc > 2 && strcmp(argv[2], "reseed") == 0;
	r = agent_identity_create_files(&server.identity, "machine-id", "boot-id");
	/* As in a guest; programs start there unless told otherwise. */
	if (r == 0 && chdir("/") == 0) {
		r = agent_server_run(&server, &stop);
	}
	agent_server_deinit(&server);
	return r < 0 ? 1 : 0;
}
