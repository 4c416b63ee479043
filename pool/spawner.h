/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The protocol between the manager and warmbox-spawner, the small process that starts VMMs.
 *
 * Starting a process costs what its parent is large: page tables to copy, mounts to copy for a
 * namespace. The spawner is a static program with a few pages, and sets itself up once: a mount
 * namespace of its own whose only mount is an empty read-only root, and network, IPC and UTS
 * namespaces without anything in them. Neither the host's mounts nor the number of VMMs that are
 * started at once slow it. It starts VMMs as its siblings (CLONE_PARENT): the manager is their
 * parent and reaps them, and a spawner that dies takes none with it.
 *
 * Transport: base/message.h over descriptor SPAWNER_CONTROL_FD. argv[1] is the VMM program, which
 * is opened once, as are /dev/kvm and /dev/null; argv[2] is the place that it starts VMMs from:
 *    "host"     no place of its own. VMMs are not jailed.
 *    "empty"    namespaces as above. Needs CAP_SYS_ADMIN.
 *    "user"     the same inside a user namespace of its own, which needs no capability, and where
 *               no user id but the spawner's exists.
 * When the socket closes, the spawner exits. When it cannot set itself up it says why on standard
 * error and ends with status 1.
 *
 * The new process itself sends the reply, when it has its jail and just before it becomes the VMM.
 * So a spawner that is killed leaves no doubt: a request was carried out if and only if its reply
 * is there when the socket reaches its end.
 */

#include "base/message.h"

#define SPAWNER_CONTROL_FD 3

/* Those of a jailed VMM, soft and hard, where what it was started with is not less. No core dumps
 * and no message queues. */
#define SPAWNER_OPEN_FILES_MAX                                                                   \
	1024			    /* 256 vsock connections, a few dozen for the rest, and room \
				     */
#define SPAWNER_THREADS_MAX	 64 /* 8 vCPUs, the main thread, and what io_uring and KVM start */
#define SPAWNER_LOCKED_BYTES_MAX MIB(1) /* rings of its disks; only with ids of its own */

enum spawner_op {
	/*
	 * Starts a VMM. arg0 its nice value (0..19), arg1 and arg2 its user and group id (with
	 * SPAWNER_JAIL_IDENTITY), arg3 enum spawner_jail_flags. fds: its control socket; where its
	 * standard error goes (any file that is open for reading only: /dev/null); with
	 * SPAWNER_JAIL_CGROUP a cgroup v2 directory to be born in.
	 *
	 * Reply: arg0 its pid, as whoever started the spawner sees it, arg1 CLOCK_MONOTONIC ns
	 * before the start, one descriptor: the pidfd. The child has a session of its own, an empty
	 * environment, default signals, no new privileges, and no descriptor but its standard
	 * streams, VMM_CONTROL_FD and VMM_KVM_FD. With result -errno: arg0 the pid of a process
	 * that ended without having answered and is to be reaped, or 0.
	 */
	SPAWNER_OP_START = 1,

	/* Event: the process of a reply could not become the VMM and ends with status 127. arg0 its
	 * pid, result -errno. Text: what it could not do. */
	SPAWNER_EVENT_NOT_EXECUTED = 0x101,
};

enum spawner_jail_flags {
	/* Mount, PID, IPC, UTS, cgroup and user namespaces of its own, where nothing exists but its
	 * own user and group; no capability, and no way to gain one; the limits above. Not from
	 * "host". */
	SPAWNER_JAIL_NAMESPACES = 1 << 0,
	/* A network namespace of its own. Else the spawner's, which is as empty, but shared. */
	SPAWNER_JAIL_NETWORK = 1 << 1,
	/* The ids of arg1 and arg2 and no others; else the spawner's. Only from "empty". */
	SPAWNER_JAIL_IDENTITY = 1 << 2,
	/* The last descriptor is its cgroup. */
	SPAWNER_JAIL_CGROUP = 1 << 3,
};
#define SPAWNER_JAIL_FLAGS                                                        \
	(SPAWNER_JAIL_NAMESPACES | SPAWNER_JAIL_NETWORK | SPAWNER_JAIL_IDENTITY | \
	 SPAWNER_JAIL_CGROUP)
