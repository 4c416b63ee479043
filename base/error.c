/* SPDX-License-Identifier: Apache-2.0 */

/* Error texts in fixed buffers. No allocation, no state, any thread. */

#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int base_error_set(struct base_error *error, int r, const char *format, ...)
{
	if (error) {
		va_list args;

		va_start(args, format);
		vsnprintf(error->text, sizeof(error->text), format, args);
		va_end(args);
	}
	return r;
}

int base_error_set_errno(struct base_error *error, int r, const char *format, ...)
{
	if (error) {
		va_list args;

		va_start(args, format);
		vsnprintf(error->text, sizeof(error->text), format, args);
		va_end(args);

		size_t used = strlen(error->text);

		snprintf(error->text + used, sizeof(error->text) - used, ": %s",
			 strerrordesc_np(-r));
	}
	return r;
}

int base_error_prefix(struct base_error *error, int r, const char *format, ...)
{
	if (error) {
		struct base_error context = { 0 };
		va_list args;

		va_start(args, format);
		vsnprintf(context.text, sizeof(context.text), format, args);
		va_end(args);

		size_t used = strlen(context.text);
		const char *cause = error->text[0] ? error->text : strerrordesc_np(-r);

		snprintf(context.text + used, sizeof(context.text) - used, ": %s", cause);
		*error = context;
	}
	return r;
}
