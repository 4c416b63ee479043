/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Progress lines of a template build.
 *
 * A step that begins ends the one before it. Calls come from the build's two threads, one at a
 * time. Everything printed has been made harmless by the build already.
 */

#include "cli/progress.h"

#include "base/clock.h"
#include "cli/cli.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define HEARTBEAT_NS (2 * NSEC_PER_SEC - 250 * NSEC_PER_MSEC) /* calls come every 500 ms */

static const char *const step_names[] = {
	[CLI_BUILD_CHECK] = "check inputs", [CLI_BUILD_BOOT] = "boot the guest",
	[CLI_BUILD_WARM] = "warm up",	    [CLI_BUILD_RESIDENT] = "start the resident",
	[CLI_BUILD_FREEZE] = "freeze",	    [CLI_BUILD_RECORD] = "record",
	[CLI_BUILD_STORE] = "store",	    [CLI_BUILD_DONE] = "done",
};

void cli_progress_init(struct cli_progress *progress)
{
	struct winsize size;

	*progress = (struct cli_progress){
		.terminal = isatty(STDERR_FILENO) == 1,
		.columns = 80,
	};
	if (progress->terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col) {
		progress->columns = size.ws_col;
	}
}

static void head(const struct cli_progress *progress, const char *detail, char *out, size_t size)
{
	snprintf(out, size, "  %s%s%s", step_names[progress->step], detail[0] ? ": " : "", detail);
}

void cli_progress_finish(struct cli_progress *progress, const char *outcome)
{
	uint64_t elapsed_ns = base_clock_monotonic_ns() - progress->began_ns;
	char line[CLI_BUILD_LINE_MAX + 64];

	if (!progress->open) {
		return;
	}
	progress->open = false;
	head(progress, progress->subject, line, sizeof(line));
	fprintf(stderr, "%s%-40s %7.1f s%s%s\n", progress->terminal ? "\r\033[K" : "", line,
		(double)elapsed_ns / 1e9, outcome[0] ? "  " : "", outcome);
}

/* What goes behind the seconds: bytes where they are known, else the guest's last line. */
static void tail(const struct cli_build_progress *now, char *out, size_t size)
{
	char done[CLI_FORMAT_MAX], total[CLI_FORMAT_MAX];

	if (now->total_bytes) {
		snprintf(out, size, "%s of %s", cli_format_bytes(done, now->done_bytes),
			 cli_format_bytes(total, now->total_bytes));
	} else {
		snprintf(out, size, "%s", now->console ? now->console : "");
	}
}

static void show_line(struct cli_progress *progress, const struct cli_build_progress *now)
{
	char line[CLI_BUILD_LINE_MAX + 64], more[CLI_BUILD_LINE_MAX + 1], all[512];

	head(progress, now->detail ? now->detail : "", line, sizeof(line));
	tail(now, more, sizeof(more));
	if (now->begins && !progress->terminal) {
		snprintf(all, sizeof(all), "%s ...", line);
	} else {
		snprintf(all, sizeof(all), "%-40s %7.1f s%s%s", line, (double)now->step_ns / 1e9,
			 more[0] ? "  " : "", more);
	}
	if (progress->terminal) {
		fprintf(stderr, "\r\033[K%.*s", (int)progress->columns - 1, all);
		fflush(stderr);
	} else {
		fprintf(stderr, "%s\n", all);
	}
	progress->shown_ns = base_clock_monotonic_ns();
}

void cli_progress_show(void *userdata, const struct cli_build_progress *now)
{
	struct cli_progress *progress = userdata;

	if (now->begins) {
		cli_progress_finish(progress, "");
		if (now->step == CLI_BUILD_DONE) {
			return;
		}
		progress->step = now->step;
		progress->began_ns = base_clock_monotonic_ns();
		progress->open = true;
		snprintf(progress->subject, sizeof(progress->subject), "%s",
			 now->detail ? now->detail : "");
		show_line(progress, now);
		return;
	}
	if (progress->terminal || base_clock_monotonic_ns() - progress->shown_ns >= HEARTBEAT_NS) {
		show_line(progress, now);
	}
}
