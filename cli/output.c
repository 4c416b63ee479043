/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What subcommands print: errors, JSON, numbers for people, tables.
 *
 * A table keeps its cells as strings and prints once all widths are known. An allocation that fails
 * is remembered and reported by print(). Main thread only.
 */

#include "cli/cli.h"

#include "base/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

void cli_print_json(json_t *value)
{
	if (!value || json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY) < 0) {
		fprintf(stderr, "warmbox: cannot write JSON\n");
	}
	putchar('\n');
	json_decref(value);
}

void cli_print_error(const struct cli *cli, const char *code, const char *message, const char *hint)
{
	fflush(stdout);
	fprintf(stderr, "warmbox %s: %s\n", cli->command, message);
	if (hint) {
		fprintf(stderr, "  %s\n", hint);
	}
	if (cli->json) {
		cli_print_json(json_pack("{s:{s:s,s:s,s:s*}}", "error", "code", code, "message",
					 message, "hint", hint));
	}
}

const char *cli_format_bytes(char buffer[CLI_FORMAT_MAX], uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(buffer, CLI_FORMAT_MAX, "%u B", (unsigned)bytes);
		return buffer;
	}
	for (value /= 1024; value >= 1023.95 && unit + 1 < ARRAY_SIZE(units); unit++) {
		value /= 1024;
	}
	snprintf(buffer, CLI_FORMAT_MAX, "%.*f %s", value < 99.95 ? 1 : 0, value, units[unit]);
	return buffer;
}

const char *cli_format_duration(char buffer[CLI_FORMAT_MAX], uint64_t ns)
{
	double value = (double)ns;

	if (ns < NSEC_PER_MSEC) {
		snprintf(buffer, CLI_FORMAT_MAX, "%.0f us", value / 1e3);
	} else if (ns < 100 * NSEC_PER_MSEC) {
		snprintf(buffer, CLI_FORMAT_MAX, "%.1f ms", value / 1e6);
	} else if (ns < NSEC_PER_SEC) {
		snprintf(buffer, CLI_FORMAT_MAX, "%.0f ms", value / 1e6);
	} else if (ns < 120 * NSEC_PER_SEC) {
		snprintf(buffer, CLI_FORMAT_MAX, "%.1f s", value / 1e9);
	} else if (ns < 7200 * NSEC_PER_SEC) {
		snprintf(buffer, CLI_FORMAT_MAX, "%.0f min", value / 60e9);
	} else if (ns < 48 * 3600 * NSEC_PER_SEC) {
		snprintf(buffer, CLI_FORMAT_MAX, "%.0f h", value / 3600e9);
	} else {
		snprintf(buffer, CLI_FORMAT_MAX, "%.0f days", value / 86400e9);
	}
	return buffer;
}

const char *cli_format_age(char buffer[CLI_FORMAT_MAX], uint64_t realtime_ns)
{
	uint64_t now = base_clock_realtime_ns();
	char age[CLI_FORMAT_MAX];

	if (realtime_ns == 0) {
		return "-";
	}
	if (realtime_ns > now) {
		return "now";
	}
	cli_format_duration(age, now - realtime_ns);
	snprintf(buffer, CLI_FORMAT_MAX, "%.24s ago", age);
	return buffer;
}

struct cli_table {
	size_t n_columns;
	char **cells;
	size_t n_cells, room;
	int result;
};

int cli_table_new(size_t n_columns, struct cli_table **ret_table)
{
	struct cli_table *table = calloc(1, sizeof(*table));

	if (!table) {
		return -ENOMEM;
	}
	table->n_columns = n_columns;
	*ret_table = table;
	return 0;
}

void cli_table_free(struct cli_table *table)
{
	if (!table) {
		return;
	}
	for (size_t i = 0; i < table->n_cells; i++) {
		free(table->cells[i]);
	}
	free(table->cells);
	free(table);
}

void cli_table_cell(struct cli_table *table, const char *format, ...)
{
	char *cell = NULL;
	va_list args;
	int n;

	if (table->n_cells == table->room) {
		size_t room = table->room ? table->room * 2 : 32;
		char **cells = realloc(table->cells, room * sizeof(*cells));

		if (!cells) {
			table->result = -ENOMEM;
			return;
		}
		table->cells = cells;
		table->room = room;
	}
	va_start(args, format);
	n = vasprintf(&cell, format, args);
	va_end(args);
	if (n < 0) {
		table->result = -ENOMEM;
		return;
	}
	table->cells[table->n_cells++] = cell;
}

/* Characters of UTF-8 text: bytes that do not go on one before them. */
static size_t text_width(const char *text)
{
	size_t n = 0;

	for (; *text; text++) {
		n += (*text & 0xc0) != 0x80;
	}
	return n;
}

int cli_table_print(const struct cli_table *table, FILE *out)
{
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t column = i % table->n_columns, width = 0;

		if (column + 1 == table->n_columns) {
			fprintf(out, "%s\n", table->cells[i]);
			continue;
		}
		for (size_t j = column; j < table->n_cells; j += table->n_columns) {
			width = MAX(width, text_width(table->cells[j]));
		}
		fprintf(out, "%s%*s", table->cells[i],
			(int)(width - text_width(table->cells[i]) + 2), "");
	}
	return table->result;
}
