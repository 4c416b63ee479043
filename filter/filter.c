/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Installs filters that were made when the project was built, so it is one call of the kernel and
 * no library. Any thread; it keeps nothing.
 */

#include "filter/filter.h"

#include "base/util.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define IS_SANITIZED 0
#endif

static const char *const mode_names[] = {
	[FILTER_KILL] = "kill",
	[FILTER_LOG] = "log",
	[FILTER_OFF] = "off",
};

const char *filter_mode_name(enum filter_mode mode)
{
	return mode_names[mode];
}

int filter_mode_parse(const char *name, enum filter_mode *ret_mode)
{
	for (size_t i = 0; i < ARRAY_SIZE(mode_names); i++) {
		if (strcmp(name, mode_names[i]) == 0) {
			*ret_mode = (enum filter_mode)i;
			return 0;
		}
	}
	return -EINVAL;
}

int filter_force(const struct filter *filter, enum filter_mode mode)
{
	struct sock_fprog program;

	switch (mode) {
	case FILTER_KILL:
		program.len = filter->n_kill;
		program.filter = (struct sock_filter *)filter->kill;
		break;
	case FILTER_LOG:
		program.len = filter->n_log;
		program.filter = (struct sock_filter *)filter->log;
		break;
	case FILTER_OFF:
		return 0;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) {
		return -errno;
	}
	return 0;
}

int filter_install(const struct filter *filter, enum filter_mode mode)
{
	return IS_SANITIZED ? 0 : filter_force(filter, mode);
}
