/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Waiting for a successor of the starter.
 *
 * Happy path: the control socket of a leased VM closes; it leaves the loop, its descriptor stays as
 * a place that refuses what is sent to it. Who connects to the listener takes that place, by one
 * dup3(), so that threads that send meanwhile need not be told.
 *
 * Failure: whoever connects while the control socket lives is hung up on. When nobody has come in
 * time, a signal ends the process: it comes through whatever the main thread waits for. A signal
 * without a handler would not do, since the first process of a PID namespace does not get those.
 *
 * Shut-down: with the process. Main thread, with the device lock.
 */

#include "vmm/successor.h"

#include "base/fd.h"
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void on_too_late(int number)
{
	_exit(EXIT_SUCCESS);
}

/* 0 takes the timer back. */
static void set_timer(uint64_t ms)
{
	struct itimerval timer = {
		.it_value = { .tv_sec = (time_t)(ms / 1000),
			      .tv_usec = (suseconds_t)(ms % 1000 * 1000) },
	};

	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

/* The events of the loop come in any order: the socket may have closed before it was said. */
static bool control_is_closed(const struct vmm_successor *successor)
{
	struct pollfd item = { .fd = VMM_CONTROL_FD };

	return successor->waiting || (poll(&item, 1, 0) > 0 && item.revents & (POLLHUP | POLLERR));
}

static void on_connection(struct vmm_source *source, uint32_t events)
{
	struct vmm_successor *successor = source->userdata;
	_cleanup_fd_ int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
	struct timeval timeout = { .tv_sec = VMM_SEND_TIMEOUT_S };

	if (fd < 0 || !control_is_closed(successor) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0) {
		return;
	}
	vmm_loop_remove(successor->loop, successor->control);
	if (dup3(fd, VMM_CONTROL_FD, O_CLOEXEC) < 0 ||
	    vmm_loop_add(successor->loop, successor->control, EPOLLIN) < 0) {
		return; /* the timer runs on */
	}
	successor->waiting = false;
	set_timer(0);
}

int vmm_successor_init(struct vmm_successor *successor, struct vmm_loop *loop,
		       struct vmm_source *control)
{
	struct sigaction action = { .sa_handler = on_too_late };

	*successor = (struct vmm_successor){
		.loop = loop,
		.control = control,
		.listening = { .fd = -1, .fn = on_connection, .userdata = successor },
	};
	return sigaction(SIGALRM, &action, NULL) < 0 ? -errno : 0;
}

void vmm_successor_listen(struct vmm_successor *successor, int fd)
{
	base_fd_close(successor->listening.fd);
	successor->listening.fd = fd;
}

int vmm_successor_lease(struct vmm_successor *successor, uint64_t timeout_ms)
{
	successor->timeout_ms = timeout_ms;
	return successor->listening.added
		       ? 0
		       : vmm_loop_add(successor->loop, &successor->listening, EPOLLIN);
}

bool vmm_successor_await(struct vmm_successor *successor)
{
	if (successor->timeout_ms == 0) {
		return false;
	}
	if (!successor->waiting) {
		successor->waiting = true;
		vmm_loop_remove(successor->loop, successor->control);
		set_timer(successor->timeout_ms);
	}
	return true;
}
