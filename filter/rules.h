/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * How the tables of system calls are written: one file for each program, one list of rules for each
 * stage of its life. The generator (filter/generate.c) makes BPF of them when the project is built,
 * and the tests read the same tables: what no rule allows is tried and must kill, what a rule
 * allows must be used.
 *
 * A call is let through when any rule for it fits. What a trace of the tests cannot show is named a
 * RARELY rule, with the reason why.
 */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#define FILTER_CONDITIONS_MAX 3
#define FILTER_LISTS_MAX      6

/* (argument & mask) == value; a mask of 0 ends the list. */
struct filter_condition {
	unsigned argument;
	uint64_t mask, value;
	const char *text; /* the value as it is written in the table */
};

struct filter_rule {
	const char *call;
	int number;
	const char *why;  /* who needs it */
	const char *rare; /* why no trace shows it, or NULL */
	int answer;	  /* not let through, but answered with this errno; or 0 */
	struct filter_condition conditions[FILTER_CONDITIONS_MAX];
};

struct filter_list {
	const struct filter_rule *rules;
	size_t n_rules;
};

struct filter_stage {
	const char *name;
	struct filter_list lists[FILTER_LISTS_MAX];
	const struct filter_stage *also; /* all that is allowed there, too; or NULL */
};

struct filter_program {
	const char *name;
	const struct filter_stage *stages;
	size_t n_stages;
};

extern const struct filter_program filter_program_vmm;

/* An int or an unsigned int, of which the kernel looks at 32 bits. */
#define IS(argument_, value_)                                                             \
	{                                                                                 \
		.argument = (argument_), .mask = UINT32_MAX, .value = (uint32_t)(value_), \
		.text = #value_                                                           \
	}
#define LACKS(argument_, bits_)                                                            \
	{                                                                                  \
		.argument = (argument_), .mask = (bits_), .value = 0, .text = "no " #bits_ \
	}

#define ALLOW(call_, why_)                                         \
	{                                                          \
		.call = #call_, .number = SYS_##call_, .why = why_ \
	}
#define ALLOW_IF(call_, why_, ...)                                                                \
	{                                                                                         \
		.call = #call_, .number = SYS_##call_, .why = why_, .conditions = { __VA_ARGS__ } \
	}
#define RARELY(call_, why_, rare_)                                                \
	{                                                                         \
		.call = #call_, .number = SYS_##call_, .why = why_, .rare = rare_ \
	}
#define RARELY_IF(call_, why_, rare_, ...)                                                         \
	{                                                                                          \
		.call = #call_, .number = SYS_##call_, .why = why_, .rare = rare_, .conditions = { \
			__VA_ARGS__                                                                \
		}                                                                                  \
	}
#define ANSWER(call_, errno_, why_)                                                  \
	{                                                                            \
		.call = #call_, .number = SYS_##call_, .why = why_, .answer = errno_ \
	}

#define LIST(rules_)                                         \
	{                                                    \
		rules_, sizeof(rules_) / sizeof((rules_)[0]) \
	}
