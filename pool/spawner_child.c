/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One VMM: from the request to the exec.
 *
 * Happy path: one clone3() that shares the memory and suspends the spawner (as vfork() does) and
 * brings the namespaces; then the new process takes its own ids, enters a user namespace in which
 * it has nothing else, gives up what that gave it, answers, and becomes the VMM.
 *
 * The order of the child's steps is a rule. Ids come before the user namespace, since whoever has
 * an id may map it. Changing ids makes the memory undumpable, and files of /proc then belong to
 * root, so that is taken back before the maps are written. The user namespace gives all
 * capabilities in itself and restores the bounding set, so these are given up after it. All other
 * namespaces belong to the user namespace of the spawner, in which the VMM never has a capability.
 *
 * Failure: whatever goes wrong before the answer is told after it, and the child ends with status
 * 127. One that cannot even answer is left to be reaped by its number.
 *
 * The child runs on a stack of its own, in the spawner's memory: it changes nothing there but the
 * birth.
 */

#include "pool/spawner_internal.h"

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOT_EXECUTED_STATUS 127
/* Messages, an iovec, a control message and the sanitizers' frames. */
#define STACK_BYTES KIB(32)
#define NICE_MAX    19
/* The VMM program, until it is executed. */
#define PROGRAM_FD 5

_Static_assert(PROGRAM_FD == VMM_KVM_FD + 1, "what follows it is closed");

/* The sanitizer's notes about this stack are those of a process that never returned from it. */
#define NOT_SANITIZED __attribute__((no_sanitize("address")))

#define SECUREBITS                                                                               \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |                         \
	 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | \
	 SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

struct birth {
	const struct spawner *spawner;
	const struct base_message *request;
	int control, errors;
	uint64_t flags, started_ns;
	/* Written by the kernel before the child runs: its pid as the spawner sees it. The child
	 * itself sees 1. */
	pid_t pid;
	/* Written by the child. */
	const char *step; /* what it is at */
	bool answered;
};

/* --- in the child --- */

static NOT_SANITIZED int take_ids(struct birth *birth)
{
	uid_t uid = (uid_t)birth->request->arg[1];
	gid_t gid = (gid_t)birth->request->arg[2];

	birth->step = "taking its user id";
	/* Not the C library's: those tell the threads of the process they are called in. */
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, gid, gid, gid) < 0 ||
	    syscall(SYS_setresuid, uid, uid, uid) < 0) {
		return -errno;
	}
	return 0;
}

static NOT_SANITIZED int enter_user_namespace(struct birth *birth)
{
	/* Inside they have no numbers until they are mapped. */
	uid_t uid = geteuid();
	gid_t gid = getegid();

	birth->step = "making its user namespace";
	if (prctl(PR_SET_DUMPABLE, 1) < 0 || unshare(CLONE_NEWUSER | CLONE_NEWCGROUP) < 0) {
		return -errno;
	}
	birth->step = "mapping its ids";
	return spawner_place_map_ids(birth->spawner, uid, gid);
}

static NOT_SANITIZED int drop_capabilities(struct birth *birth)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	birth->step = "dropping its capabilities";
	/* Up to the last that this kernel knows. */
	for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++) {
	}
	if (errno != EINVAL || prctl(PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0) < 0 ||
	    syscall(SYS_capset, &header, none) < 0) {
		return -errno;
	}
	return 0;
}

static NOT_SANITIZED int lower_limit(int resource, rlim_t most)
{
	struct rlimit limit;

	if (getrlimit((__rlimit_resource_t)resource, &limit) < 0) {
		return -errno;
	}
	limit.rlim_max = MIN(limit.rlim_max, most);
	limit.rlim_cur = limit.rlim_max;
	return setrlimit((__rlimit_resource_t)resource, &limit) < 0 ? -errno : 0;
}

/* Threads are counted for the user in its namespace: it must be in it by now. */
static NOT_SANITIZED int lower_limits(struct birth *birth)
{
	int r;

	birth->step = "lowering its limits";
	r = lower_limit(RLIMIT_NPROC, SPAWNER_THREADS_MAX);
	/* Locked memory is counted for the user on the host, which others may be as well. */
	r = r
		    ?: lower_limit(RLIMIT_MEMLOCK, birth->flags & SPAWNER_JAIL_IDENTITY
							   ? SPAWNER_LOCKED_BYTES_MAX
							   : RLIM_INFINITY);
	return r ?: lower_limit(RLIMIT_NOFILE, SPAWNER_OPEN_FILES_MAX);
}

static NOT_SANITIZED int enter_jail(struct birth *birth)
{
	int r = birth->flags & SPAWNER_JAIL_IDENTITY ? take_ids(birth) : 0;

	if (r == 0 && birth->flags & SPAWNER_JAIL_NAMESPACES) {
		r = enter_user_namespace(birth);
		r = r ?: drop_capabilities(birth);
	}
	return r;
}

/* The VMM's descriptors, and the program behind them; the child has its own table. */
static NOT_SANITIZED int arrange_descriptors(struct birth *birth)
{
	const struct spawner *spawner = birth->spawner;

	birth->step = "arranging its descriptors";
	if (dup2(spawner->devnull, STDIN_FILENO) < 0 || dup2(spawner->devnull, STDOUT_FILENO) < 0 ||
	    dup2(birth->errors, STDERR_FILENO) < 0 || dup2(birth->control, VMM_CONTROL_FD) < 0 ||
	    dup2(spawner->kvm, VMM_KVM_FD) < 0 ||
	    dup3(spawner->program, PROGRAM_FD, O_CLOEXEC) < 0) {
		return -errno;
	}
	return 0;
}

static NOT_SANITIZED int execute(struct birth *birth)
{
	char *const argv[] = { (char *)"warmbox-vmm", NULL };
	char *const environment[] = { NULL };
	int r = arrange_descriptors(birth);

	if (r == 0 && birth->flags & SPAWNER_JAIL_NAMESPACES) {
		r = lower_limits(birth);
	}
	if (r < 0) {
		return r;
	}
	birth->step = "executing it";
	/* All others are close-on-exec; this does not depend on that. The manager's socket has to
	 * stay until it is known that nothing is to be told. */
	if (syscall(SYS_close_range, PROGRAM_FD + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0) {
		return -errno;
	}
	execveat(PROGRAM_FD, "", argv, environment, AT_EMPTY_PATH);
	return -errno;
}

static NOT_SANITIZED void answer(struct birth *birth)
{
	struct base_message reply = {
		.op = SPAWNER_OP_START,
		.sequence = birth->request->sequence,
		.arg = { (uint64_t)birth->pid, birth->started_ns },
	};
	int pidfd = pidfd_open(getpid(), 0);

	/* Whoever reads the answer may kill this process before it gets to say that it was sent. */
	birth->answered = pidfd >= 0;
	if (pidfd >= 0 && base_message_send(birth->spawner->manager, &reply, &pidfd, 1) < 0) {
		birth->answered = false;
	}
}

static NOT_SANITIZED void tell_not_executed(const struct birth *birth, int r)
{
	struct base_message event = { .op = SPAWNER_EVENT_NOT_EXECUTED,
				      .result = r,
				      .arg = { (uint64_t)birth->pid } };

	base_message_set_text(&event, birth->step);
	(void)base_message_send(birth->spawner->manager, &event, NULL, 0);
}

/* In the new process, which has the memory in common with the spawner until it is a VMM. */
static NOT_SANITIZED __attribute__((noreturn)) void be_born(struct birth *birth)
{
	int r;

	/* A session of its own: a Ctrl-C that ends the manager must not overtake its orderly stop.
	 */
	setsid();
	(void)setpriority(PRIO_PROCESS, 0, (int)birth->request->arg[0]);
	r = enter_jail(birth);
	answer(birth);
	if (birth->answered) {
		r = r ?: execute(birth);
		tell_not_executed(birth, r);
	}
	_exit(NOT_EXECUTED_STATUS);
}

/* --- in the spawner --- */

/* The C library has no clone3(). In the child: calls be_born(birth) on the new stack. Gives the
 * pid, or -errno. */
static long clone_child(struct clone_args *args, struct birth *birth)
{
	register struct birth *argument __asm__("r12") = birth;
	register void (*function)(struct birth *) __asm__("r13") = be_born;
	long result;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r12, %%rdi\n\t"
			 "call *%%r13\n\t"
			 "1:"
			 : "=a"(result)
			 : "a"(SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(argument),
			   "r"(function)
			 : "rcx", "r11", "memory");
	return result;
}

static int check_request(const struct spawner *spawner, const struct base_message *request,
			 size_t n_fds)
{
	const uint64_t *arg = request->arg;
	size_t least = arg[3] & SPAWNER_JAIL_CGROUP ? 2 : 1;

	if (request->op != SPAWNER_OP_START || arg[0] > NICE_MAX || arg[1] > UINT32_MAX ||
	    arg[2] > UINT32_MAX || arg[3] & ~(uint64_t)SPAWNER_JAIL_FLAGS || n_fds < least ||
	    n_fds > least + 1) {
		return -EINVAL;
	}
	if (arg[3] & (SPAWNER_JAIL_NAMESPACES | SPAWNER_JAIL_NETWORK) &&
	    spawner->place == SPAWNER_PLACE_HOST) {
		return -EINVAL;
	}
	if (arg[3] & SPAWNER_JAIL_IDENTITY && spawner->place != SPAWNER_PLACE_EMPTY) {
		return -EINVAL;
	}
	return 0;
}

int spawner_child_start(const struct spawner *spawner, const struct base_message *request,
			const int *fds, size_t n_fds, pid_t *ret_pid)
{
	static uint8_t stack[STACK_BYTES] __attribute__((aligned(16)));
	uint64_t flags = request->arg[3];
	bool has_cgroup = flags & SPAWNER_JAIL_CGROUP;
	struct birth birth = {
		.spawner = spawner,
		.request = request,
		.flags = flags,
		.started_ns = base_clock_monotonic_ns(),
	};
	struct clone_args args = {
		/* What its end is told with comes from the spawner, as its parent does. */
		.flags = CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_PARENT_SETTID,
		.parent_tid = (uintptr_t)&birth.pid,
		.stack = (uintptr_t)stack,
		.stack_size = sizeof(stack),
	};
	long r = check_request(spawner, request, n_fds);

	*ret_pid = 0;
	if (r < 0) {
		return (int)r;
	}
	birth.control = fds[0];
	birth.errors = n_fds - has_cgroup > 1 ? fds[1] : spawner->devnull;
	if (flags & SPAWNER_JAIL_NAMESPACES) {
		args.flags |= CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
	}
	if (flags & SPAWNER_JAIL_NETWORK) {
		args.flags |= CLONE_NEWNET;
	}
	if (has_cgroup) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)fds[n_fds - 1];
	}
	r = clone_child(&args, &birth);
	if (r < 0) {
		return (int)r;
	}
	if (!birth.answered) {
		*ret_pid = (pid_t)r;
		return -EAGAIN;
	}
	return 0;
}
