/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a program gains by jumping to the kernel's system call entry itself: nothing.
 *
 * On kvm-pvm hosts the guest kernel takes a user-mode fetch fault at entry_SYSCALL_64 for a system
 * call (guest/kernel/patches/0001). Any program can cause that fault, with any rcx and r11. This
 * one does, in all the ways that could matter, and checks what comes back.
 *
 * Runs in the guest, static, as an ordinary program (`pvm_jump ADDRESS`) or as init (kernel
 * parameter `syscall_entry=ADDRESS`, which the kernel puts into init's environment). ADDRESS is
 * that of entry_SYSCALL_64 in System.map. Prints "ok <case>" or "not ok <case>: <why>" for each
 * case and at last "pvm_jump: passed N" or "pvm_jump: FAILED N of M"; the exit status is 0 or 1.
 * As init it writes to the kernel log, at a level that is always shown, and ends with a reset.
 */

#include <asm/processor-flags.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

/* Everything but TF: single-stepping would end each case in SIGTRAP. AC stays off too while C code
 * runs; the assembly drops it before returning. */
#define FLAGS_ALL (~(uint64_t)X86_EFLAGS_TF)

/* The flags that user mode may have, IF and the bit that is always 1 included. RF reads as 0. */
#define FLAGS_OF_USERS                                                                 \
	((uint64_t)(X86_EFLAGS_CF | X86_EFLAGS_FIXED | X86_EFLAGS_PF | X86_EFLAGS_AF | \
		    X86_EFLAGS_ZF | X86_EFLAGS_SF | X86_EFLAGS_TF | X86_EFLAGS_IF |    \
		    X86_EFLAGS_DF | X86_EFLAGS_OF | X86_EFLAGS_RF | X86_EFLAGS_AC))

/* The end of user addresses with four-level page tables: what the kernel calls TASK_SIZE_MAX. */
#define USER_END 0x7ffffffff000ULL

#define UNTOUCHED 0x5a5a5a5aL

struct jump {
	/* in */
	uint64_t target;
	uint64_t rcx; /* 0: the instruction after the jump */
	uint64_t r11;
	uint64_t rsp; /* 0: left alone */
	int64_t number;
	int64_t argument;
	int64_t argument2;
	/* out; meaningful when no signal came */
	int64_t result;
	uint64_t flags;
	uint64_t cs;
	uint64_t ss;
};

static uint64_t entry;
static int output = STDOUT_FILENO;
static int n_cases;
static int n_failed;

static sigjmp_buf escape;
static volatile sig_atomic_t caught;
static volatile uint64_t caught_ip;
static volatile uint64_t caught_flags;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	char line[256];
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (write(output, line, (size_t)n) != n) {
		_exit(2);
	}
}

static void report(const char *name, const char *why)
{
	n_cases++;
	if (why) {
		n_failed++;
	}
	say("%s%s %s%s%s\n", getpid() == 1 ? "<0>" : "", why ? "not ok" : "ok", name,
	    why ? ": " : "", why ? why : "");
}

static void on_signal(int number, siginfo_t *info, void *context)
{
	const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)info;
	caught = number;
	caught_ip = (uint64_t)registers[REG_RIP];
	caught_flags = (uint64_t)registers[REG_EFL];
	siglongjmp(escape, 1);
}

/* Jumps to j->target as SYSCALL would have gone there, and takes note of what comes back. */
static void enter(struct jump *j)
{
	/* rbx and rbp survive a system call; the rest of the inputs are read before the jump. */
	__asm__ volatile(
		"mov %%rsp, %%rbp\n\t"
		"and $-16, %%rsp\n\t"
		"sub $256, %%rsp\n\t" /* the red zone and then some */
		"push %%rbp\n\t"
		"mov %%rsp, %%rbp\n\t"
		"mov %c[o_number](%%rbx), %%rax\n\t"
		"mov %c[o_argument](%%rbx), %%rdi\n\t"
		"mov %c[o_argument2](%%rbx), %%rsi\n\t"
		"mov %c[o_r11](%%rbx), %%r11\n\t"
		"mov %c[o_rcx](%%rbx), %%rcx\n\t"
		"mov %c[o_target](%%rbx), %%rdx\n\t"
		"test %%rcx, %%rcx\n\t"
		"jnz 1f\n\t"
		"lea 3f(%%rip), %%rcx\n"
		"1:\n\t"
		"cmpq $0, %c[o_rsp](%%rbx)\n\t"
		"je 2f\n\t"
		"mov %c[o_rsp](%%rbx), %%rsp\n"
		"2:\n\t"
		"jmp *%%rdx\n"
		"3:\n\t"
		"mov %%rbp, %%rsp\n\t"
		"pushfq\n\t"
		"popq %c[o_flags](%%rbx)\n\t"
		/* popf at privilege level 3 leaves IOPL and IF as they are. */
		"pushq $2\n\t"
		"popfq\n\t"
		"mov %%rax, %c[o_result](%%rbx)\n\t"
		"xor %%eax, %%eax\n\t"
		"mov %%cs, %%eax\n\t"
		"mov %%rax, %c[o_cs](%%rbx)\n\t"
		"mov %%ss, %%eax\n\t"
		"mov %%rax, %c[o_ss](%%rbx)\n\t"
		"pop %%rbp\n\t"
		"mov %%rbp, %%rsp\n\t"
		:
		: "b"(j), [o_number] "i"(offsetof(struct jump, number)),
		  [o_argument] "i"(offsetof(struct jump, argument)),
		  [o_argument2] "i"(offsetof(struct jump, argument2)),
		  [o_r11] "i"(offsetof(struct jump, r11)), [o_rcx] "i"(offsetof(struct jump, rcx)),
		  [o_target] "i"(offsetof(struct jump, target)),
		  [o_rsp] "i"(offsetof(struct jump, rsp)),
		  [o_flags] "i"(offsetof(struct jump, flags)),
		  [o_result] "i"(offsetof(struct jump, result)),
		  [o_cs] "i"(offsetof(struct jump, cs)), [o_ss] "i"(offsetof(struct jump, ss))
		: "rax", "rcx", "rdx", "rsi", "rdi", "r11", "rbp", "cc", "memory");
}

/* 0 when the jump came back, else the signal that it ended in. */
static int attempt(struct jump *j)
{
	caught = 0;
	j->result = UNTOUCHED;
	if (sigsetjmp(escape, 1) == 0) {
		enter(j);
	}
	return caught;
}

static int instruction_signal(void (*instruction)(void))
{
	caught = 0;
	if (sigsetjmp(escape, 1) == 0) {
		instruction();
	}
	return caught;
}

static void do_in(void)
{
	__asm__ volatile("in $0x71, %%al" ::: "rax");
}

static void do_out(void)
{
	__asm__ volatile("mov $0, %%eax\n\tout %%al, $0x80" ::: "rax");
}

static void do_cli(void)
{
	__asm__ volatile("cli");
}

static void do_hlt(void)
{
	__asm__ volatile("hlt");
}

static void do_read_entry(void)
{
	(void)*(volatile const char *)entry;
}

static void do_write_entry(void)
{
	*(volatile char *)entry = 0;
}

static void test_privilege(const char *after)
{
	static const struct {
		const char *name;
		void (*instruction)(void);
	} privileged[] = {
		{ "in", do_in },
		{ "out", do_out },
		{ "cli", do_cli },
		{ "hlt", do_hlt },
	};
	char name[64];

	for (size_t i = 0; i < sizeof(privileged) / sizeof(*privileged); i++) {
		snprintf(name, sizeof(name), "%s faults %s", privileged[i].name, after);
		report(name, instruction_signal(privileged[i].instruction) == SIGSEGV
				     ? NULL
				     : "it was executed");
	}
}

static void test_flags(const char *name, uint64_t r11, uint64_t kept)
{
	uint64_t cs, ss;
	struct jump j = { .target = entry, .r11 = r11, .number = SYS_getpid };
	const char *why = NULL;

	__asm__ volatile("mov %%cs, %0\n\tmov %%ss, %1" : "=r"(cs), "=r"(ss));
	if (attempt(&j) != 0) {
		why = "a signal";
	} else if (j.result != getpid()) {
		why = "a wrong result";
	} else if (j.flags & ~FLAGS_OF_USERS) {
		why = "IOPL, NT, VM or another flag that is not the user's";
	} else if (!(j.flags & X86_EFLAGS_IF)) {
		why = "interrupts are off";
	} else if ((j.flags & kept) != (r11 & kept)) {
		why = "the user's own flags were lost";
	} else if (j.cs != (cs & 0xffff) || j.ss != (ss & 0xffff)) {
		why = "other segments";
	}
	report(name, why);
}

/* A kvm-pvm host may itself keep IOPL from reaching user mode. What the kernel took for the user's
 * flags shows in the frame of a signal that arrives before the system call returns. */
static void test_flags_in_kernel(void)
{
	struct jump j = { .target = entry,
			  .r11 = FLAGS_ALL & ~(uint64_t)X86_EFLAGS_AC,
			  .number = SYS_kill,
			  .argument = getpid(),
			  .argument2 = SIGUSR1 };
	const char *why = NULL;

	if (attempt(&j) != SIGUSR1) {
		why = "no signal";
	} else if (caught_flags & ~FLAGS_OF_USERS) {
		why = "IOPL, NT, VM or another flag that is not the user's";
	} else if (!(caught_flags & X86_EFLAGS_IF)) {
		why = "interrupts are off";
	}
	report("flags in the frame of a signal", why);
}

static void test_results(void)
{
	static const int64_t unknown[] = { -1, 0x7fffffff, 0x40000000 + SYS_getpid, 100000 };
	struct jump j = { .target = entry, .r11 = 0x202, .number = SYS_close, .argument = 1000 };

	report("an error is passed on", attempt(&j) == 0 && j.result == -EBADF ? NULL : "no EBADF");
	for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
		j = (struct jump){ .target = entry, .r11 = 0x202, .number = unknown[i] };
		report("an unknown system call",
		       attempt(&j) == 0 && j.result == -ENOSYS ? NULL : "no ENOSYS");
	}
	j = (struct jump){
		.target = entry, .r11 = 0x202, .rsp = 0xffffffff81000000, .number = SYS_getpid
	};
	report("a kernel address as stack",
	       attempt(&j) == 0 && j.result == getpid() ? NULL : "not an ordinary system call");
}

/* A jump that must end in SIGSEGV, with ip where it says, without the system call being made. */
static void test_refused(const char *name, uint64_t target, uint64_t rcx)
{
	struct jump j = {
		.target = target,
		.rcx = rcx,
		.r11 = FLAGS_ALL,
		.number = SYS_umask,
		.argument = 0123,
	};
	const char *why = NULL;
	mode_t mask;

	umask(022);
	if (attempt(&j) != SIGSEGV) {
		why = "no SIGSEGV";
	} else if (caught_ip != target) {
		why = "the fault is somewhere else";
	} else if (caught_flags & ~FLAGS_OF_USERS) {
		why = "flags that are not the user's";
	}
	mask = umask(022);
	if (!why && mask != 022) {
		why = "the system call was made";
	}
	report(name, why);
}

/* rcx is the user's to choose as far as user addresses go: the call is made, and returns there. */
static void test_returns_to(const char *name, uint64_t rcx)
{
	struct jump j = { .target = entry,
			  .rcx = rcx, /* with AC the handler could not touch unaligned memory */
			  .r11 = FLAGS_ALL & ~(uint64_t)X86_EFLAGS_AC,
			  .number = SYS_umask,
			  .argument = 0123 };
	const char *why = NULL;

	umask(022);
	if (attempt(&j) != SIGSEGV || caught_ip != rcx) {
		why = "no SIGSEGV there";
	} else if (caught_flags & ~FLAGS_OF_USERS) {
		why = "flags that are not the user's";
	}
	if (umask(022) != 0123 && !why) {
		why = "the system call was not made";
	}
	report(name, why);
}

/* A child under a seccomp filter; returns its wait status. */
static int in_child(int (*child)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		/* exit_group, which _exit() calls, is not allowed in strict mode. */
		syscall(SYS_exit, child());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		return -1;
	}
	return status;
}

static int child_strict_forbidden(void)
{
	struct jump j = { .target = entry, .r11 = 0x202, .number = SYS_getpid };

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0) {
		return 10;
	}
	enter(&j);
	return 11;
}

static int child_strict_allowed(void)
{
	struct jump j = { .target = entry, .r11 = 0x202, .number = SYS_exit, .argument = 7 };

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0) {
		return 10;
	}
	enter(&j);
	return 11;
}

static int child_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_umask, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(*code), .filter = code };
	struct jump j = { .target = entry, .r11 = 0x202, .number = SYS_umask, .argument = 0123 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
		return 10;
	}
	enter(&j);
	return j.result == -EACCES ? 0 : 11;
}

static void test_seccomp(void)
{
	int status;

	status = in_child(child_strict_forbidden);
	report("strict seccomp kills", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
					       ? NULL
					       : "the system call was made");
	status = in_child(child_strict_allowed);
	report("strict seccomp lets through",
	       WIFEXITED(status) && WEXITSTATUS(status) == 7 ? NULL : "exit did not exit");
	status = in_child(child_filter);
	report("a seccomp filter decides",
	       WIFEXITED(status) && WEXITSTATUS(status) == 0 ? NULL : "no EACCES");
}

static void run_cases(void)
{
	const uint64_t arithmetic = X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF |
				    X86_EFLAGS_SF | X86_EFLAGS_OF | X86_EFLAGS_DF | X86_EFLAGS_AC;

	test_privilege("before");
	test_flags("ordinary flags", 0x202, arithmetic);
	test_flags("every flag at once", FLAGS_ALL, arithmetic);
	test_flags("IOPL 3, NT, VM", 0x202 | X86_EFLAGS_IOPL | X86_EFLAGS_NT | X86_EFLAGS_VM,
		   arithmetic);
	test_flags("no flag, not even IF", 0, arithmetic);
	test_flags_in_kernel();
	test_privilege("after");
	test_results();

	test_refused("rcx is the end of user addresses", entry, USER_END);
	test_refused("rcx is the first non-canonical address", entry, 0x800000000000);
	test_refused("rcx is non-canonical", entry, 0xdead000000000000);
	test_refused("rcx is a kernel address", entry, 0xffffffff81000000);
	test_refused("rcx is the entry itself", entry, entry);
	test_refused("rcx is all ones", entry, UINT64_MAX);
	test_refused("one past the entry", entry + 1, 0);
	test_refused("one before the entry", entry - 1, 0);
	test_refused("the kernel's first page", 0xffffffff81000000, 0);
	test_returns_to("rcx is not mapped", 0x1000);
	test_returns_to("rcx is the last user address", USER_END - 1);
	report("reading at the entry faults",
	       instruction_signal(do_read_entry) == SIGSEGV ? NULL : "it was read");
	report("writing at the entry faults",
	       instruction_signal(do_write_entry) == SIGSEGV ? NULL : "it was written");
	test_seccomp();
}

static void set_up_init(void)
{
	mkdir("/dev", 0755);
	mknod("/dev/kmsg", S_IFCHR | 0600, makedev(1, 11));
	output = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (output < 0) {
		output = STDOUT_FILENO;
	}
}

int main(int argc, char **argv)
{
	const char *text = argc > 1 ? argv[1] : getenv("syscall_entry");
	const bool is_init = getpid() == 1;
	const char *prefix = is_init ? "<0>" : "";
	struct sigaction action = { .sa_sigaction = on_signal,
				    .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
	static char alternate[16384];
	stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };

	if (is_init) {
		set_up_init();
	}
	if (text) {
		entry = strtoull(text, NULL, 16);
	}
	if (entry < 0xffffffff80000000) {
		say("%spvm_jump: no address of entry_SYSCALL_64 given\n", prefix);
	} else {
		/* Signals arrive with whatever rsp a case left. */
		sigaltstack(&stack, NULL);
		sigaction(SIGSEGV, &action, NULL);
		sigaction(SIGBUS, &action, NULL);
		sigaction(SIGILL, &action, NULL);
		sigaction(SIGTRAP, &action, NULL);
		sigaction(SIGUSR1, &action, NULL);
		run_cases();
		if (n_failed > 0) {
			say("%spvm_jump: FAILED %d of %d\n", prefix, n_failed, n_cases);
		} else {
			say("%spvm_jump: passed %d\n", prefix, n_cases);
		}
	}
	if (is_init) {
		reboot(RB_AUTOBOOT);
	}
	return entry && n_failed == 0 ? 0 : 1;
}
