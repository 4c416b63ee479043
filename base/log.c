/* SPDX-License-Identifier: Apache-2.0 */

/* Logging to standard error. The level is set once at start, before threads. */

#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

static enum base_log_level max_level = BASE_LOG_INFO;

void base_log_set_level(enum base_log_level level)
{
	max_level = level;
}

static const char *level_name(enum base_log_level level)
{
	switch (level) {
	case BASE_LOG_ERROR:
		return "error";
	case BASE_LOG_WARNING:
		return "warning";
	case BASE_LOG_INFO:
		return "info";
	case BASE_LOG_DEBUG:
		return "debug";
	}
	return "log";
}

void base_log(enum base_log_level level, const char *format, ...)
{
	char line[LINE_MAX_BYTES];
	va_list args;
	size_t used;

	if (level > max_level) {
		return;
	}
	if (getenv("JOURNAL_STREAM")) {
		used = (size_t)snprintf(line, sizeof(line), "<%d>", (int)level);
	} else {
		used = (size_t)snprintf(line, sizeof(line), "%s: ", level_name(level));
	}

	va_start(args, format);
	vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	va_end(args);

	used = strlen(line);
	line[used++] = '\n';
	if (write(STDERR_FILENO, line, used) < 0) {
		/* There is nowhere left to say so. */
		return;
	}
}
