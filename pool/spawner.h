/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The protocol between the manager and warmbox-spawner, the small process that starts VMMs.
 *
 * Starting a process costs what its parent is large: page tables to copy, mounts to copy for a
 * namespace. The spawner is a static program with a few pages and, where it may, a mount table of
 * its own with almost nothing in it. It starts VMMs as its siblings (CLONE_PARENT): the manager is
 * their parent and reaps them, and a spawner that dies takes none with it.
 *
 * Transport: base/message.h over descriptor SPAWNER_CONTROL_FD. argv[1] is the VMM program, opened
 * once. When the socket closes, the spawner exits.
 *
 * The new process itself sends the reply, just before it becomes the VMM. So a spawner that is
 * killed leaves no doubt: a request was carried out if and only if its reply is there when the
 * socket reaches its end.
 */

#include "base/message.h"

#define SPAWNER_CONTROL_FD 3

enum spawner_op {
	/*
	 * Starts a VMM. arg0 its nice value (0..19). fds: its control socket; optionally where its
	 * standard error goes (else /dev/null). Reply: arg0 pid, arg1 CLOCK_MONOTONIC ns before the
	 * start, one descriptor: the pidfd. The child has a session of its own, an empty
	 * environment, default signals, and no descriptor but its standard streams and
	 * VMM_CONTROL_FD.
	 */
	SPAWNER_OP_START = 1,

	/* Event: the process of a reply could not become the VMM and ends with status 127. arg0 its
	 * pid, result -errno. */
	SPAWNER_EVENT_NOT_EXECUTED = 0x101,
};
