/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The words that go with a negative errno.
 *
 * A library function returns -errno. Where the number alone would not tell a person what was being
 * done, to what, and what to do about it, the function also takes a `struct base_error *`
 * (borrowed, may be NULL) and fills it on failure. The first message wins: a caller that adds its
 * own context uses base_error_prefix(). Nothing here allocates.
 */

#include "base/util.h"

#define BASE_ERROR_TEXT_MAX 512

struct base_error {
	char text[BASE_ERROR_TEXT_MAX]; /* NUL-terminated, one line, no trailing full stop or
					   newline */
};

/* Writes the message and returns r (negative), so that `return base_error_set(e, -EINVAL, …)` reads
 * well. */
int base_error_set(struct base_error *error, int r, const char *format, ...) _printf_(3, 4);

/* Like base_error_set(), with ": " and the text of errno -r appended. */
int base_error_set_errno(struct base_error *error, int r, const char *format, ...) _printf_(3, 4);

/* Puts "<context>: " in front of the text that is there (or of the text of -r when there is none).
 */
int base_error_prefix(struct base_error *error, int r, const char *format, ...) _printf_(3, 4);
