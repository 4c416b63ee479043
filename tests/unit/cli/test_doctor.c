/* SPDX-License-Identifier: Apache-2.0 */

/* The verdicts on a host's hardening, each over a made-up /sys and /proc. */

#include "base/util.h"
#include "cli/doctor.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define CPU  "/sys/devices/system/cpu/"
#define VULN CPU "vulnerabilities/"

struct findings {
	char root[64];
	unsigned n;
	struct cli_finding all[32];
};

static void take(void *userdata, const struct cli_finding *finding)
{
	struct findings *findings = userdata;

	assert_true(findings->n < ARRAY_SIZE(findings->all));
	findings->all[findings->n++] = *finding;
}

static int setup(void **state)
{
	struct findings *f = calloc(1, sizeof(*f));

	strcpy(f->root, "/tmp/warmbox-doctor-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	*state = f;
	return 0;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
	return remove(path);
}

static int teardown(void **state)
{
	struct findings *f = *state;

	nftw(f->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void put(struct findings *f, const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s%s", f->root, name);
	for (char *at = path + strlen(f->root) + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
		*at = '/';
	}
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static struct cli_finding find(struct findings *f, const char *name)
{
	f->n = 0;
	cli_doctor_check_hardening(f->root, take, f);
	for (unsigned i = 0; i < f->n; i++) {
		if (strcmp(f->all[i].name, name) == 0) {
			return f->all[i];
		}
	}
	fail_msg("no finding %s", name);
	return (struct cli_finding){};
}

static void expect(struct findings *f, const char *name, bool well, const char *words)
{
	const struct cli_finding finding = find(f, name);

	if ((finding.verdict == CLI_VERDICT_OK) != well || !strstr(finding.text, words)) {
		fail_msg("%s: verdict %d, \"%s\"; wanted \"%s\"", name, finding.verdict,
			 finding.text, words);
	}
	assert_int_equal(finding.advice[0] == '\0', well);
	/* Nothing is cut off. */
	assert_true(strlen(finding.advice) < sizeof(finding.advice) - 1);
	assert_true(strlen(finding.text) < sizeof(finding.text) - 1);
}

/* One file with one text. */
static void each_file_has_its_verdict(void **state)
{
	static const struct {
		const char *name, *path, *text;
		bool well;
	} cases[] = {
		{ "smt", CPU "smt/active", "1\n", false },
		{ "smt", CPU "smt/active", "0\n", true },
		{ "ksm", "/sys/kernel/mm/ksm/run", "1\n", false },
		{ "ksm", "/sys/kernel/mm/ksm/run", "2\n", true },
		{ "ksm", "/sys/kernel/mm/ksm/run", "0\n", true },
		{ "ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope", "0\n", false },
		{ "ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope", "1\n", true },
		{ "ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope", "3\n", true },
		{ "userfault_user", "/proc/sys/vm/unprivileged_userfaultfd", "1\n", false },
		{ "userfault_user", "/proc/sys/vm/unprivileged_userfaultfd", "0\n", true },
		{ "bpf_user", "/proc/sys/kernel/unprivileged_bpf_disabled", "0\n", false },
		{ "bpf_user", "/proc/sys/kernel/unprivileged_bpf_disabled", "2\n", true },
		{ "io_uring_user", "/proc/sys/kernel/io_uring_disabled", "1\n", false },
		{ "io_uring_user", "/proc/sys/kernel/io_uring_disabled", "2\n", false },
		{ "io_uring_user", "/proc/sys/kernel/io_uring_disabled", "0\n", true },
		{ "thp_shmem", "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		  "[always] within_size advise never deny force\n", false },
		{ "thp_shmem", "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		  "always within_size advise never deny [force]\n", false },
		{ "thp_shmem", "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		  "always within_size [advise] never deny force\n", true },
		{ "swap", "/proc/swaps", "Filename\tType\n/dev/sda2 partition 100 0 -2\n", false },
		{ "swap", "/proc/swaps", "Filename\tType\tSize\n", true },
		{ "core_pattern", "/proc/sys/kernel/core_pattern", "core\n", false },
		{ "core_pattern", "/proc/sys/kernel/core_pattern", "|/bin/false\n", true },
		{ "core_pattern", "/proc/sys/kernel/core_pattern", "/var/cores/%p\n", true },
		{ "core_pattern", "/proc/sys/kernel/core_pattern", "\n", true },
		{ "controllers", "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n",
		  true },
		{ "controllers", "/sys/fs/cgroup/cgroup.controllers", "cpuset memory pids\n",
		  false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put(*state, cases[i].path, cases[i].text);
		expect(*state, cases[i].name, cases[i].well, "");
	}
}

static void an_empty_machine_is_no_failure(void **state)
{
	struct findings *f = *state;

	expect(f, "smt", true, "");
	expect(f, "mitigations", false, "does not say");
	expect(f, "microcode", true, "unknown");
	expect(f, "nx_huge_pages", true, "");
	expect(f, "ptrace_scope", false, "");
	expect(f, "controllers", false, "version 2");
	expect(f, "swap", true, "no swap");
	expect(f, "ksm", true, "");
	for (unsigned i = 0; i < f->n; i++) {
		assert_int_not_equal(f->all[i].verdict, CLI_VERDICT_FAIL);
	}
}

static void vulnerabilities_are_named(void **state)
{
	struct findings *f = *state;

	put(f, VULN "meltdown", "Mitigation: PTI\n");
	put(f, VULN "tsx_async_abort", "Not affected\n");
	expect(f, "mitigations", true, "is mitigated");
	put(f, VULN "spectre_v2", "Mitigation: Retpolines; IBPB: conditional; BHI: Vulnerable\n");
	put(f, VULN "gather_data_sampling", "Unknown: Dependent on hypervisor status\n");
	expect(f, "mitigations", false, "about gather_data_sampling, spectre_v2");
}

static void smt_alone_is_no_open_vulnerability(void **state)
{
	struct findings *f = *state;

	put(f, VULN "mds", "Mitigation: Clear CPU buffers; SMT vulnerable\n");
	expect(f, "mitigations", true, "is mitigated");
	expect(f, "smt", true, "");
	put(f, CPU "smt/active", "1\n");
	expect(f, "smt", false, "known to leak between threads");
	put(f, VULN "l1tf", "Mitigation: PTE Inversion; VMX: SMT vulnerable, L1D vulnerable\n");
	expect(f, "mitigations", false, "about l1tf");
	put(f, VULN "l1tf", "Mitigation: PTE Inversion; VMX: vulnerable, SMT vulnerable\n");
	expect(f, "mitigations", false, "about l1tf");
}

static void old_microcode_is_found(void **state)
{
	struct findings *f = *state;

	put(f, CPU "cpu0/microcode/version", "0xf4\n");
	put(f, VULN "mds", "Mitigation: Clear CPU buffers\n");
	expect(f, "microcode", true, "0xf4");
	put(f, VULN "mds", "Vulnerable: Clear CPU buffers attempted, no microcode\n");
	expect(f, "microcode", false, "0xf4");
	put(f, VULN "mds", "Not affected\n");
	put(f, VULN "old_microcode", "Vulnerable\n");
	expect(f, "microcode", false, "0xf4");
	expect(f, "mitigations", true, ""); /* said once */
	put(f, VULN "old_microcode", "Not affected\n");
	put(f, "/proc/cpuinfo", "flags\t: fpu hypervisor lahf_lm\n");
	expect(f, "microcode", true, "its host's affair");
}

static void huge_executable_pages_matter_where_they_do(void **state)
{
	struct findings *f = *state;

	put(f, "/sys/module/kvm/parameters/nx_huge_pages", "N\n");
	put(f, VULN "itlb_multihit", "Not affected\n");
	expect(f, "nx_huge_pages", true, "no iTLB multihit");
	put(f, VULN "itlb_multihit", "KVM: Mitigation: VMX disabled\n");
	expect(f, "nx_huge_pages", false, "can stop");
	put(f, "/sys/module/kvm/parameters/nx_huge_pages", "never\n");
	expect(f, "nx_huge_pages", false, "can stop");
	put(f, "/sys/module/kvm/parameters/nx_huge_pages", "Y\n");
	expect(f, "nx_huge_pages", true, "no huge executable pages");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_file_has_its_verdict), TEST(an_empty_machine_is_no_failure),
		TEST(vulnerabilities_are_named), TEST(smt_alone_is_no_open_vulnerability),
		TEST(old_microcode_is_found),	 TEST(huge_executable_pages_matter_where_they_do),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
