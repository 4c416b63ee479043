/* SPDX-License-Identifier: Apache-2.0 */

/*
 * warmbox-agent: PID 1 of a guest. Boots the system, then serves vsock port GUEST_AGENT_PORT for
 * ever. Whatever ends that is fatal to the VM: the reason goes to the console and the machine is
 * reset, which the VMM reports.
 */

#include "base/error.h"
#include "guest/agent/boot.h"
#include "guest/agent/exec.h"
#include "guest/agent/server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

/* Connections that were not yet accepted. */
#define BACKLOG 64

#define DEFAULT_HOSTNAME "warmbox"

static int listen_vsock(int *ret_fd)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = GUEST_AGENT_PORT,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		int r = -errno;

		if (fd >= 0) {
			close(fd);
		}
		return r;
	}
	*ret_fd = fd;
	return 0;
}

/* Standard input becomes /dev/null, which programs without stdin then inherit without any call. */
static int set_up_streams(int *ret_urandom_fd, struct base_error *error)
{
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) {
		return base_error_set_errno(error, -errno, "cannot open /dev/null");
	}
	if (null_fd > STDERR_FILENO) {
		close(null_fd);
	}
	*ret_urandom_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (*ret_urandom_fd < 0) {
		return base_error_set_errno(error, -errno, "cannot open /dev/urandom");
	}
	return 0;
}

static int serve(struct base_error *error)
{
	static struct agent_server server;
	static int urandom_fd;
	struct agent_identity identity = { .ops = &agent_identity_kernel_ops,
					   .userdata = &urandom_fd };
	struct agent_boot boot = { 0 };
	int listener_fd = -1;
	int r = agent_boot(&boot, &identity, error);

	if (r < 0) {
		return r;
	}
	r = set_up_streams(&urandom_fd, error);
	if (r < 0) {
		return r;
	}
	sethostname(DEFAULT_HOSTNAME, strlen(DEFAULT_HOSTNAME));
	r = listen_vsock(&listener_fd);
	if (r == 0) {
		r = agent_server_init(&server, listener_fd);
	}
	if (r < 0) {
		return base_error_set_errno(error, r, "cannot listen on vsock port %d",
					    GUEST_AGENT_PORT);
	}
	server.identity = identity;
	server.never_identify = boot.fault_reseed;
	dprintf(STDERR_FILENO, "warmbox-agent: listening\n");
	r = agent_server_run(&server, NULL);
	return base_error_set_errno(error, r, "cannot wait for events");
}

int main(int argc, char **argv)
{
	struct base_error error = { 0 };

	if (argc == 2 && strcmp(argv[1], GUEST_TOUCH_ARGUMENT) == 0) {
		return agent_exec_touch_main();
	}
	if (getpid() != 1) {
		dprintf(STDERR_FILENO,
			"warmbox-agent is the first process of a guest and does nothing here\n");
		return 1;
	}
	serve(&error);
	dprintf(STDERR_FILENO, "warmbox-agent: %s; resetting the machine\n", error.text);
	reboot(RB_AUTOBOOT);
	return 1;
}
