/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Makes BPF of the tables of system calls, when the project is built: `generate c PROGRAM` prints
 * constant arrays for filter/filter.h, `generate json` prints all tables for tests and people.
 *
 * Each stage becomes two filters that differ in what befalls a call that no rule allows: kill, log.
 * Calls that are not those of x86-64 (i386, x32) are never let through, in either. Rules are tried
 * in the order of the table. A table that libseccomp refuses stops the build.
 */

#include "filter/rules.h"

#include <linux/filter.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct filter_program *const programs[] = {
	&filter_program_vmm,
};
#define N_PROGRAMS (sizeof(programs) / sizeof(programs[0]))

static _Noreturn void fail(const char *what, const char *name, int r)
{
	fprintf(stderr, "filter/generate: %s %s: %s\n", what, name, strerror(r < 0 ? -r : r));
	exit(EXIT_FAILURE);
}

static void add_rule(scmp_filter_ctx context, const struct filter_rule *rule)
{
	struct scmp_arg_cmp comparisons[FILTER_CONDITIONS_MAX];
	unsigned n = 0;
	int r;

	for (; n < FILTER_CONDITIONS_MAX && rule->conditions[n].mask != 0; n++) {
		const struct filter_condition *condition = &rule->conditions[n];

		comparisons[n] = SCMP_CMP(condition->argument, SCMP_CMP_MASKED_EQ, condition->mask,
					  condition->value);
	}
	r = seccomp_rule_add_exact_array(
		context, rule->answer ? SCMP_ACT_ERRNO((uint32_t)rule->answer) : SCMP_ACT_ALLOW,
		rule->number, n, comparisons);
	if (r < 0) {
		fail("the rule for", rule->call, r);
	}
}

static scmp_filter_ctx make_context(const struct filter_stage *stage, uint32_t otherwise)
{
	scmp_filter_ctx context = seccomp_init(otherwise);
	uint8_t priority = 255;

	if (!context || seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS)) {
		fail("a filter for", stage->name, ENOMEM);
	}
	for (const struct filter_stage *part = stage; part; part = part->also) {
		for (size_t i = 0; i < FILTER_LISTS_MAX; i++) {
			for (size_t j = 0; j < part->lists[i].n_rules; j++) {
				const struct filter_rule *rule = &part->lists[i].rules[j];

				add_rule(context, rule);
				seccomp_syscall_priority(context, rule->number, priority);
				priority -= priority > 0;
			}
		}
	}
	return context;
}

/* Returns the number of instructions. */
static size_t print_array(const char *name, const char *mode, const struct filter_stage *stage,
			  uint32_t otherwise)
{
	scmp_filter_ctx context = make_context(stage, otherwise);
	static struct sock_filter code[BPF_MAXINSNS];
	int fd = memfd_create("filter", MFD_CLOEXEC);
	ssize_t size;
	int r;

	if (fd < 0) {
		fail("a file for", stage->name, errno);
	}
	r = seccomp_export_bpf(context, fd);
	if (r < 0) {
		fail("the filter of", stage->name, r);
	}
	size = pread(fd, code, sizeof(code), 0);
	if (size <= 0 || size == (ssize_t)sizeof(code)) {
		fail("the code of", stage->name, EFBIG);
	}
	close(fd);
	seccomp_release(context);
	printf("static const struct sock_filter %s_%s_%s[] = {\n", name, stage->name, mode);
	for (size_t i = 0; i < (size_t)size / sizeof(code[0]); i++) {
		printf("\t{ 0x%x, %u, %u, 0x%x },\n", code[i].code, code[i].jt, code[i].jf,
		       code[i].k);
	}
	printf("};\n");
	return (size_t)size / sizeof(code[0]);
}

static void print_c(const struct filter_program *program)
{
	const char *name = program->name;

	printf("/* Made by filter/generate.c. */\n#include \"filter/filter.h\"\n");
	for (size_t i = 0; i < program->n_stages; i++) {
		const struct filter_stage *stage = &program->stages[i];
		size_t n_kill = print_array(name, "kill", stage, SCMP_ACT_KILL_PROCESS);
		size_t n_log = print_array(name, "log", stage, SCMP_ACT_LOG);

		printf("const struct filter filter_%s_%s = { %s_%s_kill, %s_%s_log, %zu, %zu };\n",
		       name, stage->name, name, stage->name, name, stage->name, n_kill, n_log);
	}
}

/* No text in a table has a character that JSON would want escaped. */
static void print_rule(const struct filter_rule *rule, bool first)
{
	printf("%s\n   {\"call\": \"%s\", \"number\": %d, \"why\": \"%s\", \"rare\": \"%s\", "
	       "\"answer\": %d, \"conditions\": [",
	       first ? "" : ",", rule->call, rule->number, rule->why, rule->rare ? rule->rare : "",
	       rule->answer);
	for (size_t i = 0; i < FILTER_CONDITIONS_MAX && rule->conditions[i].mask != 0; i++) {
		const struct filter_condition *condition = &rule->conditions[i];

		printf("%s{\"argument\": %u, \"mask\": %llu, \"value\": %llu, \"text\": \"%s\"}",
		       i ? ", " : "", condition->argument, (unsigned long long)condition->mask,
		       (unsigned long long)condition->value, condition->text);
	}
	printf("]}");
}

static void print_json(void)
{
	bool first_stage = true;

	printf("[");
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		for (size_t j = 0; j < programs[i]->n_stages; j++) {
			const struct filter_stage *stage = &programs[i]->stages[j];
			bool first = true;

			printf("%s\n {\"program\": \"%s\", \"stage\": \"%s\", \"rules\": [",
			       first_stage ? "" : ",", programs[i]->name, stage->name);
			first_stage = false;
			for (size_t k = 0; k < FILTER_LISTS_MAX; k++) {
				for (size_t l = 0; l < stage->lists[k].n_rules; l++) {
					print_rule(&stage->lists[k].rules[l], first);
					first = false;
				}
			}
			printf("]}");
		}
	}
	printf("\n]\n");
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "json") == 0) {
		print_json();
		return EXIT_SUCCESS;
	}
	for (size_t i = 0; argc == 3 && i < N_PROGRAMS; i++) {
		if (strcmp(argv[1], "c") == 0 && strcmp(argv[2], programs[i]->name) == 0) {
			print_c(programs[i]);
			return EXIT_SUCCESS;
		}
	}
	fprintf(stderr, "usage: generate c PROGRAM | json\n");
	return 2;
}
