/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * System-call filters: what each program may ask of the kernel, stage by stage. The tables are
 * filter/vmm.c and its neighbours; docs/security.md says what they are for.
 *
 * A filter is for the thread that installs it and for the threads and processes that it starts
 * afterwards. Filters add up: each can only take away. None can be removed.
 */

#include <linux/filter.h>

enum filter_mode {
	FILTER_KILL, /* a forbidden call kills the process (SIGSYS) */
	FILTER_LOG,  /* it is let through, and the kernel's audit log says so */
	FILTER_OFF,
};

struct filter {
	const struct sock_filter *kill, *log;
	unsigned short n_kill, n_log;
};

/* Made by filter/generate.c. */
extern const struct filter filter_vmm_setup, filter_vmm_booted, filter_vmm_loaded, filter_vmm_vcpu,
	filter_vmm_vcpu_pvm;

/* "kill", "log", "off". */
const char *filter_mode_name(enum filter_mode mode);
/* 0 or -EINVAL. */
int filter_mode_parse(const char *name, enum filter_mode *ret_mode);

/* Installs it for the calling thread, which gives up for good the right to gain privileges by
 * execve() (no_new_privs). Does nothing in a program that is built with sanitizers, whose runtime
 * needs calls of its own. 0 or -errno. */
int filter_install(const struct filter *filter, enum filter_mode mode);

/* The same without that exception. */
int filter_force(const struct filter *filter, enum filter_mode mode);
