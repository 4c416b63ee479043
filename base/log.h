/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Log lines on standard error: "<level>: <message>", or "<N><message>" with the syslog priority in
 * front when standard error is the journal (JOURNAL_STREAM is set). One write() a line, any thread.
 */

#include "base/util.h"

enum base_log_level {
	BASE_LOG_ERROR = 3, /* the numbers of syslog(3) */
	BASE_LOG_WARNING = 4,
	BASE_LOG_INFO = 6,
	BASE_LOG_DEBUG = 7,
};

/* Lines above the level are dropped. The default is BASE_LOG_INFO. */
void base_log_set_level(enum base_log_level level);

void base_log(enum base_log_level level, const char *format, ...) _printf_(2, 3);

#define log_error(...)	 base_log(BASE_LOG_ERROR, __VA_ARGS__)
#define log_warning(...) base_log(BASE_LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 base_log(BASE_LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 base_log(BASE_LOG_DEBUG, __VA_ARGS__)
