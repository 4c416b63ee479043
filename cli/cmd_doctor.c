/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `warmbox doctor`: is this machine fit, and if not, what to do. Needs no daemon.
 *
 * Every check is made, whatever the ones before it found; one line each, advice below it.
 */

#include "cli/cli.h"
#include "cli/doctor.h"

#include <stdarg.h>

static const char help[] =
	"Usage: warmbox doctor [--store DIR]\n"
	"\n"
	"Looks at this machine and says for each thing that warmbox needs whether it is there,\n"
	"and what to do if it is not. Exit status 1 if something must be mended.\n"
	"\n"
	"  --store DIR  look for space there (WARMBOX_STORE, or " CLI_STORE_DEFAULT ")\n"
	"  --json       the findings as JSON\n";

enum { OPTION_STORE = CLI_OPTION_FIRST_OWN };

static const char *const verdict_names[] = {
	[CLI_VERDICT_OK] = "ok",
	[CLI_VERDICT_WARN] = "warn",
	[CLI_VERDICT_FAIL] = "fail",
};

struct doctor {
	const struct cli *cli;
	unsigned n[ARRAY_SIZE(verdict_names)];
	json_t *findings;
};

void cli_doctor_report(cli_finding_fn report, void *userdata, const char *name,
		       enum cli_verdict verdict, const char *advice, const char *format, ...)
{
	struct cli_finding finding = { .name = name, .verdict = verdict };
	va_list args;

	va_start(args, format);
	vsnprintf(finding.text, sizeof(finding.text), format, args);
	va_end(args);
	snprintf(finding.advice, sizeof(finding.advice), "%s", advice ? advice : "");
	report(userdata, &finding);
}

static void take_finding(void *userdata, const struct cli_finding *finding)
{
	struct doctor *doctor = userdata;

	doctor->n[finding->verdict]++;
	if (doctor->cli->json) {
		json_array_append_new(doctor->findings,
				      json_pack("{s:s,s:s,s:s,s:s*}", "name", finding->name,
						"verdict", verdict_names[finding->verdict], "text",
						finding->text, "advice",
						finding->advice[0] ? finding->advice : NULL));
		return;
	}
	printf("%-4s  %-14s  %s\n", verdict_names[finding->verdict], finding->name, finding->text);
	if (finding->advice[0]) {
		printf("      %-14s  -> %s\n", "", finding->advice);
	}
	fflush(stdout);
}

int cli_doctor_main(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{ "store", required_argument, NULL, OPTION_STORE },
		CLI_COMMON_OPTIONS,
	};
	const char *store_path = cli_store_path();
	struct doctor doctor = { .cli = cli };
	bool fit;
	int option, status;

	while ((option = cli_option_next(cli, argc, argv, ":", options, help, &status)) != -1) {
		if (option == '?') {
			return status;
		}
		store_path = optarg;
	}
	if (optind != argc) {
		return cli_usage_error(cli, "takes no operand");
	}
	doctor.findings = json_array();
	cli_doctor_check_kvm(take_finding, &doctor);
	cli_doctor_check_kernel(take_finding, &doctor);
	cli_doctor_check_hardening("", take_finding, &doctor);
	cli_doctor_check_resources(store_path, take_finding, &doctor);
	fit = doctor.n[CLI_VERDICT_FAIL] == 0;
	if (cli->json) {
		cli_print_json(json_pack("{s:b,s:o}", "fit", fit, "findings", doctor.findings));
	} else {
		json_decref(doctor.findings);
		printf("%u ok, %u to know about, %u to mend\n", doctor.n[CLI_VERDICT_OK],
		       doctor.n[CLI_VERDICT_WARN], doctor.n[CLI_VERDICT_FAIL]);
	}
	return fit ? 0 : CLI_EXIT_FAILED;
}
