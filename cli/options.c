/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Reading the command line: common options, numbers, times, words; and the environment variables
 * that stand in for options. Everything here prints its own usage errors. Main thread only.
 */

#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

int cli_usage_error(const struct cli *cli, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "warmbox %s: ", cli->command);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n  See: warmbox %s --help\n", cli->command);
	return CLI_EXIT_USAGE;
}

void cli_option_reset(void)
{
	optind = 0; /* glibc: start over, and look at the short options' first character again */
}

int cli_option_next(struct cli *cli, int argc, char **argv, const char *short_options,
		    const struct option *options, const char *help, int *ret_status)
{
	opterr = 0;
	for (;;) {
		int option = getopt_long(argc, argv, short_options, options, NULL);
		const char *given = argv[optind > 1 ? optind - 1 : 0];

		switch (option) {
		case CLI_OPTION_JSON:
			cli->json = true;
			break;
		case CLI_OPTION_SOCKET:
			cli->socket_path = optarg;
			break;
		case CLI_OPTION_HELP:
			printf("%s", help);
			*ret_status = 0;
			return '?';
		case ':':
			*ret_status = cli_usage_error(cli, "option %s needs a value", given);
			return '?';
		case '?':
			*ret_status = cli_usage_error(cli, "no such option: %s", given);
			return '?';
		default:
			return option;
		}
	}
}

int cli_parse_number(const struct cli *cli, const char *option, const char *text, uint64_t min,
		     uint64_t max, uint64_t *ret_value)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value < min || value > max) {
		cli_usage_error(cli,
				"%s must be a number from %" PRIu64 " to %" PRIu64 ", not '%s'",
				option, min, max, text);
		return -EINVAL;
	}
	*ret_value = value;
	return 0;
}

int cli_parse_duration(const struct cli *cli, const char *option, const char *text,
		       uint64_t *ret_ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = { { "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 } };
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	for (size_t i = 0; !errno && end != text && text[0] != '-' && i < ARRAY_SIZE(units); i++) {
		if (strcmp(end, units[i].name) == 0 && value <= UINT64_C(1) << 40) {
			*ret_ms = value * units[i].ms;
			return 0;
		}
	}
	cli_usage_error(cli, "%s must be a time such as 500ms, 10s, 5m or 2h, not '%s'", option,
			text);
	return -EINVAL;
}

/* Copies one word to out and returns what follows it, or NULL for an open quote. */
static const char *take_word(const char *text, char **out)
{
	char quote = 0;

	for (; *text && (quote || !strchr(" \t\n", *text)); text++) {
		if (quote ? *text == quote : (*text == '"' || *text == '\'')) {
			quote = quote ? 0 : *text;
		} else if (*text == '\\' && quote != '\'' && text[1]) {
			/* Between double quotes a backslash escapes only what is special there. */
			if (quote && !strchr("\"\\$`\n", text[1])) {
				*(*out)++ = *text;
			}
			*(*out)++ = *++text;
		} else {
			*(*out)++ = *text;
		}
	}
	*(*out)++ = '\0';
	return quote ? NULL : text;
}

int cli_words_split(const char *text, char ***ret_words, struct base_error *error)
{
	size_t size = strlen(text), n = 0;
	_cleanup_free_ char **words = NULL;
	char *out;

	/* At most one word every two characters; their bytes follow the pointers. */
	words = calloc(1, (size / 2 + 2) * sizeof(*words) + 2 * size + 2);
	if (!words) {
		return base_error_set_errno(error, -ENOMEM, "cannot split a command");
	}
	out = (char *)(words + size / 2 + 2);
	for (;;) {
		text += strspn(text, " \t\n");
		if (!*text) {
			break;
		}
		words[n++] = out;
		text = take_word(text, &out);
		if (!text) {
			return base_error_set(error, -EINVAL, "a quote is not closed");
		}
	}
	if (n == 0) {
		return base_error_set(error, -EINVAL, "the command is empty");
	}
	*ret_words = TAKE_PTR(words);
	return 0;
}

static const char *from_environment(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value && *value ? value : otherwise;
}

const char *cli_store_path(void)
{
	return from_environment("WARMBOX_STORE", CLI_STORE_DEFAULT);
}

const char *cli_socket_path(void)
{
	return from_environment("WARMBOX_SOCKET", CLI_SOCKET_DEFAULT);
}

const char *cli_vmm_path(void)
{
	return from_environment("WARMBOX_VMM", CLI_VMM_PATH);
}

const char *cli_kernel_path(void)
{
	return from_environment("WARMBOX_KERNEL", CLI_KERNEL_PATH);
}

const char *cli_initramfs_path(void)
{
	return from_environment("WARMBOX_INITRAMFS", CLI_INITRAMFS_PATH);
}
