/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every system call that a table does not allow is made under the very filter, and kills: by
 * number, by each condition on an argument, and as the calls of i386 and x32. Every one that it
 * allows does not kill.
 *
 * Each try is a process of its own. What a call would do does not matter: beneath the filter there
 * is one that answers ENOSYS to everything. Of two verdicts the kernel takes the sterner, so what
 * lives to say so was let through.
 */

#include "base/util.h"
#include "filter/filter.h"
#include "filter/rules.h"

#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Above the last that any kernel has today. */
#define NUMBERS 512
#define X32_BIT 0x40000000
/* How probes that root has placed in a program report: newer kernels let them pass by all filters,
 * and refuse them when they do not come from a probe. */
#define URETPROBE 335
#define UPROBE	  336

struct stage {
	const struct filter_program *program;
	const char *name;
	const struct filter *filter;
};

static const struct stage stages[] = {
	{ &filter_program_vmm, "setup", &filter_vmm_setup },
	{ &filter_program_vmm, "booted", &filter_vmm_booted },
	{ &filter_program_vmm, "loaded", &filter_vmm_loaded },
	{ &filter_program_vmm, "vcpu", &filter_vmm_vcpu },
	{ &filter_program_vmm, "vcpu_pvm", &filter_vmm_vcpu_pvm },
};

struct attempt {
	long number;
	uint64_t arguments[6];
	bool as_i386;
};

static const struct filter_stage *stage_of(const struct stage *stage)
{
	for (size_t i = 0; i < stage->program->n_stages; i++) {
		if (strcmp(stage->program->stages[i].name, stage->name) == 0) {
			return &stage->program->stages[i];
		}
	}
	fail_msg("no stage %s", stage->name);
	return NULL;
}

/* Rule after rule; NULL after the last. *position starts at 0. */
static const struct filter_rule *next_rule(const struct filter_stage *stage, size_t *position)
{
	size_t skip = (*position)++;

	for (; stage; stage = stage->also) {
		for (size_t i = 0; i < FILTER_LISTS_MAX; i++) {
			if (skip < stage->lists[i].n_rules) {
				return &stage->lists[i].rules[skip];
			}
			skip -= stage->lists[i].n_rules;
		}
	}
	return NULL;
}

/* What the table says. */
static bool is_let_through(const struct filter_stage *stage, const struct attempt *attempt)
{
	const struct filter_rule *rule;

	for (size_t at = 0; (rule = next_rule(stage, &at));) {
		bool fits = rule->number == attempt->number && !attempt->as_i386;

		for (size_t i = 0; i < FILTER_CONDITIONS_MAX && rule->conditions[i].mask; i++) {
			const struct filter_condition *condition = &rule->conditions[i];

			fits = fits && (attempt->arguments[condition->argument] &
					condition->mask) == condition->value;
		}
		if (fits) {
			return true;
		}
	}
	return false;
}

static void set_filter(const struct sock_filter *code, unsigned short n)
{
	const struct sock_fprog program = { n, (struct sock_filter *)code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) {
		_exit(EXIT_FAILURE);
	}
}

/* In a child. */
static void try_it(const struct filter *filter, const struct attempt *attempt, bool *ret_survived)
{
	static const struct sock_filter harmless[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const uint64_t *a = attempt->arguments;

	set_filter(harmless, ARRAY_SIZE(harmless));
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0,
		    &(struct sock_fprog){ filter->n_kill, (struct sock_filter *)filter->kill }) <
	    0) {
		return;
	}
	if (attempt->as_i386) {
		int result;

		__asm__ volatile("int $0x80" : "=a"(result) : "a"((int)attempt->number) : "memory");
	} else {
		syscall(attempt->number, a[0], a[1], a[2], a[3], a[4], a[5]);
	}
	*ret_survived = true;
}

static bool *survived; /* shared with the children */
static unsigned n_tried, n_killed;

static void check(const struct stage *stage, const struct attempt *attempt)
{
	bool expected = is_let_through(stage_of(stage), attempt);
	int status;
	pid_t pid;

	*survived = false;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		try_it(stage->filter, attempt, survived);
		_exit(EXIT_SUCCESS); /* where that is forbidden it kills, after the verdict */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	n_tried++;
	/* The one call that does not come back. */
	if (attempt->number == SYS_exit_group && !attempt->as_i386 && WIFEXITED(status)) {
		*survived = true;
	}
	n_killed += !*survived;
	if (*survived != expected ||
	    (!expected && (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS))) {
		fail_msg("%s %s: call %ld (%#llx, %#llx, %#llx, %#llx): %s, status %#x",
			 stage->program->name, stage->name, attempt->number,
			 (unsigned long long)attempt->arguments[0],
			 (unsigned long long)attempt->arguments[1],
			 (unsigned long long)attempt->arguments[2],
			 (unsigned long long)attempt->arguments[3],
			 *survived ? "let through" : "not let through", (unsigned)status);
	}
}

/* With arguments of zeros, and of ones. */
static void try_numbers(const struct stage *stage)
{
	for (long number = 0; number < NUMBERS; number++) {
		struct attempt attempt = { .number = number };

		if (number == UPROBE || number == URETPROBE) {
			continue;
		}
		check(stage, &attempt);
		if (is_let_through(stage_of(stage), &attempt)) {
			continue;
		}
		memset(attempt.arguments, 0xff, sizeof(attempt.arguments));
		check(stage, &attempt);
	}
}

/* Each rule as it stands, and with one condition after the other broken by one bit. */
static void try_conditions(const struct stage *stage)
{
	const struct filter_rule *rule;

	for (size_t at = 0; (rule = next_rule(stage_of(stage), &at));) {
		struct attempt attempt = { .number = rule->number };

		for (size_t i = 0; i < FILTER_CONDITIONS_MAX; i++) {
			attempt.arguments[rule->conditions[i].argument] |=
				rule->conditions[i].value;
		}
		check(stage, &attempt);
		for (size_t i = 0; i < FILTER_CONDITIONS_MAX && rule->conditions[i].mask; i++) {
			const struct filter_condition *condition = &rule->conditions[i];
			uint64_t *argument = &attempt.arguments[condition->argument];
			uint64_t lowest = condition->mask & -condition->mask;
			uint64_t highest = UINT64_C(1) << (63 - __builtin_clzll(condition->mask));

			*argument ^= lowest;
			check(stage, &attempt);
			*argument ^= lowest ^ highest;
			check(stage, &attempt);
			*argument ^= highest;
		}
	}
}

/* What reaches the kernel by other ways in than that of x86-64 is never let through. */
static void try_other_ways(const struct stage *stage)
{
	const struct filter_rule *rule;

	for (size_t at = 0; (rule = next_rule(stage_of(stage), &at));) {
		check(stage, &(struct attempt){ .number = rule->number, .as_i386 = true });
		check(stage, &(struct attempt){ .number = rule->number | X32_BIT });
	}
}

static void test_stage(void **state)
{
	const struct stage *stage = *state;

	n_tried = n_killed = 0;
	try_numbers(stage);
	try_conditions(stage);
	try_other_ways(stage);
	printf("# %s %s: %u tried, %u killed\n", stage->program->name, stage->name, n_tried,
	       n_killed);
	/* All numbers but a few dozens, twice. */
	assert_true(n_killed > NUMBERS);
}

/* What must never be in a table, whoever writes it. */
static void test_never(void **state)
{
	static const long never[] = {
		SYS_ptrace,	  SYS_process_vm_readv, SYS_process_vm_writev,
		SYS_bpf,	  SYS_kexec_load,	SYS_init_module,
		SYS_finit_module, SYS_keyctl,		SYS_add_key,
		SYS_request_key,  SYS_perf_event_open,	SYS_open_by_handle_at,
		SYS_pidfd_getfd,  SYS_move_pages,	SYS_iopl,
		SYS_ioperm,	  SYS_settimeofday,	SYS_swapon,
		SYS_reboot,	  SYS_personality,
	};

	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(never); j++) {
			assert_false(is_let_through(stage_of(&stages[i]),
						    &(struct attempt){ .number = never[j] }));
		}
	}
}

static void test_once_loaded(void **state)
{
	static const long never[] = {
		SYS_open,
		SYS_openat,
		SYS_openat2,
		SYS_creat,
		SYS_socket,
		SYS_socketpair,
		SYS_connect,
		SYS_bind,
		SYS_clone,
		SYS_clone3,
		SYS_fork,
		SYS_vfork,
		SYS_execve,
		SYS_execveat,
		SYS_mprotect,
		SYS_pkey_mprotect,
		SYS_mremap,
		SYS_userfaultfd,
		SYS_io_uring_setup,
		SYS_io_uring_register,
		SYS_seccomp,
		SYS_prctl,
		SYS_unshare,
		SYS_setns,
		SYS_mount,
		SYS_kill,
		SYS_pidfd_open,
		SYS_fallocate,
		SYS_pwrite64,
		SYS_memfd_create,
		SYS_remap_file_pages,
	};

	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
		if (stages[i].filter != &filter_vmm_loaded &&
		    stages[i].filter != &filter_vmm_vcpu &&
		    stages[i].filter != &filter_vmm_vcpu_pvm) {
			continue;
		}
		for (size_t j = 0; j < ARRAY_SIZE(never); j++) {
			assert_false(is_let_through(stage_of(&stages[i]),
						    &(struct attempt){ .number = never[j] }));
		}
	}
}

/* A call that is forbidden is let through, and logged. */
static void test_log(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(filter_force(&filter_vmm_loaded, FILTER_LOG) == 0 && getppid() > 0
			      ? EXIT_SUCCESS
			      : EXIT_FAILURE);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_modes(void **state)
{
	enum filter_mode mode;

	for (int i = FILTER_KILL; i <= FILTER_OFF; i++) {
		assert_int_equal(filter_mode_parse(filter_mode_name((enum filter_mode)i), &mode),
				 0);
		assert_int_equal(mode, i);
	}
	assert_int_equal(filter_mode_parse("", &mode), -EINVAL);
	assert_int_equal(filter_mode_parse("KILL", &mode), -EINVAL);
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(stages) + 4] = {
		cmocka_unit_test(test_never),
		cmocka_unit_test(test_once_loaded),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_modes),
	};
	char names[ARRAY_SIZE(stages)][64];

	survived = mmap(NULL, sizeof(*survived), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (survived == MAP_FAILED) {
		return EXIT_FAILURE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
		snprintf(names[i], sizeof(names[i]), "test_stage_%s_%s", stages[i].program->name,
			 stages[i].name);
		tests[4 + i] = (struct CMUnitTest){
			.name = names[i],
			.test_func = test_stage,
			.initial_state = (void *)&stages[i],
		};
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
